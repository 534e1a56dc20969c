//! One slot: permit, journal, try, classify, decide, store. The loop acts; `decide` says what next.
//!
//! A slot that is stored is never asked for again. Before each try the journal is asked anew, so a
//! request that could not be sent before its deadline is not sent.

use super::allowance::Allowance;
use super::answer::{Answer, TryNote, Usage};
use super::attempt::{Limits, Stream, attempt, millis};
use super::failure::{Again, Class, Failure};
use super::model::Model;
use super::models::{Guard, Models, Running};
use super::prompt::Request;
use super::retry;
use crate::dedupe::{Claim, Slot, Standing, Started};
use crate::engine::Journal;
use crate::engine::crash::crash_point;
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

pub struct Call<'a> {
    pub journal: &'a Arc<dyn Journal>,
    pub claim: &'a Claim,
    pub slot: &'a Slot,
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
    Person {
        reason: Reason,
        detail: String,
        partial: Option<String>,
        tries: Vec<TryNote>,
    },
    Cancelled,
}

/// What to do after a failed try. Pure: see `decide`.
#[derive(Clone, PartialEq, Debug)]
enum Next {
    Wait(Duration),
    FallBack,
    /// A refusal is not routed round.
    Person(Reason),
    Dead(Reason),
}

/// Where the loop stands.
struct Progress {
    tries: Vec<TryNote>,
    /// Failed tries of each model of the line-up.
    failed: Vec<u32>,
    /// Models that are not asked again for this slot, and the failure that says why.
    out: Vec<Option<Failure>>,
    /// The soonest that a model which is out for now may be asked.
    earliest: Option<Duration>,
    repeats: u32,
    waited: Duration,
    granted: bool,
}

impl Models {
    pub async fn call(&self, mut call: Call<'_>) -> Called {
        let n = call.lineup.len();
        let mut at = Progress {
            tries: vec![],
            failed: vec![0; n],
            out: vec![None; n],
            earliest: None,
            repeats: 0,
            waited: Duration::ZERO,
            granted: false,
        };
        let ended = self.rounds(&mut call, &mut at).await;
        // A request that was sent and not answered (cancelled in the middle) stays started.
        let unsent = !matches!(ended, Called::Answer(_) | Called::Cancelled);
        if at.granted && unsent {
            self.give_back(&call).await;
        }
        ended
    }

    async fn rounds(&self, call: &mut Call<'_>, at: &mut Progress) -> Called {
        loop {
            if call.cancel.is_cancelled() {
                return self.leave(call, at).await;
            }
            if call.deadline.is_some_and(|d| d <= Timestamp::now()) {
                return dead(at, Reason::DeadlinePassed, "no answer before the deadline".to_owned());
            }
            let Some((i, running, guard)) = self.pick(call, at) else { return exhausted(call, at) };
            let most = remaining(call, running.model.timeouts.total);
            let total = match call.allowance.next_try(most) {
                Ok(total) => total,
                Err(spent) => return dead(at, Reason::AllowanceSpent, spent.as_str().to_owned()),
            };
            let started = self.start(call, total).await;
            match started {
                Some(Started::Go { repeat, deaths }) => {
                    at.granted = true;
                    at.repeats += u32::from(repeat);
                    count_repeat(repeat, &running);
                    if deaths >= DEATHS_MAX {
                        return dead(at, Reason::CrashesWorker, format!("{deaths} processes died of it"));
                    }
                    if let Some(ended) = self.one_try(call, at, i, &running, guard, total, deaths).await {
                        return ended;
                    }
                }
                Some(Started::Done(value)) => match Answer::decode(&value) {
                    Some(answer) => return Called::Answer(Box::new(answer)),
                    None => {
                        return dead(
                            at,
                            Reason::TokenInvalid,
                            "a stored answer cannot be read by this version".to_owned(),
                        );
                    }
                },
                Some(Started::Barred) => return Called::Barred,
                Some(Started::Busy(wait)) => pause(wait, call.cancel).await,
                Some(Started::Stale | Started::Unknown) => return Called::Stale,
                None => return Called::Cancelled,
            }
        }
    }

