//! The open review items: requests without a tombstone, kept by reading `review.requests`.
//!
//! Never decides whether an item is still open; the arbiter's admission does.

use crate::engine::Unavailable;
use crate::engine::follow::{Follower, From};
use crate::engine::{Engine, Log};
use crate::task::{Position, Record, Topic};
use crate::write::record::ReviewItem;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use tokio_util::sync::CancellationToken;

/// How long to wait before the log is tried again.
const RETRY_MS: u64 = 200;

/// An open item and the record that asks it.
#[derive(Clone, Debug)]
pub struct Item {
    pub at: Position,
    pub record: Arc<Record>,
    pub body: Arc<ReviewItem>,
}

/// Open items by id. Clones share one list.
#[derive(Clone, Default)]
pub struct Queue {
    open: Arc<RwLock<BTreeMap<String, Item>>>,
}

impl Queue {
    /// Follows the requests until cancelled. Everything open is in memory: the backlog of questions
    /// to people is bounded by what people can read.
    pub async fn follow(&self, log: Arc<dyn Log>, requests: Topic, cancel: CancellationToken) {
        let mut from = From::Start;
        while !cancel.is_cancelled() {
            let _: Result<(), Unavailable> = async {
                let mut follower = Follower::new(log.clone(), requests.clone(), from.clone()).await?;
                loop {
                    let records = tokio::select! {
                        found = follower.wait() => found?,
                        () = cancel.cancelled() => return Ok(()),
                    };
                    records.into_iter().for_each(|record| self.take(record));
                    from = From::Offsets(follower.offsets().to_vec());
                }
            }
            .await;
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_millis(RETRY_MS)) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    fn take(&self, record: Record) {
        let Some(id) = record.key.as_ref().and_then(|k| std::str::from_utf8(k).ok()).map(str::to_owned)
        else {
            return;
        };
        let mut open = self.open.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        match record.value.as_ref().and_then(|v| serde_json::from_slice::<ReviewItem>(v).ok()) {
            Some(body) => {
                let item =
                    Item { at: record.position.clone(), record: Arc::new(record), body: Arc::new(body) };
                open.insert(id, item);
            }
            None => {
                open.remove(&id);
            }
        }
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<Item> {
        let open = self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut items: Vec<Item> = open.values().cloned().collect();
        items.sort_by(|a, b| (a.body.opened_at, &a.body.id).cmp(&(b.body.opened_at, &b.body.id)));
        items
    }

    pub fn len(&self) -> usize {
        self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// By its whole id.
    pub fn get(&self, id: &str) -> Option<Item> {
        self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(id).cloned()
    }

    /// Up to `max` items whose id begins so.
    pub fn beginning(&self, id: &str, max: usize) -> Vec<Item> {
        let open = self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fits = open.range(id.to_owned()..).take_while(|(k, _)| k.starts_with(id));
        fits.take(max).map(|(_, item)| item.clone()).collect()
    }
}

/// The item at `at`, from the log: also one that is decided by now, as long as the log holds it.
pub(super) async fn read_item(engine: &Engine, at: &Position) -> Result<Option<Item>, Unavailable> {
    let records = engine.log.read(at.clone(), 1).await?;
    let found = records.into_iter().next().filter(|r| r.position == *at);
    Ok(found.and_then(|record| {
        let body: ReviewItem = serde_json::from_slice(record.value.as_ref()?).ok()?;
        Some(Item { at: record.position.clone(), record: Arc::new(record), body: Arc::new(body) })
    }))
}
