//! Processes that a test starts and ends, by their own id and no other.

use super::eventually;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A running binary. Killed when dropped, and when this process ends without dropping it, so that a test that
/// failed or was killed leaves nothing behind.
pub(crate) struct Process {
    child: Child,
    /// What it wrote to stdout and stderr.
    pub(crate) said: PathBuf,
}

/// The binary that was built beside the tests.
pub(crate) fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    // Nothing of the developer's own environment decides a test.
    for name in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TIDEGATE_CONFIG", "TIDEGATE_URL", "TIDEGATE_LOG"] {
        command.env_remove(name);
    }
    command
}

impl Process {
    pub(crate) fn start(mut command: Command, said: &Path) -> Self {
        let out = File::options().append(true).create(true).open(said).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        left_behind("+", child.id());
        Process { child, said: said.to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.try_wait().unwrap();
        if ended.is_some() {
            left_behind("-", self.id());
        }
        ended
    }

    /// SIGKILL: nothing of it gets to run again.
    pub(crate) fn kill(&mut self) {
        // An error here means that it has ended already.
        let _ = self.child.kill();
        left_behind("-", self.id());
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -s {name} {}", self.id());
    }

    /// SIGTERM, then the end within `limit`.
    pub(crate) fn stop(&mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait(limit).unwrap_or_else(|| panic!("still running {limit:?} after SIGTERM:\n{}", self.words()))
    }

    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub(crate) fn words(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
    }
}

/// Tells one watcher which processes run: it kills those that are left once we have ended, however we did.
/// The system could end them with us, but does so already when the thread that started them ends.
fn left_behind(what: &str, id: u32) {
    static WATCHER: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    const KILL: &str = r#"awk '$1 == "+" { runs[$2] } $1 == "-" { delete runs[$2] }
        END { for (id in runs) system("kill -9 " id) }'"#;
    let watcher = WATCHER.get_or_init(|| Mutex::new(watcher(KILL, &[])));
    let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(watcher, "{what} {id}").unwrap();
}

/// Runs a shell's `script` with these arguments once what is returned is dropped, or this process has ended,
/// however it does.
pub(crate) fn afterwards(script: &str, args: &[&OsStr]) -> ChildStdin {
    watcher(&format!("cat >/dev/null; {script}"), args)
}

/// Runs a shell's `script`, whose input is what is returned, and closes when it is dropped or when this process
/// has ended.
fn watcher(script: &str, args: &[&OsStr]) -> ChildStdin {
    let mut watcher = Command::new("sh");
    watcher.args(["-c", &format!("trap '' INT TERM HUP; {script}"), "watcher"]).args(args);
    // A signal to the tests' own group is not for it.
    watcher.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    watcher.spawn().unwrap().stdin.take().unwrap()
}

/// A loopback port that nobody uses now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until something listens on `port`; fails with the process's own words if it ends before.
pub(crate) async fn listening(process: &mut Process, port: u16, limit: Duration) {
    let began = Instant::now();
    loop {
        if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return;
        }
        if let Some(status) = process.ended() {
            panic!("ended with {status} before it listened:\n{}", process.words());
        }
        assert!(began.elapsed() < limit, "does not listen after {limit:?}:\n{}", process.words());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the process has said `words`.
pub(crate) async fn says(process: &Process, words: &str, limit: Duration) {
    eventually(&format!("`{words}` in {}", process.said.display()), limit, || async {
        process.words().contains(words).then_some(())
    })
    .await;
}
