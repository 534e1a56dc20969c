//! One slot: permit, journal, try, classify, decide, store. This file acts; `decide` says what next.
//!
//! A slot that is stored is never asked for again. Before each try the journal is asked anew, so a
//! request that could not be sent before its deadline is not sent. What was sent is waited for, also
//! when the caller leaves meanwhile: an answer that was bought is stored, for whoever comes next.

use super::allowance::{Allowance, RESERVE, Spent};
use super::answer::{Answer, Ended, TryNote, Usage};
use super::attempt::{Limits, Stream, attempt, millis};
use super::decide::{self, Next, Nobody, Progress};
use super::failure::{Class, Failure};
use super::model::Model;
use super::models::{Guard, Models, Running};
use super::observe;
use super::prompt::Request;
use crate::engine::crash::crash_point;
use crate::engine::{Claim, Journal, Kept, Slot, Standing, Started};
use crate::outcome::Reason;
use crate::task::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// From two deaths under this slot on, the task runs alone in its process.
const DEATHS_SUSPECT: u32 = 2;
/// Three more, alone, and it is the task's doing.
const DEATHS_MAX: u32 = 5;
/// How long an absent ledger is left alone before it is asked again.
const AWAY: Duration = Duration::from_millis(100);
/// Who leaves gives back what was not sent, and waits no longer for the ledger than this.
const LEAVING: Duration = Duration::from_secs(1);
/// A stored answer this program cannot read is a newer one's: that one will take the task up.
const UNREADABLE: Duration = Duration::from_secs(30);

pub struct Call<'a> {
    pub journal: &'a Arc<dyn Journal>,
    pub claim: &'a Claim,
    pub slot: &'a Slot,
    /// What admission found in the slot: then nobody is asked, and the ledger is spared too.
    pub stored: Option<&'a Kept>,
    /// First preferred, the rest fallbacks.
    pub lineup: &'a [Arc<Model>],
    pub request: &'a Request,
    pub allowance: &'a mut Allowance,
    pub deadline: Option<Timestamp>,
    /// The lease is void, or the process leaves.
    pub cancel: &'a CancellationToken,
}

#[derive(Debug)]
pub enum Called {
    /// This time, or stored before.
    Answer(Box<Answer>),
    /// Ask for admission again.
    Stale,
    /// The task ends without this call; it takes the ending that barred it.
    Barred,
    /// No model can serve: nothing is dead-lettered, the task waits in the log.
    Park {
        wait: Duration,
        why: String,
        tries: Vec<TryNote>,
    },
    Dead {
        reason: Reason,
        detail: String,
        tries: Vec<TryNote>,
    },
    /// There is no whole answer and none will come; what there is lies in the slot like one.
    Person {
        ended: Ended,
        said: Box<Answer>,
    },
    Cancelled,
}

/// How one round of the loop went.
enum Step {
    Ended(Called),
    /// A person is asked, once the slot holds what this model of the line-up said until then.
    Keep {
        model: usize,
        ended: Ended,
        partial: Option<String>,
    },
    Again,
    /// Whoever runs among others holds up nobody meanwhile.
    Pause(Duration),
    /// Two processes have died of it: it goes on once nothing else runs here.
    GoAlone,
}

/// Who may be asked now.
enum Pick {
    Ask(Turn),
    Nobody(Option<Duration>),
}

/// A model's turn, with the right to make one call.
struct Turn {
    /// In the line-up.
    i: usize,
    running: Arc<Running>,
    guard: Guard,
}

impl Models {
    /// Asks the line-up until there is an answer, or until it is clear that there is none now.
    ///
    /// Waits out a ledger that is away. Every ending that stores nothing has given back what was started.
    pub async fn call(&self, mut call: Call<'_>) -> Called {
        let mut at = Progress::new(call.lineup.len());
        if let Some(kept) = call.stored {
            return stored(kept, &mut at);
        }
        let ended = self.rounds(&mut call, &mut at).await;
        if at.granted && !matches!(ended, Called::Answer(_) | Called::Person { .. }) {
            // Other endings tell of their tries; whoever comes after these would buy them again without a word.
            let unheard = if matches!(ended, Called::Cancelled | Called::Stale) { at.unheard } else { 0 };
            if let Some(last) = at.tries.last() {
                (0..unheard).for_each(|_| observe::repeated(&last.model));
            }
            give_back(&call, unheard).await;
        }
        ended
    }

