//! A private PostgreSQL cluster for the tests of this target directory: own data, own socket folder, no network unless asked
//! for, everything about durability as in production. Test processes that run at the same time share it, each test has a
//! database of its own; it is stopped when nobody has used it for a while, whatever became of the tests.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The number in the name of a server's socket.
const PORT: u16 = 5_432;

/// The role that the tests' brokers have.
pub const ROLE: &str = "keybroker";

/// Ends the cluster once the lock that its users share is free. Runs beside it, so that it does its work even when the tests
/// were killed.
const SUPERVISE: &str = r#"
while sleep 3; do
    flock -n -x "$1" true || continue
    exec "$2" "$3"
done
"#;

/// A running server.
pub struct Cluster {
    directory: PathBuf,
    /// Of a server that ends with this value.
    own: Option<TempDir>,
    /// The number in the socket's name.
    port: u16,
    /// Held, shared, as long as the common server is used.
    _users: Option<File>,
}

/// A database on a server, dropped at the end.
pub struct Database {
    cluster: Cluster,
    name: String,
}

/// PostgreSQL's programs.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|path| path.is_file());
    versions.sort();
    versions.pop().unwrap_or_else(|| name.into())
}

/// A program of PostgreSQL, as the user `postgres` where we are root: the server refuses to run as root.
fn command(name: &str) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program(name));
        command
    } else {
        Command::new(program(name))
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lock_file(name: &str) -> (PathBuf, File) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = File::options().create(true).append(true).open(&path).unwrap();
    (path, file)
}

impl Cluster {
    /// The common server, started if it does not run.
    pub fn common() -> Self {
        let (lock, users) = lock_file("postgres.users");
        // First a user, then a look: what is found running stays.
        users.lock_shared().unwrap();
        let (_, setup) = lock_file("postgres.setup");
        setup.lock().unwrap();
        let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres.directory");
        let known = std::fs::read_to_string(&note).map(PathBuf::from).ok();
        let directory = match known.filter(|directory| is_ready(directory, PORT)) {
            Some(directory) => directory,
            None => {
                let directory = new_directory().keep();
                start_new(&directory, PORT, "");
                supervise(&lock, &directory);
                std::fs::write(&note, directory.to_str().unwrap()).unwrap();
                directory
            }
        };
        Self { directory, own: None, port: PORT, _users: Some(users) }
    }

    /// A server for one test, which may stop it. `settings` are lines of `postgresql.conf`.
    pub fn own(settings: &str) -> Self {
        Self::own_on(PORT, settings)
    }

    /// As [`Cluster::own`], which also listens on this port of 127.0.0.1 if the settings say so.
    pub fn own_on(port: u16, settings: &str) -> Self {
        let directory = new_directory();
        start_new(directory.path(), port, settings);
        Self { directory: directory.path().to_owned(), own: Some(directory), port, _users: None }
    }

    /// The socket's folder.
    pub fn socket(&self) -> &Path {
        &self.directory
    }

    /// Stops the server at once, as a crash does (`immediate`), or in order (`fast`).
    pub fn stop(&self, how: &str) {
        run(command("pg_ctl").args(["stop", "-w", "-m", how, "-D"]).arg(self.directory.join("data")));
    }

    /// SIGKILL for the server's first process, as if the machine had run out of memory; returns once every process of it is gone.
    pub fn kill(&self) {
        let note = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let first: i32 = note.lines().next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(first).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // The others notice by themselves; as long as one is left, no other server starts on the same data.
        // Nor as long as the first one's id is taken: by itself, until somebody has asked how it ended.
        while !self.processes().is_empty() || Path::new(&format!("/proc/{first}")).exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// The server's processes: their ids, and what they say that they are, such as `postgres: keybroker test_... [local] idle`.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let data = self.directory.join("data");
        let at_work = |entry: std::fs::DirEntry| {
            let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|directory| directory == data);
            let pid = entry.file_name().to_str()?.parse().ok().filter(|_| here)?;
            Some((pid, std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default()))
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(at_work).collect()
    }

