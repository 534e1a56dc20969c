//! Hands a decision in and waits for the arbiter's word on it.

use crate::engine::follow::{Follower, From};
use crate::engine::{AppendError, Engine, Output, Unavailable};
use crate::settings::TopicNames;
use crate::task::Headers;
use crate::write::json;
use crate::write::record::{Decision, ReviewOutcome};
use bytes::Bytes;
use std::time::Duration;

/// How long a reviewer's client waits for the arbiter; the decision stands in the log all the same.
const WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Log(#[from] AppendError),
    #[error(transparent)]
    Away(#[from] Unavailable),
    /// It is written and will be decided; look again later.
    #[error("the decision is written down, but nobody has ruled on it yet")]
    Slow,
}

/// The decision is durable before this waits.
pub async fn submit(
    engine: &Engine,
    names: &TopicNames,
    decision: &Decision,
) -> Result<ReviewOutcome, SubmitError> {
    let mut outcomes = Follower::new(engine.log.clone(), names.review_outcomes.clone(), From::Now).await?;
    let output = Output {
        topic: names.review_decisions.clone(),
        key: Some(Bytes::from(decision.item.clone())),
        value: Some(json(decision)),
        headers: Headers::default(),
        not_before: None,
    };
    engine.log.append(vec![output]).await?;
    let ruled = async {
        loop {
            // What goes wrong from here on leaves the decision where it is: in the log.
            for record in outcomes.wait().await.map_err(|_| SubmitError::Slow)? {
                let outcome =
                    record.value.as_ref().and_then(|v| serde_json::from_slice::<ReviewOutcome>(v).ok());
                if let Some(outcome) = outcome.filter(|o| o.nonce == decision.nonce) {
                    return Ok(outcome);
                }
            }
        }
    };
    tokio::time::timeout(WAIT, ruled).await.unwrap_or(Err(SubmitError::Slow))
}
