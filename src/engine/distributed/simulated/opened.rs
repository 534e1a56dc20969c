//! Opens the engine over a simulator that another process serves: `kafka = "simulated://127.0.0.1:PORT"`.
//!
//! As over Kafka and Redis it refuses topics that are not as they must be, and decides nothing else.

use super::super::client::{Broken, Topics as _};
use super::super::opening::{LEAVE, names, sound, start};
use super::super::{Cluster, OpenError, Parts, open};
use super::Remote;
use crate::engine::{Engine, Health, Operation, StorageReport};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::watch;

/// Where the simulator is, if that is what `[engine] kafka` says.
pub fn address(kafka: &str) -> Option<&str> {
    kafka.strip_prefix("simulated://")
}

/// Must be called on a runtime.
pub async fn connect(address: &str, cluster: Cluster) -> Result<Engine, OpenError> {
    let broken = |why| OpenError::Kafka { servers: address.to_owned(), why };
    let remote = Remote::new(address, &cluster.prefix, &cluster.group, cluster.window);
    let found = remote.describe(&names(&cluster.topics)).await.map_err(broken)?;
    sound(&cluster.topics, &found, cluster.window)?;
    let log = remote.log(&cluster.topics).await.map_err(|Broken(why)| broken(why))?;
    let parts = Arc::new(open(&start(&cluster), remote.clone(), remote.clone()));
    Ok(Engine {
        groups: parts.groups.clone(),
        commits: parts.commits.clone(),
        log,
        ledger: parts.ledger.clone(),
        journal: parts.journal.clone(),
        operation: Arc::new(Running { parts, remote }),
    })
}

struct Running {
    parts: Arc<Parts>,
    remote: Arc<Remote>,
}

impl Operation for Running {
    fn health(&self) -> watch::Receiver<Health> {
        self.parts.health()
    }

    fn storage(&self) -> BoxFuture<'static, StorageReport> {
        Box::pin(async { StorageReport::default() })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (parts, remote) = (self.parts.clone(), self.remote.clone());
        Box::pin(async move {
            parts.close().await;
            remote.left(LEAVE).await;
        })
    }
}