    async fn rounds(&self, call: &mut Call<'_>, at: &mut Progress) -> Called {
        let mut alone = None;
        loop {
            if call.cancel.is_cancelled() {
                return Called::Cancelled;
            }
            // Held until the answer is stored: who runs alone waits for it, and keeps others out.
            let together = match alone {
                Some(_) => None,
                None => tokio::select! {
                    guard = self.alone.read() => Some(guard),
                    () = call.cancel.cancelled() => return Called::Cancelled,
                },
            };
            match self.round(call, at, alone.is_some()).await {
                Step::Ended(called) => return called,
                Step::Keep { model, ended, partial } => {
                    let half = answer(&call.lineup[model], model, partial.unwrap_or_default(), at);
                    return self.store(call, half.without_answer(ended), at).await;
                }
                Step::Again => {}
                Step::Pause(wait) => {
                    drop(together);
                    pause(wait, call.cancel).await;
                }
                Step::GoAlone => {
                    drop(together);
                    // Whoever waits has killed nobody: no death is counted for it meanwhile.
                    give_back(call, 0).await;
                    alone = tokio::select! {
                        guard = self.alone.write() => Some(guard),
                        () = call.cancel.cancelled() => None,
                    }
                }
            }
        }
    }

    async fn round(&self, call: &mut Call<'_>, at: &mut Progress, alone: bool) -> Step {
        let left = time_left(call);
        if left.is_zero() {
            return Step::Ended(dead(at, Reason::DeadlinePassed, "no answer before the deadline".to_owned()));
        }
        let turn = match self.pick(call, at) {
            Pick::Ask(turn) => turn,
            Pick::Nobody(soonest) => return nobody_serves(call, at, left, soonest),
        };
        let total = match call.allowance.next_try(left.min(turn.running.model.timeouts.total), at.lost) {
            Ok(total) => total,
            // Not spent by the task: it goes on with what it has in its next hop.
            Err(Spent::Lost) => return nobody_serves(call, at, left, None),
            Err(spent) => return Step::Ended(dead(at, Reason::AllowanceSpent, spent.as_str().to_owned())),
        };
        // The ledger counts from when it hears of it, so we count from before we said it.
        let asked = Instant::now();
        let Ok(started) = call.journal.start(call.claim, call.slot, total).await else {
            return Step::Pause(AWAY);
        };
        let (repeat, times, deaths) = match started {
            Started::Go { repeat, times, deaths } => (repeat, times, deaths),
            Started::Done(kept) => return Step::Ended(stored(&kept, at)),
            Started::Barred => return Step::Ended(Called::Barred),
            Started::Busy(wait) => return Step::Pause(wait),
            // Only effects are in doubt; for a call it can only be somebody else's slot.
            Started::Stale | Started::Unknown => return Step::Ended(Called::Stale),
        };
        at.granted = true;
        at.repeats = times;
        if repeat {
            observe::repeated(&turn.running.model.name);
        }
        if deaths >= DEATHS_MAX {
            return Step::Ended(dead(at, Reason::CrashesWorker, format!("{deaths} processes died of it")));
        }
        if deaths >= DEATHS_SUSPECT && !alone {
            return Step::GoAlone;
        }
        match total.saturating_sub(asked.elapsed()) {
            // Not sent before its deadline: not sent.
            Duration::ZERO => Step::Again,
            total => self.one_try(call, at, turn, total).await,
        }
    }

