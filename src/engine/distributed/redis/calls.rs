//! A call to the ledger as a script with its arguments, and the script's reply as the ledger's.
//!
//! Text in, text out: no I/O, no clock, no random numbers.

use super::scripts::Script;
use super::written::{self, Keys, Unreadable};
use crate::dedupe::{
    Admission, Bar, Claim, Fence, Instance, Kept, Silence, Slot, SlotKind, SlotName, Standing, Started,
};
use crate::engine::Mark;
use crate::engine::script::{LEASE, LedgerCall, LedgerReply};
use crate::fingerprint;
use crate::task::{Fingerprint, Position, PrintRule, ScopedKey, Timestamp, Token};
use bytes::Bytes;
use std::time::Duration;

/// A hundred years. Longer ones would overflow the store's own arithmetic.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// One run of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub script: Script,
    pub keys: Vec<String>,
    pub args: Vec<Bytes>,
}

/// What every script is told beside its own arguments.
pub(super) struct Setting<'a> {
    pub keys: &'a Keys,
    pub window: Duration,
    pub instance: Instance,
    pub settled: bool,
    /// New, random.
    pub fence: Fence,
    /// In place of the store's clock; tests only.
    pub now: Option<Timestamp>,
}

/// A rule as the store has it, and the payload's digest under it; none where the rule does not apply.
pub(super) type Print = (String, Option<[u8; 32]>);

/// The run of a call; `None`: there is nothing to tell. `prints`: under other rules than the token's own,
/// once the store has asked for them.
pub(super) fn run(call: &LedgerCall, setting: &Setting<'_>, prints: &[Print]) -> Option<Run> {
    let (fence, instance) = (written::hex(setting.fence.0), written::hex(setting.instance.0));
    Some(match call {
        LedgerCall::Admit { delivery, token, decider } => {
            let (nonce, decider) =
                (written::hex(delivery.nonce.0), decider.as_ref().map(Position::to_string));
            admit(setting, "admit", token, [fence, nonce, decider.unwrap_or_default()], prints)
        }
        LedgerCall::Refuse { delivery, token } => {
            let nonce = written::hex(delivery.nonce.0);
            admit(setting, "refuse", token, [fence, nonce, String::new()], prints)
        }
        LedgerCall::Start { claim, slot, deadline } => {
            let lasts = millis((*deadline).saturating_add(LEASE));
            let settled = if setting.settled { "1" } else { "0" };
            setting
                .begin(Script::Start, &claim.token.key)
                .with(held(claim))
                .with([instance, slot.name.0.to_string(), kind(slot).to_owned(), lasts, settled.to_owned()])
                .with([setting.keys.beats()])
        }
        LedgerCall::Bar { claim, slot } => {
            setting.begin(Script::Bar, &claim.token.key).with(held(claim)).with([slot.name.0.to_string()])
        }
        LedgerCall::Store { token, slot, value } => {
            let mut run = setting
                .begin(Script::Store, &token.key)
                .with(chain(token, token.hop))
                .with([slot.name.0.to_string()]);
            run.args.push(value.clone());
            run
        }
        LedgerCall::Release { nonce, key, unheard } => {
            setting.begin(Script::Release, key).with([written::hex(nonce.0), unheard.to_string()])
        }
        LedgerCall::Repair { token, outcome, at }
        | LedgerCall::Mark { mark: Mark::Close { token, outcome, .. }, at: Some(at) } => setting
            .begin(Script::Close, &token.key)
            .with(chain(token, token.hop))
            .with(print(&token.print))
            .with([fence, written::outcome(*outcome).to_owned(), at.to_string()]),
        LedgerCall::Mark { mark: Mark::Moved { token, hop, phase }, .. } => {
            let phase = match phase {
                crate::dedupe::OpenPhase::Open => "open",
                crate::dedupe::OpenPhase::Waiting => "waiting",
            };
            setting
                .begin(Script::Moved, &token.key)
                .with(chain(token, *hop))
                .with(print(&token.print))
                .with([fence, phase.to_owned()])
        }
        // A completion without outputs has no outcome to tell of.
        LedgerCall::Mark { mark: Mark::Close { .. }, at: None } => return None,
    })
}

impl Setting<'_> {
    /// What `entry.lua` reads.
    fn begin(&self, script: Script, key: &ScopedKey) -> Run {
        let scope = written::scope(key);
        let now = self.now.map(|now| now.0.to_string()).unwrap_or_default();
        let keys = vec![self.keys.claim(&scope), self.keys.open()];
        Run { script, keys, args: Vec::new() }.with([scope, millis(self.window), now])
    }
}

