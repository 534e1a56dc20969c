//! What the ledger was at one earlier moment, as far as it has changed since: a weak ledger may
//! return there.
//!
//! For tests. It begins anew at every loss and at every start of the process, so that no loss
//! reaches back past the one before.

use super::changes::Changes;
use super::shared::Shared;
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

    /// Writes down what is about to be lost, one line a key, so that a test can name the loss it blames:
    /// number of the loss, time, scope.
    pub(super) fn note(&self, shared: &Shared, count: u64) {
        let now = Timestamp::now().rfc3339();
        let scopes = self.claims.keys().filter_map(|key| crate::task::ScopedKey::from_bytes(key));
        let lines: String = scopes.map(|scope| format!("{count}\t{now}\t{scope}\n")).collect();
        tracing::warn!(loss = count, claims = self.claims.len(), "the weak ledger forgets its latest writes");
        let path = shared.settings.directory.join("forgotten.tsv");
        let written = shared.files.create(&path).and_then(|f| f.write_at(f.size()?, lines.as_bytes()));
        if let Err(e) = written {
            tracing::warn!(file = %path.display(), error = %e, "what was forgotten could not be written down");
        }
    }
}
