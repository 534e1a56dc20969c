//! Makes the embedded ledger as weak as a remote one: for tests, so that nothing above the port
//! leans on its strength.
//!
//! A layer of its own around the calls: replies late or lost, the ledger away for a while, marks
//! apart from their commit, late or lost, the latest writes forgotten, partitions revoked. What is
//! held and owed goes out first on return, in the order of "Coming back". It never changes what the
//! ledger's rules say.

use super::handle::ask;
use super::ledger::send;
use super::queue::{Command, Sent};
use super::settings::Weak;
use super::shared::{Shared, lock};
use crate::engine::Unavailable;
use crate::engine::script::{LedgerCall, LedgerReply};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(5);

pub(super) struct Weakness {
    shared: Arc<Shared>,
    weak: Weak,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: StdRng,
    away: bool,
    /// Since when the ledger has been reached without a break.
    connected: Instant,
    /// Answers whose storing was not acknowledged.
    held: VecDeque<LedgerCall>,
    /// Marks, each with the time when it is sent.
    owed: Vec<(Instant, LedgerCall)>,
}

/// What becomes of one call.
struct Fate {
    lost: bool,
    late: Duration,
    settled: bool,
}

impl Weakness {
    pub(super) fn new(shared: Arc<Shared>, weak: Weak) -> Self {
        let rng = StdRng::seed_from_u64(weak.seed);
        let (connected, held, owed) = (Instant::now(), VecDeque::new(), Vec::new());
        Weakness { shared, weak, inner: Mutex::new(Inner { rng, away: false, connected, held, owed }) }
    }

    pub(super) async fn call(&self, call: LedgerCall) -> Result<LedgerReply, Unavailable> {
        let fate = match self.fate() {
            Ok(fate) => fate,
            Err(e) => {
                self.hold(call);
                return Err(e);
            }
        };
        let answer = send(&self.shared, call.clone(), fate.settled).await;
        if !fate.late.is_zero() {
            tokio::time::sleep(fate.late).await;
        }
        let answer =
            if fate.lost { Err(Unavailable("the ledger's reply was lost".to_owned())) } else { answer };
        if answer.is_err() {
            self.hold(call);
        }
        answer
    }

    fn fate(&self) -> Result<Fate, Unavailable> {
        let mut inner = lock(&self.inner);
        if inner.away {
            return Err(Unavailable("the ledger cannot be reached".to_owned()));
        }
        let lost = inner.rng.random_bool(self.weak.replies_lost);
        let late = random_up_to(&mut inner.rng, self.weak.reply_late);
        Ok(Fate { lost, late, settled: inner.connected.elapsed() >= self.weak.lease })
    }

    pub(super) fn reachable(&self) -> Result<(), Unavailable> {
        self.fate().map(drop)
    }

    /// An answer is never given up for want of a ledger; other calls are the caller's to repeat.
    fn hold(&self, call: LedgerCall) {
        if matches!(call, LedgerCall::Store { .. }) {
            lock(&self.inner).held.push_back(call);
        }
    }

    /// A commit is visible; its mark goes out later, or never.
    pub(super) fn owe(&self, mark: LedgerCall) {
        let mut inner = lock(&self.inner);
        if inner.rng.random_bool(self.weak.marks_lost) {
            return;
        }
        let due = Instant::now() + random_up_to(&mut inner.rng, self.weak.mark_late);
        if inner.rng.random_bool(self.weak.replies_lost) {
            // Its acknowledgement will be lost: it is sent again.
            inner.owed.push((due + self.weak.mark_late, mark.clone()));
        }
        inner.owed.push((due, mark));
    }

    /// The thread: outages, losses, revocations, owed marks.
    pub(super) fn run(&self) {
        let mut next_away = self.after(self.weak.away_every);
        let mut next_revoke = self.after(self.weak.revoke_every);
        while !self.shared.queue.is_shut() {
            std::thread::sleep(STEP);
            let now = Instant::now();
            if next_away.is_some_and(|at| at <= now) {
                self.go_away();
                next_away = self.after(self.weak.away_every);
            }
            if next_revoke.is_some_and(|at| at <= now) {
                self.revoke_one();
                next_revoke = self.after(self.weak.revoke_every);
            }
            self.send_due(now);
            self.send_held();
        }
    }

    /// Somewhere between half and one and a half times `every` from now.
    fn after(&self, every: Option<Duration>) -> Option<Instant> {
        let every = every?;
        Some(Instant::now() + every / 2 + random_up_to(&mut lock(&self.inner).rng, every))
    }

    fn go_away(&self) {
        let (pause, forgets, remembers) = {
            let mut inner = lock(&self.inner);
            inner.away = true;
            let pause = random_up_to(&mut inner.rng, self.weak.away_for);
            let forgets = self.weak.forgets && inner.rng.random_bool(0.5);
            (pause, forgets, self.weak.forgets && inner.rng.random_bool(0.5))
        };
        let end = Instant::now() + pause;
        while Instant::now() < end && !self.shared.queue.is_shut() {
            std::thread::sleep(STEP);
        }
        if forgets {
            // Closed meanwhile: then it forgot nothing.
            let _ = ask(&self.shared, |reply| Command::Forget { reply });
        } else if remembers {
            let _ = self.shared.queue.push_own(Command::Remember);
        }
        // Coming back: answers, then marks, then everything else.
        self.send_held();
        self.send_owed();
        let mut inner = lock(&self.inner);
        inner.away = false;
        inner.connected = Instant::now();
    }

    fn send_held(&self) {
        let held: Vec<LedgerCall> = lock(&self.inner).held.drain(..).collect();
        self.send_all(held);
    }

    fn send_due(&self, now: Instant) {
        let due = {
            let mut inner = lock(&self.inner);
            let (due, later) = std::mem::take(&mut inner.owed).into_iter().partition(|(at, _)| *at <= now);
            inner.owed = later;
            due
        };
        self.send_all(due.into_iter().map(|(_, mark): (Instant, LedgerCall)| mark).collect());
    }

    /// All marks, due or not: on return, and at an orderly end.
    pub(super) fn send_owed(&self) {
        let owed = std::mem::take(&mut lock(&self.inner).owed);
        self.send_all(owed.into_iter().map(|(_, mark)| mark).collect());
    }

    /// In order, all on their way before the first is waited for.
    fn send_all(&self, calls: Vec<LedgerCall>) {
        let connection = self.shared.connection.load(Ordering::Acquire);
        let mut waiting = Vec::new();
        for call in calls {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let call = Sent { call, connection, settled: false };
            if self.shared.queue.push_own(Command::Ledger { call, reply }).is_ok() {
                waiting.push(answer);
            }
        }
        for answer in waiting {
            // An engine that has been closed answers nothing; what was owed is lost with its process.
            let _ = answer.blocking_recv();
        }
    }

    fn revoke_one(&self) {
        let parts: Vec<(u32, u32)> = self.shared.leases().keys().copied().collect();
        if parts.is_empty() {
            return;
        }
        let part = parts[lock(&self.inner).rng.random_range(0..parts.len())];
        let epoch = self.shared.new_epoch();
        let _ = ask(&self.shared, |reply| Command::Revoke { part, epoch, reply });
    }
}

fn random_up_to(rng: &mut StdRng, most: Duration) -> Duration {
    most.mul_f64(rng.random_range(0.0..1.0))
}
