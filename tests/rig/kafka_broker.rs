//! A Kafka broker of its own for each test: started, killed, started again on its data, ended.

use super::kafka_proxy::Proxy;
use super::place::scratch;
use super::process::afterwards;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// One broker at a time: two would only slow each other down.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct Broker {
    dir: TempDir,
    pub(crate) address: String,
    /// Ends it also where this process is killed.
    _held: ChildStdin,
    _alone: MutexGuard<'static, ()>,
}

fn held(dir: &Path) -> ChildStdin {
    afterwards("$1 $2; rm -rf $2", &[path("kafka-down").as_ref(), dir.as_ref()])
}

/// Where a script of this folder lies.
pub(crate) fn path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig").join(script)
}

fn script(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(path(name));
    command.arg(dir).stdin(Stdio::null());
    command
}

impl Broker {
    pub(crate) fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = scratch();
        let held = held(dir.path());
        let address = up(dir.path(), None);
        Broker { dir, address, _held: held, _alone: alone }
    }

    /// It has a second listener, `guarded_address`, where the user `tidegate` needs one of these passwords: by
    /// PLAIN, and by SCRAM-SHA-256.
    pub(crate) fn guarded(passwords: [&str; 2]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = scratch();
        let held = held(dir.path());
        let address = started(dir.path(), &[("KAFKA_GUARDED", &passwords.join(","))]);
        Broker { dir, address, _held: held, _alone: alone }
    }

    pub(crate) fn guarded_address(&self) -> String {
        let own = self.own_address();
        let (_, port) = own.rsplit_once(':').unwrap();
        format!("localhost:{}", port.parse::<u16>().unwrap() + 2)
    }

    /// `broker`: who vouches for the guarded listener. `other`: somebody else.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.pem"))
    }

    /// All of its clients go through the proxy.
    pub(crate) fn behind(proxy: &Proxy) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = scratch();
        let (held, address) = (held(dir.path()), format!("127.0.0.1:{}", proxy.port));
        proxy.lead_to(&up(dir.path(), Some(&address)));
        Broker { dir, address, _held: held, _alone: alone }
    }

    /// Clients are told to go to this address, behind which there is somebody who leads to `own_address`.
    pub(crate) fn behind_address(address: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = scratch();
        let held = held(dir.path());
        up(dir.path(), Some(address));
        Broker { dir, address: address.to_owned(), _held: held, _alone: alone }
    }

    /// Where it listens itself.
    pub(crate) fn own_address(&self) -> String {
        format!("127.0.0.1:{}", std::fs::read_to_string(self.dir.path().join("port")).unwrap().trim())
    }

    /// Of its process.
    pub(crate) fn id(&self) -> u32 {
        std::fs::read_to_string(self.dir.path().join("pid")).unwrap().trim().parse().unwrap()
    }

    /// SIGKILL: nothing of it gets to run again.
    pub(crate) fn kill(&self) {
        let killed = Command::new("kill").args(["-9", &self.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Again, on its old data and its old address.
    pub(crate) fn restart(&self) {
        assert_eq!(up(self.dir.path(), None), self.own_address());
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// `options`: as a topic's configuration takes them.
    pub(crate) async fn create(&self, topics: &[(&str, i32)], options: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, partitions)| {
                let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(1));
                options.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        for made in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
    }
}

/// Starts the broker of this folder, or starts it again. Its address.
pub(crate) fn up(dir: &Path, advertised: Option<&str>) -> String {
    let told: Vec<_> = advertised.map(|address| ("KAFKA_ADVERTISED", address)).into_iter().collect();
    started(dir, &told)
}

fn started(dir: &Path, told: &[(&str, &str)]) -> String {
    let mut command = script("kafka-up", dir);
    command.envs(told.iter().copied());
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success(), "the broker does not start");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A failure beside a broker may be the broker's.
        if std::thread::panicking() {
            let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
            let last = String::from_utf8_lossy(&log[log.len().saturating_sub(4_000)..]).into_owned();
            eprintln!("--- the broker said at last:\n{last}");
        }
        // A test that has failed already should say why itself.
        let _ = script("kafka-down", self.dir.path()).status();
    }
}