    /// Sends one request, and waits for its end whatever happens meanwhile.
    async fn one_try(&self, call: &mut Call<'_>, at: &mut Progress, turn: Turn, total: Duration) -> Step {
        let Turn { i, running, guard } = turn;
        crash_point("infer.started");
        if i > 0 && at.failed[i] == 0 {
            running.fell_back_here();
        }
        let (began, began_at) = (Instant::now(), Timestamp::now());
        let slot = slot_id(call.claim, call.slot);
        let limits = Limits { total, answer_max: self.answer_max };
        // Boxed: a request under way is large, and most of a task's life is spent elsewhere.
        let ended = Box::pin(attempt(&running.client, &running.model, call.request, &slot, limits)).await;
        crash_point("infer.received");
        let took = began.elapsed();
        observe::ended(&running.model, &ended, took);
        at.tries.push(note(&running.model, &ended, began_at, took, std::mem::take(&mut at.waited)));
        match ended {
            Ok(stream) => {
                let probe = guard.probe;
                guard.answered(stream.first_token_ms);
                let cost = running.model.cost(stream.input_tokens, stream.output_tokens);
                call.allowance.spend(took, cost);
                let mut answer = answer(&running.model, i, stream.text, at);
                answer.probe = probe;
                if !stream.model.is_empty() {
                    answer.model = stream.model;
                }
                Step::Ended(self.store(call, answer, at).await)
            }
            Err(failure) => {
                let cost = running.model.cost(failure.tokens.0, failure.tokens.1);
                let (charged, lost) =
                    if failure.lost() { (Duration::ZERO, took) } else { (took, Duration::ZERO) };
                call.allowance.spend(charged, cost);
                at.lost += lost;
                if matches!(failure.class, Class::Timeout | Class::Malformed) {
                    at.unheard += 1;
                }
                guard.failed(&failure);
                after(call, at, i, &running, failure)
            }
        }
    }

    /// First wins: what the ledger answers is the answer, whoever bought it.
    async fn store(&self, call: &Call<'_>, mut answer: Answer, at: &mut Progress) -> Called {
        let stored_as = call.journal.store(call.claim, call.slot, answer.encode()).await;
        crash_point("infer.stored");
        match stored_as {
            Ok((winner, Standing::Stands)) => stored(&winner, at),
            Ok((_, Standing::Stale)) => Called::Stale,
            // The engine holds it, and stores it first thing on return.
            Err(_) => {
                answer.held = true;
                called(answer)
            }
        }
    }

    /// The first model of the line-up that may be asked now.
    fn pick(&self, call: &Call<'_>, at: &mut Progress) -> Pick {
        let mut soonest: Option<Duration> = None;
        if at.tries.len() >= call.allowance.tries as usize {
            return Pick::Nobody(None);
        }
        for (i, model) in call.lineup.iter().enumerate() {
            let Some(running) = self.of(model).filter(|_| at.out[i].is_none()) else { continue };
            if !model.fits(call.request.bytes()) {
                at.leave(i, Failure::new(Class::ContextTooLong, "larger than the model's window"));
                continue;
            }
            match running.permit() {
                Ok(guard) => return Pick::Ask(Turn { i, running: running.clone(), guard }),
                Err(wait) => soonest = Some(soonest.map_or(wait, |s| s.min(wait))),
            }
        }
        Pick::Nobody(soonest)
    }
}

/// Acts on what is decided about a failed try.
fn after(call: &Call<'_>, at: &mut Progress, i: usize, running: &Running, failure: Failure) -> Step {
    at.failed[i] += 1;
    let left = time_left(call).min(call.allowance.time.saturating_sub(RESERVE + at.lost));
    let next = decide::after(&failure, at.failed[i], left, rand::random());
    let model = &running.model.name;
    tracing::debug!(%model, class = failure.class.as_str(), ?next, "try failed");
    match next {
        Next::Wait(wait) => {
            running.retried(failure.class);
            at.waited += wait;
            Step::Pause(wait)
        }
        Next::FallBack => {
            if at.out.iter().filter(|f| f.is_none()).count() > 1 {
                observe::fell_back(model, failure.class);
            }
            at.leave(i, failure);
            Step::Again
        }
        Next::Person(reason) => {
            let ended = Ended { reason, detail: failure.detail };
            Step::Keep { model: i, ended, partial: failure.partial }
        }
        Next::Dead(reason) => Step::Ended(dead(at, reason, failure.detail)),
    }
}

/// Acts on what it means that nobody can be asked now.
fn nobody_serves(call: &Call<'_>, at: &mut Progress, left: Duration, soonest: Option<Duration>) -> Step {
    let decided = decide::nobody(at, soonest, left, call.allowance.halves, call.claim.token.hop);
    match decided {
        Nobody::Wait(wait) => {
            at.stood += wait;
            at.waited += wait;
            Step::Pause(wait)
        }
        Nobody::Park { wait, why } => {
            Step::Ended(Called::Park { wait, why, tries: std::mem::take(&mut at.tries) })
        }
        Nobody::Dead { reason, detail } => Step::Ended(dead(at, reason, detail)),
        Nobody::Person { model, reason, detail, partial } => {
            Step::Keep { model, ended: Ended { reason, detail }, partial }
        }
    }
}

