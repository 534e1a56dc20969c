//! One model as meant: the section's fields, then what its provider is known for, then the environment.
//!
//! `OPENAI_BASE_URL` and `ANTHROPIC_BASE_URL` replace the built-in addresses, never one that a section
//! names. A built-in provider needs its key, unless its address was replaced by one on this machine.

use super::bounds::within;
use super::catalogue::quoted;
use super::context::Context;
use super::raw::{RawModel, RawPrice};
use super::secret;
use super::written::{Field, closest};
use crate::infer::{Api, Model, Price, Timeouts, provider};
use secrecy::SecretString;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;

type Section<'r> = Option<(&'r Spanned<String>, &'r RawModel)>;

/// What Tidegate itself writes into requests.
const OWN_PARAMS: [&str; 8] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "system",
    "response_format",
    "output_config",
    "output_format",
];
/// What would make something else of an answer than the one text that is read.
const OTHER_ANSWERS: [&str; 5] = ["n", "tools", "tool_choice", "functions", "function_call"];
/// Headers that the connection itself writes.
const OWN_HEADERS: [&str; 6] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"];
/// What each api's requests end in; addresses are written without it.
const CALLS: [&str; 4] = ["/chat/completions", "/completions", "/responses", "/messages"];
const MS: Duration = Duration::from_millis(1);

/// What is known of one model while it is put together.
struct Making<'m> {
    name: &'m str,
    /// What messages call its table.
    place: String,
    /// Where what is missing is reported: the section if there is one, else where the kind names it.
    span: Range<usize>,
    raw: &'m RawModel,
    built_in: Option<&'static provider::Provider>,
    cx: &'m Context<'m>,
}

/// `None` where something is wrong. `secrets`: whether to read them.
pub(super) fn resolve(
    name: &Spanned<String>,
    section: Section<'_>,
    secrets: bool,
    cx: &Context<'_>,
) -> Option<Model> {
    let default = RawModel::default();
    let making = Making {
        name: name.get_ref(),
        place: format!("models.{}", quoted(name.get_ref())),
        span: section.map_or(name.span(), |(key, _)| key.span()),
        raw: section.map_or(&default, |(_, raw)| raw),
        built_in: name.get_ref().split_once('/').and_then(|(vendor, _)| provider::find(vendor)),
        cx,
    };
    making.make(secrets && cx.keys)
}

