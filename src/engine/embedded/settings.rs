//! What the embedded engine is opened with. Plain data; decides nothing.

use std::path::PathBuf;
use std::time::Duration;

/// A segment has at most this share of the budget: one is written, one or two are being folded, and
/// the others can go one by one.
const BUDGET_SHARE: u64 = 16;

/// How to open a directory.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// Everything lies in here; created if its parent is there.
    pub directory: PathBuf,
    /// How long a closed key is remembered, and outcomes are kept at least.
    pub window: Duration,
    /// Stops intake before log and ledger together pass this many bytes. `None`: the disk is the bound.
    pub budget_bytes: Option<u64>,
    /// Kept back so that work in flight can be committed after intake has stopped, bytes.
    pub reserve_bytes: u64,
    /// A segment is sealed once it has this many bytes; the state is folded away as often.
    pub segment_bytes: u64,
    /// Memory for frames that were just written or read, bytes. Who lags further behind reads from disk.
    pub cache_bytes: usize,
    /// How often retention looks for segments that can go.
    pub retention_every: Duration,
    /// For tests: a ledger as weak as a remote one.
    pub weak: Option<Weak>,
}

impl EmbeddedSettings {
    /// The defaults: a window of 7 days, segments of 64 MiB.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        EmbeddedSettings {
            directory: directory.into(),
            window: Duration::from_secs(7 * 24 * 3600),
            budget_bytes: None,
            // Default work in flight is 256 tasks; 32 MiB hold an outcome of 128 KiB for each.
            reserve_bytes: 32 << 20,
            segment_bytes: 64 << 20,
            // A quarter of a second at full speed; deliveries and tails lag by milliseconds.
            cache_bytes: 16 << 20,
            retention_every: Duration::from_secs(10),
            weak: None,
        }
    }

    /// Segments and reserve small enough for the budget: only whole segments can be given back, and
    /// only those that are folded away.
    pub(super) fn within_budget(self) -> Self {
        let share = self.budget_bytes.map_or(u64::MAX, |budget| budget / BUDGET_SHARE);
        EmbeddedSettings {
            segment_bytes: self.segment_bytes.min(share),
            reserve_bytes: self.reserve_bytes.min(share),
            ..self
        }
    }
}

/// How weak the ledger is made. Shares are between 0 and 1; the same seed makes the same choices.
#[derive(Clone, Debug)]
pub struct Weak {
    pub seed: u64,
    /// Share of marks that never arrive, as if their time had run out.
    pub marks_lost: f64,
    /// Marks are sent up to this long after their commit.
    pub mark_late: Duration,
    /// Share of replies that are lost: the call is applied and answered `Unavailable`.
    pub replies_lost: f64,
    /// Replies come up to this late.
    pub reply_late: Duration,
    /// Outages come about this often. `None`: never.
    pub away_every: Option<Duration>,
    /// And last up to this long.
    pub away_for: Duration,
    /// An outage may lose the latest acknowledged writes.
    pub forgets: bool,
    /// A random partition is revoked and assigned again about this often. `None`: never.
    pub revoke_every: Option<Duration>,
    /// Without a break for this long a process is settled.
    pub lease: Duration,
}

impl Weak {
    /// Everything but forgetting, often enough that a minute's test meets all of it.
    pub fn new(seed: u64) -> Self {
        Weak {
            seed,
            marks_lost: 0.01,
            mark_late: Duration::from_millis(200),
            replies_lost: 0.01,
            reply_late: Duration::from_millis(5),
            away_every: Some(Duration::from_secs(3)),
            away_for: Duration::from_millis(300),
            forgets: false,
            revoke_every: Some(Duration::from_secs(2)),
            lease: Duration::from_secs(1),
        }
    }

    /// Forgets as well, and is away more often: what may be forgotten begins anew at each start, and
    /// a process under a kill test lives a second or two. Between two outages it must be settled for a
    /// while, or what a dead process had started is waited for to the end.
    pub fn forgetting(seed: u64) -> Self {
        let (every, lease) = (Duration::from_millis(800), Duration::from_millis(200));
        Weak { forgets: true, away_every: Some(every), lease, ..Weak::new(seed) }
    }
}
