//! A ledger behind connections that break, whose replies get lost, and which may forget what it has
//! acknowledged.
//!
//! The rules are those of `dedupe`, by `script`. A loss goes back to a state that was there after the
//! loss before.

use super::super::client::{Broken, Connection, Sent, Store};
use super::super::link::LEASE;
use super::super::lock;
use super::super::planted::{self, Bug};
use super::world::{CutOff, Process, World};
use crate::dedupe::{ClaimView, Entry, Fence, Instance, Observer, SlotKind};
use crate::engine::script::{self, Asked, LedgerCall, LedgerReply, Tables};
use crate::task::{Origin, ScopedKey, Timestamp};
use crate::token;
use futures::future::BoxFuture;
use rand::RngExt;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How often the ledger may go away, and remembers where a loss would return to.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Clone, Default)]
struct Kept {
    entries: BTreeMap<Vec<u8>, Entry>,
    refused: BTreeMap<(Vec<u8>, Origin), Timestamp>,
    /// When the instance last said that it lives, and over which connection.
    beats: BTreeMap<Instance, (Instant, u64)>,
}

struct Inner {
    kept: Kept,
    remembered: Kept,
    away: bool,
    /// Rises whenever every connection breaks.
    epoch: u64,
    /// Connections made so far.
    lines: u64,
    longest: Duration,
}

impl Inner {
    /// How many claims it does not know as it did.
    fn return_to(&mut self, then: Kept) -> usize {
        let is_lost = |(key, entry): &(&Vec<u8>, &Entry)| then.entries.get(*key) != Some(*entry);
        let lost = self.kept.entries.iter().filter(is_lost).count();
        self.kept = then;
        lost
    }
}

/// What the ledger holds at one moment.
pub struct Snapshot(Kept);

/// The one store of a cluster.
pub struct SimulatedStore {
    world: Arc<World>,
    window: Duration,
    inner: Mutex<Inner>,
}

/// As one process sees it.
pub struct Reached {
    pub store: Arc<SimulatedStore>,
    pub process: Process,
}

impl SimulatedStore {
    pub fn new(world: Arc<World>, window: Duration) -> Arc<Self> {
        let inner = Inner {
            kept: Kept::default(),
            remembered: Kept::default(),
            away: false,
            epoch: 0,
            lines: 0,
            longest: Duration::ZERO,
        };
        Arc::new(SimulatedStore { world, window, inner: Mutex::new(inner) })
    }

    /// Goes away now and then, and may return to an earlier state. Until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.world.fails("the ledger goes away", |f| f.ledger_away) {
                if self.world.chance(0.2) {
                    let mut inner = lock(&self.inner);
                    inner.remembered = inner.kept.clone();
                }
                continue;
            }
            {
                let mut inner = lock(&self.inner);
                (inner.away, inner.epoch) = (true, inner.epoch + 1);
            }
            let forgets = self.world.fails("the ledger forgets", |f| f.ledger_forgets);
            self.world
                .say(format_args!("the ledger goes away{}", if forgets { ", and forgets" } else { "" }));
            let usual = Some(self.world.faults().ledger_away_s).filter(|s| *s > 0.0).unwrap_or(3.0);
            // Now and then half a minute, and never longer: everything is to be at rest soon after.
            let most = if self.world.chance(0.03) { usual.max(30.0) } else { usual };
            let gone = Instant::now();
            self.world.passes(Duration::from_secs_f64(most)).await;
            let mut inner = lock(&self.inner);
            inner.longest = inner.longest.max(gone.elapsed());
            let remembered = forgets.then(|| inner.remembered.clone());
            let lost = remembered.map_or(0, |then| inner.return_to(then));
            inner.away = false;
            // No loss reaches back past the one before.
            inner.remembered = inner.kept.clone();
            self.world.say(format_args!("the ledger is back; claims forgotten: {lost}"));
        }
    }

    /// A process that is stopped says and hears nothing.
    async fn when_it_goes_on(&self, process: Process) {
        while self.world.is_cut_off(process, &[CutOff::Everything]) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Away for exactly so long; nothing is forgotten.
    pub async fn away_for(&self, pause: Duration) {
        self.set_away(true);
        tokio::time::sleep(pause).await;
        self.set_away(false);
    }

    /// From now on, until it is told otherwise. Nothing is forgotten.
    pub fn set_away(&self, away: bool) {
        self.world.say(format_args!("the ledger {}", if away { "goes away" } else { "is back" }));
        let mut inner = lock(&self.inner);
        (inner.away, inner.epoch) = (away, inner.epoch + u64::from(away));
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(lock(&self.inner).kept.clone())
    }

    /// While it is away: what it has acknowledged since is lost. How many claims that changes.
    pub fn return_to(&self, then: Snapshot) -> usize {
        let mut inner = lock(&self.inner);
        let lost = inner.return_to(then.0);
        // No loss reaches back past this one.
        inner.remembered = inner.kept.clone();
        self.world.say(format_args!("claims forgotten: {lost}"));
        lost
    }

    pub fn is_away(&self) -> bool {
        lock(&self.inner).away
    }

    /// How long it was away at most.
    pub fn longest(&self) -> Duration {
        lock(&self.inner).longest
    }

    /// A claim that is there from the beginning.
    pub fn keep(&self, key: &ScopedKey, entry: Entry) {
        lock(&self.inner).kept.entries.insert(key.to_bytes(), entry);
    }

    /// The open claims, for whoever checks.
    pub fn open(&self) -> Vec<ClaimView> {
        let inner = lock(&self.inner);
        let open = inner.kept.entries.iter().filter(|(_, e)| !e.is_closed());
        open.filter_map(|(key, e)| Some(e.view(ScopedKey::from_bytes(key)?))).collect()
    }
}

