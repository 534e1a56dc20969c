//! Decides whether intake goes on: the disk, the budget, the reserve.
//!
//! The reserve is a file that takes space and holds nothing. When the disk is full it is given up,
//! so that what is in flight can be committed; intake goes on once it could be taken again.

use super::files::Files;
use super::shared::Shared;
use crate::engine::Health;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a paused engine looks whether space has come back.
const LOOK: Duration = Duration::from_millis(250);
/// An engine that stopped for an error of the disk is given new work this long after, to see.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Space {
    files: Arc<dyn Files>,
    dir: PathBuf,
    reserve_bytes: u64,
    budget_bytes: Option<u64>,
    has_reserve: bool,
    paused: Option<Pause>,
    looked: Instant,
}

struct Pause {
    why: String,
    since: Instant,
    cause: Cause,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    /// The disk is full: over once the reserve could be taken again.
    Full,
    /// The budget is used up, and the disk is not: over once something was given back.
    Budget,
    /// The disk does not work: over as soon as something works.
    Error,
    /// The state is not folded away and fills the memory: over once it is.
    Behind,
}

impl Space {
    pub(super) fn new(
        files: Arc<dyn Files>,
        dir: &Path,
        reserve_bytes: u64,
        budget_bytes: Option<u64>,
    ) -> Self {
        let dir = dir.to_owned();
        let looked = Instant::now();
        let mut space =
            Space { files, dir, reserve_bytes, budget_bytes, has_reserve: false, paused: None, looked };
        if let Err(e) = space.take_reserve() {
            let _ = space.pause(&format!("{e}; there is no room for a reserve of {reserve_bytes} bytes"));
        }
        space
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    fn cause(&self) -> Option<Cause> {
        self.paused.as_ref().map(|p| p.cause)
    }

    /// Paused by an error of the disk, not for want of space.
    pub(super) fn is_error(&self) -> bool {
        self.cause() == Some(Cause::Error)
    }

    /// Nothing but what frees space can be written.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.cause(), Some(Cause::Full | Cause::Error))
    }

    pub(super) fn why(&self) -> String {
        self.paused.as_ref().map_or_else(String::new, |p| p.why.clone())
    }

    pub(super) fn health(&self) -> Health {
        self.paused.as_ref().map_or(Health::Well, |p| Health::Paused { why: p.why.clone() })
    }

    /// The disk is full.
    pub(super) fn pause(&mut self, e: &str) -> Health {
        let dir = self.dir.display();
        let why = format!(
            "the disk that holds `{dir}` is full ({e}): intake has stopped and nothing is lost; make room there, and it goes on by itself"
        );
        self.stop(why, Cause::Full)
    }

    /// The disk does not work.
    pub(super) fn stopped(&mut self, e: &str) -> Health {
        let dir = self.dir.display();
        let why = format!(
            "the disk that holds `{dir}` does not take writes ({e}): nothing is acknowledged; look at the disk, it is tried again all the time"
        );
        self.stop(why, Cause::Error)
    }

    /// The log takes writes, the state behind it does not.
    pub(super) fn behind(&mut self, e: &str) -> Health {
        let dir = self.dir.display();
        let why = format!(
            "the state in `{dir}` cannot be folded away ({e}): intake has stopped and nothing is lost; look at the disk, it is tried again all the time"
        );
        self.stop(why, Cause::Behind)
    }

    /// The state has been folded away. `true`: that ends a pause.
    pub(super) fn caught_up(&mut self) -> bool {
        let ends = self.cause() == Some(Cause::Behind);
        if ends {
            self.paused = None;
        }
        ends
    }

    fn stop(&mut self, why: String, cause: Cause) -> Health {
        self.paused = Some(Pause { why, since: Instant::now(), cause });
        self.health()
    }

    /// Something has been written. `true`: that ends a pause.
    pub(super) fn works_again(&mut self) -> bool {
        let ends = self.is_error();
        if ends {
            self.paused = None;
        }
        ends
    }

    /// Frees the reserve. `false`: it was used up already.
    pub(super) fn give_reserve(&mut self) -> bool {
        let had = std::mem::take(&mut self.has_reserve);
        had && self.files.remove(&self.reserve()).is_ok()
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    fn take_reserve(&mut self) -> io::Result<()> {
        if !self.has_reserve {
            let taken = self.files.create(&self.reserve()).and_then(|f| f.allocate(self.reserve_bytes));
            if let Err(e) = taken {
                // Half a reserve would use up what little there is.
                let _ = self.files.remove(&self.reserve());
                return Err(e);
            }
            self.has_reserve = true;
        }
        Ok(())
    }

    /// Looks again, now and then: pauses before the budget is used up, goes on when there is room.
    pub(super) fn look(&mut self, shared: &Shared) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let since = self.paused.as_ref().map(|p| p.since.elapsed()).unwrap_or_default();
        let over = match self.cause() {
            Some(Cause::Error) => since >= RETRY,
            Some(Cause::Full | Cause::Budget) => self.take_reserve().is_ok(),
            Some(Cause::Behind) | None => false,
        };
        if over {
            self.paused = None;
        }
        // What stops it for a worse reason goes on saying that one.
        if self.paused.is_none()
            && let Some(why) = self.over_budget(shared)
        {
            let _ = self.stop(why, Cause::Budget);
        }
        shared.set_health(self.health());
    }

    fn over_budget(&self, shared: &Shared) -> Option<String> {
        let budget = self.budget_bytes?;
        let used = used_bytes(shared) + self.reserve_bytes;
        (used > budget).then(|| {
            let dir = self.dir.display();
            format!(
                "`{dir}` has used its budget of {budget} bytes: intake has stopped, work in flight is finished; raise `disk_max` in `[engine]`, or wait until retention gives space back"
            )
        })
    }
}

/// Log and ledger, bytes.
fn used_bytes(shared: &Shared) -> u64 {
    let listed = shared.files.list(&shared.settings.directory).unwrap_or_default();
    listed.iter().filter(|(name, _)| name != "reserve").map(|(_, bytes)| bytes).sum()
}