/// Nothing is under way any more: what was started is free for whoever comes next, and counts what nobody has heard.
async fn give_back(call: &Call<'_>, unheard: u32) {
    let (nonce, key) = (call.claim.nonce, &call.claim.token.key);
    while !call.cancel.is_cancelled() {
        if call.journal.release(nonce, key, unheard).await.is_ok() {
            return;
        }
        pause(AWAY, call.cancel).await;
    }
    // The process may be on its way out. What stays started is asked for again, and counted.
    let _ = tokio::time::timeout(LEAVING, call.journal.leave(nonce, key, unheard)).await;
}

/// Reads what the slot holds.
fn stored(kept: &Kept, at: &mut Progress) -> Called {
    match Answer::decode(&kept.value) {
        // It may be that of a buyer who was taken for dead, from before it was granted to somebody else.
        Some(answer) => called(Answer { repeats: answer.repeats.max(kept.times).max(at.repeats), ..answer }),
        None => {
            tracing::error!(
                "a stored answer is of another version; the task waits for a program that can read it"
            );
            let why = "its answer was stored by a version that this one cannot read".to_owned();
            Called::Park { wait: UNREADABLE, why, tries: std::mem::take(&mut at.tries) }
        }
    }
}

fn called(answer: Answer) -> Called {
    match answer.ended.clone() {
        Some(ended) => Called::Person { ended, said: Box::new(answer) },
        None => Called::Answer(Box::new(answer)),
    }
}

fn dead(at: &mut Progress, reason: Reason, detail: String) -> Called {
    Called::Dead { reason, detail, tries: std::mem::take(&mut at.tries) }
}

fn note(
    model: &Model,
    ended: &Result<Stream, Failure>,
    at: Timestamp,
    took: Duration,
    waited: Duration,
) -> TryNote {
    let failure = ended.as_ref().err();
    let (input_tokens, output_tokens) =
        ended.as_ref().map_or_else(|f| f.tokens, |s| (s.input_tokens, s.output_tokens));
    TryNote {
        model: model.name.to_string(),
        at,
        ms: millis(took),
        first_token_ms: ended.as_ref().map_or_else(|f| f.first_token_ms, |s| s.first_token_ms),
        class: failure.map_or("ok", |f| f.class.as_str()).to_owned(),
        status: failure.and_then(|f| f.status),
        detail: failure.map(|f| f.detail.clone()).unwrap_or_default(),
        wait_ms: millis(waited),
        input_tokens,
        output_tokens,
        cost: model
            .cost(input_tokens, output_tokens)
            .filter(|_| failure.is_none() || input_tokens + output_tokens > 0),
        lost: failure.is_some_and(Failure::lost),
    }
}

/// What this model of the line-up said, with all the tries that led to it.
fn answer(model: &Model, position: usize, text: String, at: &mut Progress) -> Answer {
    Answer {
        model: model.model.clone(),
        model_name: model.name.to_string(),
        provider: model.provider.to_string(),
        endpoint: model.url.clone(),
        position,
        usage: Usage::of(&at.tries),
        repeats: at.repeats,
        ..Answer::new(text, std::mem::take(&mut at.tries), Timestamp::now())
    }
}

/// Until the deadline, less what publishing takes.
fn time_left(call: &Call<'_>) -> Duration {
    call.deadline.map_or(Duration::MAX, |d| Timestamp::now().until(d).saturating_sub(RESERVE))
}

/// `{first 16 hex digits of the scope's hash}.g{generation}/{slot name}`: says nothing of the task.
fn slot_id(claim: &Claim, slot: &Slot) -> String {
    let scope = blake3::hash(&claim.token.key.to_bytes()).to_hex();
    format!("{}.g{}/{}", &scope[..16], claim.token.generation, slot.name.0)
}

async fn pause(wait: Duration, cancel: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = cancel.cancelled() => {}
    }
}

#[cfg(test)]
mod tests;