struct Judge<'a> {
    settled: bool,
    beats: &'a BTreeMap<Instance, (Instant, u64)>,
}

impl Observer for Judge<'_> {
    fn settled(&self) -> bool {
        self.settled
    }

    fn lapsed(&self, instance: Instance) -> bool {
        self.beats.get(&instance).is_none_or(|(beat, _)| beat.elapsed() >= LEASE)
    }
}

struct Running<'a> {
    entries: &'a mut BTreeMap<Vec<u8>, Entry>,
    refused: &'a mut BTreeMap<(Vec<u8>, Origin), Timestamp>,
    fence: Fence,
}

impl Tables for Running<'_> {
    type Error = Infallible;

    fn entry<T>(
        &mut self,
        key: Vec<u8>,
        script: impl FnOnce(&mut Option<Entry>) -> T,
    ) -> Result<T, Infallible> {
        let mut entry = self.entries.remove(&key);
        let answer = script(&mut entry);
        if let Some(entry) = entry {
            self.entries.insert(key, entry);
        }
        Ok(answer)
    }

    fn refused(&self, key: &[u8], origin: &Origin) -> Result<Option<Timestamp>, Infallible> {
        Ok(self.refused.get(&(key.to_vec(), origin.clone())).copied())
    }

    fn set_refused(&mut self, key: &[u8], origin: &Origin, at: Timestamp) {
        self.refused.insert((key.to_vec(), origin.clone()), at);
    }

    fn fence(&mut self) -> Fence {
        self.fence
    }
}

impl Store for Reached {
    fn connect(&self) -> BoxFuture<'static, Result<Arc<dyn Connection>, Broken>> {
        let (store, process) = (self.store.clone(), self.process);
        Box::pin(async move {
            store.world.delay(Duration::from_millis(10)).await;
            store.when_it_goes_on(process).await;
            let cut = store.world.is_cut_off(process, &[CutOff::Ledger]);
            let mut inner = lock(&store.inner);
            if inner.away || cut {
                return Err(Broken("connection refused".to_owned()));
            }
            inner.lines += 1;
            let number = inner.lines;
            let line = Line {
                number,
                epoch: inner.epoch,
                broken: AtomicBool::new(false),
                process,
                store: store.clone(),
            };
            let line: Arc<dyn Connection> = Arc::new(Over(Arc::new(line)));
            Ok(line)
        })
    }
}

struct Line {
    store: Arc<SimulatedStore>,
    process: Process,
    epoch: u64,
    number: u64,
    broken: AtomicBool,
}

struct Over(Arc<Line>);

