//! The configuration as written: every key there is, with its meaning, unit, default and range.
//!
//! Nothing here is resolved or compiled; the sections' own files do that. A key that is not here is
//! refused, with a suggestion.

use super::secret::SecretRef;
use super::written::{Named, Node, Size, Written, in_order, misfit, written};
use crate::settings::problems::Report;
use serde_json::Value;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;

written! {
    /// The whole file.
    RawSettings {
        /// `[tasks.NAME]`: one task kind each; at least one.
        tasks: Named<RawKind>,
        /// `[models.NAME]`: models with settings of their own. A model called `provider/model` of a
        /// built-in provider needs none; a section of that very name adds to what is built in.
        models: Named<RawModel>,
        engine: RawEngine,
        registry: RawRegistry,
        http: RawHttp,
        worker: RawWorker,
        log: RawLog,
    } later {
        "tools": "tools are",
        "connections": "connections to databases are",
        "budget": "a budget per day is",
    }
}

written! {
    /// `[tasks.NAME]`. NAME: letters, digits, `-`, `_`, `.`; at most 64. It is part of every key's scope and
    /// of the default topic, so renaming a kind makes it another kind.
    RawKind {
        /// The topic whose records are this kind's tasks. Default `{prefix}tasks.NAME`, made by Tidegate.
        /// Change it to read a topic that exists; then `key` is needed.
        from: String,
        /// Finds the idempotency key of a record: CEL over `task` (the payload) and `headers`, giving a
        /// text or a whole number; or the word `content`: a hash of the payload. Default: the
        /// `idempotency-key` header, else CloudEvents source + id. Keys have at most 1,024 bytes.
        key: String,
        /// The topic of the results. Default `{prefix}results`, shared by all kinds.
        to: String,
        /// The CloudEvents type of this kind's records. Needed where several kinds read one topic;
        /// default: every record of the topic.
        "type" => ce_type: String,
        /// What a payload must satisfy: path of a JSON Schema, or the shorthand that `answer` takes.
        /// Default: any JSON. Records that do not are dead letters `input-refused`.
        input: RawSchema,
        /// Fields (dotted paths into the payload) that tell one task from another under the same key.
        /// Default: the whole payload. Change it when producers add timestamps or the like on a retry.
        identity: Vec<Spanned<String>>,
        /// `"bury"` (default): another payload under a known key is a dead letter `key-conflict`.
        /// `"ignore"`: it is completed silently, like a duplicate.
        on_conflict: String,
        /// `false`: the ledger is not asked, for kinds without steps; every record is published, a copy as well,
        /// so P1 does not hold for duplicates, and look-ups by key find nothing. Default `true`.
        dedupe: bool,
        /// How the values of its records are written. `"json"` (default); or `"avro"`, in the wire format of a
        /// schema registry: the byte 0, four bytes of a schema's id, the datum. Then `[registry]` is needed.
        /// Key rules, `input`, prompts and rules see JSON all the same: bytes as base64; decimals, dates and
        /// times as text; a union as the value of its branch, or as `{"branch": value}` where two of its
        /// branches read alike. While the registry is away the kind's topic is not read.
        format: String,
        /// The id of the schema that tasks which are sent as JSON (`POST /v1/tasks`, `submit`) are written
        /// with where `format = "avro"`. Default: the latest one of the registry's subject `TOPIC-value`;
        /// without a registry such tasks are refused.
        intake_schema: u64,
        /// How its results are written: `"json"` (default); or `"avro"`, for shape `envelope` only, with
        /// the schema of `schemas/result.avsc`, which is registered for the subject `TOPIC-value`. What is a
        /// kind's own (answer, confidence, tries, repairs, effects) is JSON as text in it. Kinds that share
        /// `to` have the same format.
        result_format: String,
        /// `"envelope"` (default): the result is a record with answer, confidence, usage and origin.
        /// `"answer"`: the bare answer, the rest in headers; for consumers that know nothing of Tidegate.
        shape: String,
        /// The line-up: `provider/model` or names of `[models.NAME]`, preferred first; the rest are
        /// fallbacks. 1 to 8. Without `models` and `ask` the kind copies its payload.
        models: Vec<Spanned<String>>,
        /// The prompt: a text, or the path of a file (one word ending in .md, .txt, .j2 or .jinja).
        /// Jinja may use `task`: what it puts in of the payload's text is marked as data, unless by the
        /// filter `raw`; `data` makes a block of a whole value, `json` writes it as JSON. Without Jinja
        /// the payload is appended as such a block.
        ask: String,
        /// What an answer must satisfy: path of a JSON Schema, or the shorthand: field = a list (one of
        /// these), `string`, `number`, `integer`, `boolean`, `date`, with `?` (may be null) or `[]` (list).
        answer: RawSchema,
        /// Checked against every answer. Default: none.
        rules: Vec<Spanned<RawRule>>,
        review: RawReview,
        /// The model that is asked once to mend an answer, when asking again did not help; where it is away,
        /// one of `models` is. Default: the first of `models`. `"none"`: such answers go to a person at once.
        sanitizer: String,
        allowance: RawAllowance,
        /// How long after acceptance model calls stop, where the record has no `deadline` of its own.
        /// Default: no deadline. From 1s.
        deadline: Duration,
        /// A label for what the tasks contain, such as `"phi"`: only models that `allows` it may ever see
        /// them. Default: none.
        data: String,
        /// The plan, instead of `ask` and `answer`: `[[tasks.NAME.steps]]`. This version has one step, `ask`.
        steps: Vec<Spanned<RawStep>>,
    } later {
        "budget": "a budget per kind is",
    }
}

