//! Named places between two durable steps, where a test may end the process, or have a call hang.
//!
//! `TIDEGATE_CRASH_AT=name` aborts the process the first time it comes past that place,
//! `name:n` the n-th time; at a place that is for hanging, its thread stays there for ever. Costs one comparison
//! where no test asks for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable: `name`, or `name:n` for the n-th time.
const VARIABLE: &str = "TIDEGATE_CRASH_AT";

/// Every place, so that a test can go through them all.
pub const POINTS: &[&str] = &[
    "frame.before-write",
    "frame.half-written",
    "frame.before-sync",
    "frame.after-sync",
    "frame.merged",
    "frame.half-answered",
    "segment.created",
    "segment.named",
    "checkpoint.before-commit",
    "checkpoint.after-commit",
    "retention.before-unlink",
    "retention.after-unlink",
    "task.delivered",
    "task.admitted",
    "infer.started",
    "infer.sent",
    "infer.received",
    "infer.stored",
    "transaction.begun",
    "transaction.produced",
    "transaction.offsets",
    "transaction.committed",
    "commit.unmarked",
    "arbiter.claimed",
];

struct Wanted {
    name: String,
    left: AtomicU64,
}

/// Dies here, without any clean-up, if the environment says so.
pub fn crash_point(name: &str) {
    if is_reached(name) {
        eprintln!("crash point {name}");
        // No unwinding, no destructors: as near to a power cut as a process gets by itself.
        std::process::abort();
    }
}

/// Never comes back from here, if the environment says so: a call of a client that ignores its own timeout.
pub fn hang_point(name: &str) {
    if is_reached(name) {
        eprintln!("hang point {name}");
        loop {
            std::thread::park();
        }
    }
}

fn is_reached(name: &str) -> bool {
    wanted().is_some_and(|w| w.name == name && w.left.fetch_sub(1, Ordering::SeqCst) == 1)
}

/// Whether this place is the one asked for: for steps that are only worth splitting then.
pub fn is_wanted(name: &str) -> bool {
    wanted().is_some_and(|w| w.name == name)
}

fn wanted() -> Option<&'static Wanted> {
    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    let read = || {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, n) = text.rsplit_once(':').unwrap_or((&text, "1"));
        Some(Wanted { name: name.to_owned(), left: AtomicU64::new(n.parse().unwrap_or(1)) })
    };
    WANTED.get_or_init(read).as_ref()
}
