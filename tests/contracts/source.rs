//! The form of the source: openings, lengths, and who may import whom.

use regex::Regex;
use std::path::{Path, PathBuf};

/// The stages of the pipeline. Only `pipeline` knows their order.
const STAGES: [&str; 6] = ["consume", "dedupe", "infer", "validate", "weigh", "write"];
/// Vocabulary that a stage takes from another one's folder: data without behaviour, named by the port.
/// Each pair has its reason.
const SEAMS: [(&str, &str, &str); 0] = [];

/// A technology's crate, and the only places that may import it.
const EDGES: [(&str, &[&str]); 22] = [
    ("apache_avro", &["src/avro/"]),
    ("num_bigint", &["src/avro/"]),
    ("cel", &["src/cel.rs", "src/cel/"]),
    ("jsonschema", &["src/validate/"]),
    ("redb", &["src/engine/embedded/"]),
    ("redis", &["src/engine/distributed/redis/"]),
    ("rdkafka", &["src/engine/distributed/kafka/"]),
    ("base64", &["src/avro/", "src/engine/distributed/metadata.rs", "src/serve/records.rs"]),
    ("crc32c", &["src/engine/"]),
    ("rustix", &["src/engine/embedded/", "src/cli/parent.rs"]),
    ("minijinja", &["src/infer/"]),
    ("reqwest", &["src/avro/", "src/infer/", "src/cli/"]),
    ("axum", &["src/serve/", "src/simulate/"]),
    ("hyper", &["src/serve/"]),
    ("hyper_util", &["src/serve/"]),
    ("ratatui", &["src/cli/"]),
    ("indicatif", &["src/cli/"]),
    ("comfy_table", &["src/cli/"]),
    ("clap", &["src/cli/", "src/main.rs"]),
    ("anyhow", &["src/cli/", "src/main.rs"]),
    ("metrics_exporter_prometheus", &["src/telemetry.rs", "src/telemetry/"]),
    // `check` judges a filter as `run` would read it.
    ("tracing_subscriber", &["src/telemetry.rs", "src/telemetry/", "src/settings/worker.rs"]),
];

/// Lines without tests: nine files in ten are at most this long, and none is longer than the second.
const P90_LINES: usize = 350;
const MOST_LINES: usize = 700;

/// A Rust file: its path from the top, and its text without the part behind `#[cfg(test)]`.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// The code: comments do not import anything, and tests may reach anywhere.
    fn code(&self) -> String {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return String::new();
        }
        self.text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, in the order of their paths.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no source below {folder}");
    found
        .into_iter()
        .map(|path| {
            let whole = std::fs::read_to_string(&path).unwrap();
            let text = whole.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            Source { path, text }
        })
        .collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_opens_by_saying_what_it_does() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        assert!(source.text.starts_with("//! "), "{} must open with `//! ` and a sentence", source.path);
    }
}

#[test]
fn stages_do_not_import_each_other() {
    for source in sources("src") {
        let Some(stage) = STAGES.iter().find(|s| source.path.starts_with(&format!("src/{s}/"))) else {
            continue;
        };
        for other in imported(&source.code()) {
            let seam = SEAMS.iter().any(|(from, to, _)| from == stage && *to == other);
            assert!(
                other == *stage || seam || !STAGES.contains(&other.as_str()),
                "{}: the stage `{stage}` reaches into the stage `{other}`; only `pipeline` knows both",
                source.path
            );
        }
    }
}

/// Every module of our own that the code names behind `crate::`, in braces or not.
fn imported(code: &str) -> Vec<String> {
    let single = Regex::new(r"\bcrate::([a-z_]+)").unwrap();
    let group = Regex::new(r"\bcrate::\{([^;]*)\};").unwrap();
    let member = Regex::new(r"(?:^|,)\s*([a-z_]+)").unwrap();
    let alone = single.captures_iter(code).map(|c| c[1].to_owned());
    let grouped = group.captures_iter(code).flat_map(|c| {
        let inside = c[1].to_owned();
        member.captures_iter(&inside).map(|m| m[1].to_owned()).collect::<Vec<_>>()
    });
    alone.chain(grouped).collect()
}

#[test]
fn imports_are_found_in_braces_too() {
    let code = "use crate::dedupe::Claim;\nuse crate::{task::Key, weigh};\nlet x = crate::write::json();";
    assert_eq!(imported(code), ["dedupe", "write", "task", "weigh"]);
}

#[test]
fn a_technology_is_imported_in_one_place() {
    for (name, places) in EDGES {
        let pattern = Regex::new(&format!(r"(^|[^:\w.]){name}::|\buse {name}\b")).unwrap();
        for source in sources("src") {
            let at_home = places.iter().any(|p| source.path.starts_with(p));
            let guest = !at_home && pattern.is_match(&source.code());
            assert!(!guest, "{} uses the crate `{name}`, which is at home in {places:?}", source.path);
        }
    }
}

#[test]
fn files_stay_a_screen_to_three() {
    let sources = sources("src");
    let mut lengths: Vec<usize> = sources.iter().map(Source::lines).collect();
    lengths.sort_unstable();
    let p90 = lengths[(lengths.len() - 1) * 9 / 10];
    let median = lengths[lengths.len() / 2];
    let longest: Vec<String> = sources
        .iter()
        .filter(|s| s.lines() > P90_LINES)
        .map(|s| format!("{} {}", s.lines(), s.path))
        .collect();
    println!("{} files, median {median}, p90 {p90}; above {P90_LINES}: {longest:?}", lengths.len());
    assert!(p90 <= P90_LINES, "one file in ten has more than {P90_LINES} lines (p90 is {p90}): {longest:?}");
    let giants: Vec<_> = sources.iter().filter(|s| s.lines() > MOST_LINES).map(|s| &s.path).collect();
    assert!(giants.is_empty(), "more than {MOST_LINES} lines: {giants:?}");
}

