//! What the demo consists of: simulated models, a worker that may be killed, feeds, and the books.

use super::super::Global;
use super::super::client::Client;
use super::feed::{Feeds, Told};
use super::place::{Place, SCENARIO, tail};
use super::show::{Line, Show};
use super::tickets;
use super::worker::Worker;
use crate::simulate::{Scenario, Summary, serve};
use crate::task::Timestamp;
use anyhow::Context as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a killed worker stays dead, so that people can see it.
const DEAD_FOR: Duration = Duration::from_millis(800);

enum Life {
    Runs,
    Dead(Instant),
    Starting,
}

/// Dropped in this order: the worker dies before its directory goes.
pub(super) struct Stage {
    worker: Worker,
    life: Life,
    pub(super) feeds: Feeds,
    pub(super) show: Show,
    provider: JoinSet<std::io::Result<Summary>>,
    stop_provider: CancellationToken,
    listen: SocketAddr,
    pub(super) began: Instant,
    place: Place,
}

impl Stage {
    pub(super) async fn set(seed: u64, global: &Global) -> anyhow::Result<Stage> {
        let scenario = Scenario::parse(SCENARIO).context("the demo's scenario")?;
        let listener = loopback().await?;
        let address = listener.local_addr()?;
        let stop_provider = CancellationToken::new();
        let mut provider = JoinSet::new();
        provider.spawn(serve(scenario, seed, None, listener, stop_provider.clone()));
        let place = Place::new(address)?;
        // Free now; taken by somebody else in this moment, the worker says so and the demo ends.
        let listen = loopback().await?.local_addr()?;
        let url = format!("http://{listen}");
        let client = Client::new(&Global { url: Some(url.clone()), ..global.clone() })?;
        let mut worker = Worker::start(&place, listen)?;
        worker.answers(&client, &place).await?;
        let plan = tickets::plan(seed);
        let show = Show::new(&url, plan.iter().map(|b| b.records.len()).sum());
        let began = Instant::now();
        let feeds = Feeds::open(&client, plan, began).await?;
        let life = Life::Runs;
        Ok(Stage { worker, life, feeds, show, provider, stop_provider, listen, began, place })
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn take(&mut self, told: Told) -> Vec<Line> {
        let lines = self.show.take(told, self.now());
        if matches!(self.life, Life::Starting) && self.show.worker_runs() {
            self.life = Life::Runs;
        }
        lines
    }

    /// kill -9, if it runs.
    pub(super) async fn kill(&mut self) -> anyhow::Result<Option<Line>> {
        if !matches!(self.life, Life::Runs) {
            return Ok(None);
        }
        self.worker.kill().await.context("cannot kill the worker")?;
        self.life = Life::Dead(Instant::now());
        Ok(Some(self.show.killed(Timestamp::now().0, self.now())))
    }

    /// Starts a killed worker again when its time has come. An error if it ended by itself.
    pub(super) fn tend(&mut self) -> anyhow::Result<()> {
        match self.life {
            Life::Dead(since) if since.elapsed() < DEAD_FOR => Ok(()),
            Life::Dead(_) => {
                self.worker = Worker::start(&self.place, self.listen)?;
                self.life = Life::Starting;
                Ok(())
            }
            Life::Runs | Life::Starting => match self.worker.ended() {
                None => Ok(()),
                Some(status) => {
                    anyhow::bail!("the worker ended by itself ({status}):\n{}", tail(&self.place.log(), 8))
                }
            },
        }
    }

    /// Takes everything down; what the models' own log counted.
    pub(super) async fn strike(self) -> anyhow::Result<(Show, Summary)> {
        // Whatever cuts this off: the last of these is dropped first, so the worker before its directory.
        let Stage { place, stop_provider, mut provider, show, feeds, mut worker, .. } = self;
        feeds.close().await;
        worker.kill().await.context("cannot end the worker")?;
        stop_provider.cancel();
        let summary = match provider.join_next().await {
            Some(ended) => ended?.context("the simulated models")?,
            None => Summary::default(),
        };
        drop(place);
        Ok((show, summary))
    }
}

async fn loopback() -> anyhow::Result<TcpListener> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    TcpListener::bind(any).await.context("no port is free on 127.0.0.1; end a program that listens there")
}