written! {
    /// One of `[[tasks.NAME.steps]]`.
    RawStep {
        /// What rules call the step's answer. Default `answer`.
        name: String,
        ask: String,
        answer: RawSchema,
        /// Default: the kind's.
        models: Vec<Spanned<String>>,
        /// Default: the kind's.
        sanitizer: String,
    } later {
        "transcribe": "speech-to-text (`transcribe`) is",
        "use": "tools (`use`) are",
        "with": "tools (`with`) are",
        "remember": "the vector history (`remember`) is",
        "recall": "the vector history (`recall`) is",
        "say": "rendered texts (`say`) are",
        "turns_max": "tool loops (`turns_max`) are",
        "tools": "tool loops (`tools`) are",
        "approval": "tools (`approval`) are",
    }
}

written! {
    /// One of a kind's `rules`.
    RawRule {
        /// CEL over `task` and `answer` (or the step's name) that must be true. Besides CEL's own functions
        /// (`size`, `matches`, `all`, `exists`, …) it may call four of ours, which read as a person does
        /// (case, white space, quotes and dashes do not count): `contains_text(text, part)`;
        /// `contains_words(text, part)`, where the part is no piece of a longer word or number;
        /// `same_text(a, b)`; `cites(list, index, quote)`: the item is there, and it or its field `text`
        /// contains the quote.
        that: String,
        /// CEL giving a list: then `that` is asked for each `item` (and its `index`), and a finding names the
        /// item. Default: asked once.
        each: String,
        /// What a reviewer reads when it is not. Default: the expression.
        message: String,
        /// `true`: the answer is wrong, and goes to a person at the highest severity. Default `false`.
        critical: bool,
    } later {}
}

written! {
    /// A kind's `review`: when a person looks before there is a result.
    RawReview {
        /// The line: a field whose confidence is below goes to a person. 0 to 1, default 0.85. Lower it
        /// once the confidence has proved itself.
        below: f64,
        /// How to start before there are labels. `"all"`: every answer. `"sample"` (default): findings,
        /// refusals, rules, what lies below the line, and a share of the rest. `"line"`: nothing sampled.
        start: String,
        /// The share that `start = "sample"` draws. 0 to 1, default 0.1.
        share: f64,
        /// Fields (dotted paths into the answer) where any doubt is severe. Default: none.
        critical: Vec<Spanned<String>>,
        /// Who should look; shown with the item. Default: anyone.
        team: String,
        /// How soon a person should have decided; shown with the item, nothing happens by itself.
        /// Default: no due time. From 1s.
        due: Duration,
    } later {
        "backlog_max": "a bound on the review backlog (`backlog_max`) is",
    }
}

written! {
    /// A kind's `allowance`: what may be spent on one task, over all tries, hops and restarts.
    RawAllowance {
        /// Time in calls. Parked or waiting for a person does not count, nor does what a provider that is
        /// down, silent, overloaded or breaks off takes: a task that loses so much in one go waits in the log,
        /// and goes on with what it had. Default 10m, 1s to 1d.
        time: Duration,
        /// Money, in the currency of the models' prices, for every try that is charged. Default: no limit. Needs a known price of every
        /// model that the kind can reach.
        money: f64,
        /// Tries per slot, over all models; also how many answers may break off in the middle, over all hops,
        /// before a person gets what there is. Default 6, 1 to 100.
        tries: u64,
    } later {}
}

