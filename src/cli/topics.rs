//! `tidegate topics plan|apply`: what the topics on Kafka must be like, what differs, and makes it so.
//!
//! Never deletes a topic and never takes partitions away. What deletes records, or changes a topic that is
//! not Tidegate's own, is done only with `--allow`.

use super::Global;
use super::text::{many, note, say, say_json, wrap};
use crate::engine::TopicSpec;
use crate::engine::distributed::client::Topics;
use crate::engine::distributed::kafka::{Properties, TopicAdmin};
#[cfg(feature = "simulator")]
use crate::engine::distributed::simulated;
use crate::engine::distributed::topology::{Allow, Change, Difference, Found, differences, risks};
use crate::settings::{self, Settings};
use crate::task::Topic;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Whoever waits for longer is told for what.
const SILENT: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Show what differs, and change nothing
    Plan,
    /// Create what is missing and change what differs
    Apply {
        /// Also what deletes records (`shrink`), or changes topics that are not Tidegate's own (`others`)
        #[arg(long, value_delimiter = ',')]
        allow: Vec<Allowed>,
    },
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Allowed {
    Shrink,
    Others,
}

impl Allowed {
    fn is(self, needed: Allow) -> bool {
        matches!((self, needed), (Allowed::Shrink, Allow::Shrink) | (Allowed::Others, Allow::Others))
    }
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let settings = Settings::load_without_keys(global.config())?;
    let admin = admin(&settings).await?;
    let (specs, there) = asked(&settings, admin.as_ref()).await?;
    let window = settings.engine.dedupe_window;
    let found = differences(&specs, &there, window);
    let copies = settings.engine.cluster.as_ref().and_then(|cluster| cluster.replication);
    let ended = match args.action {
        Action::Plan => {
            plan(&found, global.json);
            ExitCode::SUCCESS
        }
        Action::Apply { allow } => apply(&found, &allow, admin.as_ref(), &settings, global.json).await?,
    };
    for (topic, what) in risks(&specs, &there, window, copies) {
        if global.json {
            say_json(&json!({ "topic": topic.as_str(), "risk": what }));
        } else {
            say(wrap(&format!("risk   {topic}: {what}"), 7).trim_start());
        }
    }
    Ok(ended)
}

