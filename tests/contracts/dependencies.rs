//! Licences and doubled crates, by what cargo really builds here; no network.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// `.licences.toml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    /// SPDX id → why it is fine.
    licences: BTreeMap<String, String>,
    /// Crate → why it is there twice.
    doubled: BTreeMap<String, String>,
}

struct Crate {
    name: String,
    version: String,
    licence: String,
}

#[test]
fn every_crate_has_a_licence_we_may_use() {
    let allowed = allowed().licences;
    let refused: Vec<String> = crates()
        .into_iter()
        .filter(|c| !satisfied(&c.licence, &allowed))
        .map(|c| format!("{} {}: `{}`", c.name, c.version, c.licence))
        .collect();
    assert!(refused.is_empty(), "not allowed by .licences.toml:\n{}", refused.join("\n"));
}

#[test]
fn a_crate_is_built_in_one_version_or_has_a_reason() {
    let reasons = allowed().doubled;
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for c in crates() {
        versions.entry(c.name).or_default().insert(c.version);
    }
    versions.retain(|_, v| v.len() > 1);
    let unexplained: Vec<_> = versions.iter().filter(|(name, _)| !reasons.contains_key(*name)).collect();
    assert!(unexplained.is_empty(), "built twice without a reason in .licences.toml: {unexplained:?}");
    let stale: Vec<_> = reasons.keys().filter(|name| !versions.contains_key(*name)).collect();
    assert!(stale.is_empty(), "no longer doubled, strike from .licences.toml: {stale:?}");
}

#[test]
fn every_exception_gives_its_reason() {
    let Allowed { licences, doubled } = allowed();
    for (what, why) in licences.iter().chain(&doubled) {
        assert!(
            why.split_whitespace().count() >= 3,
            "`{what}` in .licences.toml needs a reason, not `{why}`"
        );
    }
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = BTreeMap::from([("MIT".to_owned(), String::new()), ("ISC".to_owned(), String::new())]);
    for (expression, fine) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("GPL-3.0 OR MIT AND GPL-2.0", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("MIT WITH some-exception", false),
        ("", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), fine, "`{expression}`");
    }
}

fn allowed() -> Allowed {
    let text = std::fs::read_to_string(crate::source::root().join(".licences.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

/// Everything that is built for this machine, tests included, but ourselves.
fn crates() -> Vec<Crate> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .current_dir(crate::source::root())
        .args(["tree", "--offline", "--locked", "--edges", "normal,build,dev", "--prefix", "none"])
        .args(["--no-dedupe", "--format", "{p}|{l}"])
        .output()
        .unwrap();
    assert!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut found: BTreeMap<(String, String), String> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.is_empty()) {
        // name vVERSION (proc-macro)|LICENCE
        let (package, licence) = line.split_once('|').unwrap();
        let mut words = package.split_whitespace();
        let (name, version) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        found.insert((name, version), licence.trim().to_owned());
    }
    found.retain(|(name, _), _| name != "tidegate");
    assert!(found.len() > 100, "cargo tree named only {} crates; its format has changed", found.len());
    found.into_iter().map(|((name, version), licence)| Crate { name, version, licence }).collect()
}

/// Whether an SPDX expression can be satisfied with `allowed` alone. `AND` binds closer than `OR`.
fn satisfied(expression: &str, allowed: &BTreeMap<String, String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let fine = any(&words, &mut at, allowed);
    fine && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &BTreeMap<String, String>) -> bool {
    let mut fine = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        fine |= all(words, at, allowed);
    }
    fine
}

fn all(words: &[&str], at: &mut usize, allowed: &BTreeMap<String, String>) -> bool {
    let mut fine = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        fine &= one(words, at, allowed);
    }
    fine
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeMap<String, String>) -> bool {
    match words.get(*at) {
        Some(&"(") => {
            *at += 1;
            let fine = any(words, at, allowed);
            *at += 1; // the closing bracket
            fine
        }
        Some(id) => {
            *at += 1;
            let mut name = (*id).to_owned();
            if words.get(*at) == Some(&"WITH") {
                name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
                *at += 2;
            }
            allowed.contains_key(&name)
        }
        None => false,
    }
}