    /// Sends one request. `Some`: the slot has its end.
    #[expect(clippy::too_many_arguments, reason = "one try needs all of it, and it has one caller")]
    async fn one_try(
        &self,
        call: &mut Call<'_>,
        at: &mut Progress,
        i: usize,
        running: &Arc<Running>,
        guard: Guard,
        total: Duration,
        deaths: u32,
    ) -> Option<Called> {
        crash_point("infer.started");
        let granted = Instant::now();
        let alone = async {
            if deaths >= DEATHS_SUSPECT {
                (None, Some(self.alone.write().await))
            } else {
                (Some(self.alone.read().await), None)
            }
        };
        let _held = tokio::select! {
            held = alone => held,
            () = call.cancel.cancelled() => return Some(self.leave(call, at).await),
        };
        // A request that was not sent before its deadline is not sent: the journal is asked again.
        let total = total.saturating_sub(granted.elapsed());
        if total.is_zero() {
            return None;
        }
        let (began, began_at) = (Instant::now(), Timestamp::now());
        let slot = slot_id(call.claim, call.slot);
        let limits = Limits { total, answer_max: self.answer_max };
        let ended = tokio::select! {
            ended = attempt(&running.client, &running.model, call.request, &slot, limits) => ended,
            // Sent, perhaps: the slot stays started, and whoever comes next counts a repeat.
            () = call.cancel.cancelled() => return Some(Called::Cancelled),
        };
        crash_point("infer.received");
        let took = began.elapsed();
        let mut note = TryNote {
            model: running.model.name.to_string(),
            at: began_at,
            ms: millis(took),
            first_token_ms: None,
            class: "ok".to_owned(),
            status: None,
            detail: String::new(),
            wait_ms: millis(std::mem::take(&mut at.waited)),
        };
        observe(running, &ended, took);
        match ended {
            Ok(stream) => {
                note.first_token_ms = stream.first_token_ms;
                at.tries.push(note);
                let probe = guard.probe;
                guard.answered(stream.first_token_ms);
                let answer = whole(running, i, probe, stream, at);
                call.allowance.spend(took, answer.usage.cost);
                if let Some(cost) = answer.usage.cost {
                    metrics::gauge!("tidegate_spent", "model" => running.model.name.to_string()).increment(cost);
                }
                Some(self.store(call, answer).await)
            }
            Err(failure) => {
                note.first_token_ms = failure.first_token_ms;
                failure.class.as_str().clone_into(&mut note.class);
                (note.status, note.detail) = (failure.status, failure.detail.clone());
                at.tries.push(note);
                call.allowance.spend(took, None);
                guard.failed(&failure);
                self.after(call, at, i, failure).await
            }
        }
    }

    /// First wins: what the ledger answers is the answer, whoever bought it.
    async fn store(&self, call: &Call<'_>, mut answer: Answer) -> Called {
        let stored = call.journal.store(call.claim, call.slot, answer.encode()).await;
        crash_point("infer.stored");
        match stored {
            Ok((winner, Standing::Stands)) => match Answer::decode(&winner) {
                Some(winner) => Called::Answer(Box::new(winner)),
                None => Called::Answer(Box::new(answer)),
            },
            Ok((_, Standing::Stale)) => Called::Stale,
            Err(_) => {
                answer.held = true;
                Called::Answer(Box::new(answer))
            }
        }
    }

    async fn after(&self, call: &Call<'_>, at: &mut Progress, i: usize, failure: Failure) -> Option<Called> {
        at.failed[i] += 1;
        let next = decide(&failure, at.failed[i], rand::random());
        tracing::debug!(model = %call.lineup[i].name, class = failure.class.as_str(), ?next, "try failed");
        match next {
            Next::Wait(wait) => {
                metrics::counter!("tidegate_retries_total", "model" => call.lineup[i].name.to_string(), "class" => failure.class.as_str()).increment(1);
                at.waited = wait;
                pause(wait, call.cancel).await;
                None
            }
            Next::FallBack => {
                if let Some(hint) = failure.hint.filter(|_| failure.class == Class::RateLimited) {
                    at.earliest = Some(at.earliest.map_or(hint, |e| e.min(hint)));
                }
                metrics::counter!("tidegate_fallbacks_total", "from" => call.lineup[i].name.to_string(), "class" => failure.class.as_str()).increment(1);
                at.out[i] = Some(failure);
                None
            }
            Next::Person(reason) => {
                let tries = std::mem::take(&mut at.tries);
                Some(Called::Person { reason, detail: failure.detail, partial: failure.partial, tries })
            }
            Next::Dead(reason) => Some(dead(at, reason, failure.detail)),
        }
    }

