//! `tidegate run`: the processor, the arbiter and the HTTP API in one process.
//!
//! Builds the edges in order, waits for the end, and takes them down in the opposite order.

use super::Global;
use crate::consume::Kinds;
use crate::engine::Engine;
use crate::engine::embedded::{self, Disk, EmbeddedSettings, Weak};
use crate::infer::Models;
use crate::review::{Arbiter, Queue};
use crate::serve::{self, App};
use crate::settings::{self, Settings};
use crate::worker::Worker;
use anyhow::Context as _;
use std::net::SocketAddr;
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
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut settings = match Settings::load(&global.config) {
        Ok(settings) => settings,
        Err(problems) => {
            eprint!("{problems}");
            return Ok(ExitCode::from(super::CONFIGURATION));
        }
    };
    if let Some(listen) = args.listen {
        settings.http.listen = listen;
    }
    if let Some(dir) = args.dir {
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
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| {
        format!(
            "cannot listen on {listen}; is another process using it? set `[http] listen`, or give --listen"
        )
    })?;
    let engine = open(&settings).await?;
    let kinds = Arc::new(Kinds::new(&settings));
    let models = Arc::new(Models::new(&settings.models, crate::validate::ANSWER_MAX)?);
    let worker = Worker::new(engine.clone(), settings.clone(), kinds.clone(), models.clone());
    let arbiter = Arbiter::new(engine.clone(), settings.clone(), kinds.clone());
    let queue = Queue::default();
    let after = CancellationToken::new();
    let app = App::new(engine.clone(), settings.clone(), kinds, models, queue.clone(), worker.view());

    let mut background = JoinSet::new();
    background.spawn({
        let (log, requests, after) =
            (engine.log.clone(), settings.topics.review_requests.clone(), after.clone());
        async move { queue.follow(log, requests, after).await }
    });
    background.spawn({
        let after = after.clone();
        async move { arbiter.run(after).await }
    });
    background.spawn({
        let after = after.clone();
        async move { serve::run(app, listener, after).await }
    });
    tracing::info!(%listen, kinds = settings.kinds.len(), dir = %settings.engine.dir.display(), "tidegate runs");
    worker.run(stop).await;
    after.cancel();
    let all = async { while background.join_next().await.is_some() {} };
    if tokio::time::timeout(std::time::Duration::from_secs(5), all).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    engine.operation.close().await;
    tracing::info!("tidegate has stopped");
    Ok(())
}

async fn open(settings: &Settings) -> anyhow::Result<Engine> {
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
