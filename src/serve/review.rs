//! `/v1/review`: what waits for a person, and what people decide.
//!
//! A decision is judged here only so that its sender hears of a mistake at once; which decision counts,
//! the arbiter says.

use super::App;
use super::error::ApiError;
use super::feed::{self, Event, Wanted};
use super::lookup::trail_of;
use super::task_view;
use super::tasks::{known_kind, whole};
use crate::engine::Unavailable;
use crate::finding::Finding;
use crate::review::{self, Brief, Item, SubmitError, Wrong};
use crate::task::{Record, Timestamp};
use crate::token;
use crate::write::record::{Action, Decision, ReviewOutcome, Ruling, VERSION};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an outcome is waited for whose item's end is visible: as long as a commit beside it commonly takes, and
/// no longer than a process takes to leave.
const BEHIND: Duration = Duration::from_secs(2);
/// What lies in one transaction was appended within its timeout.
const APART: Duration = Duration::from_secs(60);
/// Items in one list.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// A name or a reason is a line or two, not a document.
const TEXT_MAX: usize = 2_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    kind: Option<String>,
    key: Option<String>,
    team: Option<String>,
    limit: Option<usize>,
}

/// Oldest first.
pub(super) async fn list(
    State(app): State<App>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(which) = which?;
    if let Some(kind) = &which.kind {
        known_kind(&app, kind)?;
    }
    let same = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|w| is == Some(w));
    let fits = |item: &Brief| {
        same(&which.kind, Some(&item.kind))
            && same(&which.key, Some(&item.key))
            && same(&which.team, item.team.as_deref())
    };
    if let Some(why) = app.queue.unread() {
        // A part of the list would read as all of it.
        return Err(Unavailable(why).into());
    }
    let open = app.queue.list();
    let total = open.len();
    let limit = which.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let found: Vec<Value> = open.iter().filter(|i| fits(i)).take(limit).map(|i| brief(i)).collect();
    Ok(axum::Json(json!({ "open": total, "items": found })).into_response())
}

/// By id, or by a beginning of it that only one item has: decided ones count as well, for they may be
/// what its reader means.
pub(super) async fn show(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let open = match app.queue.get(&id) {
        Some(open) => open,
        None if app.queue.unread().is_some() => return Err(no_such_item(&app, &id)),
        None => begun(&app, &id).await?,
    };
    let item = review::whole_item(&*app.engine.log, &open).await?.ok_or_else(|| no_such_item(&app, &id))?;
    let mut view = json!(*item.body);
    view["position"] = item.at.to_string().into();
    view["trail"] = task_view::notes(&trail_of(&item.record));
    Ok(axum::Json(view).into_response())
}

pub(super) async fn events(
    State(app): State<App>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(wanted) = wanted?;
    feed::stream(&app, &app.reviews, event, wanted, &headers).await
}

/// `opened` with the item in brief; `decided` with its id alone.
fn event(record: &Record) -> Option<Event> {
    let id = std::str::from_utf8(record.key.as_ref()?).ok()?;
    let Some(value) = &record.value else {
        let data = json!({ "id": id }).to_string();
        return Some(Event { name: "decided", data, ..Event::default() });
    };
    let text = |name| record.headers.text(name).unwrap_or_default().to_owned();
    let data = brief(&Brief::of(record, value)).to_string();
    Some(Event { name: "opened", kind: text(token::KIND), key: text(token::KEY), what: String::new(), data })
}

fn brief(item: &Brief) -> Value {
    json!({
        "id": item.id,
        "kind": item.kind,
        "key": item.key,
        "tenant": item.tenant,
        "origin": item.origin,
        "question": item.question,
        "why": item.why,
        "severity": item.severity,
        "team": item.team,
        "opened_at": item.opened_at.rfc3339(),
        "due_at": item.due_at.map(Timestamp::rfc3339),
    })
}

