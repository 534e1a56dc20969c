//! What is known of providers without being told: where they are, how they are spoken to, and the
//! windows of a few models. Prices change too often to be built in: an unknown price is null.

use super::model::{Api, Price};
use std::time::Duration;

/// A provider that `provider/model` names can begin with.
#[derive(Debug)]
pub struct Provider {
    pub name: &'static str,
    pub api: Api,
    pub url: &'static str,
    /// The environment variable that overrides the URL.
    pub url_variable: &'static str,
    /// The environment variable that holds the key.
    pub key_variable: &'static str,
}

const ALL: [Provider; 2] = [
    Provider {
        name: "openai",
        api: Api::OpenAi,
        url: "https://api.openai.com/v1",
        url_variable: "OPENAI_BASE_URL",
        key_variable: "OPENAI_API_KEY",
    },
    Provider {
        name: "anthropic",
        api: Api::Anthropic,
        url: "https://api.anthropic.com/v1",
        url_variable: "ANTHROPIC_BASE_URL",
        key_variable: "ANTHROPIC_API_KEY",
    },
];

/// Context windows, tokens, as the providers document them.
const WINDOWS: [(&str, u32); 8] = [
    ("openai/gpt-5", 400_000),
    ("openai/gpt-5-mini", 400_000),
    ("openai/gpt-5-nano", 400_000),
    ("openai/gpt-4.1", 1_047_576),
    ("openai/gpt-4.1-mini", 1_047_576),
    ("anthropic/claude-haiku-4-5", 200_000),
    ("anthropic/claude-sonnet-4-5", 200_000),
    ("anthropic/claude-opus-4-5", 200_000),
];

pub fn find(name: &str) -> Option<&'static Provider> {
    static TABLE: [Provider; 2] = ALL;
    TABLE.iter().find(|p| p.name == name)
}

pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|p| p.name)
}

/// `provider/model` names whose window is known.
pub fn known_models() -> impl Iterator<Item = &'static str> {
    WINDOWS.into_iter().map(|(name, _)| name)
}

pub fn window_tokens(name: &str) -> Option<u32> {
    WINDOWS.iter().find(|(known, _)| *known == name).map(|(_, window)| *window)
}

/// None is built in; the configuration may state one.
pub fn price(_name: &str) -> Option<Price> {
    None
}

/// Families of OpenAI's models that think before they speak, as documented: while they do, their chat
/// dialect sends nothing at all. Anthropic's send what they think.
const THINK_IN_SILENCE: [&str; 4] = ["gpt-5", "o1", "o3", "o4"];

/// How long to wait for the first piece of an answer, where the configuration does not say. Whoever
/// waits too briefly takes a model that thinks for one that is down.
pub fn first_token(api: Api, model: &str) -> Duration {
    let thinks = api == Api::OpenAi && THINK_IN_SILENCE.iter().any(|family| model.starts_with(family));
    Duration::from_secs(if thinks { 60 } else { 10 })
}

/// Families of Anthropic's models that can be held to a schema while they decode (`output_config`),
/// as documented; later releases of a family carry its name. Others are told in words.
const DECODE_TO_SCHEMA: [&str; 6] = [
    "claude-haiku-4-5",
    "claude-sonnet-4-5",
    "claude-opus-4-5",
    "claude-sonnet-4-6",
    "claude-opus-4-6",
    "claude-sonnet-5",
];

pub(super) fn decodes_to_schema(model: &str) -> bool {
    DECODE_TO_SCHEMA.iter().any(|family| model.starts_with(family))
}