/// Everything, unit tests too: whole files, without comments.
fn whole_files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        walk(&root().join(folder), &mut found);
    }
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), code.join("\n"))
    };
    found.into_iter().map(read).collect()
}

/// What of the code is a stub, an ignored test or a lint silenced without a reason.
fn left_to_do(code: &str) -> Vec<String> {
    let stub = Regex::new(r"\b(todo|unimplemented|dbg)!|#\[ignore|#\[cfg_attr\([^\]]*ignore").unwrap();
    let allow = Regex::new(r"#!?\[(allow|expect)\([^)]*\)").unwrap();
    let stubs = stub.find_iter(code).map(|m| m.as_str().to_owned());
    let bare = allow.find_iter(code).map(|m| m.as_str().to_owned()).filter(|a| !a.contains("reason"));
    stubs.chain(bare).collect()
}

#[test]
fn nothing_is_ignored_and_nothing_is_left_to_do() {
    let files = whole_files();
    assert!(files.iter().any(|(path, code)| path.starts_with("src/") && code.contains("#[cfg(test)]")));
    assert!(files.iter().any(|(path, _)| path == "src/engine/embedded/tests/disks.rs"));
    for (path, code) in files {
        // This file holds the very words it looks for.
        if path != "tests/contracts/source.rs" {
            assert_eq!(left_to_do(&code), [""; 0], "{path}");
        }
    }
}

#[test]
fn only_one_place_prints() {
    let print = Regex::new(r"\be?print(ln)?!").unwrap();
    // `say` ends well when a pipe is closed, where these panic. The crash hook's words are its last.
    let printers = ["src/cli/text.rs", "src/engine/crash.rs"];
    for source in sources("src").iter().filter(|s| !printers.contains(&s.path.as_str())) {
        let found = print.find(&source.code()).map(|m| m.as_str().to_owned());
        assert_eq!(found, None, "{}: `say`, `say_json` or `note` of src/cli/text.rs", source.path);
    }
}

#[test]
fn stubs_ignored_tests_and_bare_allows_are_found() {
    let code = "#[ignore = \"slow\"]\nfn f() { todo!() }\n#[allow(dead_code)]\n#[expect(dead_code, reason = \"r\")]\ndbg!(1);";
    assert_eq!(left_to_do(code), ["#[ignore", "todo!", "dbg!", "#[allow(dead_code)"]);
}

#[test]
fn every_crash_point_is_listed_and_every_listed_one_is_there() {
    let pattern = Regex::new(r#"crash_point\("([^"]+)"\)"#).unwrap();
    let mut found: Vec<String> = Vec::new();
    for source in sources("src") {
        found.extend(pattern.captures_iter(&source.code()).map(|c| c[1].to_owned()));
    }
    found.sort();
    found.dedup();
    let mut listed = tidegate::engine::crash::POINTS.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed);
}

/// The names of the tests below these folders.
fn tests_of(folders: &[&str]) -> Vec<String> {
    let test = Regex::new(r"#\[(?:tokio::)?test\b[^\]]*\]\s+(?:async )?fn (\w+)").unwrap();
    let texts = folders.iter().flat_map(|folder| sources(folder)).map(|source| source.text);
    texts.flat_map(|text| test.captures_iter(&text).map(|c| c[1].to_owned()).collect::<Vec<_>>()).collect()
}

/// The rows of a crash table, in order, and what is wrong with the tests that they name.
fn crash_rows(table: &str, simulated: &[String], real: &[String]) -> (Vec<u32>, Vec<String>) {
    let name = Regex::new("`([^`]+)`").unwrap();
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["//!", row, _, _, in_simulation, on_servers, ""] = cells[..] else { continue };
        let Ok(row) = row.parse::<u32>() else { continue };
        rows.push(row);
        if !in_simulation.contains(&format!("_{row}_")) || on_servers.is_empty() {
            wrong.push(format!("row {row} has no test"));
        }
        for (cell, tests) in [(in_simulation, simulated), (on_servers, real)] {
            for named in name.captures_iter(cell).map(|c| c[1].to_owned()) {
                let there = match named.strip_suffix('…') {
                    Some(beginning) => tests.iter().any(|test| test.starts_with(beginning)),
                    None => tests.contains(&named),
                };
                if !there {
                    wrong.push(format!("row {row}: no test `{named}`"));
                }
            }
        }
    }
    (rows, wrong)
}

#[test]
fn every_row_of_the_crash_table_has_the_tests_it_names() {
    let table = std::fs::read_to_string(root().join("src/engine/distributed/mod.rs")).unwrap();
    let simulated = tests_of(&["tests/simulation"]);
    // What real servers cannot be brought to is a unit test of the engine's.
    let real = tests_of(&["tests/live", "src/engine/distributed"]);
    let (rows, wrong) = crash_rows(&table, &simulated, &real);
    assert_eq!(wrong, [""; 0]);
    assert_eq!(rows, (1..=26).collect::<Vec<u32>>(), "each row once, and none is missing");
}

#[test]
fn a_row_without_its_tests_is_found() {
    let tests = ["row_1_dies".to_owned(), "dies_too".to_owned()];
    let table = "//! | 1 | a | b | `row_1_d…` | `dies_too` |\n//! | 2 | a | b | `row_2_dies` | `dies_t` |\n\
                 //! | 3 | a | b | | |\n//! | 4 | a |";
    let (rows, wrong) = crash_rows(table, &tests[..1], &tests[1..]);
    assert_eq!(rows, [1, 2, 3]);
    assert_eq!(wrong, ["row 2: no test `row_2_dies`", "row 2: no test `dies_t`", "row 3 has no test"]);
}
