//! The one thread that changes anything: takes what waits, decides it, writes one frame, flushes
//! once, makes it visible, answers everyone.
//!
//! Nobody is answered before the flush. If the frame cannot be written, its round is dropped and
//! the same commands are decided again later; only what may not wait is told `Unavailable`.

use super::super::crash::crash_point;
use super::base::{BaseError, FrameRef};
use super::changes::{Changes, ExpiryRow, PartId, Swept};
use super::checkpoint::Fold;
use super::folder::Folding;
use super::frame::{self, BODY_MAX, HEADER};
use super::queue::Command;
use super::remembered::Remembered;
use super::round::{Answer, Ground, Round};
use super::shared::Shared;
use super::space::Space;
use super::tail::{Refused, Tail};
use super::weak::Weakness;
use crate::engine::script::LedgerCall;
use crate::engine::{AppendError, Commit, Health, Output, Unavailable};
use crate::task::Timestamp;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Commands of one frame at most: enough that the flush costs nothing each, few enough that the
/// first does not wait long for the last.
const BATCH_MAX: usize = 2048;
/// Bytes of one frame, roughly; a single command may be larger. Frames are cached, read and replayed
/// as a whole.
const FRAME_BYTES: usize = 8 << 20;
/// Of one frame after a trouble: what room there is may be small, and pieces fit where all does not.
const PIECE_BYTES: usize = 512 << 10;
/// How often an idle writer looks at the disk and sweeps.
const IDLE: Duration = Duration::from_millis(100);
/// How long a writer that cannot write waits before it tries again.
const STALL: Duration = Duration::from_millis(100);
/// Expired rows in one frame of a sweep: some 150 KB.
const SWEEP_MAX: usize = 1024;
/// How long one turn sweeps: a quarter of the time. A frame takes some milliseconds, so that more
/// expires than full speed closes.
const SWEEP_TIME: Duration = Duration::from_millis(25);
/// Log that may lie before the checkpoint, in segments, before the writer slows down for it, or stops
/// intake where the fold fails: all of it is in memory.
const AHEAD_MAX: u64 = 8;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) tail: Tail,
    pub(super) space: Space,
    pub(super) folding: Folding,
    pub(super) weak: Option<Arc<Weakness>>,
    pub(super) remembered: Option<Remembered>,
    pub(super) buffer: Vec<u8>,
    /// The last frame could not be flushed.
    pub(super) failed: bool,
    /// Expiry rows up to here are swept; the base shows them until the next checkpoint.
    pub(super) swept: ExpiryRow,
}

