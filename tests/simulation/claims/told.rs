//! Tells what a search or a walk found, step by step.

use super::search::Found;
use super::state::{A, B, C, NOBODY};
use super::steps::Label;
use std::fmt::Write;

/// `!` marks what the environment did.
pub(crate) fn story(found: &Found) -> String {
    let mut out = format!("  {:?}\n", found.broken);
    for (n, (label, fault)) in found.path.iter().enumerate() {
        let _ = writeln!(out, "  {:>2} {} {}", n + 1, if *fault { "!" } else { " " }, sentence(label));
    }
    if !found.tail.is_empty() {
        out.push_str("     then, without faults, for instance:\n");
    }
    for (label, _) in &found.tail {
        let _ = writeln!(out, "        {}", sentence(label));
    }
    out
}

fn sentence(label: &Label) -> String {
    let process = if label.process == NOBODY {
        String::new()
    } else {
        format!("P{}{}: ", label.process, if label.zombie { " (zombie)" } else { "" })
    };
    let record = match label.record {
        NOBODY => String::new(),
        A => " [A]".to_owned(),
        B => " [B]".to_owned(),
        C => " [C]".to_owned(),
        n => format!(" [record {n}]"),
    };
    format!("{process}{}{record}", label.what)
}
