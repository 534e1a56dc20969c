//! A Redis server of a test's own, which `redis-get` finds or gets without installing anything.
//!
//! It listens on loopback, keeps its files in a scratch place, and ends with the test.

use super::place::scratch;
use super::process::{Process, free_port};
use super::{kafka_broker, left_out};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tidegate::engine::distributed::redis::RedisStore;

pub(crate) const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// How the server keeps what it acknowledges.
pub(crate) const NOT: [&str; 2] = ["--appendonly", "no"];
pub(crate) const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
pub(crate) const EVERYSEC: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

pub(crate) struct Server {
    /// `None`: it was there before us.
    process: Option<Process>,
    place: tempfile::TempDir,
    settings: Vec<String>,
    pub(crate) address: String,
}

impl Server {
    /// The server that `TIDEGATE_REDIS` names (also as a URL), or one of our own that keeps nothing.
    pub(crate) fn any() -> Self {
        match std::env::var("TIDEGATE_REDIS") {
            Ok(address) => Server { process: None, place: scratch(), settings: Vec::new(), address },
            Err(_) => Server::start_own(&NOT),
        }
    }

    /// One that the test may stop. `None`, and said so, where another one is named and none of our own is to
    /// be had.
    pub(crate) fn own(settings: &[&str]) -> Option<Self> {
        if let (Ok(_), Err(why)) = (std::env::var("TIDEGATE_REDIS"), program()) {
            let thread = std::thread::current();
            left_out(thread.name().unwrap_or("a test"), &format!("it needs a server of its own: {why}"));
            return None;
        }
        Some(Server::start_own(settings))
    }

    /// One of our own, or none at all.
    pub(crate) fn start_own(settings: &[&str]) -> Self {
        let mut server = Server {
            process: None,
            place: scratch(),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            address: format!("127.0.0.1:{}", free_port()),
        };
        server.start();
        server
    }

    /// Starts it where it was, with what it has kept.
    pub(crate) fn start(&mut self) {
        let program = program().as_ref().unwrap_or_else(|why| panic!("no Redis server: {why}"));
        let (_, port) = self.address.rsplit_once(':').unwrap();
        let mut command = Command::new(&program.binary);
        command.env("LD_LIBRARY_PATH", &program.libraries);
        command.args(["--port", port, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        command.arg("--dir").arg(self.place.path()).args(&self.settings);
        let mut process = Process::start(command, &self.place.path().join("said"));
        let began = Instant::now();
        let client = redis::Client::open(self.url()).unwrap();
        // Refused while it does not listen yet, and while it loads what it has kept.
        let answers = || redis::cmd("PING").query::<String>(&mut client.get_connection()?);
        while answers().is_err() {
            let up = process.ended().is_none() && began.elapsed() < Duration::from_secs(20);
            assert!(up, "the Redis server did not start:\n{}", process.words());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
    }

    /// SIGKILL: nothing of it gets to run again. What it has written survives, synced or not.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("our own server").kill();
    }

    pub(crate) fn signal(&self, name: &str) {
        self.process.as_ref().expect("our own server").signal(name);
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().expect("our own server").id()
    }

    /// Where it keeps its files.
    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn url(&self) -> String {
        if self.address.contains("://") { self.address.clone() } else { format!("redis://{}", self.address) }
    }

    /// Under a prefix that no other test uses.
    pub(crate) fn store(&self, prefix: &str) -> RedisStore {
        RedisStore::new(&self.url(), prefix, WINDOW).unwrap()
    }

    /// Beside the ledger's own connection.
    pub(crate) async fn plain(&self) -> redis::aio::MultiplexedConnection {
        // A busy machine may stop us for longer than the library waits by default.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(20)))
            .set_response_timeout(Some(Duration::from_secs(20)));
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
    }
}

/// A new prefix: a server that is not ours may hold what an earlier run left there.
pub(crate) fn prefix() -> String {
    format!("live-{:016x}", rand::random::<u64>())
}

#[derive(Debug)]
struct Program {
    binary: PathBuf,
    /// Where to look for shared libraries first; empty: where the system does.
    libraries: String,
}

/// The server's program, or why it cannot be had.
fn program() -> &'static Result<Program, String> {
    static PROGRAM: OnceLock<Result<Program, String>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let script = kafka_broker::path("redis-get");
        let out = Command::new(&script).output().map_err(|e| format!("{}: {e}", script.display()))?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (binary, libraries) = text.trim_end().split_once('\n').unwrap_or((text.trim_end(), ""));
        Ok(Program { binary: binary.into(), libraries: libraries.to_owned() })
    })
}