written! {
    /// `[models.NAME]`.
    RawModel {
        /// What the endpoint speaks: `"openai"` or `"anthropic"`. Default: the provider's, where NAME is
        /// `provider/model`.
        api: String,
        /// Up to and with the version (`https://host/v1`; for `api = "anthropic"` with or without it). Default: the
        /// provider's; the environment variables OPENAI_BASE_URL and ANTHROPIC_BASE_URL replace that default.
        url: String,
        /// The endpoint's name for the model. Default: what follows the `/` in NAME.
        model: String,
        /// The API key, as `env:NAME` or `file:PATH`. Default: the provider's variable; no key for a URL on
        /// this machine when none is set.
        key: SecretRef,
        /// Tokens that prompt and answer share. Needed where it is not built in. 256 to 100,000,000.
        window_tokens: u64,
        /// Per million tokens. Default: what is built in, else unknown: cost is null then, never 0.
        price: RawPrice,
        /// Passed through in the request as they are. Default: none.
        params: Value,
        /// Sent with each request; values may be `env:NAME` or `file:PATH`. Default: none.
        headers: Named<String>,
        /// Labels of `data` that this model may see. Default: none.
        allows: Vec<Spanned<String>>,
        timeouts: RawTimeouts,
    } later {
        "limits": "a rate limit per model (`limits`) is",
    }
}

written! {
    /// A model's `price`, per million tokens, in one currency for all models. Not negative.
    RawPrice {
        input: f64,
        output: f64,
    } later {}
}

written! {
    /// A model's `timeouts`.
    RawTimeouts {
        /// To connect. Default 5s, 10ms to 1m.
        connect: Duration,
        /// From the request to the first piece of the answer. Default 10s; 60s for models of OpenAI that think
        /// first and send nothing meanwhile (`gpt-5…`, `o1…`, `o3…`, `o4…`). Raise it for others that do.
        /// 10ms to 10m.
        first_token: Duration,
        /// Between two pieces. Default 10s, 10ms to 10m.
        idle: Duration,
        /// For one try. Default 2m, 100ms to 1h. Raise it for long answers of slow models.
        total: Duration,
    } later {}
}

written! {
    /// `[engine]`.
    RawEngine {
        /// The embedded engine's directory, relative to the configuration file. Default `./data`.
        dir: String,
        /// Kafka's brokers to begin with: `host:port`, several with commas. Given, the engine is Kafka + Redis,
        /// and `redis` is needed. Default: the embedded engine.
        kafka: String,
        /// Redis 6.2 or later, or Valkey; one node: `redis://HOST:PORT`, `rediss://…` for TLS, `…/1` for another
        /// database. With a password: `env:NAME` or `file:PATH` of the whole URL.
        redis: String,
        /// Begins the names of the consumer groups, behind `prefix`. Default `tidegate`. Another name begins
        /// every topic anew, once all processes of the one before have ended; what is done already stays done,
        /// for the ledger knows it.
        group: String,
        /// For a partition with no committed offset: `"committed"` (default) reads it from its beginning unless
        /// its oldest record is older than `dedupe_window`, and says so; `"earliest"` reads it in any case.
        start: String,
        /// Any property of librdkafka, for TLS, SASL, sizes and the like: `"security.protocol" = "sasl_ssl"`.
        /// Secrets as `env:NAME` or `file:PATH`. What would break a promise is refused. Default: none.
        properties: Named<RawProperty>,
        /// Copies of each topic that `topics apply` creates. Default: the brokers' own. 1 to 100.
        replication: u64,
        /// Goes before the name of every topic that Tidegate makes. Default empty. Letters, digits, `.`,
        /// `-`, `_`; at most 64.
        prefix: String,
        /// How long a closed key is known, counted from its outcome. Default 7d, 1m to 366d. Longer
        /// keeps more on disk.
        dedupe_window: Duration,
        /// How long results, dead letters and review outcomes stay. Default: the dedupe window, and never
        /// shorter.
        retention: Duration,
        /// What the directory may take before intake pauses. Default: until the disk is full. From 64MiB.
        disk_max: Size,
        /// Partitions of each topic; fixed once the directory is made. Default 8, 1 to 256.
        partitions: u64,
        /// The largest record accepted as a task. Default 1MiB, 1KiB to 8MiB.
        record_max: Size,
    } later {}
}

