//! `tidegate resume`: reads a kind again that pauses for its dead letters.

use super::Global;
use super::client::Client;
use super::text::{say, say_json};
use serde_json::json;
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kind that `tidegate status` says is paused
    kind: String,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let told = Client::new(global)?.post(&["v1", "kinds", &args.kind, "resume"], &json!({})).await?;
    if global.json {
        say_json(&told);
    } else {
        say(format!("{} is read again; for an hour it does not pause, whatever its tasks die of", args.kind));
    }
    Ok(ExitCode::SUCCESS)
}
