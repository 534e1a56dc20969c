//! The rows of the sums and the two tables, as texts.

use super::Model;
use crate::cli::demo::books::Sums;

pub(in crate::cli::demo) const KIND_HEAD: [&str; 6] =
    ["kind", "tasks", "results", "waiting for a person", "dead letters", "under way"];
pub(in crate::cli::demo) const MODEL_HEAD: [&str; 5] = ["model", "state", "calls", "failed", "first token"];

/// Three lines of at most 80 columns. `over`: nothing more may come.
pub(super) fn sums(sums: &Sums, over: bool) -> [String; 3] {
    let Sums { records, tasks, duplicates, refused, results, waiting, letters, nowhere, twice, .. } = *sums;
    let came = format!("records in {records} = tasks {tasks} + duplicates {duplicates} + refused {refused}");
    // What is under way is not missing, as long as it may still come.
    let missing = if over { nowhere } else { 0 };
    let under_way = if over { 0 } else { tasks - results - waiting - letters };
    let way = if under_way > 0 { format!(" + running {under_way}") } else { String::new() };
    let went = format!(
        "results {results} + waiting for a person {waiting} + dead letters {letters}{way} = tasks {tasks}"
    );
    let explained = match (sums.repeats, sums.explained) {
        (0, _) => String::new(),
        (n, e) if n == e => ", each explained".to_owned(),
        (n, e) => format!(", {} NOT explained", n - e),
    };
    let proof =
        format!("missing {missing}, twice {twice}; calls repeated after a kill: {}{explained}", sums.repeats);
    [came, went, proof]
}

pub(super) fn kind(kind: &str, row: [u64; 5]) -> [String; 6] {
    let [tasks, results, waiting, letters, under_way] = row.map(|n| n.to_string());
    [kind.to_owned(), tasks, results, waiting, letters, under_way]
}

pub(super) fn model(model: &Model) -> [String; 5] {
    let state = match model.state.as_str() {
        // Beside the calls of its lives before, "not asked yet" would be a contradiction.
        _ if !model.asked() && model.counts().0 > 0 => "not asked again yet".to_owned(),
        _ if !model.asked() => "not asked yet".to_owned(),
        "closed" => "well".to_owned(),
        "open" => format!("down since {}", super::clock(model.since)),
        "half-open" => "being tried again".to_owned(),
        "blocked" => format!("stopped since {}", super::clock(model.since)),
        other => other.to_owned(),
    };
    let first = model.first_token_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let (calls, failed) = model.counts();
    [model.name.clone(), state, calls.to_string(), failed.to_string(), first]
}