/// What a person sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    by: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    answer: Option<Value>,
    /// Publish an edit although it breaks rules of its kind; the reason then names them.
    #[serde(default)]
    despite_rules: bool,
    /// Judge it, and write nothing.
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn decide(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let Path((id, action)) = path?;
    let action = match &*action {
        "approve" => Action::Approve,
        "edit" => Action::Edit,
        "reject" => Action::Reject,
        other => {
            let help = "an item can be sent to `approve`, `edit` or `reject`";
            return Err(ApiError::not_found(
                format!("nobody can `{}` an item", other.chars().take(40).collect::<String>()),
                help,
            ));
        }
    };
    let body = whole(&app, body).await?;
    let said: Said = serde_json::from_slice(&body.bytes).map_err(|e| {
        ApiError::bad(
            format!("the body is not a decision: {e}"),
            "send `{\"by\": …}`, with `reason` where you have one and `answer` for an edit",
        )
    })?;
    // A ruling may take seconds; the bytes are read and done with.
    drop(body);
    // Asked before the item: what is read between the two is not missed.
    let unread = app.queue.unread();
    // By its whole id alone: what a beginning names may change between a look and a decision.
    let Some(open) = app.queue.get(&id) else {
        let before = decided(&app, &id, |item| item == id).await?;
        let gone = app.queue.left(&id).iter().any(|left| left.id == id);
        return Err(match (before.first(), unread) {
            (Some(outcome), _) => superseded(outcome),
            (None, Some(why)) => Unavailable(why).into(),
            (None, None) if gone => somebody_decided(StatusCode::CONFLICT),
            (None, None) => no_such_item(&app, &id),
        });
    };
    let item = review::whole_item(&*app.engine.log, &open).await?.ok_or_else(|| no_such_item(&app, &id))?;
    judge(&app, &item, action, &said)?;
    let broken = broken(&app, &item, action, &said)?;
    if said.dry_run {
        return Ok(axum::Json(json!({ "item": item.body.id, "ruling": "would-count" })).into_response());
    }
    let decision = Decision {
        v: VERSION,
        item: item.body.id.clone(),
        item_at: item.at.to_string(),
        action,
        by: said.by.trim().to_owned(),
        reason: despite(said.reason, &broken),
        answer: said.answer,
        nonce: format!("{:032x}", rand::random::<u128>()),
        at: Timestamp::now(),
    };
    let outcome = match review::submit(&app.engine, &app.settings.topics, &decision).await {
        Ok(outcome) => outcome,
        Err(SubmitError::Log(e)) => return Err(e.into()),
        Err(SubmitError::Away(e)) => return Err(e.into()),
        Err(SubmitError::Slow) => {
            let body =
                json!({ "item": decision.item, "ruling": "pending", "note": SubmitError::Slow.to_string() });
            return Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response());
        }
    };
    let ruling = match outcome.verdict {
        Ruling::Counts => "counts",
        Ruling::Superseded => "superseded",
        Ruling::Invalid => "invalid",
    };
    metrics::counter!("tidegate_reviews_decided_total", "action" => action.as_str(), "ruling" => ruling)
        .increment(1);
    if outcome.verdict != Ruling::Invalid {
        app.queue.decided(&decision.item);
    }
    match outcome.verdict {
        Ruling::Counts => Ok(axum::Json(json!({
            "item": decision.item,
            "ruling": ruling,
            "status": action.status().as_str(),
            "kind": item.body.proposed.kind,
            "key": item.body.proposed.key,
            "by": decision.by,
            "at": outcome.at.rfc3339(),
        }))
        .into_response()),
        Ruling::Superseded => Err(superseded(&outcome)),
        Ruling::Invalid => Err(invalid(&outcome.detail, &[])),
    }
}

/// Told at once, before anything is written; the arbiter judges again.
fn judge(app: &App, item: &Item, action: Action, said: &Said) -> Result<(), ApiError> {
    let by = said.by.trim();
    if by.is_empty() || by.len() > TEXT_MAX || said.reason.as_ref().is_some_and(|r| r.len() > TEXT_MAX) {
        return Err(ApiError::bad(
            "`by` is empty, or `by` or `reason` is longer than 2,000 bytes",
            "say in `by` who decides",
        ));
    }
    if action == Action::Approve && said.answer.is_some() {
        return Err(ApiError::bad(
            "an approval takes the answer as it is",
            "send the changed answer to `edit`",
        ));
    }
    review::judge(&app.kinds, item, action, said.answer.as_ref()).map_err(|wrong| match wrong {
        Wrong::NoAnswer => ApiError::bad("an edit needs `answer`", "send the whole answer as it should be"),
        Wrong::NothingToApprove => invalid(&wrong.to_string(), &[]),
        Wrong::Schema(findings) => {
            let fields: Vec<Value> =
                findings.iter().map(|f| json!({ "field": f.path, "message": f.message })).collect();
            invalid("the answer does not satisfy its schema", &fields)
        }
    })
}

