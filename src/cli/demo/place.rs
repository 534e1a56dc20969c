//! The demo's own directory: configuration, data and logs, removed with everything in it at the end.

use anyhow::Context as _;
use std::path::{Path, PathBuf};

const CONFIGURATION: &str = include_str!("../../../deploy/demo/tidegate.toml");
const PROMPTS: [(&str, &str); 2] = [
    ("ticket.md", include_str!("../../../deploy/demo/prompts/ticket.md")),
    ("refund.md", include_str!("../../../deploy/demo/prompts/refund.md")),
];
/// What the models answer, and what goes wrong when.
pub(super) const SCENARIO: &str = include_str!("../../../deploy/demo/provider.toml");
/// Where the written configuration looks for its models.
const WRITTEN_URL: &str = "http://127.0.0.1:9009/v1";

pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    pub(super) fn new(provider: std::net::SocketAddr) -> anyhow::Result<Place> {
        let base = std::env::temp_dir();
        let name = format!("tidegate-demo-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let dir = base.join(name);
        let cannot = || {
            format!("cannot write to {}; point TMPDIR at a directory that can be written to", base.display())
        };
        std::fs::create_dir(&dir).with_context(cannot)?;
        // From here on the directory is removed, whatever happens.
        let place = Place { dir };
        let prompts = place.dir.join("prompts");
        std::fs::create_dir(&prompts).with_context(cannot)?;
        for (name, text) in PROMPTS {
            std::fs::write(prompts.join(name), text).with_context(cannot)?;
        }
        let text = CONFIGURATION.replace(WRITTEN_URL, &format!("http://{provider}/v1"));
        std::fs::write(place.configuration(), text).with_context(cannot)?;
        Ok(place)
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.dir.join("tidegate.toml")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What the worker says on stderr, over all its lives.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("worker.log")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whoever cannot remove it now finds it among the temporary files.
        let _: std::io::Result<()> = std::fs::remove_dir_all(&self.dir);
    }
}

/// The last lines of a file, for a message.
pub(super) fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last: Vec<String> = all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|l| format!("  {}", super::super::text::plain(l)))
        .collect();
    last.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::simulate::Scenario;

    #[test]
    fn the_configuration_is_right_and_goes_to_the_given_provider() {
        let place = Place::new("127.0.0.1:4321".parse().unwrap()).unwrap();
        let settings = Settings::load(&place.configuration()).map_err(|p| p.to_string()).unwrap();
        assert!(settings.models.iter().all(|m| m.url.contains("127.0.0.1:4321")));
        let kinds: Vec<&str> = settings.kinds.iter().map(|k| &*k.name).collect();
        assert_eq!(kinds, super::super::tickets::KINDS);
        let dir = place.dir.clone();
        drop(place);
        assert!(!dir.exists());
    }

    #[test]
    fn the_scenario_is_right() {
        Scenario::parse(SCENARIO).unwrap();
    }
}
