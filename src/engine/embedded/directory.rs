//! Takes hold of the directory: makes it, locks it, looks at its format.
//!
//! Changes nothing in a directory that another process uses or a later version wrote.

use super::error::{OpenError, OpenErrorKind};
use super::files::Files;
use std::any::Any;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of the directory as a whole; raise it when an older program could misread what a newer writes.
pub(super) const FORMAT: u32 = 1;
/// A killed process inside a flush keeps its lock for some milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(2);

pub(super) type Held = Box<dyn Any + Send + Sync>;

/// The directory, ours alone until the answer is dropped.
pub(super) fn take(files: &dyn Files, dir: &Path) -> Result<Held, OpenError> {
    files.create_dir(dir).map_err(|e| match e.kind() {
        ErrorKind::NotFound => OpenError::new(dir, OpenErrorKind::NoParent),
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            OpenError::new(dir, OpenErrorKind::NotADirectory)
        }
        _ => unwritable(dir, e),
    })?;
    let held = lock(files, dir)?;
    format(files, dir)?;
    Ok(held)
}

fn unwritable(dir: &Path, e: std::io::Error) -> OpenError {
    match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            OpenError::new(dir, OpenErrorKind::NotWritable(e))
        }
        _ => OpenError::io(dir, "open")(e),
    }
}

fn lock(files: &dyn Files, dir: &Path) -> Result<Held, OpenError> {
    let path = dir.join("lock");
    let end = Instant::now() + LOCK_WAIT;
    loop {
        if let Some(held) = files.lock(&path).map_err(|e| unwritable(dir, e))? {
            let file = files.create(&path).map_err(|e| unwritable(dir, e))?;
            let pid = std::process::id().to_string();
            // Only for people; an unreadable one is shown as unknown.
            let _ = file.set_len(0).and_then(|()| file.write_at(0, pid.as_bytes()));
            return Ok(held);
        }
        if Instant::now() >= end {
            let pid = text(files, &path).and_then(|t| t.trim().parse().ok());
            return Err(OpenError::new(dir, OpenErrorKind::Locked { pid }));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether an engine has ever been opened there.
pub fn is_used(dir: &Path) -> bool {
    dir.join("format").is_file()
}

/// Reads the format version, or writes it into a new directory.
fn format(files: &dyn Files, dir: &Path) -> Result<(), OpenError> {
    let path = dir.join("format");
    let found = text(files, &path).unwrap_or_default();
    match found.trim().strip_prefix("tidegate ").map(str::parse::<u32>) {
        Some(Ok(found)) if found <= FORMAT => return Ok(()),
        Some(Ok(found)) => return Err(OpenError::new(dir, OpenErrorKind::Newer { found, known: FORMAT })),
        _ => {}
    }
    let listed = files.list(dir).map_err(OpenError::io(dir, "read"))?;
    if listed.iter().any(|(name, _)| name.ends_with(".log")) {
        let detail = "it should name the format version, as `tidegate 1` does".to_owned();
        return Err(OpenError::new(&path, OpenErrorKind::Damaged { at: 0, detail }));
    }
    // Before anything else: a crash here leaves a directory that is still new.
    let file = files.create(&path).map_err(|e| unwritable(dir, e))?;
    let line = format!("tidegate {FORMAT}\n");
    let written = file.set_len(0).and_then(|()| file.write_at(0, line.as_bytes())).and_then(|()| file.sync());
    written.and_then(|()| files.sync_dir(dir)).map_err(OpenError::io(&path, "write"))
}

fn text(files: &dyn Files, path: &Path) -> Option<String> {
    let file = files.open(path).ok()?;
    // A version and a process id are short; whatever is longer is neither.
    let mut bytes = vec![0; usize::try_from(file.size().ok()?).ok()?.min(64)];
    file.read_at(0, &mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}
