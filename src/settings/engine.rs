//! `[engine]` as meant. The keys' meaning, defaults and ranges stand in `raw.rs`.

use super::bounds::{name_is_plain, within};
use super::cluster::ClusterSettings;
use super::context::Context;
use super::raw::RawEngine;
use super::written::{Field, Size};
use crate::engine::embedded::EmbeddedSettings;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSettings {
    /// Where the embedded engine lives.
    pub dir: PathBuf,
    /// Kafka and Redis in its place.
    pub cluster: Option<ClusterSettings>,
    /// Goes before the name of every topic that Tidegate makes.
    pub prefix: String,
    /// How long a closed key is known, counted from its outcome.
    pub dedupe_window: Duration,
    /// How long results, dead letters and review outcomes stay; never shorter than the dedupe window.
    pub retention: Duration,
    /// Bytes the directory may take before intake pauses. `None`: until the disk is full.
    pub disk_max: Option<u64>,
    /// Of each topic.
    pub partitions: u32,
    /// Largest record accepted as a task, bytes.
    pub record_max: usize,
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;

impl EngineSettings {
    pub(super) fn resolve(raw: &RawEngine, cx: &Context<'_>) -> Self {
        let report = cx.report;
        let window = within(&raw.dedupe_window, "engine.dedupe_window", MINUTE..=DAY * 366, report);
        let dedupe_window = window.unwrap_or(DAY * 7);
        let sizes = Size(1024)..=Size(8 * MIB);
        let record_max = within(&raw.record_max, "engine.record_max", sizes, report);
        // Less than a few segments of the log would leave no room to give any back.
        let disk_max = within(&raw.disk_max, "engine.disk_max", Size(64 * MIB)..=Size(1 << 50), report);
        if let Some(given) = raw.dir.given().filter(|dir| dir.get_ref().trim().is_empty()) {
            report.add(given.span(), "`engine.dir` is empty", "name a directory of its own: \"data\"");
        }
        let partitions = within(&raw.partitions, "engine.partitions", 1..=256, report).unwrap_or(8);
        let prefix = prefix(raw, cx);
        EngineSettings {
            cluster: ClusterSettings::resolve(raw, &prefix, cx),
            dir: cx.path(raw.dir.get().map_or("data", String::as_str)),
            prefix,
            dedupe_window,
            retention: retention(raw, dedupe_window, cx),
            disk_max: disk_max.map(|size| size.0),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            record_max: usize::try_from(record_max.map_or(MIB, |size| size.0)).unwrap_or(usize::MAX),
        }
    }

    /// What the embedded engine is opened with. Retention of outcomes stands in their topics.
    pub fn embedded(&self) -> EmbeddedSettings {
        EmbeddedSettings {
            window: self.dedupe_window,
            budget_bytes: self.disk_max,
            ..EmbeddedSettings::new(&self.dir)
        }
    }
}

fn retention(raw: &RawEngine, window: Duration, cx: &Context<'_>) -> Duration {
    let Some(given) = raw.retention.given() else { return window };
    if *given.get_ref() < window && !matches!(raw.dedupe_window, Field::Wrong(_)) {
        let what = "`engine.retention` is shorter than `dedupe_window`";
        let help = "a known key is answered from its outcome in the log: keep results at least as long";
        cx.report.add(given.span(), what, help);
    }
    *given.get_ref()
}

fn prefix(raw: &RawEngine, cx: &Context<'_>) -> String {
    let Some(given) = raw.prefix.given() else { return String::new() };
    let prefix = given.get_ref();
    if !prefix.is_empty() && !name_is_plain(prefix) {
        let help = "at most 64 letters, digits, `.`, `-`, `_`, as topics take them";
        cx.report.add(given.span(), "`engine.prefix` cannot begin a topic's name", help);
    }
    prefix.clone()
}
