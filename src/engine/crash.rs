//! Named places between two durable steps, where a test may end the process.
//!
//! `TIDEGATE_CRASH_AT=name` aborts the process the first time it comes past that place,
//! `name:n` the n-th time. Unset, a crash point costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every place, so that a test can go through them all.
pub const CRASH_POINTS: &[&str] = &[
    "frame-before-write",
    "frame-half-written",
    "frame-before-sync",
    "frame-after-sync",
    "frame-merged",
    "replies-half-sent",
    "segment-created",
    "segment-dir-synced",
    "checkpoint-before-commit",
    "checkpoint-after-commit",
    "retention-before-unlink",
    "retention-after-unlink",
    "infer.started",
    "infer.received",
    "infer.stored",
];

struct Armed {
    name: String,
    left: AtomicU64,
}

/// Aborts here if the environment asks for it.
pub fn crash_point(name: &'static str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let Some(armed) = ARMED.get_or_init(armed) else { return };
    if armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        // No unwinding, no destructors: as near to a power cut as a process gets by itself.
        std::process::abort();
    }
}

/// Whether this place is the one asked for: for steps that are only worth splitting then.
pub fn is_armed(name: &str) -> bool {
    std::env::var("TIDEGATE_CRASH_AT").is_ok_and(|at| at.split(':').next() == Some(name))
}

fn armed() -> Option<Armed> {
    let text = std::env::var("TIDEGATE_CRASH_AT").ok()?;
    let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
    Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(1)) })
}
