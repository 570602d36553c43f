//! Group commit: one task owns the one writing connection and lets concurrent changes share a commit.
//!
//! A commit costs a flush of the disk, whatever is in it. The task takes the first waiting job, begins a
//! transaction, runs it and up to [`GROUP`] - 1 more that arrived meanwhile, each in a savepoint of its own,
//! commits once, and only then answers them all. A job that fails or panics is undone alone.

use crate::store::sql::connection::Connection;
use crate::store::{Result, StoreError};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Most jobs in one commit: bounds how long the first of them waits for its answer.
const GROUP: usize = 64;
/// Most jobs that wait; more callers wait for a place.
const QUEUE: usize = 1024;

/// A change as the task sees it: runs in an open transaction, or learns why there is none.
type Job = Box<dyn for<'c> FnOnce(Result<&'c mut Connection>) -> BoxFuture<'c, Ran> + Send>;

/// A job that has run.
struct Ran {
    /// Why its change is to be undone.
    failed: Option<StoreError>,
    /// Hands the outcome to the caller, once the fate of the commit is known.
    answer: Box<dyn FnOnce(Result<()>) + Send>,
}

/// The database's file, as it was when it was opened.
pub(super) struct File {
    path: PathBuf,
    inode: (u64, u64),
}

impl File {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }

    /// Fails if another file took its place: what is written to the open one would be gone at the next start.
    fn require(&self) -> Result<()> {
        match inode(&self.path) {
            Ok(found) if found == self.inode => Ok(()),
            _ => Err(unavailable(&format!(
                "the file {} was replaced or removed while the broker had it open; end the broker and start it again",
                self.path.display()
            ))),
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// The way to the writing task. When it is closed or dropped the task finishes what was queued and closes the
/// connection.
pub(super) struct Writer {
    /// Counted before the callers of a commit are answered.
    commits: Arc<AtomicU64>,
    jobs: mpsc::Sender<Job>,
    closing: CancellationToken,
    task: TaskTracker,
}

impl Writer {
    /// Starts the task. To be called inside a Tokio runtime.
    pub(super) fn start(connection: SqliteConnection, file: File) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (closing, task) = (CancellationToken::new(), TaskTracker::new());
        let commits = Arc::new(AtomicU64::new(0));
        task.spawn(serve(connection, file, queue, closing.clone(), Arc::clone(&commits)));
        task.close();
        Self { commits, jobs, closing, task }
    }

    /// How many commits were made or tried.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// Takes no more jobs and returns once those that were queued are done and the connection is closed.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
    }

    /// Runs `body` in a transaction; its outcome is given out once it is committed. Everything that it did is
    /// undone if it fails or panics. Dropping the future does not undo a job that was queued.
    pub(super) async fn run<T, F>(&self, body: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel::<Result<T>>();
        let job: Job = Box::new(move |connection| {
            Box::pin(async move {
                let outcome = match connection {
                    // Unwind safety: a job's own state is dropped, and what it wrote is rolled back.
                    Ok(connection) => AssertUnwindSafe(async { body(connection).await })
                        .catch_unwind()
                        .await
                        .unwrap_or_else(|_| {
                            Err(unavailable("the change failed inside the broker; it was undone"))
                        }),
                    Err(error) => Err(error),
                };
                let failed = outcome.as_ref().err().cloned();
                let answer = move |committed: Result<()>| {
                    // A caller that went away gets no answer; its change stands.
                    drop(sender.send(outcome.and_then(|outcome| committed.map(|()| outcome))));
                };
                Ran { failed, answer: Box::new(answer) }
            })
        });
        // A child of what asks, in the traces; work that nobody asked for has none.
        let span = if tracing::Span::current().is_none() {
            tracing::Span::none()
        } else {
            tracing::trace_span!("store commit", db.system = "sqlite")
        };
        let committed = async {
            self.jobs.send(job).await.map_err(|_| unavailable("it is shutting down"))?;
            receiver.await.map_err(|_| unavailable("it is shutting down"))?
        };
        committed.instrument(span).await
    }
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

async fn serve(
    connection: SqliteConnection,
    file: File,
    mut queue: mpsc::Receiver<Job>,
    closing: CancellationToken,
    commits: Arc<AtomicU64>,
) {
    let mut connection = Connection::SqliteWriter(connection);
    loop {
        let first = tokio::select! {
            first = queue.recv() => first,
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        let Some(first) = first else { break };
        let mut ran = Vec::new();
        let committed = group(&mut connection, &file, &mut queue, first, &mut ran).await;
        commits.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = &committed {
            tracing::debug!(%error, changes = ran.len(), "a group of changes was undone");
            // Fails harmlessly where SQLite has rolled back by itself, as it may when the disk is full.
            drop(connection.command("ROLLBACK").await);
        }
        for job in ran {
            (job.answer)(committed.clone());
        }
    }
    if let Connection::SqliteWriter(connection) = connection {
        drop(connection.close().await);
    }
}

/// Runs `first` and what is waiting behind it as one transaction. On an error nothing of it is committed.
async fn group(
    connection: &mut Connection,
    file: &File,
    queue: &mut mpsc::Receiver<Job>,
    first: Job,
    ran: &mut Vec<Ran>,
) -> Result<()> {
    let begun = match file.require() {
        Ok(()) => connection.command("BEGIN IMMEDIATE; SAVEPOINT job").await,
        Err(replaced) => Err(replaced),
    };
    if let Err(error) = begun {
        // All that wait are refused at once: tried one after the other, each would wait for the lock as long as
        // the first.
        ran.push(first(Err(error.clone())).await);
        while let Ok(job) = queue.try_recv() {
            ran.push(job(Err(error.clone())).await);
        }
        return Err(error);
    }
    let mut job = first;
    loop {
        let outcome = job(Ok(&mut *connection)).await;
        let failed = outcome.failed.clone();
        ran.push(outcome);
        if let Some(error) = failed
            && connection.command("ROLLBACK TO job").await.is_err()
        {
            // SQLite has rolled the whole transaction back (disk full, out of memory): what earlier jobs did is
            // gone, and a further statement would run without a transaction.
            return Err(match error {
                StoreError::Full(_) => error,
                _ => StoreError::Unavailable(error.to_string()),
            });
        }
        if ran.len() == GROUP {
            break;
        }
        match queue.try_recv() {
            Ok(next) => job = next,
            Err(_) => break,
        }
        if let Err(error) = connection.command("RELEASE job; SAVEPOINT job").await {
            ran.push(job(Err(error.clone())).await);
            return Err(error);
        }
    }
    connection.command("COMMIT").await
}
