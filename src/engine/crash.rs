//! Named places where a test lets the process die, between two durable steps.
//!
//! Costs one comparison where no test asks for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable: `name`, or `name:n` for the n-th time.
const VARIABLE: &str = "TIDEGATE_CRASH_AT";

struct Wanted {
    name: String,
    left: AtomicU64,
}

/// Dies here, without any clean-up, if the environment says so.
pub fn crash_point(name: &str) {
    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, n) = text.rsplit_once(':').unwrap_or((&text, "1"));
        Some(Wanted { name: name.to_owned(), left: AtomicU64::new(n.parse().unwrap_or(1)) })
    });
    if let Some(wanted) = wanted.as_ref().filter(|w| w.name == name)
        && wanted.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        eprintln!("crash point {name}");
        std::process::abort();
    }
}
