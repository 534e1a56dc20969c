//! Why a directory cannot be opened: where, what, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// A directory that cannot be opened. Nothing in it was changed.
#[derive(Debug)]
pub struct OpenError {
    pub path: PathBuf,
    pub kind: OpenErrorKind,
}

#[derive(Debug)]
pub enum OpenErrorKind {
    /// Another process holds the directory.
    Locked {
        pid: Option<u32>,
    },
    NoParent,
    NotADirectory,
    NotWritable(std::io::Error),
    /// Written by a later version.
    Newer {
        found: u32,
        known: u32,
    },
    /// A file is not what was written into it.
    Damaged {
        at: u64,
        detail: String,
    },
    Io {
        doing: &'static str,
        source: std::io::Error,
    },
    /// The state file behind the log.
    State(String),
}

impl OpenError {
    pub(crate) fn new(path: &Path, kind: OpenErrorKind) -> Self {
        OpenError { path: path.to_owned(), kind }
    }

    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| OpenError::new(path, OpenErrorKind::Io { doing, source })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            OpenErrorKind::Locked { pid } => {
                let pid = pid.map_or_else(|| "pid unknown".to_owned(), |p| format!("pid {p}"));
                write!(
                    f,
                    "another tidegate process ({pid}) uses the directory `{path}`: stop it first, or give this one a directory of its own (`dir` in `[engine]`)"
                )
            }
            OpenErrorKind::NoParent => {
                write!(
                    f,
                    "the directory `{path}` cannot be made: the directory it would lie in is not there; make that one, or change `dir` in `[engine]`"
                )
            }
            OpenErrorKind::NotADirectory => {
                write!(
                    f,
                    "`{path}` is not a directory: move the file out of the way, or change `dir` in `[engine]`"
                )
            }
            OpenErrorKind::NotWritable(e) => {
                write!(
                    f,
                    "the directory `{path}` is not writable ({e}): give this user the right to write there, or change `dir` in `[engine]`"
                )
            }
            OpenErrorKind::Newer { found, known } => {
                write!(
                    f,
                    "the directory `{path}` has format version {found}, this program reads up to {known}: run the newer tidegate that wrote it"
                )
            }
            OpenErrorKind::Damaged { at, detail } => {
                write!(
                    f,
                    "`{path}` is damaged at byte {at} ({detail}): nothing was changed; bring the directory back from a backup, or move it away to start anew"
                )
            }
            OpenErrorKind::Io { doing, source } => {
                write!(f, "could not {doing} `{path}` ({source}): look at the disk, then start again")
            }
            OpenErrorKind::State(detail) => {
                write!(
                    f,
                    "the state file `{path}` cannot be read ({detail}): move this one file away, it is made anew from the log; only if that is refused, bring the directory back from a backup"
                )
            }
        }
    }
}

// The cause stands in the text, before what to do; a source would be told again behind it.
impl std::error::Error for OpenError {}
