//! The sections that are not kinds or models, as meant.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[engine]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSettings {
    /// `dir`: where the embedded engine lives. Default `./data`, relative to the configuration file.
    pub dir: PathBuf,
    /// `prefix`: goes before the name of every topic that Tidegate makes. Default empty.
    pub prefix: String,
    /// `dedupe_window`: how long a closed key is known, counted from its outcome. Default 7 d.
    pub dedupe_window: Duration,
    /// `retention`: how long complete records stay. Default: the dedupe window; never shorter.
    pub retention: Duration,
    /// `disk_max`: bytes the directory may take before intake pauses. Default: until the disk is full.
    pub disk_max: Option<u64>,
    /// `partitions` of each topic of tasks. Default 8.
    pub partitions: u32,
    /// `record_max`: largest record accepted as a task, bytes. Default 1 MiB.
    pub record_max: usize,
}

/// `[http]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpSettings {
    /// `listen`. Default `127.0.0.1:8080`; loopback only, for there is no authentication yet.
    pub listen: SocketAddr,
    /// `body_max`: largest request body, bytes. Default 16 MiB.
    pub body_max: usize,
}

/// `[worker]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerSettings {
    /// `in_flight`: tasks at once. Default 256.
    pub in_flight: usize,
    /// `drain`: how long an orderly end waits for calls that run. Default: the longest call timeout.
    pub drain: Duration,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// `level`, as tracing filters are written. Default `info`.
    pub level: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
