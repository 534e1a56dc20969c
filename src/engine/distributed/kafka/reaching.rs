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

#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>);

impl ClientContext for Reasons {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        say(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        // That all are down says less than why one is.
        let mut told = lock(&self.0);
        if code != RDKafkaErrorCode::AllBrokersDown || told.is_none() {
            *told = Some((code, reason.to_owned()));
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
        // Where the reasons come from.
        while client.poll(Duration::ZERO).is_some() {}
        let told = lock(&reasons.0).clone();
        match asked {
            Ok(_) => {
                let id = client.client().fetch_cluster_id(TRY);
                return id.ok_or_else(|| "the brokers do not say which cluster they are".to_owned());
            }
            // Who is refused will be refused again.
            Err(_) if refused(told.as_ref()) || Instant::now() >= until => {
                let error = asked.err().map(|error| error.to_string()).unwrap_or_default();
                return Err(told.map_or(error, |(_, reason)| reason));
            }
            Err(error) => tracing::info!(%error, "waiting for Kafka"),
        }
    }
}

fn refused(told: Option<&(RDKafkaErrorCode, String)>) -> bool {
    use RDKafkaErrorCode as Code;
    let codes =
        [Code::Authentication, Code::SaslAuthenticationFailed, Code::SSL, Code::UnsupportedSASLMechanism];
    told.is_some_and(|(code, _)| codes.contains(code))
}
