//! What the ledger was at one earlier moment, as far as it has changed since: a weak ledger may
//! return there.
//!
//! For tests. It begins anew at every loss and at every start of the process, so that no loss
//! reaches back past the one before.

use super::changes::Changes;
use super::state::State;
use crate::dedupe::Entry;
use crate::task::Timestamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default, Debug)]
pub(super) struct Remembered {
    pub(super) claims: BTreeMap<Bytes, Option<Arc<Entry>>>,
    pub(super) refused: BTreeMap<Bytes, Option<Timestamp>>,
}

impl Remembered {
    /// Before `changes` are merged: keeps what they replace, the first time.
    pub(super) fn keep(&mut self, changes: &Changes, state: &State) {
        for (key, change) in &changes.claims {
            self.claims.entry(key.clone()).or_insert_with(|| change.before.clone());
        }
        for key in changes.refused.keys() {
            if !self.refused.contains_key(key) {
                self.refused.insert(key.clone(), state.refused(key).ok().flatten());
            }
        }
    }
}
