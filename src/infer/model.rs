//! A model as configured: provider + endpoint + name.

use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;

/// The dialect a provider speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Api {
    OpenAi,
    Anthropic,
}

/// Per million tokens, in the operator's currency.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Price {
    pub input: f64,
    pub output: f64,
}

/// Limits of one try. Defaults: `design/model-calls.md`, "Timeouts".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_token: Duration,
    /// Between two pieces of a stream.
    pub idle: Duration,
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let s = Duration::from_secs;
        Timeouts { connect: s(5), first_token: s(10), idle: s(10), total: s(120) }
    }
}

#[derive(Debug)]
pub struct Model {
    /// What the configuration calls it; line-ups, `status` and metrics use this name.
    pub name: Arc<str>,
    pub provider: Arc<str>,
    pub api: Api,
    /// Base URL, with the version part (`…/v1`).
    pub url: String,
    /// The provider's name for it.
    pub model: String,
    pub key: Option<SecretString>,
    pub window_tokens: Option<u32>,
    /// `None`: unknown, so costs are null, never 0.
    pub price: Option<Price>,
    /// Passed through into the request body as they are.
    pub params: serde_json::Map<String, serde_json::Value>,
    pub headers: Vec<(String, SecretString)>,
    pub timeouts: Timeouts,
}

impl Model {
    /// `None` where the price is unknown.
    pub(super) fn cost(&self, input_tokens: u64, output_tokens: u64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
        self.price.map(|p| (input_tokens as f64 * p.input + output_tokens as f64 * p.output) / 1e6)
    }

    /// A rough count, three bytes a token: errs on the side of too many for English.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.window_tokens.is_none_or(|window| bytes.div_ceil(3) <= window as usize)
    }
}
