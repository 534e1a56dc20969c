//! `tidegate run`: the processor, the arbiter and the HTTP API in one process.
//!
//! Builds the edges in order, waits for the end, and takes them down in the opposite order.

use super::Global;
use crate::consume::Kinds;
use crate::engine::embedded::{self, Disk, EmbeddedSettings, Weak};
use crate::engine::{Engine, Health};
use crate::infer::Models;
use crate::review::{Arbiter, Queue};
use crate::serve::{self, App};
use crate::settings::{self, Problems, Settings};
use crate::worker::Worker;
use anyhow::Context as _;
use futures::FutureExt as _;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WEAK_LEDGER: &str = "TIDEGATE_WEAK_LEDGER";
const SEGMENT_BYTES: &str = "TIDEGATE_SEGMENT_BYTES";

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Listen here instead of where the configuration says.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Keep the log and the ledger in this directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
    /// For the demo: be killed when the process that started this one, with this id, ends.
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<u32>,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    if let Some(parent) = args.parent
        && !super::parent::end_with(parent).context("this process cannot be made to end with its parent")?
    {
        return Ok(ExitCode::FAILURE);
    }
    let mut settings = Settings::load(global.config())?;
    if let Some(listen) = args.listen {
        if let Some((what, help)) = settings::open_to_others(listen) {
            return Err(Problems::whole("--listen", format!("`--listen` {what}"), help).into());
        }
        settings.http.listen = listen;
    }
    if let Some(dir) = args.dir {
        if settings.engine.cluster.is_some() {
            let help = "leave it out: with `[engine] kafka`, records lie on the brokers and claims in Redis";
            return Err(Problems::whole("--dir", "`--dir` is for the embedded engine", help).into());
        }
        settings.engine.dir = dir;
    }
    crate::telemetry::logs(settings.log.format, &settings.log.level);
    let stop = CancellationToken::new();
    let mut owner = JoinSet::new();
    owner.spawn(watch_signals(stop.clone()));
    let ended = process(Arc::new(settings), stop).await;
    owner.abort_all();
    ended.map(|()| ExitCode::SUCCESS)
}

/// Runs until `stop`: intake ends first, then what runs, then the API, then the engine.
pub(super) async fn process(settings: Arc<Settings>, stop: CancellationToken) -> anyhow::Result<()> {
    // The port is taken before the store is opened: the cheaper mistake is told first.
    let listen = settings.http.listen;
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(|e| {
        anyhow::anyhow!(
            "cannot listen on {listen} ({e}); is another process using it? set `[http] listen`, or give --listen"
        )
    })?;
    let engine = open(&settings).await?;
    let kinds = Arc::new(Kinds::new(&settings));
    let models = Arc::new(Models::new(&settings.models, crate::validate::ANSWER_MAX)?);
    let worker = Worker::new(engine.clone(), settings.clone(), kinds.clone(), models.clone());
    let arbiter = Arbiter::new(engine.clone(), settings.clone(), kinds.clone());
    let queue = Queue::default();
    let after = CancellationToken::new();
    let (view, stopping) = (worker.view(), stop.clone());
    let app = App::new(engine.clone(), settings.clone(), kinds, models, queue.clone(), view, stopping);

    let mut background = JoinSet::new();
    let (log, requests) = (engine.log.clone(), settings.topics.review_requests.clone());
    let ends = after.clone();
    background
        .spawn(part("the list of open reviews", async move { queue.follow(log, requests, ends).await }));
    let ends = after.clone();
    background.spawn(part("the arbiter", async move { arbiter.run(ends).await }));
    let ends = after.clone();
    background.spawn(part("the HTTP API", async move { serve::run(app, listener, ends).await }));
    let place = match &settings.engine.cluster {
        Some(cluster) => format!("Kafka at {}", cluster.kafka),
        None => settings.engine.dir.display().to_string(),
    };
    tracing::info!(%listen, kinds = settings.kinds.len(), %place, "tidegate runs");
    if let Some(left) = super::check::left_behind(&settings) {
        tracing::warn!("{left}");
    }
    if settings.engine.cluster.is_some() {
        let health = engine.operation.health();
        background.spawn(part("the engine", gone(health, after.clone())));
    }
    let lost = until_one_ends(worker.run(stop.clone()), &mut background, &stop).await;
    after.cancel();
    let all = async { while background.join_next().await.is_some() {} };
    if tokio::time::timeout(std::time::Duration::from_secs(5), all).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    engine.operation.close().await;
    tracing::info!("tidegate has stopped");
    match lost {
        Some(lost) => anyhow::bail!("{lost}; start the process again, nothing is lost"),
        None => Ok(()),
    }
}

