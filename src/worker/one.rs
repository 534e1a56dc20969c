//! One record, from delivery to a visible commit, and what becomes of it where its outcome is too large for its
//! topic: a smaller dead letter, and where even that does not fit, a wait that `status` tells of.
//!
//! Decides nothing about the task; it never gives up a record whose lease lives.

use super::View;
use super::aside::Aside;
use super::orphans::AGAIN;
use crate::engine::{Commit, Completion, Delivery, Engine};
use crate::outcome::Reason;
use crate::pipeline::{Done, Ended, Pipeline};
use crate::task::{Position, Topic};
use crate::write::Counted;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// One record, from delivery to a visible commit; whose task it ended.
pub(super) async fn one(
    engine: &Engine,
    pipeline: &Pipeline,
    waits: Waits<'_>,
    delivery: Delivery,
    void: CancellationToken,
) -> Option<Ended> {
    let Done { completion, instead, ended } = pipeline.process(&delivery, &void).await?;
    let Waits { view, aside, handed_in, mut permit } = waits;
    // Whose task has ended well and only waits for its commit lets another one run. What dies does not: a kind whose
    // tasks all die would have begun twice as many before the first is counted; only what then is too large for its topic
    // has. Parks, copies and refusals take no call's time, and stay as they are.
    if ended.as_ref().is_some_and(|ended| ended.dead.is_none()) {
        permit = handed_in.clone().try_acquire_owned().ok().or(permit);
    }
    let (lease, offset) = (completion.lease.clone(), completion.offset);
    let counted = Counted::of(&completion);
    let began = Instant::now();
    let commit = engine.commits.commit(completion).await;
    metrics::histogram!("tidegate_commit_seconds").record(began.elapsed());
    match commit {
        Commit::Visible(_) => {
            counted.into_iter().for_each(Counted::add);
            ended
        }
        // Not ours to report, so not ours to count.
        Commit::Void => None,
        Commit::TooLarge { output } => {
            tracing::warn!(at = %delivery.record.position, output, "an outcome is too large for its topic");
            let burial = instead?;
            let unburied = Unburied { view, at: &delivery.record.position };
            let mut place = None;
            loop {
                let (outputs, mark) = pipeline.smaller(&delivery, &burial);
                let topic = outputs.first().map(|output| output.topic.clone());
                let done = Completion { lease: lease.clone(), offset, outputs, urgent: false, mark };
                let counted = Counted::of(&done);
                match engine.commits.commit(done).await {
                    Commit::Visible(_) => {
                        counted.into_iter().for_each(Counted::add);
                        return ended.map(|ended| Ended { dead: Some(Reason::OutcomeTooLarge), ..ended });
                    }
                    Commit::Void => return None,
                    // A record of bounded size: somebody has lowered the limit.
                    Commit::TooLarge { .. } => unburied.say(topic),
                }
                // It waits for a person, and beside those that run as long as there is a place.
                if place.is_none() {
                    place = aside.place(&delivery);
                    permit = permit.filter(|_| place.is_none());
                }
                tokio::select! {
                    biased;
                    () = void.cancelled() => return None,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        }
    }
}

/// Where a record waits: for its commit, or because its dead letter cannot be written.
pub(super) struct Waits<'a> {
    pub(super) view: &'a View,
    pub(super) aside: &'a Aside,
    /// For those that wait for their commit, as many as may run; and as long as nothing else is left for them, for
    /// those whose dead letter cannot be written.
    pub(super) handed_in: &'a Arc<Semaphore>,
    /// Of the tasks that run, or in its place of those that wait for their commit.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Tells of a record whose dead letter cannot be written, until it is dropped.
struct Unburied<'a> {
    view: &'a View,
    at: &'a Position,
}

impl Unburied<'_> {
    fn say(&self, topic: Option<Topic>) {
        let topic = topic.map_or_else(String::new, |topic| topic.to_string());
        let why = format!(
            "the dead letter of {}, made as small as it can be, is too large for `{topic}`: raise its limit \
             (max.message.bytes); it is tried again every {} s",
            self.at,
            AGAIN.as_secs()
        );
        tracing::error!(%why, "a record waits");
        self.view.unburied(self.at, Some(why));
    }
}

impl Drop for Unburied<'_> {
    fn drop(&mut self) {
        self.view.unburied(self.at, None);
    }
}
