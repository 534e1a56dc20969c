//! Random sequences of ledger calls over one scope, and the rules run over a table in memory.
//!
//! A sequence knows what the table holds, and leans towards what is interesting: the chain that owns the
//! key, hops beside its own, slots that somebody has started.

use crate::rig::Dice;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tidegate::dedupe::{
    Admission, Claim, Entry, Fence, Instance, Nonce, Observer, OpenPhase, Slot, SlotEntry, SlotKind,
    SlotName, SlotState,
};
use tidegate::engine::script::{self, Asked, LedgerCall, LedgerReply, Tables};
use tidegate::engine::{Delivery, Lease, Mark};
use tidegate::fingerprint;
use tidegate::outcome::OutcomeKind;
use tidegate::task::{
    Headers, Origin, Partition, Position, PrintRule, Record, ScopedKey, Timestamp, Token, Topic,
};

/// Of the sequences: long before or after the server's own time, which they must never see.
const BEGIN: i64 = 1_500_000_000_000;

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) entry: Option<Entry>,
    pub(crate) refused: BTreeMap<Origin, Timestamp>,
    pub(crate) alive: BTreeSet<Instance>,
    fence: u128,
}

impl Tables for Memory {
    type Error = Infallible;

    fn entry<T>(
        &mut self,
        _: Vec<u8>,
        script: impl FnOnce(&mut Option<Entry>) -> T,
    ) -> Result<T, Infallible> {
        Ok(script(&mut self.entry))
    }

    fn refused(&self, _: &[u8], origin: &Origin) -> Result<Option<Timestamp>, Infallible> {
        Ok(self.refused.get(origin).copied())
    }

    fn set_refused(&mut self, _: &[u8], origin: &Origin, at: Timestamp) {
        self.refused.insert(origin.clone(), at);
    }

    fn fence(&mut self) -> Fence {
        Fence(self.fence)
    }
}

struct Sees {
    settled: bool,
    alive: BTreeSet<Instance>,
}

impl Observer for Sees {
    fn settled(&self) -> bool {
        self.settled
    }

    fn lapsed(&self, instance: Instance) -> bool {
        !self.alive.contains(&instance)
    }
}

/// One call, and everything it depends on beside what is kept.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) instance: Instance,
    pub(crate) settled: bool,
    pub(crate) now: Timestamp,
    pub(crate) fence: Fence,
    pub(crate) call: LedgerCall,
}

pub(crate) enum Next {
    Call(Box<Step>),
    Beats(Instance),
    Lapses(Instance),
}

pub(crate) struct Sequence {
    dice: Dice,
    now: Timestamp,
    window: Duration,
    pub(crate) key: ScopedKey,
    /// Its own: what beats in one sequence must not be heard in another.
    instances: [Instance; 3],
    pub(crate) memory: Memory,
    claims: Vec<Claim>,
}

impl Sequence {
    pub(crate) fn new(seed: u64, number: u64, window: Duration) -> Self {
        // Texts that a careless key would confuse with another one's, or with a pattern.
        let texts = ["*", "a/b", "a%2Fb", "ü{x}", "k [a-z]?", "\0\r\n", ":claim:"];
        let text = texts[usize::try_from(number).unwrap() % texts.len()];
        let (tenant, kind) = if number.is_multiple_of(2) { ("", "ticket") } else { ("ti", "cket/*") };
        Sequence {
            dice: Dice::new(seed.wrapping_add(number << 20)),
            now: Timestamp(BEGIN),
            window,
            key: ScopedKey::new(tenant, kind, &format!("{text}{number}")),
            instances: [1, 2 << 90, u128::MAX - 3].map(|n: u128| Instance(n ^ (u128::from(number) << 32))),
            memory: Memory::default(),
            claims: Vec::new(),
        }
    }

    /// What happens next. Time passes before it.
    pub(crate) fn next(&mut self) -> Next {
        self.time_passes();
        let instance = self.instances[self.below(3)];
        match self.below(100) {
            0..4 => return Next::Beats(instance),
            4..8 => return Next::Lapses(instance),
            _ => {}
        }
        let call = self.call();
        let fence = Fence((u128::from(self.dice.next()) << 64) | u128::from(self.dice.next()));
        let settled = self.dice.percent(75);
        Next::Call(Box::new(Step { instance, settled, now: self.now, fence, call }))
    }

