//! The configuration: as written (`raw.rs`: every key with its meaning, unit, default and range) and as
//! meant ([`Settings`]).
//!
//! Loading reads the file, the files it names and the environment, compiles everything, and reports
//! every mistake at once, each with its line. It calls no model, opens no socket and writes nothing.
//!
//! ## Why not serde
//!
//! A derived reader stops at the first mistake. Here the parsed tree, which knows where each value
//! stands, is read field by field, so that one look at the report is enough.

mod bounds;
mod catalogue;
mod cluster;
mod context;
mod engine;
mod fields;
mod http;
mod intake;
mod kind;
mod model;
mod plan;
mod problems;
pub(crate) mod quantity;
mod raw;
mod registry;
mod resolved;
mod review;
mod secret;
mod shared;
mod source;
mod topics;
mod worker;
mod written;

#[cfg(test)]
mod tests;

pub use cluster::{ClusterSettings, Hidden};
pub use engine::EngineSettings;
pub use http::HttpSettings;
pub(crate) use http::open_to_others;
pub use kind::{AllowanceSettings, Ask, Format, Kind, OnConflict, Shape, Step, StepKind};
pub use problems::{Place, Problem, Problems};
pub use topics::{TopicNames, topics};
pub use worker::{LogFormat, LogSettings, WorkerSettings};

use crate::infer::Model;
use catalogue::Catalogue;
use context::Context;
use problems::Report;
use raw::RawSettings;
use source::Source;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use written::Written;
pub(crate) use written::closest;

/// A configuration in force.
pub struct Settings {
    /// The file it was read from.
    pub file: PathBuf,
    pub engine: EngineSettings,
    pub http: HttpSettings,
    pub worker: WorkerSettings,
    pub log: LogSettings,
    pub topics: TopicNames,
    /// Where the schemas of Avro records come from. `None`: no kind has such records.
    pub registry: Option<Arc<crate::avro::Source>>,
    /// Every model that some kind may reach, each once.
    pub models: Vec<Arc<Model>>,
    /// In the order of the file; never empty.
    pub kinds: Vec<Arc<Kind>>,
    /// First 16 hex digits of BLAKE3 over the configuration in force, secrets left out.
    pub digest: String,
}

/// A configuration is written by people; more than this is a mistake in the path.
const FILE_MAX: usize = 4 * 1024 * 1024;

impl Settings {
    /// Reads and compiles the configuration at `path`, with the process's environment.
    pub fn load(path: &Path) -> Result<Settings, Problems> {
        let text = read(path)?;
        Self::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// The same for what asks no model: whoever looks after topics has no keys of theirs.
    pub fn load_without_keys(path: &Path) -> Result<Settings, Problems> {
        let text = read(path)?;
        Self::parse_for(path, &text, &|name| std::env::var(name).ok(), false)
    }

    /// The same for a text that lies (or would lie) at `path`, under a given environment.
    pub fn parse(
        path: &Path,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Settings, Problems> {
        Self::parse_for(path, text, env, true)
    }

    fn parse_for(
        path: &Path,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
        keys: bool,
    ) -> Result<Settings, Problems> {
        let name = path.display().to_string();
        let (root, errors) = toml::de::DeTable::parse_recoverable(text);
        let mut hidden = secret::spans(root.get_ref());
        if !errors.is_empty() {
            hidden.extend(secret::lines(text));
        }
        let source = Source::new(&name, text, &hidden);
        let report = Report::new(&source);
        // The first alone: what follows from half a file would only hide the real mistake.
        if let Some(error) = errors.first() {
            let help = match error.message() {
                "duplicate key" => "a key or section is given once; join the two",
                _ => "TOML: key = value, texts in quotes, [section] in brackets",
            };
            report.add(error.span().unwrap_or(0..0), format!("not valid TOML: {}", error.message()), help);
            report.finish()?;
        }
        let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cx = Context { report: &report, base, env, keys };
        let root = toml::Spanned::new(root.span(), toml::de::DeValue::Table(root.into_inner()));
        let raw = RawSettings::read(&root, "", &report).unwrap_or_default();
        let settings = resolve(path, &raw, &cx);
        report.finish()?;
        Ok(settings)
    }

    pub fn kind(&self, name: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|k| &*k.name == name)
    }
}

fn resolve(path: &Path, raw: &RawSettings, cx: &Context<'_>) -> Settings {
    let engine = EngineSettings::resolve(&raw.engine.or_default(), cx);
    let topics = TopicNames::new(&engine.prefix);
    let sections = raw.models.or_default();
    let catalogue = Catalogue::new(&sections);
    let tasks = raw.tasks.or_default();
    let kinds: Vec<_> = tasks
        .0
        .iter()
        .filter_map(|(name, raw)| Kind::resolve(name, raw, &topics, &engine.prefix, &catalogue, cx))
        .collect();
    if tasks.0.is_empty() && !matches!(raw.tasks, written::Field::Wrong(_)) {
        cx.report.whole("there is no task kind", "add one: [tasks.NAME] with models, ask and answer");
    }
    shared::check(&tasks, &engine.prefix, cx);
    let models = catalogue.finish(cx);
    let registry = registry::resolve(&raw.registry, cx);
    let kinds: Vec<_> = kinds.into_iter().map(Arc::new).collect();
    registry::fits(&tasks, &raw.registry, registry.as_ref(), &kinds, cx);
    let longest = models.iter().map(|m| m.timeouts.total).max().unwrap_or(Duration::ZERO);
    let mut settings = Settings {
        file: path.to_owned(),
        http: HttpSettings::resolve(&raw.http.or_default(), cx),
        worker: WorkerSettings::resolve(&raw.worker.or_default(), longest, cx),
        log: LogSettings::resolve(&raw.log.or_default(), cx),
        engine,
        topics,
        registry: registry.map(Arc::new),
        models,
        kinds,
        digest: String::new(),
    };
    http::fits(&raw.http.or_default(), &settings, cx);
    settings.digest = resolved::digest(&resolved::deciding(&settings));
    settings
}

/// Whether a configuration lies there at all; what it says does not matter.
pub fn is_there(path: &Path) -> Result<(), Problems> {
    if path.try_exists().unwrap_or(true) { Ok(()) } else { Err(missing(path)) }
}

fn missing(path: &Path) -> Problems {
    let name = path.display().to_string();
    let shown = if path.is_relative() { format!("./{name}") } else { name.clone() };
    let help = "make one of four lines (a kind with models, ask and answer: the README has it), or name \
                another with --config FILE or TIDEGATE_CONFIG";
    Problems::whole(&name, format!("no configuration at {shown}"), help)
}

/// The text of the file, or why there is none.
fn read(path: &Path) -> Result<String, Problems> {
    let name = path.display().to_string();
    let shown = if path.is_relative() { format!("./{name}") } else { name.clone() };
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing(path),
        _ => Problems::whole(
            &name,
            format!("cannot read {shown}: {e}"),
            "mend its rights, or name another with --config FILE",
        ),
    })?;
    if bytes.len() > FILE_MAX {
        let what = format!("{shown} has {} bytes, more than 4 MiB", bytes.len());
        return Err(Problems::whole(
            &name,
            what,
            "this cannot be a configuration; name another with --config FILE",
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        Problems::whole(&name, format!("{shown} is not UTF-8 (line {line}, byte {at})"), "save it as UTF-8")
    })
}
