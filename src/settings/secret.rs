//! Secrets: written as where they are (`env:NAME`, `file:PATH`), read once, never shown.

use super::problems::Report;
use super::raw::RawModel;
use super::written::{Node, Written};
use secrecy::SecretString;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Where a secret is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SecretRef {
    Env(String),
    File(String),
}

impl SecretRef {
    pub(super) fn parse(text: &str) -> Option<SecretRef> {
        let named = |prefix| text.strip_prefix(prefix).map(str::trim).filter(|n: &&str| !n.is_empty());
        let env = named("env:").map(|name| SecretRef::Env(name.to_owned()));
        env.or_else(|| named("file:").map(|path| SecretRef::File(path.to_owned())))
    }
}

impl SecretRef {
    /// What to do when it cannot be read.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            SecretRef::Env(_) => "set it where `tidegate` is started, or name another variable",
            SecretRef::File(_) => {
                "write the secret, and nothing else, into that file; paths start at the \
                                   configuration file's directory"
            }
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "env:{name}"),
            SecretRef::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl Written for SecretRef {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        let secret = node.get_ref().as_str().and_then(SecretRef::parse);
        if secret.is_none() {
            let what = format!("`{name}` does not say where the secret is");
            let help = "a secret never stands in the configuration: write \"env:NAME\" for an environment \
                        variable or \"file:PATH\" for a file; if one stood here, replace it at its provider";
            report.add(node.span(), what, help);
        }
        secret
    }
}

/// Words in the names of fields whose texts are never quoted, wherever they stand.
const TELLING: [&str; 6] = ["secret", "password", "token", "api_key", "apikey", "authorization"];

/// The spans that hold a secret, or may hold one by mistake: they are never quoted. In a model that is its
/// `key`, its headers, an address with a name in it, and what stands under a key we do not know.
pub(super) fn spans(root: &DeTable<'_>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let models = root.get("models").and_then(|m| m.get_ref().as_table());
    for (_, model) in models.into_iter().flat_map(|m| m.iter()) {
        for (name, value) in model.get_ref().as_table().into_iter().flat_map(|m| m.iter()) {
            let name: &str = name.get_ref();
            let address =
                name == "url" && value.get_ref().as_str().is_some_and(|url| url.contains(['@', '?']));
            if address || matches!(name, "key" | "headers") || !RawModel::KEYS.contains(&name) {
                hide(value, &mut found);
            }
        }
    }
    let engine = root.get("engine").and_then(|e| e.get_ref().as_table());
    for (name, value) in engine.into_iter().flat_map(|e| e.iter()) {
        let name: &str = name.get_ref();
        let address = name == "redis" && value.get_ref().as_str().is_some_and(|url| url.contains('@'));
        if address || name == "properties" {
            hide(value, &mut found);
        }
    }
    let registry = root.get("registry").and_then(|r| r.get_ref().as_table()).and_then(|r| r.get("url"));
    if let Some(url) = registry.filter(|url| url.get_ref().as_str().is_some_and(|u| u.contains(['@', '?']))) {
        hide(url, &mut found);
    }
    telling(root, &mut found);
    found
}

fn telling(table: &DeTable<'_>, found: &mut Vec<Range<usize>>) {
    for (name, value) in table.iter() {
        let name = name.get_ref().to_ascii_lowercase();
        match value.get_ref() {
            DeValue::Table(inner) => telling(inner, found),
            DeValue::String(_) if TELLING.iter().any(|word| name.contains(word)) => hide(value, found),
            _ => {}
        }
    }
}

fn hide(value: &Node<'_>, found: &mut Vec<Range<usize>>) {
    match (value.get_ref().as_table(), value.get_ref().as_str()) {
        (Some(table), _) => table.iter().for_each(|(_, inner)| hide(inner, found)),
        (None, Some(text)) if SecretRef::parse(text).is_some() => {}
        _ => found.push(value.span()),
    }
}

/// A secret file holds a key or a token; more than this is a mistake in the path.
const FILE_MAX: u64 = 64 * 1024;

/// Reads a secret that a header carries; what is wrong with it otherwise, without its value.
pub(super) fn read(
    secret: &SecretRef,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<SecretString, String> {
    let value = found(secret, base, env)?;
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Ok(SecretString::from(value));
    }
    Err(match secret {
        SecretRef::Env(name) => {
            format!("the environment variable {name} is empty, or no header could carry it")
        }
        SecretRef::File(path) => format!("{path} is empty, or no header could carry it"),
    })
}

/// Reads a secret of any text, a private key of many lines too.
pub(super) fn read_text(
    secret: &SecretRef,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let value = found(secret, base, env)?;
    if value.is_empty() { Err(format!("{secret} is empty")) } else { Ok(value) }
}

fn found(secret: &SecretRef, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let value = match secret {
        SecretRef::Env(name) => {
            env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?
        }
        SecretRef::File(path) => {
            let path = base.join(path);
            let shown = path.display();
            match std::fs::metadata(&path) {
                Ok(meta) if meta.len() > FILE_MAX => {
                    return Err(format!("{shown} is too large for a secret"));
                }
                Ok(_) => std::fs::read_to_string(&path).map_err(|e| format!("cannot read {shown}: {e}"))?,
                Err(e) => return Err(format!("cannot read {shown}: {e}")),
            }
        }
    };
    Ok(value.trim().to_owned())
}

/// The same for a text that is not valid TOML: what follows `key =` or a telling word, line by
/// line, where it does not name a place.
pub(super) fn lines(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        for word in TELLING.into_iter().chain(["key"]) {
            for (at, _) in line.to_ascii_lowercase().match_indices(word) {
                // ASCII lower-casing keeps every byte where it was.
                let rest = &line[at + word.len()..];
                let value = rest.trim_start_matches(['"', '\'']).trim_start();
                let Some(value) = value.strip_prefix('=') else { continue };
                let bare = value.trim_start().trim_start_matches(['"', '\'']);
                if !bare.starts_with("env:") && !bare.starts_with("file:") {
                    found.push(start + line.len() - value.len()..start + line.len());
                }
            }
        }
        start += line.len();
    }
    found
}