/// Tells how the engine is, whenever that changes, until its clients have failed for good: a new process may do
/// better. Or until this one ends.
async fn gone(mut health: tokio::sync::watch::Receiver<Health>, ends: CancellationToken) {
    loop {
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = ends.cancelled() => return,
        }
        let now = health.borrow_and_update().clone();
        match now {
            Health::Well => tracing::info!("the engine is well"),
            Health::Partly { why } => tracing::warn!(%why, "work goes on, with trouble"),
            Health::Paused { why } => tracing::warn!(%why, "intake pauses, and goes on by itself"),
            Health::Gone { why } => {
                tracing::error!(%why, "the engine is done for");
                return;
            }
        }
    }
}

/// Runs one part of the process; says how it ended, for none ends by itself.
async fn part(name: &'static str, work: impl Future<Output = ()>) -> String {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(()) => format!("{name} has ended"),
        Err(_) => {
            metrics::counter!("tidegate_panics_total", "part" => name).increment(1);
            format!("{name} has panicked")
        }
    }
}

/// Works until told to stop, or until a part without which no decision or request is answered has ended:
/// then the process drains and fails, so that a supervisor starts it anew.
async fn until_one_ends(
    work: impl Future<Output = ()>,
    parts: &mut JoinSet<String>,
    stop: &CancellationToken,
) -> Option<String> {
    let mut work = std::pin::pin!(work);
    let ended = tokio::select! {
        () = &mut work => return None,
        Some(ended) = parts.join_next() => ended,
    };
    let lost = ended.unwrap_or_else(|e| format!("a part of the process was lost: {e}"));
    tracing::error!(%lost, "stopping, to be started again");
    stop.cancel();
    work.await;
    Some(lost)
}

async fn open(settings: &Settings) -> anyhow::Result<Engine> {
    #[cfg(feature = "kafka")]
    if let Some(cluster) = settings.cluster() {
        return Ok(crate::engine::distributed::connect(cluster).await?);
    }
    let topics = settings::topics(settings);
    let how = settings.engine.embedded();
    let segment_bytes = segment_bytes()?.unwrap_or(how.segment_bytes);
    let how = EmbeddedSettings { weak: weak_ledger()?, segment_bytes, ..how };
    // Opening replays the log's tail: disk work, not for the runtime's threads.
    let opened = tokio::task::spawn_blocking(move || embedded::open(how, topics, Arc::new(Disk))).await?;
    opened.map_err(anyhow::Error::from)
}

/// For tests: `TIDEGATE_SEGMENT_BYTES=N` seals segments, and folds the state away, that much more often.
fn segment_bytes() -> anyhow::Result<Option<u64>> {
    let Ok(text) = std::env::var(SEGMENT_BYTES) else { return Ok(None) };
    let bytes =
        text.parse().with_context(|| format!("{SEGMENT_BYTES}: `{text}` is not a number of bytes"))?;
    Ok(Some(bytes))
}

/// For tests: `TIDEGATE_WEAK_LEDGER=SEED` makes the ledger as weak as a remote one,
/// `SEED,forgets` lets it lose its latest writes as well.
fn weak_ledger() -> anyhow::Result<Option<Weak>> {
    let Ok(text) = std::env::var(WEAK_LEDGER) else { return Ok(None) };
    let (seed, how) = text.split_once(',').unwrap_or((&text, ""));
    let seed = seed.parse().with_context(|| format!("{WEAK_LEDGER}: `{seed}` is not a seed"))?;
    anyhow::ensure!(matches!(how, "" | "forgets"), "{WEAK_LEDGER}: `{how}` is not `forgets`");
    tracing::warn!(seed, forgets = how == "forgets", "the ledger is made weak, for a test");
    Ok(Some(if how == "forgets" { Weak::forgetting(seed) } else { Weak::new(seed) }))
}

/// The first signal drains, the second exits at once: nothing depends on a clean exit.
async fn watch_signals(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be watched; stop this process with kill -9");
        return;
    };
    for seen in 0.. {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if seen == 0 {
            tracing::info!("stopping: running tasks may end; a second signal exits at once");
            stop.cancel();
        } else {
            std::process::exit(130);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_dies_drains_the_work_and_fails_the_process() {
        for (dies, said) in [(true, "the arbiter has panicked"), (false, "the arbiter has ended")] {
            let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
            parts.spawn(part("the HTTP API", std::future::pending()));
            parts.spawn(part("the arbiter", async move { assert!(!dies, "as a test asks for") }));
            let (drained, ends) = (CancellationToken::new(), stop.clone());
            let work = async {
                ends.cancelled().await;
                drained.cancel();
            };
            assert_eq!(until_one_ends(work, &mut parts, &stop).await.as_deref(), Some(said));
            assert!(drained.is_cancelled(), "what ran was drained, not dropped");
        }
    }

    #[tokio::test]
    async fn a_process_that_is_told_to_stop_ends_well() {
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
        parts.spawn(part("the HTTP API", std::future::pending()));
        assert_eq!(until_one_ends(async {}, &mut parts, &stop).await, None);
    }
}