    /// The first model of the line-up that may be asked now.
    fn pick(&self, call: &Call<'_>, at: &mut Progress) -> Option<(usize, Arc<Running>, Guard)> {
        if at.tries.len() >= call.allowance.tries as usize {
            return None;
        }
        for (i, model) in call.lineup.iter().enumerate() {
            let Some(running) = self.of(model).filter(|_| at.out[i].is_none()) else { continue };
            if !model.fits(call.request.bytes()) {
                at.out[i] = Some(Failure::new(Class::ContextTooLong, "larger than the model's window"));
                continue;
            }
            match running.permit() {
                Ok(guard) => {
                    if i > 0 {
                        running.fell_back_here();
                    }
                    return Some((i, running.clone(), guard));
                }
                Err(wait) => at.earliest = Some(at.earliest.map_or(wait, |e| e.min(wait))),
            }
        }
        None
    }

    /// Asks the journal until it answers. `None`: cancelled.
    async fn start(&self, call: &Call<'_>, total: Duration) -> Option<Started> {
        while !call.cancel.is_cancelled() {
            match call.journal.start(call.claim, call.slot, total).await {
                Ok(started) => return Some(started),
                Err(_) => pause(AWAY, call.cancel).await,
            }
        }
        None
    }

    /// Cancelled with nothing under way: what was started and not sent is free again.
    async fn leave(&self, call: &Call<'_>, at: &Progress) -> Called {
        if at.granted {
            let given_back = call.journal.release(call.claim.nonce, &call.claim.token.key);
            // The process may be on its way out: one attempt, bounded.
            let _ = tokio::time::timeout(Duration::from_secs(1), given_back).await;
        }
        Called::Cancelled
    }

    /// No answer, and every request of this delivery has ended: the slot is free for whoever comes next.
    async fn give_back(&self, call: &Call<'_>) {
        while call.journal.release(call.claim.nonce, &call.claim.token.key).await.is_err() {
            if call.cancel.is_cancelled() {
                return;
            }
            pause(AWAY, call.cancel).await;
        }
    }
}

/// `failed`: tries of this model for this slot, this one included. `draw`: 0 ≤ draw < 1.
fn decide(failure: &Failure, failed: u32, draw: f64) -> Next {
    let again = match failure.class.again() {
        Again::No => false,
        Again::Once => failed < 2,
        Again::Yes => failed < retry::TRIES_PER_MODEL,
    };
    match failure.class {
        Class::BadRequest => return Next::Dead(Reason::PayloadRefused),
        Class::Refusal => return Next::Person(Reason::ModelRefused),
        _ => {}
    }
    let wait = retry::wait(failure.class, failed, failure.hint, draw);
    if again && wait <= retry::WAIT_IN_PLACE_MAX { Next::Wait(wait) } else { Next::FallBack }
}

/// Nobody of the line-up can be asked now: what that means for the task.
fn exhausted(call: &Call<'_>, at: &mut Progress) -> Called {
    let tries = std::mem::take(&mut at.tries);
    let of = |class: Class| at.out.iter().flatten().find(|f| f.class == class);
    if !at.out.is_empty()
        && at.out.iter().all(|f| f.as_ref().is_some_and(|f| f.class == Class::ContextTooLong))
    {
        let detail = "no model of the line-up has a window that fits".to_owned();
        return Called::Dead { reason: Reason::ContextTooLong, detail, tries };
    }
    let everybody_answered = at.out.iter().all(Option::is_some);
    if let Some(f) = of(Class::Cut).filter(|_| everybody_answered) {
        let (detail, partial) = (f.detail.clone(), f.partial.clone());
        return Called::Person { reason: Reason::AnswerCut, detail, partial, tries };
    }
    let why = match at.out.iter().flatten().last() {
        Some(f) => format!("no model can serve; last: {}: {}", f.class.as_str(), f.detail),
        None => "no model can serve".to_owned(),
    };
    let wait = retry::park(at.earliest.unwrap_or_default(), call.claim.token.hop);
    Called::Park { wait, why, tries }
}