/// The rules of its kind that an edit breaks on purpose; by mistake it breaks none.
fn broken(app: &App, item: &Item, action: Action, said: &Said) -> Result<Vec<Finding>, ApiError> {
    let answer = said.answer.as_ref().filter(|_| action == Action::Edit);
    let broken = answer.map(|answer| review::broken_rules(&app.kinds, item, answer)).unwrap_or_default();
    if broken.is_empty() || said.despite_rules {
        return Ok(broken);
    }
    let fields: Vec<Value> =
        broken.iter().map(|f| json!({ "field": f.path, "message": f.message })).collect();
    let help = "mend the answer; if it is meant so, send it with `\"despite_rules\": true` \
                (`tidegate review edit --despite-rules`): the reason then names the rules";
    let message = format!("the answer breaks {}", if broken.len() == 1 { "a rule" } else { "rules" });
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "breaks-rules", message, help).with("fields", fields))
}

/// The reason as it is published, with the rules that were broken on purpose.
fn despite(reason: Option<String>, broken: &[Finding]) -> Option<String> {
    if broken.is_empty() {
        return reason;
    }
    // A rule of a list breaks once for each of its elements.
    let mut rules: Vec<&str> = Vec::new();
    for message in broken.iter().map(|f| f.message.as_str()) {
        if !rules.contains(&message) {
            rules.push(message);
        }
    }
    let rules: String = rules.join("; ").chars().take(TEXT_MAX).collect();
    Some(match reason {
        Some(reason) => format!("{reason} (despite the rules: {rules})"),
        None => format!("despite the rules: {rules}"),
    })
}

/// While the queue is still being read, nobody can say so.
fn no_such_item(app: &App, id: &str) -> ApiError {
    if let Some(why) = app.queue.unread() {
        return Unavailable(why).into();
    }
    let id: String = id.chars().take(40).collect();
    ApiError::not_found(
        format!("no review item `{id}`"),
        "`tidegate review ls` and GET /v1/review list the ids of what is open; a decision by HTTP takes the whole id",
    )
}

/// The one item, open or decided, whose id begins so.
async fn begun(app: &App, id: &str) -> Result<Arc<Brief>, ApiError> {
    let before = decided(app, id, |item| item.starts_with(id)).await?;
    // Decided meanwhile, it is gone from the queue.
    let mut open = app.queue.beginning(id, 2);
    let before: Vec<_> = before.into_iter().filter(|o| open.iter().all(|item| item.id != o.item)).collect();
    let mut gone: Vec<String> = app.queue.left(id).into_iter().map(|left| left.id).collect();
    gone.retain(|left| before.iter().all(|o| o.item != *left) && open.iter().all(|item| item.id != *left));
    gone.sort();
    gone.dedup();
    match (open.len(), before.as_slice(), gone.as_slice()) {
        (1, [], []) => Ok(open.remove(0)),
        (0, [], []) => Err(no_such_item(app, id)),
        (0, [outcome], []) => Err(who_decided(StatusCode::GONE, outcome, TASK_TELLS)),
        (0, [], [_]) => Err(somebody_decided(StatusCode::GONE)),
        _ => {
            let ids = open.iter().map(|item| item.id.clone()).chain(before.iter().map(|o| o.item.clone()));
            let ids: Vec<String> = ids.chain(gone).collect();
            let message = format!("more than one item's id begins with `{id}`: {}", ids.join(", "));
            let help = "give more of the id; open and decided items count";
            Err(ApiError::new(StatusCode::CONFLICT, "ambiguous", message, help).with("items", ids))
        }
    }
}

