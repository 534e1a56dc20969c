//! Asks a schema registry: a schema by its id, the latest of a subject, an id for a schema of ours.
//!
//! Tells what the registry *says* (it knows no such schema; this is none of Avro) from a registry that
//! cannot be asked, refuses us, or answers nonsense: the first is a fact about a record, the second is
//! nobody's fault but an outage. Keeps nothing and repeats nothing; `schemas.rs` does.

use super::schema::{Schema, TEXT_MAX};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

/// A schema may have `TEXT_MAX` bytes, and quoting it in JSON at most doubles what people write.
const BODY_MAX: usize = 2 * TEXT_MAX;

/// Schemas that one refers to, directly or not; more is a circle or a mistake.
const REFERENCES_MAX: usize = 64;

/// What is shown of a registry's words.
const WORDS_MAX: usize = 200;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Where a registry is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Access {
    url: Url,
    pub auth: Option<Auth>,
    /// For one request.
    pub timeout: Duration,
    /// Whether a schema that it does not have may be registered.
    pub register: bool,
}

#[derive(Clone, Debug)]
pub enum Auth {
    Basic { user: String, password: SecretString },
    Bearer(SecretString),
}

impl Access {
    /// `None`: that is no address of a registry.
    pub fn new(url: &str, auth: Option<Auth>, timeout: Duration, register: bool) -> Option<Access> {
        let url = Url::parse(url).ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && plain;
        fits.then_some(Access { url, auth, timeout, register })
    }

    pub fn url(&self) -> &str {
        self.url.as_str()
    }
}

/// Why there is no answer to go on with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// It cannot be asked, refuses us, or makes no sense. Asked again later.
    Away(String),
    /// It says that there is no such thing.
    Unknown(String),
    /// What it has is none of Avro, or nothing that we can use.
    Unusable(String),
}

pub struct Registry {
    access: Access,
    /// Made at the first request: without certificates on this machine it cannot be.
    client: OnceLock<reqwest::Client>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    id: Option<u32>,
    schema: String,
    /// Absent where it is Avro.
    #[serde(rename = "schemaType", default)]
    kind: Option<String>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
}

#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

impl Registry {
    pub fn new(access: Access) -> Self {
        Registry { access, client: OnceLock::new() }
    }

    pub fn access(&self) -> &Access {
        &self.access
    }

    pub(super) async fn by_id(&self, id: u32) -> Result<Schema, Trouble> {
        let found = self.get(&["schemas", "ids", &id.to_string()]).await?;
        self.read(found).await
    }

    /// The newest schema of a subject, with its id.
    pub(super) async fn latest(&self, subject: &str) -> Result<(u32, Schema), Trouble> {
        let found = self.get(&["subjects", subject, "versions", "latest"]).await?;
        let id =
            found.id.ok_or_else(|| Trouble::Away("the registry gave a version without an id".to_owned()))?;
        Ok((id, self.read(found).await?))
    }

    /// The id of this schema under the subject; it is registered if it may be and is not yet.
    pub(super) async fn register(&self, subject: &str, text: &str) -> Result<u32, Trouble> {
        let path: &[&str] =
            if self.access.register { &["subjects", subject, "versions"] } else { &["subjects", subject] };
        let answer = self.ask(Method::POST, path, Some(json!({ "schema": text }))).await?;
        let registered: Registered = read(&answer)?;
        Ok(registered.id)
    }

    async fn get(&self, path: &[&str]) -> Result<Found, Trouble> {
        read(&self.ask(Method::GET, path, None).await?)
    }

    /// Reads a schema, after all that it refers to has been asked for.
    async fn read(&self, found: Found) -> Result<Schema, Trouble> {
        if let Some(kind) = found.kind.filter(|kind| !kind.eq_ignore_ascii_case("AVRO")) {
            return Err(Trouble::Unusable(format!("a schema of type {}, not Avro", words(&kind))));
        }
        let mut open = found.references.unwrap_or_default();
        let (mut seen, mut others) = (HashSet::new(), Vec::new());
        let mut bytes = found.schema.len();
        while let Some(Reference { subject, version }) = open.pop() {
            if !seen.insert((subject.clone(), version)) {
                continue;
            }
            if seen.len() > REFERENCES_MAX || bytes > TEXT_MAX {
                return Err(Trouble::Unusable(format!(
                    "a schema that refers to more than {REFERENCES_MAX} others, or that has more than {TEXT_MAX} bytes"
                )));
            }
            let other = self.get(&["subjects", &subject, "versions", &version.to_string()]).await;
            let other = other.map_err(|trouble| match trouble {
                Trouble::Unknown(why) => {
                    Trouble::Unusable(format!("a schema that refers to one that is not there: {why}"))
                }
                other => other,
            })?;
            bytes += other.schema.len();
            others.push(other.schema);
            open.extend(other.references.unwrap_or_default());
        }
        Schema::parse_with(&found.schema, &others).map_err(|e| Trouble::Unusable(words(&e.to_string())))
    }

    async fn ask(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Vec<u8>, Trouble> {
        let mut url = self.access.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client()?.request(method, url).header("accept", MEDIA_TYPE);
        request = match &self.access.auth {
            Some(Auth::Basic { user, password }) => request.basic_auth(user, Some(password.expose_secret())),
            Some(Auth::Bearer(token)) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body.to_string());
        }
        let mut reply = request.send().await.map_err(|e| unreachable(&e))?;
        let status = reply.status();
        let mut answer = Vec::new();
        while let Some(piece) = reply.chunk().await.map_err(|e| unreachable(&e))? {
            if answer.len() + piece.len() > BODY_MAX {
                return Err(Trouble::Away(format!("the registry's answer has more than {BODY_MAX} bytes")));
            }
            answer.extend_from_slice(&piece);
        }
        if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
    }

    fn client(&self) -> Result<&reqwest::Client, Trouble> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .timeout(self.access.timeout)
            // A password is for this address alone.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Trouble::Away(format!("no client can be made for the registry: {e}")))?;
        Ok(self.client.get_or_init(|| client))
    }
}

fn read<T: for<'de> Deserialize<'de>>(answer: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(answer)
        .map_err(|e| Trouble::Away(format!("the registry's answer makes no sense: {e}")))
}

fn unreachable(e: &reqwest::Error) -> Trouble {
    let mut cause: &dyn std::error::Error = e;
    while let Some(below) = cause.source() {
        cause = below;
    }
    let what = if e.is_timeout() { "does not answer in time" } else { "cannot be reached" };
    Trouble::Away(format!("the registry {what}: {}", words(&cause.to_string())))
}

/// Only a registry's own 404 says something about a schema; a proxy's, or a wrong path's, does not.
fn refused(status: StatusCode, answer: &[u8]) -> Trouble {
    #[derive(Deserialize)]
    struct Refusal {
        error_code: i64,
        #[serde(default)]
        message: String,
    }
    let said: Option<Refusal> = serde_json::from_slice(answer).ok();
    let message = said.as_ref().map(|said| words(&said.message)).unwrap_or_default();
    match said {
        Some(said) if status == StatusCode::NOT_FOUND && (40_401..=40_499).contains(&said.error_code) => {
            Trouble::Unknown(message)
        }
        _ if message.is_empty() => Trouble::Away(format!("the registry answers {}", status.as_u16())),
        _ => Trouble::Away(format!("the registry answers {}: {message}", status.as_u16())),
    }
}

/// Somebody else's words, fit for a line of a log.
fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}
