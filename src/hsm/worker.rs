//! The worker process: one thread for the module, one that reads the socket ahead.

use super::fault::Fault;
use super::protocol::{Hello, Reply, Request, Response, Task, Welcome, read_frame, write_frame};
use super::quirks::Capabilities;
use super::token::{self, Token};
use super::{HsmError, ObjectId, selftest};
use crate::crash::{self, Point};
use crate::hardening;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// Runs `keybroker hsm-worker`: loads the PKCS#11 module and serves the broker over the socket that is this
/// process's standard input. Ends when the socket closes, so that no worker outlives its broker.
///
/// Exit codes: 0 after an orderly end, 1 if standard input is not the broker's socket or the module could not be used.
pub fn worker_main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keybroker hsm-worker: {error}; it is started by the broker, not by hand");
            ExitCode::FAILURE
        }
    }
}

/// How long a call that is under way may take once the broker has gone.
const GRACE: Duration = Duration::from_secs(2);

fn serve() -> io::Result<()> {
    let memory_locked = hardening::lock_memory();
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Not a socket: somebody runs it by hand.
    stream.peer_addr()?;
    let hello: Hello = read_frame(&mut stream)?;
    let opened = start(&hello, memory_locked);
    drop(hello);
    write_frame(&mut stream, &opened.as_ref().map(|(welcome, _)| welcome).map_err(Clone::clone))?;
    let Ok((_, Some(mut token))) = opened else { return Ok(()) };
    for request in read_ahead(stream.try_clone()?) {
        let done = point_of(&request);
        let (result, lost) = match answer(&mut token, request) {
            Ok(reply) => {
                done.into_iter().for_each(crash::reached);
                (Ok(reply), false)
            }
            Err(fault) => {
                let lost = token.recover(&fault);
                let error = HsmError::from(fault);
                (Err(if lost { HsmError::Unavailable(error.to_string()) } else { error }), lost)
            }
        };
        let lost = token.may_be_blind() || lost;
        write_frame(&mut stream, &Response { result, objects_made: token.objects_made, lost })?;
        if lost {
            break;
        }
    }
    Ok(())
}

fn start(hello: &Hello, memory_locked: bool) -> Result<(Welcome, Option<Token>), HsmError> {
    if let Task::Initialize(so_pin) = &hello.task {
        token::initialize(&hello.module, &hello.token, so_pin, &hello.pin)?;
        let (token_serial, module) = (String::new(), String::new());
        let capabilities = Capabilities::default();
        return Ok((Welcome { token_serial, module, capabilities, memory_locked }, None));
    }
    let mut token = Token::open(&hello.module, &hello.token, &hello.pin)?;
    token.owner = hello.owner.clone();
    let stay = match &hello.task {
        Task::Probe(suites) => {
            token.refuse_strangers_keys()?;
            token.capabilities = selftest::run(token.session()?, suites)?;
            false
        }
        Task::Serve(capabilities) => {
            token.capabilities = capabilities.clone();
            true
        }
        Task::Initialize(_) => false,
    };
    let welcome = Welcome {
        token_serial: token.serial.clone(),
        module: token.description.clone(),
        capabilities: token.capabilities.clone(),
        memory_locked,
    };
    Ok((welcome, stay.then_some(token)))
}

/// Requests as they arrive. When the broker closes the socket, the call that is under way may finish; if it hangs, the
/// process kills itself.
fn read_ahead(mut stream: UnixStream) -> Receiver<Request> {
    let (requests, queue) = sync_channel(8);
    thread::spawn(move || {
        while let Ok(request) = read_frame::<Request>(&mut stream) {
            if requests.send(request).is_err() {
                return;
            }
        }
        drop(requests);
        thread::sleep(GRACE);
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    });
    queue
}

/// Where the token was made to do what is asked and the broker does not know it yet; none for a question.
fn point_of(request: &Request) -> Option<Point> {
    match request {
        Request::Produce { .. } => Some(Point::WorkerProduced),
        Request::Seal(_) => Some(Point::WorkerSealed),
        Request::Sign { .. } => Some(Point::WorkerSigned),
        Request::Mac { .. } => Some(Point::WorkerMac),
        Request::CreateKeyPair { .. } => Some(Point::WorkerKeyPair),
        Request::CreateMacKey { .. } => Some(Point::WorkerMacKey),
        Request::CreateKek { .. } => Some(Point::WorkerKek),
        Request::DestroyKek { .. } => Some(Point::WorkerKekDestroyed),
        Request::Rewrap { .. } => Some(Point::WorkerRewrapped),
        Request::VerifyDestroyed { .. } => Some(Point::WorkerVerified),
        Request::PublicKey { .. } | Request::ObjectExists { .. } | Request::Inventory => None,
    }
}

fn answer(token: &mut Token, request: Request) -> Result<Reply, Fault> {
    Ok(match request {
        Request::Produce { tenant, epoch, key_type, count, requests } => {
            Reply::Produced(token.produce(tenant, epoch, key_type, count, &requests)?)
        }
        Request::Seal(request) => Reply::Sealed(token.seal(&request)?),
        Request::Sign { key, algorithm, messages } => {
            Reply::Signatures(token.sign(&key, algorithm, &messages)?)
        }
        Request::Mac { key, data } => Reply::Mac(token.mac(&key, &data)?),
        Request::CreateKeyPair { id, algorithm } => {
            Reply::PublicKey(Some(token.create_key_pair(&id, algorithm)?))
        }
        Request::CreateMacKey { id } => {
            token.create_mac_key(&id)?;
            Reply::Done
        }
        Request::CreateKek { tenant, epoch } => {
            token.create_kek(&ObjectId::Kek(tenant, epoch))?;
            Reply::Done
        }
        Request::PublicKey { id } => Reply::PublicKey(token.public_key(&id)?),
        Request::ObjectExists { id } => Reply::Exists(token.exists(&id)?),
        Request::DestroyKek { tenant, epoch } => {
            token.destroy(&ObjectId::Kek(tenant, epoch))?;
            Reply::Done
        }
        Request::Rewrap { tenant, from, to, dek_blobs } => {
            Reply::DekBlobs(token.rewrap(&tenant, from, to, &dek_blobs)?)
        }
        Request::Inventory => Reply::Inventory(token.inventory()?),
        Request::VerifyDestroyed { ids } => Reply::Gone(token.verify_destroyed(ids)?),
    })
}
