//! What the sections need while they are resolved: where to report, where files lie, the environment.

use super::problems::Report;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A prompt or a schema is written by people; more than this is a mistake in the path.
const FILE_MAX: u64 = 4 * 1024 * 1024;

pub(super) struct Context<'a> {
    pub(super) report: &'a Report<'a>,
    /// The directory of the configuration file; relative paths start there.
    pub(super) base: &'a Path,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// A model without its key is a mistake.
    pub(super) keys: bool,
}

impl Context<'_> {
    pub(super) fn path(&self, written: &str) -> PathBuf {
        // Pushing components drops a leading `./`, so that messages show the shortest form.
        self.base.join(written).components().collect()
    }

    /// The text of a file that the configuration names at `span`; `role` says what it is.
    pub(super) fn file(&self, written: &str, span: Range<usize>, role: &str) -> Option<String> {
        let path = self.path(written);
        let shown = path.display();
        let found = std::fs::metadata(&path).map(|meta| meta.len());
        let read = match found {
            Ok(len) if len > FILE_MAX => {
                self.report.add(span, format!("the {role} {shown} has {len} bytes"), "it may have 4 MiB");
                return None;
            }
            Ok(_) => std::fs::read(&path),
            Err(e) => Err(e),
        };
        match read.map(String::from_utf8) {
            Ok(Ok(text)) => Some(text),
            Ok(Err(e)) => {
                let what =
                    format!("the {role} {shown} is not UTF-8 at byte {}", e.utf8_error().valid_up_to());
                self.report.add(span, what, "save it as UTF-8");
                None
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let help = "create it, or mend the path; paths start at the configuration file's directory";
                self.report.add(span, format!("there is no {role} at {shown}"), help);
                None
            }
            Err(e) => {
                self.report.add(
                    span,
                    format!("cannot read the {role} {shown}: {e}"),
                    "mend the path or its rights",
                );
                None
            }
        }
    }
}
