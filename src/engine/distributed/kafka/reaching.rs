//! The first question to a cluster: whether it answers, which one it is, and why not if it does not.
//!
//! A client of its own, gone afterwards. It keeps what librdkafka says of brokers that it cannot use: the
//! answer to a question alone never tells a wrong password from a wrong port.

use super::super::lock;
use super::context::say;
use super::properties::Properties;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// For the whole of it: what a person at a terminal waits for, and a broker that just starts needs.
const PATIENCE: Duration = Duration::from_secs(15);
/// One try. Errors come in between.
const TRY: Duration = Duration::from_secs(3);
/// After each try: more than it has to say, and longer than it takes to say it.
const REASONS: usize = 100;
const LISTEN: Duration = Duration::from_millis(50);

#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    error: Option<(RDKafkaErrorCode, String)>,
    /// How the last connection ended. Of one that a broker just closes, no error tells.
    line: Option<String>,
}

impl Told {
    fn why(&self) -> Option<String> {
        match (&self.error, &self.line) {
            // That all are down says less than why one is.
            (Some((RDKafkaErrorCode::AllBrokersDown, _)) | None, Some(line)) => Some(match line {
                // So closes who waits for a greeting of TLS and hears a question.
                line if line.contains("APIVERSION_QUERY") => {
                    format!("{line}: perhaps it expects TLS, see `security.protocol`")
                }
                line => line.clone(),
            }),
            (error, _) => error.as_ref().map(|(_, reason)| reason.clone()),
        }
    }

    fn is_refused(&self) -> bool {
        use RDKafkaErrorCode as Code;
        let codes =
            [Code::Authentication, Code::SaslAuthenticationFailed, Code::SSL, Code::UnsupportedSASLMechanism];
        self.error.as_ref().is_some_and(|(code, _)| codes.contains(code))
    }
}

impl ClientContext for Reasons {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        say(level, facility, line);
        if facility == "FAIL" {
            let (_, what) = line.split_once("]: ").unwrap_or(("", line));
            lock(&self.0).line = Some(what.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let error = &mut lock(&self.0).error;
        if code != RDKafkaErrorCode::AllBrokersDown || error.is_none() {
            *error = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Reasons {}

/// The cluster's id.
pub(super) fn id(properties: &Properties, name: &str) -> Result<String, String> {
    let reasons = Reasons::default();
    let client: BaseConsumer<Reasons> = properties
        .reader(&format!("{name}-reach"), "tidegate-reach")
        .create_with_context(reasons.clone())
        .map_err(|error| error.to_string())?;
    let until = Instant::now() + PATIENCE;
    loop {
        let asked = client.fetch_metadata(Some("__consumer_offsets"), TRY);
        // Where the reasons come from, behind lines of the log: each of these ends a poll that does not wait.
        for _ in 0..REASONS {
            if client.poll(LISTEN).is_none() {
                break;
            }
        }
        match asked {
            Ok(_) => {
                let id = client.client().fetch_cluster_id(TRY);
                return id.ok_or_else(|| "the brokers do not say which cluster they are".to_owned());
            }
            // Who is refused will be refused again.
            Err(error) if lock(&reasons.0).is_refused() || Instant::now() >= until => {
                return Err(lock(&reasons.0).why().unwrap_or_else(|| error.to_string()));
            }
            Err(error) => tracing::info!(%error, "waiting for Kafka"),
        }
    }
}