impl Run {
    fn with<const N: usize>(mut self, args: [String; N]) -> Run {
        self.args.extend(args.map(Bytes::from));
        self
    }
}

fn admit(setting: &Setting<'_>, what: &str, token: &Token, asks: [String; 3], prints: &[Print]) -> Run {
    let proved = if token.generation == 0 || token.proof.is_some() { "1" } else { "0" };
    let mut run = setting
        .begin(Script::Admit, &token.key)
        .with([what.to_owned()])
        .with(chain(token, token.hop))
        .with([proved.to_owned()])
        .with(asks)
        .with(print(&token.print));
    for (rule, digest) in prints {
        let digest = digest.as_ref().map(written::digest);
        run = run.with([rule.clone(), digest.unwrap_or_default()]);
    }
    run.keys.push(setting.keys.refused(&written::scope(&token.key), &token.origin));
    run
}

fn held(claim: &Claim) -> [String; 2] {
    [written::hex(claim.fence.0), written::hex(claim.nonce.0)]
}

fn chain(token: &Token, hop: u32) -> [String; 3] {
    [token.generation.to_string(), written::origin(&token.origin), hop.to_string()]
}

fn print(print: &Fingerprint) -> [String; 2] {
    [written::rule(&print.rule), written::digest(&print.digest)]
}

fn kind(slot: &Slot) -> &'static str {
    match slot.kind {
        SlotKind::Call => "call",
        SlotKind::Effect => "effect",
    }
}

/// At least one: the store has no expiry of none.
pub(super) fn millis(duration: Duration) -> String {
    duration.min(LONGEST).as_millis().max(1).to_string()
}

/// What a script answered.
#[derive(Debug)]
pub(super) enum Heard {
    Reply(LedgerReply),
    /// The entry's rule is another one: ask again with this.
    Rule(Print),
}

/// A reply that no script of ours gives, or that tells of an entry which cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadReply {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the ledger's answer cannot be read: {0}")]
    Strange(String),
}

pub(super) fn heard(call: &LedgerCall, fence: Fence, reply: Vec<Vec<u8>>) -> Result<Heard, BadReply> {
    let strange = || {
        let parts: Vec<_> = reply.iter().take(4).map(|part| String::from_utf8_lossy(part)).collect();
        BadReply::Strange(parts.join(" ").chars().take(200).collect())
    };
    let texts: Vec<&str> = reply.iter().map(|part| std::str::from_utf8(part).unwrap_or_default()).collect();
    if let ["unreadable", what, found] = texts[..] {
        return Err(written::newer(what, found).into());
    }
    if let ["rule", rule] = texts[..] {
        let digest = digest_under(&written::read_rule(rule).ok_or(Unreadable::Damaged("claim"))?, call);
        return Ok(Heard::Rule((rule.to_owned(), digest)));
    }
    let found = match call {
        LedgerCall::Admit { delivery, token, .. } | LedgerCall::Refuse { delivery, token } => {
            let claim = || Claim {
                lease: delivery.lease.clone(),
                nonce: delivery.nonce,
                token: token.clone(),
                fence,
            };
            admission(&texts, &reply, claim).map(|a| LedgerReply::Admission(Box::new(a)))
        }
        LedgerCall::Start { .. } => started(&texts, &reply).map(LedgerReply::Started),
        LedgerCall::Bar { .. } => match texts[..] {
            ["barred"] => Some(LedgerReply::Bar(Bar::Barred)),
            ["busy"] => Some(LedgerReply::Bar(Bar::Busy)),
            ["stale"] => Some(LedgerReply::Bar(Bar::Stale)),
            _ => None,
        },
        LedgerCall::Store { value, .. } => stored(&texts, &reply, value),
        LedgerCall::Release { .. } | LedgerCall::Repair { .. } | LedgerCall::Mark { .. } => {
            (texts == ["done"]).then_some(LedgerReply::Done)
        }
    };
    found.map(Heard::Reply).ok_or_else(strange)
}

