//! A ledger whose first lists of claims make whoever asks for them panic. Everything else it hands on.

use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate::dedupe::{Admission, ClaimView};
use tidegate::engine::{Delivery, Ledger, Unavailable};
use tidegate::outcome::OutcomeKind;
use tidegate::task::{Position, ScopedKey, Token};

/// As many as there are partitions: one search of each.
const PANICS: usize = 2;

pub(super) struct Unlucky {
    behind: Arc<dyn Ledger>,
    listed: AtomicUsize,
}

impl Unlucky {
    pub(super) fn before(behind: Arc<dyn Ledger>) -> Arc<dyn Ledger> {
        Arc::new(Unlucky { behind, listed: AtomicUsize::new(0) })
    }
}

type Answer<T> = BoxFuture<'static, Result<T, Unavailable>>;

impl Ledger for Unlucky {
    fn admit(&self, d: &Delivery, t: &Token, decider: Option<Position>) -> Answer<Admission> {
        self.behind.admit(d, t, decider)
    }

    fn refuse(&self, d: &Delivery, t: &Token) -> Answer<Admission> {
        self.behind.refuse(d, t)
    }

    fn look_all(&self, keys: Vec<ScopedKey>) -> Answer<Vec<Option<ClaimView>>> {
        self.behind.look_all(keys)
    }

    fn list(&self, after: Option<ScopedKey>, max: usize) -> Answer<Vec<ClaimView>> {
        let listed = self.listed.fetch_add(1, Ordering::SeqCst);
        assert!(listed >= PANICS, "as a test asks for");
        self.behind.list(after, max)
    }

    fn repair(&self, token: &Token, outcome: OutcomeKind, at: Position) -> Answer<()> {
        self.behind.repair(token, outcome, at)
    }
}
