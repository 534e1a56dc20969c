//! The commands: one file each. This file only names them and picks one.
//!
//! Exit codes, for every command: **0** done; **1** failed, or the answer is no; **2** the command line
//! or the configuration is wrong, and nothing was done. Whose output nobody reads any more
//! (`| head -1`) has done what was wanted, and ends at once, as if it were done. What a signal cuts off ends as shells say it,
//! with 128 and the signal's number.

mod check;
mod client;
mod dead_letters;
mod demo;
mod explain;
mod parent;
mod resume;
mod review;
mod run;
mod show;
mod simulate_provider;
mod status;
mod submit;
mod tail;
mod text;
#[cfg(feature = "kafka")]
mod topics;
mod try_task;

use crate::settings::Problems;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A stream processor for language-model work that must not go wrong.
#[derive(clap::Parser, Debug)]
#[command(name = "tidegate", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command understands.
#[derive(clap::Args, Debug, Clone)]
pub struct Global {
    /// The configuration file (default: tidegate.toml)
    #[arg(short, long, global = true, env = "TIDEGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the running processor answers (default: what the configuration says).
    #[arg(long, global = true, env = "TIDEGATE_URL")]
    pub url: Option<String>,
    /// Print JSON, one object per line, instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Global {
    /// The configuration file, whether it is there or not.
    pub fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new("tidegate.toml"))
    }
}

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Show everything at once: simulated models with an outage, results, a review item
    Demo(demo::Args),
    /// Read the configuration as `run` would, and report every mistake with its line
    Check(check::Args),
    /// Take one task through its kind without writing anything
    Try(try_task::Args),
    /// Run the processor and its HTTP API
    Run(run::Args),
    /// Send tasks from JSON lines
    Submit(submit::Args),
    /// Follow results, review items or dead letters
    Tail(tail::Args),
    /// Tell one task's whole story
    Show(show::Args),
    /// Say why things are as they are
    Status(status::Args),
    /// Read a kind again that pauses because its tasks die in numbers
    Resume(resume::Args),
    /// Drain the review queue
    Review(review::Args),
    /// Look at dead letters and send them again
    DeadLetters(dead_letters::Args),
    /// Plan the topics on Kafka, and make them as they must be
    #[cfg(feature = "kafka")]
    Topics(topics::Args),
    /// Serve simulated models, with faults from a scenario file
    SimulateProvider(simulate_provider::Args),
    /// Explain a reason code
    Explain(explain::Args),
}

/// The configuration is wrong; clap's own code for a wrong command line.
const CONFIGURATION: u8 = 2;
/// 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs one command on a runtime of its own.
pub fn main(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            text::note(format!("error: cannot start the runtime: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let json = cli.global.json;
    let done = runtime.block_on(run(cli));
    // A question to a broker that is away may sit on a thread of its own; nobody wants its answer any more.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(e) => failed(&e, json),
    }
}

/// Says why a command failed: in words on standard error, or as one object on standard output.
fn failed(e: &anyhow::Error, json: bool) -> ExitCode {
    // They say by themselves what is wrong, each with its line.
    let problems = e.downcast_ref::<Problems>();
    match (problems, e.downcast_ref::<client::Failed>()) {
        (Some(problems), _) if json => text::say_json(&json!({ "problems": problems.all })),
        (Some(problems), _) => text::note(problems),
        (None, Some(client::Failed::Refused { error, .. })) if json => {
            text::say_json(&json!({ "error": error }));
        }
        (None, _) if json => text::say_json(&json!({ "error": { "message": format!("{e:#}") } })),
        (None, _) => text::complain(&format!("error: {e:#}")),
    }
    match problems {
        Some(_) => ExitCode::from(CONFIGURATION),
        None if e.is::<try_task::Stopped>() => ExitCode::from(INTERRUPTED),
        None => ExitCode::FAILURE,
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    // Who names a file means it, also for a command that could do without. `check` has its own words.
    match &global.config {
        Some(named) if !matches!(cli.command, Command::Check(_)) => crate::settings::is_there(named)?,
        _ => {}
    }
    match cli.command {
        Command::Demo(args) => demo::run(args, &global).await,
        Command::Check(args) => check::run(args, &global).await,
        Command::Try(args) => try_task::run(args, &global).await,
        Command::Run(args) => run::run(args, &global).await,
        Command::Submit(args) => submit::run(args, &global).await,
        Command::Tail(args) => tail::run(args, &global).await,
        Command::Show(args) => show::run(args, &global).await,
        Command::Status(args) => status::run(args, &global).await,
        Command::Resume(args) => resume::run(args, &global).await,
        Command::Review(args) => review::run(args, &global).await,
        Command::DeadLetters(args) => dead_letters::run(args, &global).await,
        #[cfg(feature = "kafka")]
        Command::Topics(args) => topics::run(args, &global).await,
        Command::SimulateProvider(args) => simulate_provider::run(args, &global).await,
        Command::Explain(args) => explain::run(args, &global).await,
    }
}