impl Making<'_> {
    fn make(&self, secrets: bool) -> Option<Model> {
        let before = self.cx.report.count();
        let api = self.api();
        let url = self.url(api);
        let model = self.model();
        let key = if secrets { self.key(url.as_deref()) } else { None };
        let window = self.window();
        let price = self.price();
        let params = self.params();
        let headers = self.headers(secrets);
        let timeouts = self.timeouts(api.zip(model.as_deref()));
        if self.cx.report.count() > before {
            return None;
        }
        let vendor = self.built_in.map_or(self.name, |p| p.name);
        Some(Model {
            name: Arc::from(self.name),
            provider: Arc::from(vendor),
            api: api?,
            url: url?,
            model: model?,
            key,
            window_tokens: window,
            price,
            params,
            headers,
            timeouts,
        })
    }

    /// Something that only a section can say is missing.
    fn missing(&self, key: &str, example: &str) {
        let what = format!("the `{key}` of model `{}` is not known", self.name);
        self.cx.report.add(self.span.clone(), what, format!("add {key} = {example} to [{}]", self.place));
    }

    fn api(&self) -> Option<Api> {
        let words = [("openai", Api::OpenAi), ("anthropic", Api::Anthropic)];
        if let Some(given) = self.raw.api.given()
            && ["azure", "vertex", "bedrock"].contains(&given.get_ref().as_str())
        {
            let help = "this version speaks \"openai\" and \"anthropic\"";
            self.cx.report.add(
                given.span(),
                format!("the api \"{}\" is not in this version", given.get_ref()),
                help,
            );
            return None;
        }
        if self.raw.api.is_absent() && self.built_in.is_none() {
            self.missing("api", "\"openai\" or \"anthropic\"");
        }
        let given =
            super::bounds::choice(&self.raw.api, &format!("{}.api", self.place), &words, self.cx.report);
        given.or(self.built_in.map(|p| p.api))
    }

    fn url(&self, api: Option<Api>) -> Option<String> {
        if let Some(given) = self.raw.url.given() {
            if let Some((what, help)) = wrong_url(given.get_ref()) {
                self.cx.report.add(given.span(), format!("`{}.url` {what}", self.place), help);
            }
            let url = given.get_ref().trim_end_matches('/');
            return Some(api.map_or_else(|| url.to_owned(), |api| versioned(api, url)));
        }
        if self.built_in.is_none() && self.raw.url.is_absent() {
            self.missing("url", "\"https://host/v1\"");
        }
        let provider = self.built_in?;
        let replaced = (self.cx.env)(provider.url_variable).filter(|url| !url.trim().is_empty());
        let Some(url) = replaced else { return Some(provider.url.to_owned()) };
        if let Some((what, help)) = wrong_url(&url) {
            let what = format!("the environment variable {} {what}", provider.url_variable);
            self.cx.report.add(self.span.clone(), what, help);
        }
        Some(versioned(provider.api, url.trim().trim_end_matches('/')))
    }

    fn model(&self) -> Option<String> {
        let named = self.built_in.and_then(|_| self.name.split_once('/')).map(|(_, model)| model.to_owned());
        let model = self.raw.model.get().cloned().or(named);
        if let Some(given) = self.raw.model.given().filter(|given| given.get_ref().trim().is_empty()) {
            let help = "the endpoint's name for it";
            self.cx.report.add(given.span(), format!("`{}.model` is empty", self.place), help);
        }
        if model.is_none() && self.raw.model.is_absent() {
            self.missing("model", "\"the endpoint's name for it\"");
        }
        model
    }

    fn key(&self, url: Option<&str>) -> Option<SecretString> {
        if let Some(given) = self.raw.key.given() {
            return match secret::read(given.get_ref(), self.cx.base, self.cx.env) {
                Ok(key) => Some(key),
                Err(why) => {
                    let help = given.get_ref().remedy();
                    self.cx.report.add(
                        given.span(),
                        format!("model `{}` has no key: {why}", self.name),
                        help,
                    );
                    None
                }
            };
        }
        let provider = self.built_in.filter(|_| self.raw.key.is_absent())?;
        let variable = secret::SecretRef::Env(provider.key_variable.to_owned());
        match secret::read(&variable, self.cx.base, self.cx.env) {
            Ok(key) => Some(key),
            Err(_) if url.is_some_and(is_loopback) => None,
            Err(why) => {
                let help = format!(
                    "set it where `tidegate` is started; to try things out without a key, point \
                     {} at `tidegate simulate-provider`",
                    provider.url_variable
                );
                self.cx.report.add(
                    self.span.clone(),
                    format!("model `{}` has no key: {why}", self.name),
                    help,
                );
                None
            }
        }
    }

    fn window(&self) -> Option<u32> {
        let name = format!("{}.window_tokens", self.place);
        let given = within(&self.raw.window_tokens, &name, 256..=100_000_000, self.cx.report);
        let known = provider::window_tokens(self.name);
        let section = !self.raw.model.is_absent() || !self.raw.url.is_absent();
        let near = closest(self.name, provider::known_models()).filter(|_| !section);
        if let (true, None, Some(near)) = (self.raw.window_tokens.is_absent(), known, near) {
            let what = format!("the model `{}` is not known", self.name);
            let help = format!(
                "did you mean `{near}`? if not, add window_tokens = 128_000 (as its provider says) to [{}]",
                self.place
            );
            self.cx.report.add(self.span.clone(), what, help);
        } else if self.raw.window_tokens.is_absent() && known.is_none() {
            self.missing("window_tokens", "128_000 (prompt and answer together, as its provider says)");
        }
        given.and_then(|tokens| u32::try_from(tokens).ok()).or(known)
    }

    fn price(&self) -> Option<Price> {
        let Some(given) = self.raw.price.given() else { return provider::price(self.name) };
        let RawPrice { input, output } = given.get_ref();
        let name = |side| format!("{}.price.{side}", self.place);
        for (field, side) in [(input, "input"), (output, "output")] {
            if field.is_absent() {
                let help = "per million tokens; leave `price` out if it is not known: cost is null then";
                self.cx.report.add(given.span(), format!("`{}` is missing", name(side)), help);
            }
        }
        let million = 0.0..=1e6;
        let input = within(input, &name("input"), million.clone(), self.cx.report)?;
        let output = within(output, &name("output"), million, self.cx.report)?;
        Some(Price { input, output })
    }

    fn params(&self) -> serde_json::Map<String, Value> {
        let Some(given) = self.raw.params.given() else { return serde_json::Map::new() };
        let Value::Object(params) = given.get_ref() else {
            let help = "for example params = { temperature = 0.0 }";
            self.cx.report.add(given.span(), format!("`{}.params` is not a table", self.place), help);
            return serde_json::Map::new();
        };
        if let Some(own) = params.keys().find(|key| OWN_PARAMS.contains(&key.as_str())) {
            let help = "Tidegate writes it into each request itself; leave it out";
            self.cx.report.add(given.span(), format!("`{}.params` may not set `{own}`", self.place), help);
        }
        if let Some(other) = params.keys().find(|key| OTHER_ANSWERS.contains(&key.as_str())) {
            let help = "one answer in text is asked for and read; leave it out";
            self.cx.report.add(given.span(), format!("`{}.params` may not set `{other}`", self.place), help);
        }
        params.clone()
    }

    fn headers(&self, secrets: bool) -> Vec<(String, SecretString)> {
        let Some(given) = self.raw.headers.given() else { return Vec::new() };
        let mut headers = Vec::new();
        for (name, value) in &given.get_ref().0 {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            if name.get_ref().is_empty() || !name.get_ref().chars().all(plain) {
                let help = "letters, digits, `-` and `_`";
                self.cx.report.add(
                    name.span(),
                    format!("\"{}\" is not the name of a header", name.get_ref()),
                    help,
                );
            }
            let lower = name.get_ref().to_ascii_lowercase();
            if OWN_HEADERS.contains(&lower.as_str()) {
                let what = format!("`{}.headers` may not set `{lower}`", self.place);
                self.cx.report.add(name.span(), what, "each request has its own; leave it out");
            }
            match secret::SecretRef::parse(value) {
                None if value.contains("env:") || value.contains("file:") => {
                    let what = format!("the header `{lower}` would be sent as it stands, `env:` and all");
                    let help = "a secret is the whole value: \"env:NAME\", with the word `Bearer` inside the \
                                variable; or give it as `key`";
                    self.cx.report.add(name.span(), what, help);
                }
                None if !value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')) => {
                    let what = format!("the header `{lower}` cannot be sent");
                    self.cx.report.add(
                        name.span(),
                        what,
                        "headers hold letters without accents, digits and signs",
                    );
                }
                None => headers.push((lower, SecretString::from(value.clone()))),
                Some(_) if !secrets => {}
                Some(place) => match secret::read(&place, self.cx.base, self.cx.env) {
                    Ok(value) => headers.push((lower, value)),
                    Err(why) => {
                        let what =
                            format!("the header `{lower}` of model `{}` has no value: {why}", self.name);
                        self.cx.report.add(name.span(), what, place.remedy());
                    }
                },
            }
        }
        headers
    }

    fn timeouts(&self, model: Option<(Api, &str)>) -> Timeouts {
        let raw = self.raw.timeouts.or_default();
        let usual = Timeouts::default();
        let first_token = model.map_or(usual.first_token, |(api, name)| provider::first_token(api, name));
        let usual = Timeouts { first_token, ..usual };
        let bound = |field: &Field<Duration>, key: &str, least, most| {
            within(field, &format!("{}.timeouts.{key}", self.place), least..=most, self.cx.report)
        };
        let minute = Duration::from_secs(60);
        let times = Timeouts {
            connect: bound(&raw.connect, "connect", MS * 10, minute).unwrap_or(usual.connect),
            first_token: bound(&raw.first_token, "first_token", MS * 10, minute * 10)
                .unwrap_or(usual.first_token),
            idle: bound(&raw.idle, "idle", MS * 10, minute * 10).unwrap_or(usual.idle),
            total: bound(&raw.total, "total", MS * 100, minute * 60).unwrap_or(usual.total),
        };
        for (field, time, key) in
            [(&raw.first_token, times.first_token, "first_token"), (&raw.idle, times.idle, "idle")]
        {
            if let Some(given) = field.given().filter(|_| time > times.total) {
                let what =
                    format!("`{}.timeouts.{key}` is longer than `total`, and never in force", self.place);
                self.cx.report.add(given.span(), what, "raise `total`, or shorten this one");
            }
        }
        times
    }
}