impl Line {
    /// What is done arrives in the order of the calls; the reply takes its time, or is lost.
    async fn ask<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> Result<T, Broken> {
        let broken = || Broken("the connection to the ledger is broken".to_owned());
        self.store.when_it_goes_on(self.process).await;
        if self.store.world.is_cut_off(self.process, &[CutOff::Ledger]) {
            self.broken.store(true, Ordering::Release);
        }
        let answer = {
            let mut inner = lock(&self.store.inner);
            let whole = !inner.away && inner.epoch == self.epoch && !self.broken.load(Ordering::Acquire);
            if !whole || self.store.world.is_dead(self.process) {
                return Err(broken());
            }
            act(&mut inner)
        };
        if self.store.world.fails("a reply of the ledger is lost", |f| f.reply_lost) {
            self.broken.store(true, Ordering::Release);
        }
        self.store.world.delay(Duration::from_millis(3)).await;
        self.store.when_it_goes_on(self.process).await;
        let inner = lock(&self.store.inner);
        if inner.epoch == self.epoch && !self.broken.load(Ordering::Acquire) {
            Ok(answer)
        } else {
            Err(broken())
        }
    }
}

/// The call as a ledger with a planted mistake takes it.
fn mistaken(mut call: LedgerCall, entries: &BTreeMap<Vec<u8>, Entry>) -> LedgerCall {
    match &mut call {
        LedgerCall::Start { claim, slot, .. }
            if planted::is(Bug::StaleFenceStarts) && slot.kind == SlotKind::Effect =>
        {
            let entry = entries.get(&claim.token.key.to_bytes());
            claim.fence = entry.map_or(claim.fence, |entry| entry.fence);
        }
        LedgerCall::Admit { delivery, token, .. } if planted::is(Bug::OriginBelieved) && token.hop == 0 => {
            let said = delivery.record.headers.text(token::ORIGIN).and_then(token::read_origin);
            token.origin = said.unwrap_or_else(|| token.origin.clone());
        }
        _ => {}
    }
    call
}

impl Connection for Over {
    fn beat(&self, instance: Instance) -> BoxFuture<'static, Result<(), Broken>> {
        let line = self.0.clone();
        Box::pin(async move {
            line.ask(|inner| {
                inner.kept.beats.insert(instance, (Instant::now(), line.number));
            })
            .await
        })
    }

    fn call(&self, instance: Instance, sent: Sent) -> BoxFuture<'static, Result<LedgerReply, Broken>> {
        let line = self.0.clone();
        Box::pin(async move {
            let fence = Fence(lock(&line.store.world.inner).dice.random());
            let window = line.store.window;
            let asked = line.ask(|inner| {
                let Kept { entries, refused, beats } = &mut inner.kept;
                // What arrives over an older connection of the instance, or without its heartbeat, was never
                // received: it could overtake what the instance has said since.
                let beat = beats.get(&instance);
                if !beat.is_some_and(|(at, line_of)| *line_of == line.number && at.elapsed() < LEASE) {
                    return Err(Broken("the heartbeat of this connection has run out".to_owned()));
                }
                let judge = Judge { settled: sent.settled, beats };
                let asked = Asked { instance, observer: &judge, now: Timestamp::now(), window };
                let call = mistaken(sent.call, entries);
                let Ok(reply) = script::run(&mut Running { entries, refused, fence }, &call, &asked);
                Ok(reply)
            });
            asked.await?
        })
    }

    fn look(&self, keys: Vec<ScopedKey>) -> BoxFuture<'static, Result<Vec<Option<ClaimView>>, Broken>> {
        let line = self.0.clone();
        Box::pin(async move {
            line.ask(|inner| {
                let look = |key: ScopedKey| Some(inner.kept.entries.get(&key.to_bytes())?.view(key));
                keys.into_iter().map(look).collect()
            })
            .await
        })
    }

    fn list(
        &self,
        after: Option<ScopedKey>,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<ClaimView>, Broken>> {
        let line = self.0.clone();
        Box::pin(async move {
            line.ask(|inner| {
                let after = after.map(|key| key.to_bytes()).unwrap_or_default();
                let from = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
                let open = inner.kept.entries.range(from).filter(|(_, e)| !e.is_closed());
                open.filter_map(|(key, e)| Some(e.view(ScopedKey::from_bytes(key)?))).take(max).collect()
            })
            .await
        })
    }
}
