//! Finds dead letters by key, reason or kind, the newest first, within a bound.

use super::again::Outlook;
use crate::engine::Unavailable;
use crate::outcome::Reason;
use crate::serve::App;
use crate::serve::error::ApiError;
use crate::serve::task_view;
use crate::serve::tasks::known_kind;
use crate::task::{Position, Timestamp};
use crate::token;
use crate::write::DeadLetter;
use crate::write::record::REASON;
use serde_json::Value;

/// Records read at once.
const PAGE: usize = 500;
/// Dead letters read for one answer: a few seconds' work.
const READ_MAX: usize = 500_000;

/// All that are given must fit.
#[derive(Debug, Default)]
pub(super) struct Filter {
    key: Option<String>,
    reason: Option<Reason>,
    kind: Option<String>,
}

/// A dead letter as lists show it. Values stay in the log: ten thousand of them would not fit.
pub(super) struct Seen {
    at: Timestamp,
    pub(super) position: Position,
    pub(super) view: Value,
    pub(super) outlook: Outlook,
}

impl Seen {
    pub(super) fn of(app: &App, letter: &DeadLetter) -> Seen {
        let (at, position) = (letter.at, letter.record.position.clone());
        Seen { at, position, view: task_view::dead_letter(letter), outlook: Outlook::of(app, letter) }
    }
}

/// The newest first; `more`: there may be others.
pub(super) struct Found {
    pub(super) letters: Vec<Seen>,
    pub(super) more: bool,
    pub(super) read: usize,
}

impl Filter {
    pub(super) fn new(
        app: &App,
        key: Option<String>,
        reason: Option<String>,
        kind: Option<String>,
    ) -> Result<Self, ApiError> {
        let reason = match reason {
            None => None,
            Some(text) => Some(Reason::parse(&text).ok_or_else(|| {
                let text: String = text.chars().take(40).collect();
                ApiError::bad(format!("no reason `{text}`"), "`tidegate explain` lists the codes")
            })?),
        };
        if let Some(kind) = &kind {
            known_kind(app, kind)?;
        }
        Ok(Filter { key, reason, kind })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.key.is_none() && self.reason.is_none() && self.kind.is_none()
    }

    fn takes(&self, record: &crate::task::Record) -> bool {
        let h = &record.headers;
        let key = h.get(token::KEY).or(record.key.as_deref());
        self.key.as_ref().is_none_or(|k| key == Some(k.as_bytes()))
            && self.kind.as_ref().is_none_or(|k| h.text(token::KIND) == Some(k))
            && self.reason.is_none_or(|r| h.text(REASON).and_then(Reason::parse) == Some(r))
    }
}

/// Reads each partition backwards, page by page, until it has `limit` of them.
pub(super) async fn newest(app: &App, filter: &Filter, limit: usize) -> Result<Found, Unavailable> {
    let log = &app.engine.log;
    let (mut found, mut read, mut more) = (Vec::new(), 0, false);
    for ends in log.ends(&app.settings.topics.dead_letters).await? {
        let (mut end, mut mine) = (ends.next, 0);
        while end > ends.first && mine < limit && read < READ_MAX {
            let begin = end.saturating_sub(PAGE as u64).max(ends.first);
            // A page may come in parts: its bytes are bounded too.
            let mut next = begin;
            while next < end {
                let from = Position { at: ends.at.clone(), offset: next };
                let records = log.read(from, PAGE).await?;
                let Some(last) = records.last() else { break };
                next = last.position.offset + 1;
                read += records.len();
                let ours = records.into_iter().filter(|r| r.position.offset < end && filter.takes(r));
                let before = found.len();
                found.extend(ours.map(|record| Seen::of(app, &DeadLetter::read(record))));
                mine += found.len() - before;
                // What lies in the log's cache is read without ever waiting: others are to run meanwhile.
                tokio::task::yield_now().await;
            }
            end = begin;
        }
        more |= end > ends.first;
        found.sort_by(|a, b| (b.at, &b.position).cmp(&(a.at, &a.position)));
        more |= found.len() > limit;
        found.truncate(limit);
    }
    Ok(Found { letters: found, more, read })
}