/// Anthropic's own programs take a base URL without the version and add it; so do we, wherever it is
/// written. OpenAI's take it with the version.
fn versioned(api: Api, url: &str) -> String {
    if api == Api::Anthropic && !url.ends_with("/v1") { format!("{url}/v1") } else { url.to_owned() }
}

/// What is wrong with an address, and what to do.
fn wrong_url(url: &str) -> Option<(&'static str, &'static str)> {
    let whole = "write it whole: \"https://host/v1\"";
    match split(url) {
        Some(("http" | "https", authority)) if authority.contains('@') => Some((
            "carries a name or password",
            "put the secret into `key` or `headers`, as env:NAME or file:PATH",
        )),
        Some(("http" | "https", _)) if url.contains(['?', '#']) => Some((
            "carries a query, and paths are put behind it",
            "leave `?` and what follows out; a key goes into `key` or `headers`, as env:NAME or file:PATH",
        )),
        Some(("http" | "https", _)) if CALLS.iter().any(|call| url.trim_end_matches('/').ends_with(call)) => {
            Some(("ends in the path of a call", "write it up to there: \"https://host/v1\""))
        }
        Some(("http" | "https", authority)) if !port_is_one(authority) => {
            Some(("has a port that is none", "ports go from 1 to 65535"))
        }
        Some(("http" | "https", authority)) if !host(authority).is_empty() => None,
        Some(("http" | "https", _)) | None => Some(("is not a URL", whole)),
        Some(_) => Some(("is neither http nor https", whole)),
    }
}

/// Whether the address is on this machine.
fn is_loopback(url: &str) -> bool {
    let host = split(url).map_or("", |(_, authority)| host(authority));
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Scheme and authority.
fn split(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.trim().split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    (!rest.contains(char::is_whitespace)).then_some((scheme, &rest[..end]))
}

fn port_is_one(authority: &str) -> bool {
    let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    behind.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn host(authority: &str) -> &str {
    if let Some(v6) = authority.strip_prefix('[') {
        return v6.split(']').next().unwrap_or("");
    }
    authority.split(':').next().unwrap_or("")
}
