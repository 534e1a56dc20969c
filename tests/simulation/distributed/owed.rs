//! What a process owes the ledger while it is away, and in which order it is told once it is reached.

use super::cluster::virtual_clock;
use super::table::on_virtual_time;
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate::dedupe::{ClaimView, Instance, Nonce};
use tidegate::engine::distributed::client::{Broken, Connection, Sent, Store};
use tidegate::engine::distributed::simulated::{Process, SimulatedBroker, World};
use tidegate::engine::distributed::{self, Start};
use tidegate::engine::script::{LedgerCall, LedgerReply};
use tidegate::task::ScopedKey;

/// A store that is away until it is told to be there, and writes down what it hears.
#[derive(Clone, Default)]
struct Listens {
    there: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Store for Listens {
    fn connect(&self) -> BoxFuture<'static, Result<Arc<dyn Connection>, Broken>> {
        let store = self.clone();
        Box::pin(async move {
            let connection: Arc<dyn Connection> = Arc::new(store.clone());
            if store.there.load(Ordering::SeqCst) { Ok(connection) } else { Err(Broken("away".into())) }
        })
    }
}

impl Connection for Listens {
    fn beat(&self, _: Instance) -> BoxFuture<'static, Result<(), Broken>> {
        self.heard.lock().unwrap().push("beat".into());
        Box::pin(async { Ok(()) })
    }

    fn call(&self, _: Instance, sent: Sent) -> BoxFuture<'static, Result<LedgerReply, Broken>> {
        let told = match sent.call {
            LedgerCall::Release { nonce, key, .. } => format!("release {} of {}", nonce.0, key.key),
            other => format!("{other:?}"),
        };
        self.heard.lock().unwrap().push(told);
        Box::pin(async { Ok(LedgerReply::Done) })
    }

    fn look(&self, keys: Vec<ScopedKey>) -> BoxFuture<'static, Result<Vec<Option<ClaimView>>, Broken>> {
        Box::pin(async move { Ok(vec![None; keys.len()]) })
    }

    fn list(&self, _: Option<ScopedKey>, _: usize) -> BoxFuture<'static, Result<Vec<ClaimView>, Broken>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Else its slots stay started under a process that lives, and whoever comes next waits for the end of their
/// time.
#[test]
fn p3_who_leaves_a_task_while_the_ledger_is_away_gives_its_calls_back_once_it_is_reached() {
    on_virtual_time(async {
        virtual_clock();
        let broker = Arc::new(SimulatedBroker { world: World::new(1, &[]), process: Process(1) });
        let (store, window) = (Listens::default(), Duration::from_secs(600));
        let start = Start { instance: Instance(1), window, start_anyway: false };
        let parts = distributed::open(&start, broker, Arc::new(store.clone()));
        for (nonce, key) in [(7, "a"), (8, "b")] {
            parts.journal.leave(Nonce(nonce), &ScopedKey::new("", "copy", key), 0).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(*store.heard.lock().unwrap(), [""; 0], "it is away");
        store.there.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(*store.heard.lock().unwrap(), ["beat", "release 7 of a", "release 8 of b"]);
        parts.end();
    });
}