    /// What the rules answer to it.
    pub(crate) fn answer(&mut self, step: &Step) -> LedgerReply {
        self.memory.fence = step.fence.0;
        let sees = Sees { settled: step.settled, alive: self.memory.alive.clone() };
        let asked = Asked { instance: step.instance, observer: &sees, now: step.now, window: self.window };
        let Ok(reply) = script::run(&mut self.memory, &step.call, &asked);
        if let LedgerReply::Admission(admission) = &reply
            && let Admission::Fresh(claim) | Admission::Resumed(claim, _) = &**admission
        {
            self.claims.push(claim.clone());
        }
        reply
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.dice.pick(n as u64)).unwrap()
    }

    fn time_passes(&mut self) {
        const DAY: i64 = 24 * 3_600_000;
        let by = match self.below(40) {
            0..16 => 0,
            16..24 => 1,
            24..33 => 400,
            33..35 => 9_000,
            35 => 80_000,
            36 => self.until_a_boundary().unwrap_or(80_000),
            37 => 3 * DAY,
            38 => self.until_a_boundary().unwrap_or(8 * DAY),
            // The clock is set back.
            _ => -3_600_000,
        };
        self.now = Timestamp(self.now.0 + by);
    }

    /// Until the very moment at which a grant, an outcome or a refusal runs out.
    fn until_a_boundary(&mut self) -> Option<i64> {
        let entry = self.memory.entry.as_ref();
        let until = |slot: &SlotEntry| match slot.state {
            SlotState::Started { until, .. } => Some(until),
            _ => None,
        };
        let grants = entry.into_iter().flat_map(|e| e.slots.values()).filter_map(until);
        let ends = entry.filter(|e| e.is_closed()).map(|e| e.changed.plus(self.window));
        let refusals = self.memory.refused.values().map(|at| at.plus(self.window));
        let moments: Vec<i64> = grants.chain(ends).chain(refusals).map(|t| t.0 - self.now.0).collect();
        if moments.is_empty() { None } else { Some(moments[self.below(moments.len())]) }
    }

    fn call(&mut self) -> LedgerCall {
        match self.below(100) {
            0..26 => {
                let (delivery, token) = (self.delivery(), self.token());
                let decider =
                    self.dice.percent(25).then(|| place("review.decisions", 70 + self.dice.pick(2)));
                LedgerCall::Admit { delivery, token, decider }
            }
            26..34 => LedgerCall::Refuse { delivery: self.delivery(), token: self.token() },
            34..56 => {
                let deadline = [0, 1_000, 60_000][self.below(3)];
                let (claim, slot) = (self.claim(), self.slot());
                LedgerCall::Start { claim, slot, deadline: Duration::from_millis(deadline) }
            }
            56..65 => LedgerCall::Bar { claim: self.claim(), slot: self.slot() },
            65..77 => LedgerCall::Store { token: self.token(), slot: self.slot(), value: self.value() },
            77..84 => LedgerCall::Release {
                nonce: self.nonce(),
                key: self.key.clone(),
                unheard: self.dice.pick(3) as u32,
            },
            84..88 => {
                let mark = Mark::Close { token: self.token(), outcome: self.outcome(), output: 0 };
                let at = self.dice.percent(80).then(|| place("results", self.dice.pick(1 << 40)));
                LedgerCall::Mark { mark, at }
            }
            88..90 => {
                let at = place("dead-letters", u64::MAX - self.dice.pick(9));
                LedgerCall::Repair { token: self.token(), outcome: self.outcome(), at }
            }
            _ => {
                let token = self.token();
                let hop = token.hop + u32::from(self.dice.percent(80));
                let phase = if self.dice.percent(50) { OpenPhase::Open } else { OpenPhase::Waiting };
                LedgerCall::Mark { mark: Mark::Moved { token, hop, phase }, at: None }
            }
        }
    }

    fn outcome(&mut self) -> OutcomeKind {
        if self.dice.percent(50) { OutcomeKind::Result } else { OutcomeKind::DeadLetter }
    }

    fn nonce(&mut self) -> Nonce {
        Nonce([1, 2, 3 << 64, u128::MAX][self.below(4)])
    }

    fn delivery(&mut self) -> Delivery {
        let at = place("tasks.ticket", 1);
        let record = Record {
            position: at.clone(),
            stamp: Timestamp(5),
            key: None,
            value: None,
            headers: Headers::default(),
            not_before: None,
        };
        Delivery { lease: Lease { at: at.at, epoch: 7 }, record: Arc::new(record), nonce: self.nonce() }
    }

    /// Often of the chain that owns the key, at a hop near its own.
    fn token(&mut self) -> Token {
        let payload = self.payload();
        let rule = self.rule(&payload);
        let print = fingerprint::fingerprint(&rule, &payload).unwrap();
        let generation = u32::try_from(self.below(3)).unwrap();
        // Seldom one record in two generations: a redrive is a new record.
        let block = if self.dice.percent(90) { 10 * u64::from(generation) } else { 0 };
        let mut token = Token {
            key: self.key.clone(),
            generation,
            origin: Origin {
                position: place("tasks.ticket", self.dice.pick(2) + block),
                stamp: Timestamp(if self.dice.percent(90) { 5 } else { i64::MIN }),
            },
            hop: if self.dice.percent(70) { 0 } else { u32::try_from(self.below(4)).unwrap() },
            print,
            proof: (generation > 0 && self.dice.percent(70)).then(|| place("results", 3)),
            payload,
        };
        if let Some(entry) = &self.memory.entry
            && self.dice.percent(65)
        {
            token.generation = entry.generation;
            token.origin = entry.origin.clone();
            token.proof = (entry.generation > 0).then(|| place("results", 3));
            token.hop = (entry.hop + u32::try_from(self.dice.pick(3)).unwrap()).saturating_sub(1);
        }
        token
    }

    /// The first two are one under the rules of JSON, the third under the rule of its id only, and the last
    /// is no JSON.
    fn payload(&mut self) -> Bytes {
        let payloads =
            [r#"{"id":1,"text":"a"}"#, r#"{ "text":"a","id":1.0 }"#, r#"{"id":1,"text":"b"}"#, "{"];
        Bytes::from_static(payloads[[0, 0, 0, 1, 1, 2, 3][self.below(7)]].as_bytes())
    }

    fn rule(&mut self, payload: &Bytes) -> PrintRule {
        let fields = |names: &[&str]| PrintRule::Fields(names.iter().map(|n| (*n).to_owned()).collect());
        match self.below(8) {
            _ if payload.as_ref() == b"{" => PrintRule::Bytes,
            0 => PrintRule::Bytes,
            1 => fields(&["id"]),
            2 => fields(&["text", "odd \"name\" \u{e9}\u{2028}"]),
            _ => PrintRule::Whole,
        }
    }

    /// Often the last that was granted; seldom one whose fence nobody gave.
    fn claim(&mut self) -> Claim {
        let last = self.claims.len().saturating_sub(1);
        let at = if self.dice.percent(85) { last } else { self.below(last + 1) };
        if let Some(claim) = self.claims.get(at)
            && self.dice.percent(97)
        {
            let mut claim = claim.clone();
            // Another delivery that was given the same fence cannot be; a slot of another nonce can.
            if self.dice.percent(30) {
                claim.nonce = self.nonce();
            }
            return claim;
        }
        let (delivery, token) = (self.delivery(), self.token());
        Claim { lease: delivery.lease, nonce: delivery.nonce, token, fence: Fence(9) }
    }

    /// Sometimes one that is there.
    fn slot(&mut self) -> Slot {
        let names = ["edit.r0#0123abcd", "apply", "odd # name\n\u{fc} 1 stored"];
        let kinds = [SlotKind::Call, SlotKind::Effect, SlotKind::Effect];
        let mut at = self.below(3);
        if let Some(entry) = &self.memory.entry
            && self.dice.percent(50)
        {
            let started = |name: &&str| {
                let slot = entry.slots.get(&SlotName((**name).into()));
                slot.is_some_and(|s| matches!(s.state, SlotState::Started { .. }))
            };
            at = names.iter().position(started).unwrap_or(at);
        }
        Slot { name: SlotName(names[at].into()), kind: kinds[at] }
    }

    fn value(&mut self) -> Bytes {
        let values: [&[u8]; 5] = [b"", b"an answer", b" 1 stored 0 0 x", b"\0\xff\r\n\0", b"7"];
        Bytes::from_static(values[self.below(5)])
    }
}

pub(crate) fn place(topic: &str, offset: u64) -> Position {
    Position { at: Partition { topic: Topic::new(topic), index: 3 }, offset }
}
