//! How commands talk to the running processor: HTTP, with answers as JSON and failures in words.
//!
//! Never opens the processor's directory, and never guesses what a failed request did.

mod events;

pub(super) use events::{Event, Events};

use super::Global;
use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Url};
use serde_json::Value;
use std::time::Duration;

/// The processor is near: what does not connect by then is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Between two pieces of an answer. Event streams say that they live every 15 s; the slowest single
/// answer is a redrive of thousands.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// Where a processor without configuration listens.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("no processor answers at {url} ({why}); start one with `tidegate run`, or give --url")]
    NoAnswer { url: String, why: &'static str },
    /// The processor's own words.
    #[error("{message}\n  {help}")]
    Refused { status: u16, code: String, message: String, help: String, error: Box<Value> },
    #[error("what answers at {url} is not a tidegate processor ({what}); give --url")]
    Stranger { url: String, what: String },
}

impl Failed {
    /// What is wrong, without what to do about it: for a sentence that goes on.
    pub(super) fn what(&self) -> String {
        match self {
            Failed::NoAnswer { url, why } => format!("no processor answers at {url} ({why})"),
            Failed::Refused { message, .. } => message.clone(),
            Failed::Stranger { url, what } => {
                format!("what answers at {url} is not a tidegate processor ({what})")
            }
        }
    }

    /// It may go well a little later.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Failed::NoAnswer { .. } | Failed::Refused { status: 429 | 503, .. })
    }
}

impl Client {
    pub(super) fn new(global: &Global) -> anyhow::Result<Client> {
        let text = match &global.url {
            Some(url) => url.clone(),
            None => configured(global),
        };
        let mut base = Url::parse(&text)
            .map_err(|e| anyhow::anyhow!("`{text}` is not a URL ({e}); write --url http://HOST:PORT"))?;
        anyhow::ensure!(
            base.has_host() && !base.cannot_be_a_base(),
            "`{text}` is not a URL of a server; write --url http://HOST:PORT"
        );
        base.set_path("");
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(READ_WITHIN)
            .tcp_nodelay(true);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        Ok(Client { http: builder.build().context("cannot set up an HTTP client")?, base })
    }

    pub(super) fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failed> {
        self.send(self.request(Method::GET, path, query)).await
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Failed> {
        self.send(self.request(Method::POST, path, &[]).json(body)).await
    }

    /// JSON lines.
    pub(super) async fn post_lines(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        lines: Vec<u8>,
    ) -> Result<Value, Failed> {
        let request = self.request(Method::POST, path, query).header("content-type", "application/x-ndjson");
        self.send(request.body(lines)).await
    }

    pub(super) async fn bytes(&self, path: &[&str]) -> Result<bytes::Bytes, Failed> {
        let response = self.request(Method::GET, path, &[]).send().await.map_err(|e| self.no_answer(&e))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| self.no_answer(&e))?;
        if status.is_success() { Ok(body) } else { Err(self.refused(status.as_u16(), &body)) }
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        self.http.request(method, url).query(query)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Failed> {
        let response = request.send().await.map_err(|e| self.no_answer(&e))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| self.no_answer(&e))?;
        if !status.is_success() {
            return Err(self.refused(status.as_u16(), &body));
        }
        serde_json::from_slice(&body).map_err(|_| self.stranger(status.as_u16()))
    }

    fn refused(&self, status: u16, body: &[u8]) -> Failed {
        let error =
            serde_json::from_slice::<Value>(body).ok().map(|v| v["error"].clone()).filter(Value::is_object);
        let Some(error) = error else { return self.stranger(status) };
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        Failed::Refused {
            status,
            code: text("code"),
            message: text("message"),
            help: text("help"),
            error: Box::new(error),
        }
    }

    fn stranger(&self, status: u16) -> Failed {
        Failed::Stranger { url: self.url().to_owned(), what: format!("HTTP {status} without our JSON") }
    }

    fn no_answer(&self, e: &reqwest::Error) -> Failed {
        let why = match e {
            e if e.is_timeout() => "it took too long",
            e if e.is_connect() => "connection refused",
            _ => "the connection broke",
        };
        Failed::NoAnswer { url: self.url().to_owned(), why }
    }
}

/// Read without judging the rest of the file: a mistake elsewhere must not keep anybody from looking.
fn configured(global: &Global) -> String {
    let file = std::fs::read_to_string(global.config()).ok();
    let table = file.and_then(|text| text.parse::<toml::Table>().ok());
    let listen = table.as_ref().and_then(|t| t.get("http")?.get("listen")?.as_str());
    listen.map_or_else(|| DEFAULT_URL.to_owned(), |listen| format!("http://{}", reachable(listen)))
}

/// A processor that listens everywhere is asked on loopback.
fn reachable(listen: &str) -> String {
    match listen.parse::<std::net::SocketAddr>() {
        Ok(at) if at.ip().is_unspecified() => format!("127.0.0.1:{}", at.port()),
        _ => listen.to_owned(),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(url: Option<&str>, config: &str) -> Global {
        Global { config: Some(config.into()), url: url.map(str::to_owned), json: false }
    }

    #[test]
    fn the_url_comes_from_the_option_else_the_configuration_else_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.toml");
        // The rest of the file is a mistake, and does not matter here.
        std::fs::write(&file, "[http]\nlisten = \"0.0.0.0:9000\"\n[nonsense]\n").unwrap();
        let config = file.to_str().unwrap();
        assert_eq!(Client::new(&global(None, config)).unwrap().url(), "http://127.0.0.1:9000");
        assert_eq!(Client::new(&global(Some("http://there:1/"), config)).unwrap().url(), "http://there:1");
        assert_eq!(Client::new(&global(None, "/nowhere")).unwrap().url(), DEFAULT_URL);
        let wrong = Client::new(&global(Some("there:1"), config)).err().unwrap().to_string();
        assert!(wrong.contains("write --url http://HOST:PORT"), "{wrong}");
    }

    #[test]
    fn a_path_keeps_hostile_segments_apart() {
        let client = Client::new(&global(Some("http://127.0.0.1:1"), "/nowhere")).unwrap();
        let request = client
            .request(Method::GET, &["v1", "tasks", "a/b?c#d e\u{e9}"], &[("tenant", "x&y")])
            .build()
            .unwrap();
        assert_eq!(
            request.url().as_str(),
            "http://127.0.0.1:1/v1/tasks/a%2Fb%3Fc%23d%20e%C3%A9?tenant=x%26y"
        );
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let client = Client::new(&global(Some(&url), "/nowhere")).unwrap();
        let failed = client.get(&["v1", "status"], &[]).await.unwrap_err();
        assert!(failed.passes());
        let said = failed.to_string();
        assert_eq!(
            said,
            format!(
                "no processor answers at {url} (connection refused); start one with `tidegate run`, or give --url"
            )
        );
    }
}