fn dead(at: &mut Progress, reason: Reason, detail: String) -> Called {
    Called::Dead { reason, detail, tries: std::mem::take(&mut at.tries) }
}

fn whole(running: &Running, position: usize, probe: bool, stream: Stream, at: &mut Progress) -> Answer {
    let model = &running.model;
    let mut usage =
        Usage { input_tokens: stream.input_tokens, output_tokens: stream.output_tokens, cost: None };
    usage.cost = model.cost(&usage);
    Answer {
        model: if stream.model.is_empty() { model.model.clone() } else { stream.model },
        model_name: model.name.to_string(),
        provider: model.provider.to_string(),
        endpoint: model.url.clone(),
        position,
        probe,
        usage,
        repeats: at.repeats,
        ..Answer::new(stream.text, std::mem::take(&mut at.tries), Timestamp::now())
    }
}

/// No longer than the deadline leaves.
fn remaining(call: &Call<'_>, total: Duration) -> Duration {
    call.deadline.map_or(total, |d| total.min(Timestamp::now().until(d)))
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

fn count_repeat(repeat: bool, running: &Running) {
    if repeat {
        metrics::counter!("tidegate_calls_repeated_total", "model" => running.model.name.to_string())
            .increment(1);
    }
}

fn observe(running: &Running, ended: &Result<Stream, Failure>, took: Duration) {
    let class = ended.as_ref().map_or_else(|f| f.class.as_str(), |_| "ok");
    let model = running.model.name.to_string();
    metrics::histogram!("gen_ai_client_operation_duration_seconds", "model" => model.clone(), "error_type" => class)
        .record(took.as_secs_f64());
    if let Ok(Stream { first_token_ms: Some(ms), .. }) = ended {
        // Milliseconds of one call fit exactly.
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one call fit exactly")]
        metrics::histogram!("gen_ai_client_operation_time_to_first_chunk_seconds", "model" => model)
            .record(*ms as f64 / 1e3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(class: Class, hint_s: Option<u64>) -> Failure {
        Failure { hint: hint_s.map(Duration::from_secs), ..Failure::new(class, "x") }
    }

    #[test]
    fn the_same_model_is_tried_three_times_and_then_the_next() {
        let overloaded = failure(Class::Overloaded, None);
        assert!(matches!(decide(&overloaded, 1, 0.5), Next::Wait(_)));
        assert!(matches!(decide(&overloaded, 2, 0.5), Next::Wait(_)));
        assert_eq!(decide(&overloaded, 3, 0.5), Next::FallBack);
        assert_eq!(decide(&failure(Class::Malformed, None), 2, 0.5), Next::FallBack, "malformed: once");
    }

    #[test]
    fn p7_a_fault_that_is_not_the_tasks_never_kills_it() {
        for class in
            [Class::Misconfigured, Class::Unauthorized, Class::SpendCap, Class::Timeout, Class::RateLimited]
        {
            assert!(!matches!(decide(&failure(class, Some(60)), 1, 0.5), Next::Dead(_)), "{class:?}");
        }
        assert_eq!(decide(&failure(Class::BadRequest, None), 1, 0.5), Next::Dead(Reason::PayloadRefused));
    }

    #[test]
    fn a_long_hint_is_not_waited_out_in_place() {
        assert_eq!(decide(&failure(Class::RateLimited, Some(2)), 1, 0.0), Next::Wait(Duration::from_secs(2)));
        assert_eq!(decide(&failure(Class::RateLimited, Some(6)), 1, 0.0), Next::FallBack);
    }

    #[test]
    fn a_silent_model_and_a_refusal_are_not_asked_again() {
        assert_eq!(decide(&failure(Class::Timeout, None), 1, 0.0), Next::FallBack);
        assert_eq!(decide(&failure(Class::Refusal, None), 1, 0.0), Next::Person(Reason::ModelRefused));
    }
}
