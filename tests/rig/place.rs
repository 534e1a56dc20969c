//! A scratch place for one test: a directory, a configuration, and the log read while nobody runs.
//!
//! On the embedded engine; or on Kafka and Redis, or on the simulator, where `[engine]` says so and nothing else
//! differs.

use super::process::{Process, free_port, listening, tidegate};
use super::{On, api::Api, eventually, on};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
#[cfg(feature = "kafka")]
use tidegate::engine::distributed;
use tidegate::engine::{Engine, embedded};
use tidegate::settings::{self, Settings};
use tidegate::task::{Partition, Position, Record, Topic};

/// A processor is up within this, also on a busy machine.
pub(crate) const UP: Duration = Duration::from_secs(60);

pub(crate) struct Place {
    /// Removed with everything in it when dropped.
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    /// The lines of `[engine]` that say which one it is; none for the embedded engine.
    engine: String,
    /// Before the name of every topic that Tidegate makes.
    prefix: String,
    /// The configuration whose topics there are.
    applied: Mutex<String>,
}

impl Place {
    /// With `kinds` and whatever else as configuration; data directory and port are its own.
    pub(crate) fn new(configuration: &str) -> Self {
        let (prefix, engine) = engine();
        Place::on(prefix, engine, configuration)
    }

    /// With the lines of `[engine]` and the prefix that is among them.
    pub(crate) fn on(prefix: String, engine: String, configuration: &str) -> Self {
        let place = Place { dir: scratch(), port: free_port(), engine, prefix, applied: Mutex::default() };
        place.configure(configuration);
        place
    }

    /// What is there has an `[engine]` from now on, also where it was not given one. `<prefix>` stands for this
    /// place's own: before the topics that others write, it keeps them apart as well.
    pub(crate) fn configure(&self, configuration: &str) {
        let configuration = configuration.replace("<prefix>", &self.prefix);
        let (port, engine) = (self.port, format!("[engine]\n{}", self.engine));
        let configuration = match configuration.contains("[engine]\n") {
            true => configuration.replacen("[engine]\n", &engine, 1),
            false => format!("{configuration}\n{engine}"),
        };
        let whole = format!("{configuration}\n[http]\nlisten = \"127.0.0.1:{port}\"\n");
        std::fs::write(self.config(), whole).unwrap();
    }

    /// What a topic that Tidegate makes is called here.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
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
        self.apply(&command);
        let mut process = Process::start(command, &self.log());
        listening(&mut process, self.port, UP).await;
        let api = self.api();
        eventually("the processor is ready", UP, || async { api.is_ready().await.then_some(()) }).await;
        process
    }

    /// A command-line tool of this place, run to its end: status and what it printed.
    pub(crate) fn tool(&self, args: &[&str]) -> (i32, String, String) {
        self.tool_with([], args)
    }

    fn tool_with<'a>(
        &self,
        told: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
        args: &[&str],
    ) -> (i32, String, String) {
        let mut command = tidegate();
        command.envs(told);
        command.current_dir(self.dir.path()).arg("--config").arg(self.config()).args(args);
        let out = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    /// Makes the topics of the configuration as it is now, with what `command` is told by its environment.
    /// The embedded engine makes its own.
    pub(crate) fn apply(&self, command: &Command) {
        let configuration = std::fs::read_to_string(self.config()).unwrap();
        let mut applied = self.applied.lock().unwrap();
        if self.engine.is_empty() || *applied == configuration {
            return;
        }
        let told = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let (code, said, problem) = self.tool_with(told, &["topics", "apply"]);
        assert_eq!(code, 0, "{said}{problem}");
        *applied = configuration;
    }

    /// Opens what a process has left, while none runs.
    pub(crate) fn open(&self) -> Rest {
        self.apply(&self.command());
        let settings = Settings::load(&self.config()).unwrap_or_else(|e| panic!("{e}"));
        let topics = settings::topics(&settings);
        let engine = opened(&settings);
        let topics = topics.into_iter().map(|t| t.topic).collect();
        Rest { engine, topics, prefix: self.prefix.clone() }
    }
}

/// The prefix of a new place and the lines that its `[engine]` begins with.
fn engine() -> (String, String) {
    match on() {
        On::Embedded => Default::default(),
        #[cfg(feature = "kafka")]
        On::Kafka => {
            let (prefix, shared) = (prefix(), super::cluster::servers());
            let engine = super::cluster::engine(&shared.kafka, &shared.redis, &prefix, 2);
            (prefix, engine)
        }
        #[cfg(feature = "simulator")]
        On::Simulated => {
            let prefix = prefix();
            let engine = super::simulator::engine(&prefix, 2);
            (prefix, engine)
        }
        #[cfg(not(all(feature = "kafka", feature = "simulator")))]
        other => panic!("{other:?}: the tests were built without what that needs"),
    }
}

/// One that no other place has.
pub(crate) fn prefix() -> String {
    format!("s{:08x}.", rand::random::<u32>())
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
    #[cfg(feature = "kafka")]
    if let Some(cluster) = settings.cluster() {
        // Stories open what is there in the middle of a sentence, as they do with a directory.
        let connecting = async {
            let engine = distributed::connect(cluster).await.unwrap_or_else(|e| panic!("{e}"));
            // It opens without its ledger, and comes to it by itself.
            let asked = || async { engine.ledger.list(None, 1).await.ok() };
            eventually("the ledger is reached", UP, asked).await;
            engine
        };
        return tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connecting));
    }
    let how = settings.engine.embedded();
    embedded::open(how, settings::topics(settings), Arc::new(embedded::Disk))
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The log and the ledger of a process that does not run.
pub(crate) struct Rest {
    pub(crate) engine: Engine,
    pub(crate) topics: Vec<Topic>,
    prefix: String,
}

impl Rest {
    /// What a topic is called here: Tidegate's own has the prefix, one that exists has not.
    pub(crate) fn topic(&self, name: &str) -> Option<Topic> {
        let names = [Topic::new(format!("{}{name}", self.prefix)), Topic::new(name)];
        names.into_iter().find(|topic| self.topics.contains(topic))
    }

    /// Every record of a topic, partition by partition. Empty where there is no such topic.
    pub(crate) async fn all(&self, topic: &str) -> Vec<Record> {
        let mut found = Vec::new();
        let Some(topic) = self.topic(topic) else { return found };
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
