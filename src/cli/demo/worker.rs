//! The processor as a process of its own, so that it can be killed with -9 and started again.
//!
//! Never outlives the demo: it is killed when this is dropped, also on the way out of a panic; and
//! where the demo itself is killed with -9, the worker ends with it.

use super::super::client::Client;
use super::place::{Place, tail};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// A processor answers within this on a busy machine, with the little data of the demo.
const UP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A killed process is gone in a few milliseconds; a disk that does not answer may hold it longer.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const GONE_YET: Duration = Duration::from_millis(1);

pub(super) struct Worker {
    child: Child,
    listen: SocketAddr,
}

impl Worker {
    /// Started, not yet answering. Called by the thread that the command runs on: the worker ends when
    /// the thread that started it does.
    pub(super) fn start(place: &Place, listen: SocketAddr) -> anyhow::Result<Worker> {
        let program = std::env::current_exe().context("cannot find the program that is running")?;
        let log = std::fs::File::options().create(true).append(true).open(place.log());
        let log = log.with_context(|| format!("cannot write {}", place.log().display()))?;
        let child = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(place.configuration())
            .arg("--dir")
            .arg(place.data())
            .arg("--listen")
            .arg(listen.to_string())
            .arg("--parent")
            .arg(std::process::id().to_string())
            // The demo's own configuration decides, not the environment of whoever runs it.
            .env_remove("TIDEGATE_URL")
            .env_remove("TIDEGATE_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            // Ctrl-C is for the demo, which takes its worker down.
            .process_group(0)
            .spawn()
            .context("cannot start the worker; may this program start itself?")?;
        Ok(Worker { child, listen })
    }

    /// How long it took until it answered.
    pub(super) async fn answers(&mut self, client: &Client, place: &Place) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < UP_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the worker ended ({status}); its last words:\n{}", tail(&place.log(), 8));
            }
            if client.get(&["v1", "status"], &[]).await.is_ok() {
                return Ok(began.elapsed());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let seconds = UP_WITHIN.as_secs();
        anyhow::bail!(
            "no answer on {} within {seconds} s; its last words:\n{}",
            self.listen,
            tail(&place.log(), 8)
        )
    }

    /// kill -9: nothing of it gets to run again.
    pub(super) async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Whether it ended by itself.
    pub(super) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _: std::io::Result<()> = self.child.start_kill();
        // Its directory goes next: as long as it lives, it writes there.
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < GONE_WITHIN {
            std::thread::sleep(GONE_YET);
        }
    }
}
