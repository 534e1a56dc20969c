//! What lies where: the top of the repository, and the names of modules.

use crate::source::{Source, root, sources};
use std::process::Command;

/// The visible top level stays this short; tool files are dotfiles.
const TOP: [&str; 9] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "deploy", "schemas", "src", "tests", "topics"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "types"];

#[test]
fn the_top_level_holds_nothing_that_was_not_agreed_on() {
    let out = Command::new("git").current_dir(root()).args(["ls-files", "-z"]).output();
    // An unpacked archive has no index: what lies there is what was shipped.
    let tracked: Vec<String> = match out {
        Ok(out) if out.status.success() => String::from_utf8(out.stdout)
            .unwrap()
            .split_terminator('\0')
            .map(|path| path.split('/').next().unwrap().to_owned())
            .collect(),
        _ => std::fs::read_dir(root())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["target", "data", "tmp"].contains(&name.as_str()))
            .collect(),
    };
    let mut extra: Vec<&String> =
        tracked.iter().filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str())).collect();
    extra.dedup();
    assert!(extra.is_empty(), "at the top, and nobody expects it there: {extra:?}");
}

#[test]
fn modules_are_named_for_what_they_do() {
    for Source { path, .. } in sources("src").into_iter().chain(sources("tests")) {
        let empty = path.split(['/', '.']).find(|part| EMPTY_NAMES.contains(part));
        assert!(empty.is_none(), "{path}: `{}` says nothing about what is inside", empty.unwrap());
    }
}