/// Why a round could not be made durable.
enum Trouble {
    Full(String),
    Failed(String),
    Base(BaseError),
    /// One frame would need so many bytes, more than any frame may have.
    TooLarge(usize),
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut idle_at = Instant::now();
        loop {
            let (batch, shut) = self.shared.queue.take(BATCH_MAX, IDLE);
            let worked = !batch.is_empty();
            self.process(batch);
            if idle_at.elapsed() >= IDLE {
                self.idle();
                idle_at = Instant::now();
            }
            if shut && !worked {
                break;
            }
        }
        self.fold(0);
        self.folding.finish();
        self.shared.set_health(Health::Gone { why: "the engine has been closed".to_owned() });
        self.shared.let_go();
    }

    fn process(&mut self, batch: Vec<Command>) {
        let mut frames = VecDeque::from(apart(batch, FRAME_BYTES));
        while let Some(mut batch) = frames.pop_front() {
            if self.space.is_paused() {
                batch = self.refuse_intake(batch);
            }
            if batch.is_empty() {
                continue;
            }
            match self.round(&batch) {
                Ok(answers) => {
                    if self.space.works_again() {
                        self.shared.set_health(Health::Well);
                    }
                    self.answer(batch, answers);
                }
                // What waits for a disk that does not come back is not acknowledged: it may go.
                Err(_) if self.shared.queue.is_shut() && self.space.is_paused() => return,
                Err(Trouble::TooLarge(bytes)) if batch.len() == 1 => self.refuse_large(batch, bytes),
                Err(Trouble::TooLarge(_)) => {
                    batch.into_iter().rev().for_each(|command| frames.push_front(vec![command]));
                }
                Err(trouble) => {
                    batch.extend(frames.drain(..).flatten());
                    frames = apart(self.bear(trouble, batch), PIECE_BYTES).into();
                }
            }
        }
    }

    /// Decides and writes; all or nothing.
    fn round(&mut self, batch: &[Command]) -> Result<Vec<Answer>, Trouble> {
        let shared = self.shared.clone();
        let (state, leases) = (shared.state(), shared.leases());
        let stamp = Timestamp::now().max(state.stamp);
        let ground = Ground {
            state: &state,
            topics: &shared.topics,
            leases: &leases,
            instance: shared.instance,
            window: shared.settings.window,
            now: Timestamp::now(),
            stamp,
            connection: shared.connection.load(Ordering::Acquire),
            marks_apart: self.weak.is_some(),
            remembered: self.remembered.as_ref(),
        };
        let mut round = Round::new(ground);
        let answers: Result<Vec<Answer>, BaseError> = batch.iter().map(|c| round.decide(c)).collect();
        let answers = answers.map_err(Trouble::Base)?;
        let (changes, revoked) = (round.changes, round.revoked);
        drop((state, leases));
        // Before it happens: who dies in between leaves a loss that took nothing, and none that nobody knows of.
        if let (Some(count), Some(remembered)) = (changes.forgot, &self.remembered) {
            remembered.note(&self.shared, count);
        }
        self.write(changes, stamp)?;
        self.revoke(revoked);
        self.remember(batch);
        Ok(answers)
    }

    /// One frame, one flush; then it is visible.
    pub(super) fn write_first(&mut self, changes: Changes) -> Result<(), String> {
        let stamp = Timestamp::now().max(self.shared.state().stamp);
        self.write(changes, stamp).map_err(|t| match t {
            Trouble::Full(e) | Trouble::Failed(e) => e,
            Trouble::Base(e) => e.to_string(),
            Trouble::TooLarge(bytes) => format!("a frame of {bytes} bytes is too large"),
        })
    }

    fn write(&mut self, changes: Changes, stamp: Timestamp) -> Result<(), Trouble> {
        if changes.is_empty() {
            return Ok(());
        }
        let sequence = self.tail.sequence();
        frame::begin(&mut self.buffer);
        changes.encode(&mut self.buffer);
        let body = self.buffer.len() - HEADER;
        if body > BODY_MAX {
            self.buffer = Vec::new();
            return Err(Trouble::TooLarge(body));
        }
        frame::seal(&mut self.buffer, sequence, stamp);
        let (segment, at) = self.tail.append(&self.buffer).map_err(|e| match e {
            Refused::Full(e) => Trouble::Full(e.to_string()),
            Refused::Failed(e) => Trouble::Failed(e.to_string()),
        })?;
        self.failed = false;
        self.shared.flushes.fetch_add(1, Ordering::Relaxed);
        let len = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        let frame = FrameRef { segment, at, len, count: 0, stamp };
        self.shared.keep(frame, &changes);
        let visible = !changes.records.is_empty() || !changes.completed.is_empty();
        let mut state = self.shared.state_mut();
        if let Some(remembered) = &mut self.remembered {
            remembered.keep(&changes, &state);
        }
        state.merge(changes, frame, sequence);
        drop(state);
        // A frame of a huge batch must not keep its memory for ever.
        if self.buffer.capacity() > 16 << 20 {
            self.buffer = Vec::new();
        }
        crash_point("frame.merged");
        if visible {
            self.shared.tell();
        }
        self.fold(self.shared.settings.segment_bytes);
        Ok(())
    }

    fn revoke(&self, revoked: BTreeMap<PartId, u64>) {
        if !revoked.is_empty() {
            self.shared.set_leases(revoked);
            self.shared.tell();
        }
    }

    /// After a loss, and whenever asked, the ledger begins to remember anew.
    fn remember(&mut self, batch: &[Command]) {
        if batch.iter().any(|c| matches!(c, Command::Forget { .. })) {
            // Calls that were on their way go down with their connection.
            self.shared.connection.fetch_add(1, Ordering::AcqRel);
        }
        if batch.iter().any(|c| matches!(c, Command::Forget { .. } | Command::Remember)) {
            self.remembered = Some(Remembered::default());
        }
    }

    fn answer(&self, batch: Vec<Command>, answers: Vec<Answer>) {
        let half = batch.len() / 2;
        for (i, (command, answer)) in batch.into_iter().zip(answers).enumerate() {
            if i == half {
                crash_point("frame.half-answered");
            }
            self.answer_one(command, answer);
        }
    }

    /// Whoever no longer waits has gone; that is his affair.
    fn answer_one(&self, command: Command, answer: Answer) {
        match (command, answer) {
            (Command::Append { reply, .. }, Answer::Append(a)) => drop(reply.send(a)),
            (Command::Commit { done, reply }, Answer::Commit(a)) => {
                if let (Some(weak), Some(mark), Commit::Visible(at)) = (&self.weak, &done.mark, &a) {
                    crash_point("commit.unmarked");
                    weak.owe(LedgerCall::Mark { mark: mark.clone(), at: mark.outcome_at(at) });
                }
                drop(reply.send(a));
            }
            (Command::Ledger { reply, .. }, Answer::Ledger(a)) => drop(reply.send(a)),
            (
                Command::Join { reply, .. }
                | Command::Revoke { reply, .. }
                | Command::Drop { reply, .. }
                | Command::Forget { reply },
                Answer::Done,
            ) => drop(reply.send(())),
            _ => {}
        }
    }

    // when it does not work

    /// Does what can be done about it; answers those that may not wait.
    fn bear(&mut self, trouble: Trouble, batch: Vec<Command>) -> Vec<Command> {
        match trouble {
            Trouble::Full(e) => {
                // The reserve is there for this: what is in flight can still be committed.
                if self.space.give_reserve() {
                    self.shared.set_health(self.space.pause(&e));
                    return batch;
                }
                self.shared.set_health(self.space.pause(&e));
            }
            Trouble::Failed(e) => {
                // Twice in a row is no accident: it is tried on, but not in a hot loop, and it is said.
                let again = std::mem::replace(&mut self.failed, true);
                match self.tail.leave() {
                    Ok(()) if !again => {
                        tracing::error!(error = %e, "a write to the log failed; the log goes on in a new segment");
                        return batch;
                    }
                    Ok(()) => self.shared.set_health(self.space.stopped(&e)),
                    Err(worse) => self.shared.set_health(self.space.stopped(&format!("{e}; {worse}"))),
                }
            }
            Trouble::Base(e) => {
                self.shared.set_health(self.space.stopped(&e.to_string()));
                self.folding.reopen();
            }
            // One round's affair, not the disk's.
            Trouble::TooLarge(_) => return batch,
        }
        let mut batch = self.refuse_waiting(batch);
        std::thread::sleep(STALL);
        // An error is over only when something has been written.
        if !self.space.is_error() {
            self.space.look(&self.shared);
        }
        // Those who come meanwhile must hear of it too. What waits is bounded by what is in flight.
        batch.extend(self.shared.queue.take(BATCH_MAX, Duration::ZERO).0);
        batch
    }

    /// Intake has stopped: appends are refused, the rest goes on.
    fn refuse_intake(&self, batch: Vec<Command>) -> Vec<Command> {
        let why = self.space.why();
        let (appends, rest): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|c| matches!(c, Command::Append { .. }));
        for command in appends {
            let answer = Err(AppendError::Unavailable(Unavailable(why.clone())));
            self.answer_one(command, Answer::Append(answer));
        }
        rest
    }

    /// Nothing can be written: commits and answers wait, the rest is told so.
    fn refuse_waiting(&self, batch: Vec<Command>) -> Vec<Command> {
        let why = self.space.why();
        let mut kept = Vec::new();
        for command in batch {
            match &command {
                Command::Append { .. } => {
                    let answer = Err(AppendError::Unavailable(Unavailable(why.clone())));
                    self.answer_one(command, Answer::Append(answer));
                }
                Command::Ledger { call, .. }
                    if !matches!(call.call, LedgerCall::Store { .. } | LedgerCall::Mark { .. }) =>
                {
                    self.answer_one(command, Answer::Ledger(Err(Unavailable(why.clone()))));
                }
                _ => kept.push(command),
            }
        }
        kept
    }

    /// No frame can hold it, now or later.
    fn refuse_large(&self, batch: Vec<Command>, bytes: usize) {
        for command in batch {
            let answer = match &command {
                Command::Append { batch, .. } => largest(batch).map(|(index, output)| {
                    let (bytes, topic) = (output.size(), output.topic.clone());
                    Answer::Append(Err(AppendError::TooLarge { index, bytes, limit: BODY_MAX, topic }))
                }),
                Command::Commit { done, .. } => {
                    largest(&done.outputs).map(|(output, _)| Answer::Commit(Commit::TooLarge { output }))
                }
                Command::Ledger { .. } => {
                    let why = format!("{bytes} bytes at once; the log takes at most {BODY_MAX}");
                    Some(Answer::Ledger(Err(Unavailable(why))))
                }
                _ => None,
            };
            // Whoever is not answered hears that nobody will.
            if let Some(answer) = answer {
                self.answer_one(command, answer);
            }
        }
    }

    // in between

    fn idle(&mut self) {
        self.space.look(&self.shared);
        if !self.folding.is_busy() && self.space.caught_up() {
            self.shared.set_health(self.space.health());
        }
        self.fold(self.shared.settings.segment_bytes);
        if !self.space.is_paused() {
            let began = Instant::now();
            loop {
                match self.sweep() {
                    Ok(true) if began.elapsed() < SWEEP_TIME => {}
                    Ok(_) => break,
                    // It is tried again; what it would have removed is expired all the same.
                    Err(trouble) => {
                        let waiting = self.bear(trouble, Vec::new());
                        break self.process(waiting);
                    }
                }
            }
        }
    }

    /// One frame. `true`: there is more.
    fn sweep(&mut self) -> Result<bool, Trouble> {
        let shared = self.shared.clone();
        let (state, leases) = (shared.state(), shared.leases());
        let now = Timestamp::now();
        let window = i64::try_from(shared.settings.window.as_millis()).unwrap_or(i64::MAX);
        let due = Timestamp(now.0.saturating_sub(window));
        let rows = state.base.due(&self.swept, due, SWEEP_MAX).map_err(Trouble::Base)?;
        let Some(last) = rows.last().cloned() else { return Ok(false) };
        let more = rows.len() == SWEEP_MAX;
        let stamp = now.max(state.stamp);
        let mut round = Round::new(Ground {
            state: &state,
            topics: &shared.topics,
            leases: &leases,
            instance: shared.instance,
            window: shared.settings.window,
            now,
            stamp,
            connection: 0,
            marks_apart: false,
            remembered: None,
        });
        for row in rows {
            round.sweep(row).map_err(Trouble::Base)?;
        }
        let changes = round.changes;
        drop((state, leases));
        // Before it happens: who dies in between leaves a loss that took nothing, and none that nobody knows of.
        if let (Some(count), Some(remembered)) = (changes.forgot, &self.remembered) {
            remembered.note(&self.shared, count);
        }
        self.write(changes, stamp)?;
        self.swept = last;
        Ok(more)
    }

    /// Hands what came since the last checkpoint to the folder, if it is worth it and it is free.
    fn fold(&mut self, worth: u64) {
        let bytes = self.shared.state().layer.bytes;
        // Over budget it is folded all the same: only what is folded can be given back.
        if bytes == 0 || bytes < worth || (self.space.is_stuck() && worth > 0) {
            return;
        }
        if self.folding.is_busy() {
            if bytes > AHEAD_MAX * worth.max(1) && worth > 0 {
                match self.folding.failing() {
                    Some(e) if !self.space.is_paused() => self.shared.set_health(self.space.behind(&e)),
                    Some(_) => {}
                    // The longer this gets, the longer a restart takes.
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            if worth > 0 {
                return;
            }
            if !self.folding.wait() {
                return;
            }
        }
        let fold = Fold::freeze(&mut self.shared.state_mut());
        self.folding.start(fold);
    }
}

fn largest(outputs: &[Output]) -> Option<(usize, &Output)> {
    outputs.iter().enumerate().max_by_key(|(_, output)| output.size())
}

/// Frames of about `most` bytes at most. A loss of the ledger lies in a frame of its own, between what was before and what comes after.
fn apart(batch: Vec<Command>, most: usize) -> Vec<Vec<Command>> {
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for command in batch {
        let alone = matches!(command, Command::Forget { .. } | Command::Remember);
        bytes += weight(&command);
        if alone || bytes > most {
            batches.push(Vec::new());
            bytes = weight(&command);
        }
        if let Some(last) = batches.last_mut() {
            last.push(command);
        }
        if alone {
            batches.push(Vec::new());
        }
    }
    batches.retain(|b| !b.is_empty());
    batches
}

/// Roughly what the command adds to its frame, bytes.
fn weight(command: &Command) -> usize {
    let outputs = match command {
        Command::Append { batch, .. } => batch,
        Command::Commit { done, .. } => &done.outputs,
        Command::Ledger { call, .. } => {
            return if let LedgerCall::Store { value, .. } = &call.call { value.len() } else { 0 };
        }
        _ => return 0,
    };
    outputs.iter().map(Output::size).sum()
}

/// Where a sweep begins.
pub(super) fn first_row() -> ExpiryRow {
    (i64::MIN, Swept::Claim, Bytes::new())
}