fn admission(texts: &[&str], reply: &[Vec<u8>], claim: impl FnOnce() -> Claim) -> Option<Admission> {
    Some(match texts {
        ["fresh"] => Admission::Fresh(claim()),
        ["resumed", ..] => {
            let (slots, []) = reply[1..].as_chunks::<3>() else { return None };
            let slot = |[name, value, times]: &[Vec<u8>; 3]| {
                Some((SlotName(std::str::from_utf8(name).ok()?.into()), kept(value.clone(), times)?))
            };
            Admission::Resumed(claim(), slots.iter().map(slot).collect::<Option<_>>()?)
        }
        ["silent", "done", kind, at] => {
            Admission::Silent(Silence::Done { outcome: written::read_outcome(kind)?, at: at.parse().ok()? })
        }
        ["silent", "moved"] => Admission::Silent(Silence::Moved),
        ["silent", "duplicate"] => Admission::Silent(Silence::Duplicate),
        ["silent", "older"] => Admission::Silent(Silence::Older),
        ["conflict"] => Admission::Conflict,
        ["refused"] => Admission::Refused,
        ["told", decider] => Admission::Told(decider.parse().ok()?),
        ["invalid"] => Admission::Invalid,
        _ => return None,
    })
}

fn started(texts: &[&str], reply: &[Vec<u8>]) -> Option<Started> {
    Some(match texts {
        ["go", repeat, times, deaths] => {
            Started::Go { repeat: *repeat == "1", times: times.parse().ok()?, deaths: deaths.parse().ok()? }
        }
        ["done", _, _] => Started::Done(kept(reply[1].clone(), &reply[2])?),
        ["barred"] => Started::Barred,
        ["busy", wait] => Started::Busy(Duration::from_millis(wait.parse().ok()?)),
        ["unknown"] => Started::Unknown,
        ["stale"] => Started::Stale,
        _ => return None,
    })
}

fn stored(texts: &[&str], reply: &[Vec<u8>], own: &Bytes) -> Option<LedgerReply> {
    let standing = match *texts.get(1)? {
        "stands" => Standing::Stands,
        "stale" => Standing::Stale,
        _ => return None,
    };
    match texts {
        ["own", _, _] => Some(LedgerReply::Stored(kept(own.clone(), &reply[2])?, standing)),
        ["first", _, _, _] => Some(LedgerReply::Stored(kept(reply[3].clone(), &reply[2])?, standing)),
        _ => None,
    }
}

fn kept(value: impl Into<Bytes>, times: &[u8]) -> Option<Kept> {
    Some(Kept { value: value.into(), times: std::str::from_utf8(times).ok()?.parse().ok()? })
}

fn digest_under(rule: &PrintRule, call: &LedgerCall) -> Option<[u8; 32]> {
    match call {
        LedgerCall::Admit { token, .. } | LedgerCall::Refuse { token, .. } => {
            fingerprint::digest(rule, &token.payload)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::Nonce;

    fn hears(reply: &[&str]) -> Result<Heard, BadReply> {
        let call =
            LedgerCall::Release { nonce: Nonce(1), key: ScopedKey::new("", "ticket", "k"), unheard: 0 };
        heard(&call, Fence(1), reply.iter().map(|part| part.as_bytes().to_vec()).collect())
    }

    #[test]
    fn an_answer_that_belongs_to_another_call_is_no_answer() {
        assert!(matches!(hears(&["done"]), Ok(Heard::Reply(LedgerReply::Done))));
        for reply in [&["fresh"][..], &["done", "x"], &["stale"], &[], &["go", "0", "0", "0"]] {
            let told = hears(reply).unwrap_err().to_string();
            assert_eq!(told, format!("the ledger's answer cannot be read: {}", reply.join(" ")));
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_version_and_a_rule_comes_back_as_it_was_written() {
        let newer = hears(&["unreadable", "slot", "2"]).unwrap_err();
        assert!(matches!(newer, BadReply::Unreadable(Unreadable::Newer { .. })), "{newer}");
        let damaged = hears(&["rule", "{"]).unwrap_err();
        assert_eq!(damaged, BadReply::Unreadable(Unreadable::Damaged("claim")));
        let Ok(Heard::Rule((rule, None))) = hears(&["rule", "[ \"a\" ]"]) else { panic!("asked for a rule") };
        assert_eq!(rule, "[ \"a\" ]");
    }

    #[test]
    fn no_duration_is_none_or_more_than_the_store_can_add() {
        assert_eq!(millis(Duration::ZERO), "1");
        assert_eq!(millis(Duration::from_millis(70)), "70");
        assert!(millis(Duration::MAX).parse::<i64>().unwrap() < (1 << 52));
    }
}
