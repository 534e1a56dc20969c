//! `tidegate simulate-provider`: serves simulated models until it is stopped.

use super::Global;
use super::text::{say, say_json};
use crate::simulate::{REFERENCE, Scenario, serve};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

/// Connections that wait to be accepted: a load test opens thousands at once.
const BACKLOG: u32 = 4_096;

/// `--help` tells all that a scenario may say; `-h` is short.
fn reference() -> String {
    let commented = "deploy/demo/provider.toml is a whole one.";
    format!("A scenario file, with every key there is. {commented}\n\n{REFERENCE}")
}

#[derive(clap::Args, Debug)]
#[command(after_long_help = reference())]
pub struct Args {
    /// What the models answer, and what goes wrong when (default: every model, no faults); `--help` shows all
    /// that it may say
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Where to listen; port 0 takes any that is free
    #[arg(long, default_value = "127.0.0.1:9009")]
    listen: SocketAddr,
    /// Decides what is left to chance; the same seed gives the same chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Append one JSON line for each request
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let scenario = match &args.scenario {
        Some(path) => Scenario::load(path)?,
        None => Scenario::built_in(),
    };
    let socket = if args.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    let listener = socket
        .bind(args.listen)
        .and_then(|()| socket.listen(BACKLOG))
        .map_err(|e| anyhow::anyhow!("cannot listen on {} ({e}); is another program there?", args.listen))?;
    let address = listener.local_addr()?;
    if global.json {
        say_json(&serde_json::json!({ "listening": address.to_string(), "seed": args.seed }));
    } else {
        say(format!("simulated models on http://{address}/v1 (seed {}); stop with Ctrl-C", args.seed));
        if args.scenario.is_none() {
            say("answers are made up from the schema, not from the text; --scenario gives them rules");
        }
    }
    let cancel = CancellationToken::new();
    let mut serving = std::pin::pin!(serve(scenario, args.seed, args.log, listener, cancel.clone()));
    let summary = tokio::select! {
        ended = &mut serving => ended,
        stopped = stop_signal() => {
            stopped?;
            cancel.cancel();
            serving.await
        }
    };
    let summary = summary.context("the simulated provider stopped")?;
    if global.json {
        say_json(&serde_json::to_value(&summary)?);
    } else {
        say(format!("{} requests, {} answered to the end", summary.requests, summary.complete));
    }
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C, or the polite signal of whatever started us.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}
