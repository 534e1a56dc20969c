//! Measures the product from outside and prints figures, one JSON object per line.
//!
//! Every figure is of steady work on a real disk with real fsync; what is measured, and over what, is
//! in the line beside it.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has nothing to print")]

mod copy;
mod in_flight;
mod kafka;
mod latency;
mod machine;
mod recovery;
#[path = "../../rig/mod.rs"]
#[allow(dead_code, reason = "each binary uses its part of the rig")]
mod rig;
mod watch;

use serde_json::{Value, json};

/// As the binary has it: one scenario runs the worker in this very process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EMBEDDED: [&str; 4] = ["copy", "latency", "in_flight", "recovery"];
const KAFKA: [&str; 5] = ["copy", "latency", "in_flight", "rebalance", "chaos"];

fn main() {
    // cargo adds `--bench`.
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let (all, on_kafka) = match asked.as_slice() {
        [_, "--engine", "kafka"] => (&KAFKA[..], true),
        _ => (&EMBEDDED[..], false),
    };
    let scenarios: Vec<&str> = match asked.first() {
        Some(&"all") => all.to_vec(),
        Some(one) if all.contains(one) => vec![one],
        _ => {
            eprintln!("usage: tests/bench/run {} | all", EMBEDDED.join(" | "));
            eprintln!("       tests/bench/run {} | all --engine kafka", KAFKA.join(" | "));
            std::process::exit(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for scenario in scenarios {
        eprintln!("measuring {scenario}");
        runtime.block_on(async {
            match scenario {
                "copy" if on_kafka => kafka::copy::measure().await,
                "latency" if on_kafka => kafka::latency::measure().await,
                "rebalance" => kafka::rebalance::measure().await,
                "chaos" => kafka::chaos::measure().await,
                "copy" => copy::measure().await,
                "latency" => latency::measure().await,
                "in_flight" => in_flight::measure(on_kafka).await,
                _ => recovery::measure().await,
            }
        });
    }
}

/// One line of figures.
fn print(scenario: &str, figures: Value) {
    let mut line = json!({ "scenario": scenario });
    line.as_object_mut().unwrap().extend(figures.as_object().unwrap().clone());
    println!("{line}");
}

/// The value below which `share` of the sorted samples lie.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len() - 1;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below the length"
    )]
    let at = (last as f64 * share).ceil() as usize;
    (sorted[at] * 100.0).round() / 100.0
}