written! {
    /// `[registry]`: where the schemas of Avro records are. Needed by kinds with `format` or `result_format`
    /// `"avro"`; a registry that speaks as Confluent's does, or files where there is none.
    RawRegistry {
        /// Its address, with a path where it has one: `"http://registry:8081"`.
        url: String,
        /// Together with `password`, where it asks for a name.
        user: String,
        /// As `env:NAME` or `file:PATH`.
        password: SecretRef,
        /// Instead of `user`, where it asks for a bearer token: `env:NAME` or `file:PATH`.
        token: SecretRef,
        /// For one request. Default 5s, 100ms to 1m.
        timeout: Duration,
        /// Whether the schema of results is registered where its subject does not have it. Default `true`;
        /// `false`: it is looked up only, and until somebody has registered it the tasks wait.
        register: bool,
        /// Instead of `url`: a file for each id that records carry, such as `{ 7 = "order.avsc" }`.
        /// `"tidegate:result:1"` in place of a file is the schema of our own results.
        schemas: Named<String>,
    } later {}
}

written! {
    /// `[http]`.
    RawHttp {
        /// Address and port. Default `127.0.0.1:8080`. Loopback only while there is no authentication.
        listen: String,
        /// The largest request body. Default 16MiB, 1KiB to 256MiB; a batch of tasks is one body.
        body_max: Size,
    } later {}
}

written! {
    /// `[worker]`.
    RawWorker {
        /// Tasks at once, beside as many that only wait for their commit. Default 256, 1 to 100,000. Raise it for
        /// slow models; each takes 65 to 92 kB.
        in_flight: u64,
        /// How long an orderly end waits for calls that run. Default: the longest `total` of a model in use.
        /// 0s to 1h.
        drain: Duration,
    } later {}
}

written! {
    /// `[log]`.
    RawLog {
        /// `"text"` (default) for people, `"json"` for machines.
        format: String,
        /// `error`, `warn`, `info` (default), `debug` or `trace`, or a filter such as
        /// `info,tidegate::infer=debug`. The environment variable TIDEGATE_LOG replaces it.
        level: String,
    } later {}
}

/// A property of librdkafka: a text, a number, `true` or `false`, as text.
#[derive(Clone, Debug)]
pub(super) struct RawProperty(pub(super) String);

impl Written for RawProperty {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        use toml::de::DeValue;
        match node.get_ref() {
            DeValue::String(text) => Some(RawProperty(text.to_string())),
            DeValue::Boolean(value) => Some(RawProperty(value.to_string())),
            DeValue::Integer(value) if value.radix() == 10 => {
                Some(RawProperty(value.as_str().replace('_', "")))
            }
            DeValue::Float(value) => Some(RawProperty(value.as_str().replace('_', ""))),
            // `security.protocol = …` without quotes is a table within a table.
            DeValue::Table(_) => {
                let help = "a property's whole name goes into quotes: \"security.protocol\" = \"ssl\"";
                report.add(
                    node.span(),
                    format!("`{name}` should be a text or a number, but is a table"),
                    help,
                );
                None
            }
            _ => misfit(node, name, "a text, a number, true or false", report),
        }
    }
}

/// A schema as written: the path of a file, or the shorthand.
#[derive(Clone, Debug)]
pub(super) enum RawSchema {
    Path(String),
    /// The fields, and where each stands: dotted, as a schema's errors name it.
    Shorthand(Value, Vec<(String, Range<usize>)>),
}

impl RawSchema {
    /// Where in the shorthand `field` stands, or the nearest table that is there.
    pub(super) fn place(&self, field: &str) -> Option<Range<usize>> {
        let RawSchema::Shorthand(_, places) = self else { return None };
        let holds =
            |p: &str| field.strip_prefix(p).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']));
        let nearest = places.iter().filter(|(p, _)| holds(p)).max_by_key(|(p, _)| p.len());
        nearest.map(|(_, span)| span.clone())
    }
}

/// Notes where each field stands, `?` taken off.
fn places(node: &Node<'_>, path: &str, found: &mut Vec<(String, Range<usize>)>) {
    for (key, value) in node.get_ref().as_table().map(in_order).unwrap_or_default() {
        let name = key.get_ref().trim_end_matches('?');
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        places(value, &path, found);
        found.push((path, value.span()));
    }
}

impl Written for RawSchema {
    fn read(node: &Node<'_>, name: &str, report: &Report<'_>) -> Option<Self> {
        use toml::de::DeValue;
        match node.get_ref() {
            DeValue::String(path) => Some(RawSchema::Path(path.to_string())),
            DeValue::Table(_) => {
                let mut found = Vec::new();
                places(node, "", &mut found);
                Value::read(node, name, report).map(|fields| RawSchema::Shorthand(fields, found))
            }
            _ => misfit(node, name, "the path of a JSON Schema, or fields in braces", report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_people_write() {
        assert!(RawKind::KEYS.contains(&"type") && RawKind::KEYS.contains(&"on_conflict"));
        assert_eq!(RawHttp::KEYS, ["listen", "body_max"]);
    }
}