/// Up to two decided items whose id begins so and fits, each with the decision that counted, where the log still
/// knows. Waits for that of an item which has just left the queue: its outcome is committed with its
/// tombstone, yet what another transaction holds up in the one partition may be seen in the other.
async fn decided(
    app: &App,
    beginning: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<Vec<ReviewOutcome>, ApiError> {
    let mut news = app.engine.log.news();
    news.borrow_and_update();
    let mut known = Told::default();
    known.read(app, Timestamp(0), &fits).await?;
    loop {
        // Of those that left a moment ago and are told nothing of.
        let left = app.queue.left(beginning);
        let waits = left.iter().filter(|left| fits(&left.id) && !known.items.contains(&left.id));
        let waits = waits.filter_map(|left| Some((left.seen? + BEHIND, left.at)));
        let Some((until, at)) = waits.filter(|(until, _)| *until > Instant::now()).max() else { break };
        tokio::select! {
            changed = news.changed() => if changed.is_err() { break },
            () = tokio::time::sleep_until(until) => {}
            () = app.leaving.cancelled() => break,
        }
        let since = at.0.saturating_sub(i64::try_from(APART.as_millis()).unwrap_or(i64::MAX));
        known.read(app, Timestamp(since), &fits).await?;
    }
    Ok(known.counted)
}

/// What the outcomes of reviews say of some items.
#[derive(Default)]
struct Told {
    /// Up to two, with the decision that counted.
    counted: Vec<ReviewOutcome>,
    /// Those of which any outcome ends the item.
    items: BTreeSet<String>,
}

impl Told {
    async fn read(
        &mut self,
        app: &App,
        since: Timestamp,
        fits: impl Fn(&str) -> bool,
    ) -> Result<(), Unavailable> {
        let topic = &app.settings.topics.review_outcomes;
        let pick = |record: &Record| {
            let outcome: ReviewOutcome = serde_json::from_slice(record.value.as_ref()?).ok()?;
            if outcome.verdict == Ruling::Invalid || !fits(&outcome.item) {
                return None;
            }
            self.items.insert(outcome.item.clone());
            if outcome.verdict == Ruling::Counts && self.counted.iter().all(|c| c.item != outcome.item) {
                self.counted.push(outcome);
            }
            (self.counted.len() == 2).then_some(())
        };
        super::lookup::Scan::new(&*app.engine.log, topic, since).first(pick).await.map(drop)
    }
}

/// Where to read on of an item that is decided.
const TASK_TELLS: &str = "its task tells the rest: GET /v1/tasks/{kind}/{key}, or `tidegate show KEY`";

/// The log does not say by whom: not yet, or not any more.
fn somebody_decided(status: StatusCode) -> ApiError {
    ApiError::new(status, "already-decided", "this item is decided", TASK_TELLS)
}

fn superseded(outcome: &ReviewOutcome) -> ApiError {
    let help = "your decision was not used; a correction is a new task, or a redrive";
    who_decided(StatusCode::CONFLICT, outcome, help)
}

fn who_decided(status: StatusCode, outcome: &ReviewOutcome, help: &str) -> ApiError {
    let by = outcome.decided_by.as_deref().unwrap_or("somebody else");
    let at = outcome.decided_at.as_deref().unwrap_or("before");
    let what = match outcome.action {
        Some(Action::Approve) => "approved",
        Some(Action::Edit) => "edited",
        Some(Action::Reject) => "rejected",
        None => "decided",
    };
    ApiError::new(status, "already-decided", format!("{by} {what} this item ({at})"), help)
        .with("decided_by", outcome.decided_by.clone())
        .with("decided_at", outcome.decided_at.clone())
        .with("action", outcome.action.map(Action::as_str))
}

fn invalid(detail: &str, fields: &[Value]) -> ApiError {
    let help = "mend the fields that are named, and send the decision again";
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-decision", detail, help).with("fields", fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_many_elements_break_is_named_once_in_the_reason() {
        let broken = |path: &str, message: &str| Finding::new(path, crate::finding::RULE, message);
        let all = [broken("a.0", "one"), broken("a.1", "two"), broken("a.2", "one")];
        let reason = despite(Some("agreed by phone".to_owned()), &all);
        assert_eq!(reason.as_deref(), Some("agreed by phone (despite the rules: one; two)"));
        assert_eq!(despite(None, &all[2..]).as_deref(), Some("despite the rules: one"));
    }
}
