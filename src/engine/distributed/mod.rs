//! The engine for many processes: what it decides, and the tasks that carry it out over a client.
//!
//! "The ledger elects, the log decides": the ledger says which record may publish for a key, the
//! transaction alone says whether it has. A record's outputs and its completion are in the same
//! transaction, so a record that is not complete has never published, and one that is never will again.
//!
//! ```text
//!        port   Group, Commits                             Ledger, Journal
//!                     │ group: one task per group                 │ ledger: one task, one connection
//!  decisions   Assignment ─ Tracker ─ metadata              Link: the way back after a break
//!              Committer ─ one transaction at a time
//!              Lanes ─ what waits to be handed out
//!  ─────────────────── client seam: Member, Broker ─────────── Connection, Store ──────────────────────
//!              simulated: a broker and a store as mean as real ones; kafka, redis: real ones
//! ```
//!
//! The decisions take events and return what to do: no I/O, no waiting, no clock. The simulator drives
//! these very decisions and tasks. What works above them there is the real worker where no call is made, and
//! else a stand-in; `tests/simulation/distributed.rs` says which where. The whole program runs over it in the
//! stories, without faults; they run over Kafka and Redis too, and so show that it behaves as those do.
//!
//! ## Crashes and faults
//!
//! One outcome for each key and generation, but in row 18, and in 22 where a mark was lost too. A call is
//! bought again in rows 3, 4 and 23, and in 13 and 17 if its buyer could not store the answer in time, and is
//! counted then; in 18 perhaps.
//!
//! | # | what happens | what follows | in the simulator | on Kafka and Redis |
//! |---|---|---|---|---|
//! | 1 | dead before `admit` | delivered again | `row_1_p1_p2_before_admission` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 2 | dead after `admit`, before the request | admitted again with a new fence; not a repeat | `row_2_p1_p2_p3_after_admission…` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 3 | dead during the call | `Busy` until the dead instance has lapsed; then asked again, counted | `row_3_p1_p2_p3_during_the_call` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 4 | dead with an answer that is not stored | as 3 | `row_4_p1_p2_p3_answer_received…` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 5 | dead after `store`, before the outputs | the stored answer is published | `row_5_p1_p2_p3_answer_stored…` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 6 | dead in an open transaction | aborted, so nobody saw it; published again | `row_6_p1_p2_p3_produced…` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 7 | dead after the offsets, before the commit | as 6 | `row_7_p1_p2_p3_offsets_sent…` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 8 | commit sent, answer lost, dead or not | whether it was made is read back; finished or made again | `row_8_p1_p2_p3_commit_sent_and_the_process…`, `row_8_p1_p2_p3_commit_sent_and_its_reply…` | `p1_p2_p3_wherever_a_process_dies…`, `p1_p2_p3_a_commit_whose_answer_was_lost…` |
//! | 9 | committed, mark lost | the record is complete; copies are silent | `row_9_p1_p3_committed_and_the_mark_lost` | `p1_p2_p3_wherever_a_process_dies…` |
//! | 10 | a copy while the first one runs | it completes silently | `rows_10_and_11_p1_p3_copies_that_race…` | `p1_p3_a_duplicate_while_the_canonical_one…` |
//! | 11 | copies race on two processes | one is admitted | `rows_10_and_11_p1_p3_copies_that_race…` | `p1_p3_of_duplicates_that_race…` |
//! | 12 | partition revoked in mid-call, old owner alive | the new owner waits for the stored answer | `row_12_p1_p3_revoked…` | `p1_p3_the_new_owner_of_a_partition…` |
//! | 13 | stopped or cut off for longer than its session | its generation or its member id is refused; it goes on with what it has then | `row_13_p1_p2_p3_one_process_alone…`, `row_13_p1_p3_a_session_that_is_lost…` | `p1_p3_a_process_that_was_stopped…` |
//! | 14 | dead about a park, a review or the end of either | one commit covers both; one token lives | `row_14_p1_p2_p3_who_parks…`, `row_14_p1_p2_p3_who_takes_up…`, `row_14_p1_p2_p3_a_task_is_handed…` | `p1_p2_a_death_after_the_commit_that_parks…`, `p1_p2_p3_a_death_of_whoever_takes_a_parked…` |
//! | 15 | a dead letter is redriven twice, its mark lost or not | the first makes one generation more, the second is silent | `row_15_p1_a_dead_letter_that_is_redriven…` | `p1_a_dead_letter_whose_mark_was_lost…` |
//! | 16 | ledger away at `admit` | intake pauses, nothing is begun | `row_16_p2_p3_while_the_ledger_is_away…` | `p2_p3_p7_a_redis_that_is_away_under_load…` |
//! | 17 | ledger away when an answer comes | the result is published all the same; the ledger is told later, and a person is asked only then | `row_17_p1_p2_p3_an_answer_that_comes…` | `p2_p3_p7_a_redis_that_is_away_under_load…`, `p3_p5_a_doubtful_answer_that_comes_while_redis…` |
//! | 18 | ledger forgot its latest writes | one outcome where there is one record; a copy may be a second: the limits of P1 in `src/lib.rs` | `row_18_p1_p2_a_ledger_that_forgets…` | `p1_p2_a_redis_that_forgets…` |
//! | 19 | a call of the client hangs | the watchdog ends the process; then 6 to 8 | `row_19_p1_p2_p3_a_call_to_the_client_hangs…` | `p1_p2_p3_a_commit_that_hangs…`, `p1_p2_an_append_that_hangs…` |
//! | 20 | records vanish under open claims | each such claim is buried once, `orphaned` | all of `row_20_…` | `p1_p2_a_task_whose_record_was_trimmed…`, `p1_p2_a_task_whose_topic_was_made_anew…` |
//! | 21 | session lost while a revocation waits, unheard | another member id: all leases are void, all is read anew | `row_21_p1_p3_a_member_dies_or_its_session_is_over…` | cannot be had of librdkafka from outside; the decision: `p1_another_member_id_means…` |
//! | 22 | offsets reset, group renamed, metadata spoilt | what is done, parked or in review is silent | `row_22_p1_p3_offsets_lost…` | `p1_p3_after_a_reset_and_under_another_group…`, `p1_p3_metadata_of_somebody_elses…` |
//! | 23 | a task kills its process again and again | after two deaths it runs alone, after three more it is buried; no neighbour is | `row_23_p1_p2_a_task_that_kills…` | `p1_p2_p3_a_task_that_kills…` |
//! | 24 | an outcome larger than its topic takes | `TooLarge`; a smaller dead letter instead | `row_24_p1_p2_an_outcome_too_large…` | `p1_p2_p3_an_outcome_that_its_topic_does_not_take…` |
//! | 25 | two versions in one group, the new one refuses | the refusal is the one outcome of what the old one admitted | `row_25_p1_p2_what_an_old_version…`, `row_25_p1_p2_what_a_new_version…` | `p1_p3_what_a_newer_version_refuses…` |
//! | 26 | ledger away for longer than every heartbeat | nobody judges before one lease of contact | `row_26_p1_p3_after_a_ledger_was_away…` | `p2_p3_p7_a_redis_that_is_away_under_load…`; with partitions that move meanwhile, the simulator alone |