async fn admin(settings: &Settings) -> anyhow::Result<Arc<dyn Topics>> {
    let Some(cluster) = &settings.engine.cluster else {
        anyhow::bail!(
            "{} uses the embedded engine, which makes its topics by itself; set `[engine] kafka` and `redis` to \
             use Kafka",
            settings.file.display()
        );
    };
    #[cfg(feature = "simulator")]
    if let Some(address) = simulated::address(&cluster.kafka) {
        let (ledger, group) = (&cluster.ledger, &cluster.group);
        return Ok(simulated::Remote::new(address, ledger, group, settings.engine.dedupe_window));
    }
    // They were looked at when the settings were read.
    let properties = Properties::new(cluster.client_properties()).map_err(|refused| {
        anyhow::anyhow!(refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    let admin = TopicAdmin::new(properties)
        .map_err(|why| anyhow::anyhow!("the Kafka client cannot be made: {why}"))?;
    // The answer to a question alone never tells a wrong password from a wrong port.
    reached(&admin, &cluster.kafka).await.map_err(|why| unasked(settings, &why))?;
    Ok(Arc::new(admin))
}

async fn reached(admin: &TopicAdmin, servers: &str) -> Result<(), String> {
    let mut reach = std::pin::pin!(admin.reach());
    if let Ok(reached) = tokio::time::timeout(SILENT, &mut reach).await {
        return reached;
    }
    note(format!("waiting for Kafka at {servers}"));
    reach.await
}

fn unasked(settings: &Settings, why: &str) -> anyhow::Error {
    let servers = settings.engine.cluster.as_ref().map_or("", |c| c.kafka.as_str());
    anyhow::anyhow!(
        "Kafka at {servers} cannot be asked: {why}; start it, or mend `[engine] kafka` and `properties`"
    )
}

/// The topics that there must be, and those of them that there are.
async fn asked(
    settings: &Settings,
    admin: &dyn Topics,
) -> anyhow::Result<(Vec<TopicSpec>, BTreeMap<Topic, Found>)> {
    let specs = settings::topics(settings);
    let names: Vec<Topic> = specs.iter().map(|spec| spec.topic.clone()).collect();
    let found = admin.describe(&names).await.map_err(|why| unasked(settings, &why))?;
    Ok((specs, found))
}

async fn planned(settings: &Settings, admin: &dyn Topics) -> anyhow::Result<Vec<Difference>> {
    let (specs, found) = asked(settings, admin).await?;
    Ok(differences(&specs, &found, settings.engine.dedupe_window))
}

fn plan(found: &[Difference], json: bool) {
    if json {
        found.iter().for_each(|difference| say_json(&view(difference, None)));
        return;
    }
    found.iter().for_each(|difference| say(line(difference)));
    if found.is_empty() {
        say("all topics are as they should be");
        return;
    }
    let breaking = found.iter().filter(|d| d.breaks.is_some()).count() as u64;
    let mut told = vec![many(found.len() as u64, "change")];
    if breaking > 0 {
        told.push(format!("`tidegate run` refuses to start until {breaking} of them are made"));
    }
    let flag = Allow::flag(found.iter().filter_map(|d| d.needs));
    told.push(format!("to make them: tidegate topics apply{flag}"));
    say(format!("\n{}", told.join("; ")));
}

async fn apply(
    found: &[Difference],
    allow: &[Allowed],
    admin: &dyn Topics,
    settings: &Settings,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let replication = settings.engine.cluster.as_ref().and_then(|cluster| cluster.replication);
    let (mut made, mut failed, mut left) = (Vec::new(), 0u64, Vec::new());
    for difference in found {
        if difference.needs.is_some_and(|needed| !allow.iter().any(|a| a.is(needed))) {
            left.push(difference.clone());
            continue;
        }
        let outcome = admin.carry_out(&difference.topic, &difference.change, replication).await;
        match &outcome {
            Ok(()) => made.push(difference.clone()),
            Err(_) => failed += 1,
        }
        if json {
            say_json(&view(difference, Some(&outcome)));
        } else {
            let told = match outcome {
                Ok(()) => line(&Difference { breaks: None, needs: None, ..difference.clone() }),
                Err(why) => wrap(&format!("FAILED {}: {why}", difference.topic), 2),
            };
            say(told);
        }
    }
    if json {
        left.iter().for_each(|difference| say_json(&view(difference, None)));
    } else {
        if found.is_empty() {
            say("all topics are as they should be");
        }
        left.iter().for_each(|difference| say(format!("left: {}", line(difference))));
        if failed > 0 || !made.is_empty() {
            let made = many(made.len() as u64, "change");
            say(format!("\n{made} made, {failed} failed, {} left", left.len()));
        }
        if !left.is_empty() {
            say(format!(
                "to make what is left: tidegate topics apply{}",
                Allow::flag(left.iter().filter_map(|d| d.needs))
            ));
        }
    }
    settled(&made, settings, admin).await;
    let refused = failed > 0 || left.iter().any(|d| d.breaks.is_some());
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A broker answers before all of them know of a change; who starts Tidegate next should find it. 5 s at most.
async fn settled(made: &[Difference], settings: &Settings, admin: &dyn Topics) {
    for _ in 0..50 {
        match planned(settings, admin).await {
            Ok(now) if now.iter().any(|left| made.contains(left)) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            _ => return,
        }
    }
}

/// One change, in lines of at most 80 columns.
fn line(difference: &Difference) -> String {
    let topic = difference.topic.as_str();
    let what = match &difference.change {
        Change::Create { partitions, settings } => {
            let of = |name: &str| settings.get(name).map_or("", String::as_str);
            let kept = match of("retention.ms").parse::<u64>() {
                Ok(ms) => format!("kept {}", settings::quantity::show_duration(Duration::from_millis(ms))),
                Err(_) => "kept until done".to_owned(),
            };
            format!(
                "create {topic}: {}, {}, {kept}",
                many(u64::from(*partitions), "partition"),
                of("cleanup.policy")
            )
        }
        Change::Grow { from, to } => format!("grow   {topic}: {from} to {to} partitions"),
        Change::Set { name, from, to } => format!("set    {topic}: {name} {from} -> {to}"),
    };
    let why = match (difference.breaks, difference.needs) {
        // That it is missing, the line says.
        (Some(_), None) if matches!(difference.change, Change::Create { .. }) => String::new(),
        (Some(why), None) => format!(" ({why})"),
        (Some(why), Some(needs)) => format!(" ({why}; needs --allow {})", needs.word()),
        (None, Some(needs)) => format!(" (needs --allow {})", needs.word()),
        (None, None) => String::new(),
    };
    wrap(&format!("{what}{why}"), 7).trim_start().to_owned()
}

fn view(difference: &Difference, outcome: Option<&Result<(), String>>) -> Value {
    let mut view = json!({
        "topic": difference.topic.as_str(),
        "breaks": difference.breaks,
        "needs": difference.needs.map(Allow::word),
    });
    let change = match &difference.change {
        Change::Create { partitions, settings } => {
            json!({ "change": "create", "partitions": partitions, "settings": settings })
        }
        Change::Grow { from, to } => json!({ "change": "grow", "from": from, "to": to }),
        Change::Set { name, from, to } => json!({ "change": "set", "name": name, "from": from, "to": to }),
    };
    if let (Value::Object(view), Value::Object(change)) = (&mut view, change) {
        view.extend(change);
    }
    if let Some(outcome) = outcome {
        view["done"] = json!(outcome.is_ok());
        view["error"] = json!(outcome.as_ref().err());
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_says_what_why_and_what_it_needs_within_eighty_columns() {
        let set = |topic: &str, breaks, needs| Difference {
            topic: Topic::new(topic),
            change: Change::Set { name: "retention.ms", from: "604800000".into(), to: "-1".into() },
            breaks,
            needs,
        };
        assert_eq!(line(&set("retry.5s", None, None)), "set    retry.5s: retention.ms 604800000 -> -1");
        let told = line(&set("tickets", Some("work would be lost"), Some(Allow::Others)));
        assert_eq!(
            told.replace("\n       ", " "),
            "set    tickets: retention.ms 604800000 -> -1 (work would be lost; needs --allow others)"
        );
        assert!(told.lines().all(|l| l.chars().count() <= 80), "{told}");
        let grow = Change::Grow { from: 4, to: 8 };
        let grow = Difference { topic: Topic::new("results"), change: grow, breaks: None, needs: None };
        assert_eq!(line(&grow), "grow   results: 4 to 8 partitions");
        assert_eq!(view(&grow, Some(&Ok(())))["done"], true);
        assert_eq!(
            Allow::words(
                [set("a", None, Some(Allow::Shrink)), set("b", None, Some(Allow::Others)), grow]
                    .iter()
                    .filter_map(|d| d.needs)
            ),
            ["others", "shrink"]
        );
    }
}
