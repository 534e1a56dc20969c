//! The embedded engine: one process, one directory, a log of its own with redb behind it.

mod error;
mod files;
mod settings;

pub use error::{OpenError, OpenErrorKind};
pub use files::{Disk, File, Files};
pub use settings::{EmbeddedSettings, Weak};

use super::{Engine, TopicSpec};
use std::sync::Arc;

/// Opens the directory, or says why not.
pub fn open(
    settings: EmbeddedSettings,
    _topics: Vec<TopicSpec>,
    _files: Arc<dyn Files>,
) -> Result<Engine, OpenError> {
    Err(OpenError::new(&settings.directory, OpenErrorKind::NotADirectory))
}