    /// Starts the server that was stopped.
    pub fn start(&self) {
        start(&self.directory);
    }

    /// From now on only TCP with TLS and a password gets in, except for the superuser by the socket.
    pub fn require_password_and_tls(&self, certificate_pem: &str, key_pem: &str) {
        let data = self.directory.join("data");
        std::fs::write(data.join("server.crt"), certificate_pem).unwrap();
        std::fs::write(data.join("server.key"), key_pem).unwrap();
        std::fs::set_permissions(data.join("server.key"), Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(data.join("server.key")));
        }
        let rules = "local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let settings = data.join("postgresql.auto.conf");
        let text = std::fs::read_to_string(&settings).unwrap();
        std::fs::write(settings, format!("{text}ssl = on\n")).unwrap();
        self.stop("fast");
        self.start();
    }

    /// What the server wrote down: errors and the statements that they ended.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// Runs SQL as the superuser; the output's fields are separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        run(command("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"])
            .arg(&self.directory)
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql]))
    }

    fn pg_restore(&self, name: &str, dump: &Path) {
        let mut restore = command("pg_restore");
        restore.args(["--exit-on-error", "-U", "postgres", "-h"]).arg(&self.directory);
        restore.args(["-p", &self.port.to_string(), "-d", name]).stdin(File::open(dump).unwrap());
        run(&mut restore);
    }

    fn create_database(&self, name: &str) {
        let options = format!("OWNER {ROLE} TEMPLATE template0 ENCODING 'UTF8'");
        self.sql("postgres", &format!("CREATE DATABASE {name} {options}"));
    }

    /// What [`Database::dump`] wrote, in a new database of this server.
    pub fn restore(self, dump: &Path) -> Database {
        let database = self.database();
        database.cluster.pg_restore(&database.name, dump);
        database
    }

    /// What [`Database::dump`] wrote, in a new database of this name.
    pub fn restore_as(&self, name: &str, dump: &Path) {
        self.create_database(name);
        self.pg_restore(name, dump);
    }

    /// A standby as it is now, which gets nothing from now on: its data.
    pub fn standby(&self) -> PathBuf {
        let data = self.directory.join("standby");
        run(command("pg_basebackup")
            .args(["-U", "postgres", "--checkpoint=fast", "-h"])
            .arg(&self.directory)
            .args(["-p", &self.port.to_string(), "-D"])
            .arg(&data));
        data
    }

    /// The server dies, and a standby is promoted in its place.
    pub fn fail_over(&self, standby: &Path) {
        self.stop("immediate");
        let data = self.directory.join("data");
        std::fs::rename(&data, self.directory.join("lost")).unwrap();
        std::fs::rename(standby, &data).unwrap();
        let signal = data.join("standby.signal");
        std::fs::write(&signal, "").unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(signal));
        }
        start(&self.directory);
        run(command("pg_ctl").args(["promote", "-w", "-D"]).arg(&data));
    }

    /// A new database.
    pub fn database(self) -> Database {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        self.create_database(&name);
        Database { cluster: self, name }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.own.is_some() && is_ready(&self.directory, self.port) {
            self.stop("immediate");
        }
    }
}

impl Database {
    /// Its server.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address for a broker, by the socket.
    pub fn url(&self) -> String {
        let socket = self.cluster.socket().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{ROLE}@{socket}/{}", self.name)
    }

    /// Writes all of it into a file, as docs/operations.md says.
    pub fn dump(&self, file: &Path) {
        let mut dump = command("pg_dump");
        dump.args(["--format=custom", "-U", ROLE, "-h"]).arg(&self.cluster.directory);
        dump.args(["-p", &self.cluster.port.to_string(), &self.name]);
        let status = dump.stdout(File::create(file).unwrap()).status().unwrap();
        assert!(status.success(), "{dump:?}: {status}");
    }