pub mod assignment;
pub mod client;
pub mod committer;
mod group;
mod health;
#[cfg(feature = "kafka")]
pub mod kafka;
mod lanes;
mod ledger;
pub mod link;
pub mod metadata;
#[cfg(feature = "kafka")]
mod opening;
pub mod planted;
#[cfg(feature = "kafka")]
pub mod redis;
pub mod simulated;
pub mod topology;
pub mod tracker;
#[cfg(feature = "kafka")]
mod upkeep;

#[cfg(feature = "kafka")]
pub use opening::{Cluster, OpenError, connect};

use crate::dedupe::Instance;
use crate::engine::{Commits, Groups, Health, Journal, Ledger, lock};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// The parts of the port that stand on decisions; log and operation are the client's own.
pub struct Parts {
    pub groups: Arc<dyn Groups>,
    pub commits: Arc<dyn Commits>,
    pub ledger: Arc<dyn Ledger>,
    pub journal: Arc<dyn Journal>,
    running: Arc<group::Shared>,
}

/// What one process of the engine is told.
pub struct Start {
    /// Random, never used twice.
    pub instance: Instance,
    /// How long the ledger remembers what is closed.
    pub window: Duration,
    /// Read records without a committed offset although they are older than that.
    pub start_anyway: bool,
}

/// Opens the engine over a client. Must be called on a runtime: its tasks run there until `end`.
pub fn open(start: &Start, broker: Arc<dyn client::Broker>, store: Arc<dyn client::Store>) -> Parts {
    let condition = Arc::new(health::Condition::default());
    let contact = Arc::new(ledger::Contact::new(start.instance, start.window, condition.clone()));
    let mut tasks = JoinSet::new();
    let connecting = contact.clone();
    tasks.spawn(async move { connecting.run(store).await });
    let shared = Arc::new(group::Shared {
        instance: start.instance,
        window: start.window,
        start_anyway: start.start_anyway,
        broker,
        contact,
        condition,
        groups: Mutex::default(),
        tasks: Mutex::new(tasks),
    });
    let ledger = Arc::new(ledger::DistributedLedger(shared.clone()));
    Parts {
        groups: Arc::new(group::DistributedGroups(shared.clone())),
        commits: Arc::new(group::DistributedCommits(shared.clone())),
        ledger: ledger.clone(),
        journal: ledger,
        running: shared,
    }
}

/// How long an orderly end waits for the ledger to take what it is owed. Nothing depends on it: a mark that
/// is lost costs a look-up.
const FAREWELL: Duration = Duration::from_secs(5);

impl Parts {
    pub fn health(&self) -> tokio::sync::watch::Receiver<Health> {
        self.running.condition.told()
    }

    /// As far as the groups have heard.
    #[cfg(feature = "kafka")]
    fn reaches_broker(&self) -> bool {
        self.running.condition.reaches_broker()
    }

    /// `None`: it is well again. Whether that is news.
    #[cfg(feature = "kafka")]
    fn trouble(&self, part: health::Part, why: Option<String>) -> bool {
        self.running.condition.is(part, why)
    }

    /// For good; what is committed is committed.
    #[cfg(feature = "kafka")]
    fn gone(&self, why: &str) {
        self.running.condition.gone(why.to_owned());
    }

    /// Ends in order, once nothing is in flight any more: tells the ledger what it is owed, leaves the groups.
    pub async fn close(&self) {
        // Too late is as if the process had died.
        let _ = tokio::time::timeout(FAREWELL, self.running.contact.told_all()).await;
        self.running.leave();
        // The orders go out with the next turn of each group's task.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.end();
    }

    /// Ends the tasks. What was handed in and not answered is `Void`: perhaps visible.
    pub fn end(&self) {
        lock(&self.running.tasks).abort_all();
        self.running.end();
    }
}
