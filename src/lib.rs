//! Tidegate: a stream processor for language-model work that must not go wrong.
//!
//! This file is the map: how things hang together, what is promised, and what always holds. It names
//! the modules and holds no other code. Begin with [`pipeline`]: the order of its lines is the order of
//! the product.
//!
//! ```text
//!                                      ┌──────────────────────────────┐
//! task events ─► consume ─► dedupe ──► │ infer ─► validate ─► weigh   │ ─► write ─┬─► results
//! (HTTP, topic)  decode     one claim  │ models   schema      sure?   │    one    ├─► review ─► arbiter ─► results
//!                           per key    │ breaker  rules               │   atomic  └─► dead letters
//!                                      │ fallback ask again           │   commit
//!                                      └──────────────────────────────┘
//!     worker: many tasks at once        pipeline: one task, in this order        serve, cli: what people see
//! ─────────────────────────────────────── engine: the port ───────────────────────────────────────────────
//!     embedded: one process, one directory; a log with group commit, and the ledger beside it
//!     distributed: many processes over Kafka (the log) and Redis (the ledger); a simulator beside them
//! ```
//!
//! A record becomes a task ([`consume`]), claims its key in the ledger ([`dedupe`]), is asked of the
//! models of its kind ([`infer`]), and what they say is checked ([`validate`]) and weighed ([`weigh`]).
//! [`write`] makes the one outcome, and the engine makes it and the record's completion visible in one
//! commit. Doubt becomes a question in [`review`]; what a person decides becomes the result. Tasks that
//! no model can serve wait in the log, not in memory.
//!
//! # Promises
//!
//! Each with its limits. Tests that prove one carry its id in their name.
//!
//! **P1: one outcome per key and generation.** Whatever crashes and duplicates happen, readers of
//! committed records see one result or one dead letter, and before it at most one open review item.
//! *Limits:* within the dedupe window (7 days by default), counted from the outcome; open work and open
//! reviews never expire. Records that are refused before they own their key (no key, a conflict) are
//! buried under their own coordinates and are no outcomes. A ledger that forgets what it
//! acknowledged can let a copy through again: the embedded one is durable before it answers, Redis only
//! with `appendfsync always`, without a failover, and as long as nobody empties it, puts an older file back, or
//! lets it drop keys to make room.
//! On Kafka, offsets that are reset or lost together with a mark can, too: what was done runs again, or is
//! buried where its record was trimmed away meanwhile. A kind with `dedupe = false` publishes every copy.
//!
//! **P2: nothing is lost.** Every record that is read ends as a result, a review item or a dead letter,
//! completes as a counted duplicate of one, or is read again. *Limits:* as durable as the log below:
//! the embedded engine acknowledges after an `fdatasync`, and a disk that lies about it is not found out
//! before it loses something; Kafka acknowledges once its in-sync replicas have a record, and whoever deletes a
//! task topic there loses what was not done in it: those keys stay open, and copies of them silent. A task whose
//! work panics stays open, is shown in `status`, and is tried again after a restart only.
//!
//! **P3: an answer that was received is never bought again**, across crashes, restarts and parks.
//! *Limits:* a process that dies, ends while the ledger is away, or is cut off from it for longer than its lease
//! (10 s), between the request and the stored answer repeats the call, and counts it
//! (`tidegate_calls_repeated_total`, and the result's `tries`); so does a clock of the ledger's machine that jumps ahead by
//! more than a call may last. A ledger that forgets repeats it uncounted. An answer that broke off in the middle may be
//! asked for again, within the allowance.
//!
//! **P4: a side effect happens at most once, and is proved.** *Limits:* no step of this version has an
//! effect; tools come later. Their slots in the journal and the rule that bars them are there.
//!
//! **P5: doubt goes to a person.** Nothing below its line, and nothing that breaks a rule, is published
//! unseen; a connected reviewer sees the item within 500 ms. *Limits:* confidence is not calibrated in
//! this version, and says so (`uncalibrated`): it is what the model reports of itself, held against what
//! the checks found. A model that is wrong and sure, and breaks no rule, passes, but for the sample that
//! is drawn.
//!
//! **P6: what was approved is what runs.** *Limits:* comes with the tools. A decision names the whole id
//! of its item, and an item never changes.
//!
//! **P7: an outage is not the task's fault.** When no model of a kind can serve, its intake holds and its
//! tasks wait in the log; a wrong key or a retired model blocks the model, not the task. So with a schema
//! registry that cannot explain a record: its topic is held until it can. *Limits:* a task
//! still ends as a dead letter when its own deadline passes, and when its allowance is spent; a task that
//! the provider refuses for what it contains is not in an outage. A line-up of one has no fallback. Tasks of
//! all kinds that wait in the log lie in the same topics: after a restart those of Avro whose schema cannot be
//! had wait aside, a thousand of them or 16 MiB; beyond that one holds those behind it. Likewise five hundred
//! decisions whose results would be Avro, and beyond them no other is read.
//!
//! # What always holds
//!
//! * The stages ([`consume`], [`dedupe`], [`infer`], [`validate`], [`weigh`], [`write`]) do not import each
//!   other; only [`pipeline`] knows their order. `tests/contracts/source.rs` sees to it.
//! * Only an admission ends a task: who is told that it is stale asks the ledger again.
//! * Outputs and completion are one commit. The mark that tells the ledger comes after it and may be
//!   lost: a look-up, and a slow pass, find the outcome in the log and say it again.
//! * The rules of the ledger are pure functions in [`dedupe`]; policy takes `now`, and has neither clock
//!   nor I/O.
//! * A file or folder named for a technology is the only one that imports it.
//! * Every queue, loop, wait and size has a bound, with a reason beside it. No task is detached: who
//!   spawns it also ends it, and hears of its end.
//! * Payloads and answers are data everywhere: never instructions in a prompt that is not a template of
//!   yours, never a path, a URL or a terminal's control sequence.
//! * Token headers are believed on internal topics only, and strangers cannot write there.
//!
//! # Where things are
//!
//! | module | decides or does |
//! |---|---|
//! | [`pipeline`], [`worker`] | one task through all stages; many at once, hold, drain, shutdown |
//! | [`engine`] | the port; the embedded engine with its table of crashes; the one for many processes over Kafka and Redis |
//! | [`task`], [`token`], [`outcome`], [`trail`], [`finding`], [`fingerprint`] | the vocabulary |
//! | [`settings`] | the configuration: every key with its default, every mistake with its line |
//! | [`review`] | open items, and the arbiter that says which decision counts |
//! | [`serve`], [`cli`] | the HTTP API; one file per command |
//! | [`avro`] | values in a schema registry's wire format, and its schemas |
//! | [`cel`] | the expression language of keys and rules, bounded |
//! | [`simulate`] | model servers that answer by rules and fail by scenario |
//! | [`telemetry`] | every metric with its meaning; the log |

pub mod avro;
pub mod cel;
pub mod cli;
pub mod consume;
pub mod dedupe;
pub mod engine;
pub mod finding;
pub mod fingerprint;
pub mod infer;
pub mod outcome;
pub mod pipeline;
pub mod review;
pub mod serve;
pub mod settings;
pub mod simulate;
pub mod task;
pub mod telemetry;
pub mod token;
pub mod trail;
pub mod validate;
pub mod weigh;
pub mod worker;
pub mod write;
