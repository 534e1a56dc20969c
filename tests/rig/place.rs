//! A scratch place for one test: a directory, a configuration, and the log read while nobody runs.

use super::process::{Process, free_port, listening, tidegate};
use super::{api::Api, eventually};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tidegate::engine::{Engine, embedded};
use tidegate::settings::{self, Settings};
use tidegate::task::{Partition, Position, Record, Topic};

/// A processor is up within this, also on a busy machine.
pub(crate) const UP: Duration = Duration::from_secs(30);

pub(crate) struct Place {
    /// Removed with everything in it when dropped.
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Place {
    /// With `kinds` and whatever else as configuration; data directory and port are its own.
    pub(crate) fn new(configuration: &str) -> Self {
        let place = Place { dir: scratch(), port: free_port() };
        place.configure(configuration);
        place
    }

    pub(crate) fn configure(&self, configuration: &str) {
        let port = self.port;
        let whole = format!("{configuration}\n[http]\nlisten = \"127.0.0.1:{port}\"\n");
        std::fs::write(self.config(), whole).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("tidegate.toml")
    }

    /// What the processor said, over all its lives.
    pub(crate) fn log(&self) -> PathBuf {
        self.path("processor.log")
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(self.port)
    }

    /// `tidegate run` with this configuration, not started yet.
    pub(crate) fn command(&self) -> Command {
        let mut command = tidegate();
        command.current_dir(self.dir.path()).arg("run").arg("--config").arg(self.config());
        command
    }

    pub(crate) async fn run(&self) -> Process {
        self.run_as(self.command()).await
    }

    /// Started and ready.
    pub(crate) async fn run_as(&self, command: Command) -> Process {
        let mut process = Process::start(command, &self.log());
        listening(&mut process, self.port, UP).await;
        let api = self.api();
        eventually("the processor is ready", UP, || async { api.is_ready().await.then_some(()) }).await;
        process
    }

    /// A command-line tool of this place, run to its end: status and what it printed.
    pub(crate) fn tool(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = tidegate();
        command.current_dir(self.dir.path()).arg("--config").arg(self.config()).args(args);
        let out = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    /// Opens the directory while no process runs on it.
    pub(crate) fn open(&self) -> Rest {
        let settings = Settings::load(&self.config()).unwrap_or_else(|e| panic!("{e}"));
        let topics = settings::topics(&settings);
        let engine = opened(&settings);
        Rest { engine, topics: topics.into_iter().map(|t| t.topic).collect() }
    }
}

/// An empty directory, removed with everything in it when dropped.
pub(crate) fn scratch() -> tempfile::TempDir {
    // Not in /tmp: that may be memory, and what is measured and killed here must reach a disk.
    let base = std::env::var("TIDEGATE_SCRATCH")
        .map_or_else(|_| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::Builder::new().prefix("place-").tempdir_in(base).unwrap()
}

/// The engine as `run` opens it.
pub(crate) fn opened(settings: &Settings) -> Engine {
    let how = settings.engine.embedded();
    embedded::open(how, settings::topics(settings), Arc::new(embedded::Disk))
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The log and the ledger of a process that does not run.
pub(crate) struct Rest {
    pub(crate) engine: Engine,
    pub(crate) topics: Vec<Topic>,
}

impl Rest {
    /// Every record of a topic, partition by partition. Empty where there is no such topic.
    pub(crate) async fn all(&self, topic: &str) -> Vec<Record> {
        let topic = Topic::new(topic);
        let mut found = Vec::new();
        if !self.topics.contains(&topic) {
            return found;
        }
        for ends in self.engine.log.ends(&topic).await.unwrap() {
            let mut offset = ends.first;
            while offset < ends.next {
                let from = Position { at: ends.at.clone(), offset };
                let records = self.engine.log.read(from, 1_000).await.unwrap();
                let Some(last) = records.last() else { break };
                offset = last.position.offset + 1;
                found.extend(records);
            }
        }
        found
    }

    /// Records that their group has not completed yet.
    pub(crate) async fn open_records(&self) -> Vec<(Partition, u64)> {
        let mut found = Vec::new();
        for topic in &self.topics {
            let ends = self.engine.log.ends(topic).await.unwrap();
            found.extend(ends.into_iter().filter_map(|e| Some((e.at, e.open.filter(|n| *n > 0)?))));
        }
        found
    }

    pub(crate) async fn close(self) {
        self.engine.operation.close().await;
    }
}