    /// Another database of the same server takes its place and name, whatever is connected.
    pub fn swap(&self, other: &str) {
        let (sql, name) = (|sql: &str| self.cluster.sql("postgres", sql), &self.name);
        sql(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
        sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
        let left = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
        while sql(&left).trim() != "0" {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        sql(&format!("ALTER DATABASE {name} RENAME TO {name}_new"));
        sql(&format!("ALTER DATABASE {other} RENAME TO {name}"));
    }

    /// Runs a file of SQL in it, as a broker's role.
    pub fn load(&self, file: &Path) {
        run(command("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-U", ROLE, "-h"])
            .arg(&self.cluster.directory)
            .args(["-p", &self.cluster.port.to_string(), "-d", &self.name])
            .stdin(File::open(file).unwrap()));
    }

    /// Takes it back to what [`Database::dump`] wrote.
    pub fn restore(&self, dump: &Path) {
        self.cluster.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        self.cluster.create_database(&self.name);
        self.cluster.pg_restore(&self.name, dump);
    }

    /// Runs SQL in it as the superuser.
    pub fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.name, sql).trim().to_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.cluster.own.is_none() && is_ready(&self.cluster.directory, self.cluster.port) {
            self.cluster.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// The rows of a query on the database at this address, columns joined by `|`; bytes as `pg_temp.hex` shows them.
pub fn query(url: &str, sql: &str) -> Vec<String> {
    const HEX: &str = "CREATE FUNCTION pg_temp.hex(bytea) RETURNS text LANGUAGE sql AS $$ SELECT upper(encode($1, 'hex')) $$";
    let mut psql = Command::new(program("psql"));
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", HEX, "-c", sql]);
    run(&mut psql).lines().map(str::to_owned).collect()
}

fn new_directory() -> TempDir {
    // Not below the target directory: the path of a socket is short.
    let directory = tempfile::Builder::new().prefix("keybroker-pg-").tempdir().unwrap();
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(directory.path()));
    }
    directory
}

fn start_new(directory: &Path, port: u16, settings: &str) {
    let data = directory.join("data");
    run(command("initdb")
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
        .arg(&data));
    let text = format!(
        "listen_addresses = ''\nport = {port}\nunix_socket_directories = '{}'\nmax_connections = 300\nshared_buffers = 64MB\n\
         log_min_messages = error\n{settings}\n",
        directory.display()
    );
    let file = data.join("postgresql.auto.conf");
    std::fs::write(&file, text).unwrap();
    start(directory);
    run(command("psql").args(["-X", "-q", "-U", "postgres", "-h"]).arg(directory).args([
        "-p",
        &port.to_string(),
        "-d",
        "postgres",
        "-c",
        &format!("CREATE ROLE {ROLE} LOGIN PASSWORD 'tell-nobody'"),
    ]));
}

fn start(directory: &Path) {
    let log = directory.join("log");
    let started = command("pg_ctl")
        .args(["start", "-w", "-t", "60", "-D"])
        .arg(directory.join("data"))
        .arg("-l")
        .arg(&log)
        // The server must not hold the test's output open.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(started.success(), "the server does not start: {said}");
}

fn supervise(lock: &Path, directory: &Path) {
    // Stops the server and removes it; a script of its own, because the supervisor outlives this process.
    let stop = directory.join("stop");
    let script = format!(
        "#!/bin/sh\n{} {} stop -m immediate -D {}\nrm -rf {}\n",
        if is_root() { "runuser -u postgres --" } else { "" },
        program("pg_ctl").display(),
        directory.join("data").display(),
        directory.display()
    );
    std::fs::write(&stop, script).unwrap();
    Command::new("setsid")
        .args(["--fork", "sh", "-c", SUPERVISE, "sh"])
        .arg(lock)
        .arg("sh")
        .arg(&stop)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
}

fn is_ready(directory: &Path, port: u16) -> bool {
    directory.join("data").is_dir()
        && Command::new(program("pg_isready"))
            .args(["-q", "-U", "postgres", "-h"])
            .arg(directory)
            .args(["-p", &port.to_string()])
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}
