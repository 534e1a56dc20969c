//! One JSON line per request, written when it has ended, and counts of all.
//!
//! `complete` means that the last byte of the answer was handed to the connection for writing while
//! the client was still there. A client that is cut off in that very moment may not have read it.

use super::faults::Fault;
use super::memory::Memory;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Lines that wait for the disk; more are lost, and counted.
const LINES_WAITING: usize = 100_000;
/// Lines written in one go.
const LINES_AT_ONCE: usize = 1_000;
/// Model names that are counted one by one; a client may invent any number.
const NAMES_MAX: usize = 1_000;

/// Counts since the server started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    pub requests: u64,
    pub in_flight: u64,
    /// Replies that were written to their end, errors too.
    pub complete: u64,
    /// Slots that were asked for.
    pub slots: u64,
    /// Requests for a slot that had been asked for before.
    pub asked_before: u64,
    /// Whole answers (200) for a slot that had been given one before.
    pub answered_before: u64,
    pub by_model: BTreeMap<String, u64>,
    pub by_status: BTreeMap<u16, u64>,
    pub by_fault: BTreeMap<Fault, u64>,
    /// Log lines that could not be written fast enough.
    pub lines_lost: u64,
}

pub(super) struct Journal {
    began: Instant,
    began_at_ms: i64,
    counts: Mutex<Summary>,
    lines: Option<mpsc::Sender<String>>,
    memory: Arc<Memory>,
}

/// What a line says.
#[derive(Serialize)]
struct Line<'a> {
    /// Unix time, ms: when the request had come.
    at: i64,
    model: &'a str,
    slot: &'a str,
    occurrence: u32,
    status: u16,
    fault: Option<Fault>,
    complete: bool,
    /// Text in the request's messages; the tokens of `usage` are a quarter of it.
    prompt_bytes: usize,
    /// From the request to the end of the reply, ms.
    latency_ms: u64,
}

/// Writes the lines of a journal.
pub(super) struct Writer {
    file: tokio::fs::File,
    lines: mpsc::Receiver<String>,
}

impl Journal {
    pub(super) async fn open(
        path: Option<&Path>,
        memory: Arc<Memory>,
    ) -> std::io::Result<(Self, Option<Writer>)> {
        let (lines, writer) = match path {
            None => (None, None),
            Some(path) => {
                let file = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await?;
                let (send, lines) = mpsc::channel(LINES_WAITING);
                (Some(send), Some(Writer { file, lines }))
            }
        };
        let began_at_ms = crate::task::Timestamp::now().0;
        let journal = Journal { began: Instant::now(), began_at_ms, counts: Mutex::default(), lines, memory };
        Ok((journal, writer))
    }

    pub(super) fn summary(&self) -> Summary {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, Summary> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>, model: &str, slot: &str, occurrence: u32) -> Entry {
        let mut counts = self.counts();
        counts.requests += 1;
        counts.in_flight += 1;
        let other = counts.by_model.len() >= NAMES_MAX && !counts.by_model.contains_key(model);
        *counts.by_model.entry(if other { "(others)" } else { model }.to_owned()).or_default() += 1;
        if occurrence > 1 {
            counts.asked_before += 1;
        } else {
            counts.slots += 1;
        }
        drop(counts);
        Entry {
            journal: self.clone(),
            model: model.to_owned(),
            slot: slot.to_owned(),
            occurrence,
            began: Instant::now(),
            status: 500,
            fault: None,
            complete: false,
            prompt_bytes: 0,
        }
    }
}

/// One request under way. Its end is noted when it is dropped, whoever drops it.
pub(super) struct Entry {
    journal: Arc<Journal>,
    model: String,
    slot: String,
    occurrence: u32,
    began: Instant,
    pub(super) status: u16,
    pub(super) fault: Option<Fault>,
    pub(super) complete: bool,
    pub(super) prompt_bytes: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let answered = self.complete && self.status == 200;
        let before = answered && self.journal.memory.answer(&self.slot) > 1;
        let since = self.began.duration_since(self.journal.began);
        let line = Line {
            at: self.journal.began_at_ms.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            model: &self.model,
            slot: &self.slot,
            occurrence: self.occurrence,
            status: self.status,
            fault: self.fault,
            complete: self.complete,
            prompt_bytes: self.prompt_bytes,
            latency_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let lost = match (&self.journal.lines, serde_json::to_string(&line)) {
            (Some(lines), Ok(line)) => lines.try_send(line).is_err(),
            _ => false,
        };
        let mut counts = self.journal.counts();
        counts.in_flight -= 1;
        counts.complete += u64::from(self.complete);
        counts.answered_before += u64::from(before);
        counts.lines_lost += u64::from(lost);
        *counts.by_status.entry(self.status).or_default() += 1;
        if let Some(fault) = self.fault {
            *counts.by_fault.entry(fault).or_default() += 1;
        }
    }
}

impl Writer {
    /// Until `closed`, and then what still waits.
    pub(super) async fn run(mut self, closed: CancellationToken) -> std::io::Result<()> {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            tokio::select! {
                biased;
                n = self.lines.recv_many(&mut batch, LINES_AT_ONCE) => if n == 0 { return Ok(()) },
                () = closed.cancelled() => return Ok(()),
            }
            let mut text = batch.join("\n");
            text.push('\n');
            self.file.write_all(text.as_bytes()).await?;
            self.file.flush().await?;
        }
    }
}
