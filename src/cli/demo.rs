//! `tidegate demo`: simulated models with an outage, a processor that is killed, and the sums that must
//! add up all the same.

mod books;
mod feed;
mod once;
mod place;
mod screen;
mod show;
mod stage;
mod tickets;
mod worker;

use super::Global;
use super::text::print;
use screen::{Pressed, Screen};
use show::Show;
use stage::Stage;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// When the worker is killed: the outage is over and tasks still come in.
const KILL_AT: Duration = Duration::from_secs(20);
/// Once everything rests, how long nothing more may come: a second outcome would show by then.
const QUIET: Duration = Duration::from_millis(1_500);
/// From the first record; whatever has no place by then is missing.
const LIMIT: Duration = Duration::from_secs(54);
const TICK: Duration = Duration::from_millis(50);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print one line for each event and a summary, then end (default where the output is no terminal)
    #[arg(long)]
    once: bool,
    /// Decides what is left to chance; the same seed sends the same tasks
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// With --once: kill the worker with -9 in the middle
    #[arg(long, value_name = "YES", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    kill: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    // Watched before there is anything that could be left behind.
    let mut signals = Signals::watch()?;
    let play = async {
        if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            once(&args, global).await
        } else {
            live(&args, global).await
        }
    };
    // Whatever ends this first: the stage is dropped, and the worker with it.
    tokio::select! {
        ended = play => ended.or_else(seen_enough),
        code = signals.next() => {
            super::text::note("stopped by you, nothing is left behind; run `tidegate demo` to begin again");
            Ok(code)
        }
    }
}

/// Who closes the pipe has seen enough: that is a good end.
fn seen_enough(e: anyhow::Error) -> anyhow::Result<ExitCode> {
    match e.downcast_ref::<std::io::Error>() {
        Some(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        _ => Err(e),
    }
}

async fn once(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut stage = Stage::set(args.seed, global).await?;
    let mut tick = tokio::time::interval(TICK);
    let (mut killed, mut quiet_since) = (!args.kill, Instant::now());
    while stage.now() < LIMIT && stage.show.broken.is_none() {
        tokio::select! {
            told = stage.feeds.told.recv() => {
                let Some(told) = told else { break };
                let lines = stage.take(told);
                once::lines(&lines)?;
                if !lines.is_empty() {
                    quiet_since = Instant::now();
                }
            }
            _ = tick.tick() => {
                stage.tend()?;
                if !killed && stage.now() >= KILL_AT {
                    killed = true;
                    once::lines(stage.kill().await?.as_slice())?;
                }
                if stage.show.rests() && quiet_since.elapsed() >= QUIET {
                    break;
                }
            }
        }
    }
    stage.show.over = true;
    let took = stage.now();
    let (show, summary) = stage.strike().await?;
    once::summary(&show, took, summary.answered_before)?;
    ended(&show, summary.answered_before)
}

/// Until `q`.
async fn live(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    super::text::note("starting simulated models and a worker…");
    let mut stage = Stage::set(args.seed, global).await?;
    let mut screen = Screen::open()?;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            told = stage.feeds.told.recv() => match told {
                Some(told) => drop(stage.take(told)),
                None => break,
            },
            _ = tick.tick() => {
                stage.tend()?;
                stage.show.over = stage.show.late(stage.now());
                match screen.pressed()? {
                    Some(Pressed::Quit) => break,
                    Some(Pressed::Kill) => drop(stage.kill().await?),
                    None => {}
                }
                screen.draw(&stage.show, stage.now())?;
            }
        }
    }
    drop(screen);
    let rested = stage.show.rests();
    let took = stage.now();
    let (show, summary) = stage.strike().await?;
    once::summary(&show, took, summary.answered_before)?;
    if rested || show.over || show.broken.is_some() {
        return ended(&show, summary.answered_before);
    }
    print("You left while tasks were running. `tidegate demo --once` waits for them all.")?;
    Ok(ExitCode::SUCCESS)
}

/// 0 only if the sums add up, and the models' own log agrees with what the results say was repeated.
fn ended(show: &Show, answered_again: u64) -> anyhow::Result<ExitCode> {
    let sums = show.sums();
    if show.broken.is_none() && sums.hold() && answered_again <= sums.repeats {
        print("The sums add up. Nothing of this is kept. Next: \"Your first tasks\" in README.md.")?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(why) = &show.broken {
        print(format!("It broke: {why}"))?;
    }
    print("The sums do NOT add up. Keep this output; run it again with the same --seed.")?;
    Ok(ExitCode::FAILURE)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// 128 and the number of the one that came.
    async fn next(&mut self) -> ExitCode {
        ExitCode::from(tokio::select! {
            _ = self.interrupt.recv() => 128 + 2,
            _ = self.terminate.recv() => 128 + 15,
            _ = self.hangup.recv() => 128 + 1,
        })
    }
}
