//! One request to one model, under its timeouts, streamed and buffered until its terminal signal.
//!
//! Since nobody sees a part of an answer, a failure in the middle costs nothing but time.

use super::failure::{Class, Failure};
use super::model::{Api, Model};
use super::prompt::Request;
use super::sse::{Broken, Decoder, Event};
use super::{anthropic, openai, sorting};
use crate::engine::crash::crash_point;
use crate::task::Timestamp;
use futures::StreamExt as _;
use secrecy::ExposeSecret as _;
use std::time::{Duration, Instant};

/// An error reply is read up to here.
const ERROR_BODY_MAX: usize = 64 * 1024;
/// And for so long: the status alone says enough.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(2);
/// After the finish signal only the usage and the end sentinel are missing; neither is waited for longer.
const AFTER_FINISH: Duration = Duration::from_secs(1);
/// Of an answer that did not end, this much is kept: its beginning shows a person what went wrong, and
/// the rest helps nobody.
const BEGINNING: usize = 4 * 1024;

/// What a stream has said so far.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) text: String,
    pub(super) refusal: String,
    /// Something was thought aloud: not part of the answer, but no silence either.
    pub(super) thought: bool,
    pub(super) finish: Option<String>,
    pub(super) model: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) first_token_ms: Option<u64>,
}

/// Whoever was stopped, or got no processor, finds its time over although the answer has come: it listens this
/// much longer before it buys another, and no longer than an eighth of what it has waited.
const LISTEN: Duration = Duration::from_millis(250);
/// And as much longer as it noticed late that its time is over, up to this: then all its calls are in that case, and
/// their answers are taken one after the other.
const LATE: Duration = Duration::from_secs(2);

/// Limits of this try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) total: Duration,
    /// Largest answer that is buffered, bytes.
    pub(super) answer_max: usize,
}

/// `slot`: what this request is for; providers that log headers can tell repeats apart.
pub(super) async fn attempt(
    client: &reqwest::Client,
    model: &Model,
    request: &Request,
    slot: &str,
    limits: Limits,
) -> Result<Stream, Failure> {
    let mut so_far = Stream::default();
    let whole = exchange(client, model, request, slot, limits.answer_max, &mut so_far);
    let ended = match tokio::time::timeout(limits.total, whole).await {
        Ok(ended) => ended,
        Err(_) if so_far.finish.is_some() => Ok(()),
        Err(_) => Err(Failure {
            ours: limits.total < model.timeouts.total,
            ..Failure::new(Class::Timeout, format!("no whole answer within {:.1?}", limits.total))
        }),
    };
    match ended.and_then(|()| judge(model.api, &so_far)) {
        Ok(()) => Ok(so_far),
        Err(f) => {
            let text = match f.class {
                // Copied, so that what was buffered is given back now.
                Class::Oversized => so_far.text[..so_far.text.floor_char_boundary(BEGINNING)].to_owned(),
                _ => so_far.text,
            };
            Err(Failure {
                first_token_ms: so_far.first_token_ms,
                tokens: (so_far.input_tokens, so_far.output_tokens),
                partial: (!text.is_empty()).then_some(text),
                ..f
            })
        }
    }
}

/// Waits for it, and once in a call a moment more (`grace`, gone then).
async fn heard<F: Future>(patience: Duration, grace: &mut Option<Duration>, what: F) -> Option<F::Output> {
    let (mut what, began) = (std::pin::pin!(what), Instant::now());
    if let Ok(heard) = tokio::time::timeout(patience, &mut what).await {
        return Some(heard);
    }
    tokio::time::timeout(grace.take()? + late(began, patience), what).await.ok()
}

/// How late it is noticed that the time is over.
fn late(began: Instant, patience: Duration) -> Duration {
    began.elapsed().saturating_sub(patience).min(LATE)
}

/// Sends the request and takes in the reply. `Ok`: the stream has ended, well or not: see `judge`.
async fn exchange(
    client: &reqwest::Client,
    model: &Model,
    request: &Request,
    slot: &str,
    answer_max: usize,
    so_far: &mut Stream,
) -> Result<(), Failure> {
    let began = Instant::now();
    let first = model.timeouts.first_token;
    let listen = LISTEN.min(first / 8);
    let (mut until, mut grace) = (began + first, Some(listen));
    let silence =
        || Failure::new(Class::Timeout, format!("no first token within {first:?} (`timeouts.first_token`)"));
    let sent = builder(client, model, request, slot).send();
    let reply = heard(first, &mut grace, sent).await.ok_or_else(silence)?;
    if grace.is_none() {
        until = Instant::now() + listen + late(began, first);
    }
    let reply = reply.map_err(|e| transport(&e))?;
    crash_point("infer.sent");
    if !reply.status().is_success() {
        return Err(refused(reply).await);
    }
    let mut pieces = reply.bytes_stream();
    let mut decoder = Decoder::default();
    loop {
        let patience = match so_far {
            Stream { finish: Some(_), .. } => AFTER_FINISH,
            Stream { first_token_ms: Some(_), .. } => model.timeouts.idle,
            // Pings do not count: what is always ready would never be seen to time out.
            _ => until.checked_duration_since(Instant::now()).ok_or_else(silence)?,
        };
        let piece = match heard(patience, &mut grace, pieces.next()).await {
            // With the finish signal the answer is whole, however the connection goes on.
            Some(None) => return Ok(()),
            None | Some(Some(Err(_))) if so_far.finish.is_some() => return Ok(()),
            None if so_far.first_token_ms.is_none() => return Err(silence()),
            None => {
                let idle = model.timeouts.idle;
                return Err(Failure::new(Class::Timeout, format!("silent for {idle:?} in the middle")));
            }
            Some(Some(Err(e))) => {
                return Err(Failure::new(Class::Malformed, format!("the stream broke: {}", cause(&e))));
            }
            Some(Some(Ok(piece))) => piece,
        };
        let events = match decoder.push(&piece) {
            Ok(events) => events,
            Err(_) if so_far.finish.is_some() => return Ok(()),
            Err(e @ Broken::TooLong) => return Err(Failure::new(Class::Oversized, e.to_string())),
            Err(e @ Broken::NotText) => return Err(Failure::new(Class::Malformed, e.to_string())),
        };
        for event in &events {
            if take(model.api, event, so_far, answer_max, began)? {
                return Ok(());
            }
        }
    }
}

/// Takes one event. `true`: nothing more is to come.
fn take(
    api: Api,
    event: &Event,
    so_far: &mut Stream,
    answer_max: usize,
    began: Instant,
) -> Result<bool, Failure> {
    let whole = so_far.finish.is_some();
    let taken = match api {
        Api::OpenAi => openai::take(event, so_far),
        Api::Anthropic => anthropic::take(event, so_far),
    };
    let ended = match taken {
        Ok(ended) => ended,
        // Only the usage was missing.
        Err(_) if whole => true,
        Err(failure) => return Err(failure),
    };
    let spoke = so_far.thought || !so_far.text.is_empty() || !so_far.refusal.is_empty();
    if so_far.first_token_ms.is_none() && spoke {
        so_far.first_token_ms = Some(millis(began.elapsed()));
    }
    if so_far.text.len() + so_far.refusal.len() > answer_max {
        let what = format!("the answer did not end within {answer_max} bytes; its beginning is kept");
        return Err(Failure::new(Class::Oversized, what));
    }
    Ok(ended)
}

/// Finish words of an answer that is not whole; words nobody has heard of are good ends.
const NO_END: [&str; 3] = ["abort", "error", "pause_turn"];

fn judge(api: Api, stream: &Stream) -> Result<(), Failure> {
    if let Some(word) = stream.finish.as_deref().filter(|word| NO_END.contains(word)) {
        return Err(Failure::new(Class::Malformed, format!("the stream ended with `{word}`")));
    }
    match api {
        Api::OpenAi => openai::judge(stream),
        Api::Anthropic => anthropic::judge(stream),
    }
}

fn builder(
    client: &reqwest::Client,
    model: &Model,
    request: &Request,
    slot: &str,
) -> reqwest::RequestBuilder {
    let base = model.url.trim_end_matches('/');
    let (path, body) = match model.api {
        Api::OpenAi => (openai::PATH, openai::body(model, request)),
        Api::Anthropic => (anthropic::PATH, anthropic::body(model, request)),
    };
    let mut builder = client.post(format!("{base}/{path}")).header("x-tidegate-slot", slot).json(&body);
    builder = match (&model.key, model.api) {
        (Some(key), Api::OpenAi) => builder.bearer_auth(key.expose_secret()),
        (Some(key), Api::Anthropic) => builder.header("x-api-key", key.expose_secret()),
        (None, _) => builder,
    };
    if model.api == Api::Anthropic {
        builder = builder.header("anthropic-version", anthropic::VERSION);
    }
    model.headers.iter().fold(builder, |b, (name, value)| b.header(name, value.expose_secret()))
}

async fn refused(reply: reqwest::Response) -> Failure {
    let status = reply.status().as_u16();
    let header = |name: &str| reply.headers().get(name).and_then(|v| v.to_str().ok());
    let hint = sorting::hint(header("retry-after-ms"), header("retry-after"), Timestamp::now().0);
    let final_word = header("x-should-retry") == Some("false");
    let mut body = Vec::new();
    let mut pieces = reply.bytes_stream();
    let read = async {
        while let Some(Ok(piece)) = pieces.next().await {
            body.extend_from_slice(&piece[..piece.len().min(ERROR_BODY_MAX - body.len())]);
            if body.len() >= ERROR_BODY_MAX {
                break;
            }
        }
    };
    // What was read by then is sorted.
    let _ = tokio::time::timeout(ERROR_BODY_WAIT, read).await;
    Failure { final_word, ..sorting::reply(status, &String::from_utf8_lossy(&body), hint) }
}

fn transport(e: &reqwest::Error) -> Failure {
    let class = if e.is_builder() {
        // A header or address that cannot be sent: written in the configuration.
        Class::Misconfigured
    } else if e.is_timeout() {
        Class::Timeout
    } else {
        Class::Transient
    };
    Failure::new(class, cause(e))
}

/// The innermost source says what happened (refused, reset, DNS); the outer text repeats the URL.
fn cause(e: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

pub(super) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::tests::{Reply, Served, model, plain, says, serve};

    async fn ask(reply: Reply, api: Api) -> Result<Stream, Failure> {
        let served: Served = serve(vec![reply]).await;
        let model = model("m", &served.url, api);
        let client = reqwest::Client::builder().build().unwrap();
        let limits = Limits { total: Duration::from_secs(2), answer_max: 10_000 };
        attempt(&client, &model, &Request::new("hello".to_owned(), None), "slot", limits).await
    }

    fn data(json: &str) -> Vec<u8> {
        format!("data: {json}\n\n").into_bytes()
    }

    const BEGINS: &str = r#"{"choices":[{"delta":{"content":"{\"a\":"}}]}"#;

    #[tokio::test]
    async fn a_whole_stream_is_an_answer_with_its_usage() {
        let stream = ask(says("grün 🌱"), Api::OpenAi).await.unwrap();
        assert_eq!((stream.text.as_str(), stream.model.as_str()), ("grün 🌱", "m-1"));
        assert_eq!((stream.input_tokens, stream.output_tokens), (7, 3));
        assert!(stream.first_token_ms.is_some());
    }

    #[tokio::test]
    async fn a_stream_cut_into_single_bytes_says_the_same() {
        let Reply::Pieces(whole) = says("grün 🌱") else { unreachable!() };
        let bytes = whole.concat().into_iter().map(|b| vec![b]).collect();
        assert_eq!(ask(Reply::Pieces(bytes), Api::OpenAi).await.unwrap().text, "grün 🌱");
    }

    #[tokio::test]
    async fn a_finish_signal_is_enough_and_without_one_there_is_no_answer() {
        let finish = data(r#"{"choices":[{"delta":{"content":"1}"},"finish_reason":"stop"}]}"#);
        let stream = ask(Reply::Pieces(vec![data(BEGINS), finish]), Api::OpenAi).await.unwrap();
        assert_eq!(stream.text, r#"{"a":1}"#, "a missing end sentinel is fine");
        let cut = ask(Reply::Pieces(vec![data(BEGINS)]), Api::OpenAi).await.unwrap_err();
        assert_eq!(cut.class, Class::Malformed);
        assert_eq!(cut.partial.as_deref(), Some(r#"{"a":"#));
        let done = ask(Reply::Pieces(vec![data(BEGINS), data("[DONE]")]), Api::OpenAi).await.unwrap_err();
        assert_eq!(done.class, Class::Malformed, "an end without a finish signal is a cut");
    }

    #[tokio::test]
    async fn silence_before_and_in_the_middle_of_an_answer_is_a_timeout() {
        let never = ask(Reply::ThenSilence(vec![]), Api::OpenAi).await.unwrap_err();
        assert_eq!((never.class, never.first_token_ms), (Class::Timeout, None));
        let midway = ask(Reply::ThenSilence(vec![data(BEGINS)]), Api::OpenAi).await.unwrap_err();
        assert_eq!(midway.class, Class::Timeout);
        assert!(midway.first_token_ms.is_some());
    }

    #[tokio::test]
    async fn p3_an_answer_that_came_while_the_process_was_stopped_is_taken_and_not_bought_again() {
        let (tell, told) = std::sync::mpsc::channel();
        // On a thread of its own: it goes on while the client stands still.
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let served =
                    serve(vec![Reply::After(Duration::from_millis(150), Box::new(says("late")))]).await;
                tell.send(served.url.clone()).unwrap();
                tokio::time::sleep(Duration::from_secs(6)).await;
            });
        });
        let mut model = plain("m", &told.recv().unwrap(), Api::OpenAi);
        model.timeouts.first_token = Duration::from_secs(2);
        let client = reqwest::Client::builder().build().unwrap();
        let limits = Limits { total: Duration::from_secs(5), answer_max: 10_000 };
        let request = Request::new("hello".to_owned(), None);
        let mut asking = std::pin::pin!(attempt(&client, &model, &request, "slot", limits));
        tokio::select! {
            ended = &mut asking => panic!("so soon: {ended:?}"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        // Neither timers nor the connection are looked at meanwhile, as under SIGSTOP.
        std::thread::sleep(Duration::from_millis(2_200));
        assert_eq!(asking.await.unwrap().text, "late");
        drop(server);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_left_at_the_bound_and_only_its_beginning_is_kept() {
        let more = data(&format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "ü".repeat(50)));
        // Never ends by itself.
        let endless = Reply::Drip(vec![data(BEGINS)], Duration::from_micros(10), more);
        let f = ask(endless, Api::OpenAi).await.unwrap_err();
        let told = "the answer did not end within 10000 bytes; its beginning is kept";
        assert_eq!((f.class, f.detail.as_str()), (Class::Oversized, told));
        let kept = f.partial.unwrap();
        assert!(kept.starts_with(r#"{"a":üü"#) && kept.len() > BEGINNING - 4, "{}", kept.len());
        assert!(kept.capacity() <= BEGINNING, "{} bytes are held", kept.capacity());
    }

    #[tokio::test]
    async fn a_body_of_10_mb_and_a_line_without_end_are_oversized_whatever_was_said_before() {
        let body = format!(r#"{{"choices":[{{"message":{{"content":"{}"}}}}]}}"#, "x".repeat(10 << 20));
        let f = ask(Reply::Pieces(vec![body.into_bytes()]), Api::OpenAi).await.unwrap_err();
        assert_eq!((f.class, f.partial.as_deref()), (Class::Oversized, None));
        assert!(f.detail.contains("longer than 1048576 bytes"), "{}", f.detail);
        for (begun, partial) in [(vec![], None), (vec![data(BEGINS)], Some(r#"{"a":"#))] {
            let line = Reply::Drip(begun, Duration::from_micros(10), vec![b'x'; 1 << 20]);
            let f = ask(line, Api::OpenAi).await.unwrap_err();
            assert_eq!((f.class, f.partial.as_deref()), (Class::Oversized, partial), "{}", f.detail);
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_and_no_json_are_malformed() {
        let broken = vec![b"data: \xff\xfe\n\n".to_vec()];
        assert_eq!(ask(Reply::Pieces(broken), Api::OpenAi).await.unwrap_err().class, Class::Malformed);
        let not_json = vec![data("{oops")];
        assert_eq!(ask(Reply::Pieces(not_json), Api::OpenAi).await.unwrap_err().class, Class::Malformed);
    }

    #[tokio::test]
    async fn refusals_and_cut_answers_are_told_apart() {
        let refusal = data(r#"{"choices":[{"delta":{"refusal":"I cannot"},"finish_reason":"stop"}]}"#);
        let f = ask(Reply::Pieces(vec![refusal]), Api::OpenAi).await.unwrap_err();
        assert_eq!((f.class, f.detail.as_str()), (Class::Refusal, "I cannot"));
        let cut = data(r#"{"choices":[{"delta":{"content":"{"},"finish_reason":"length"}]}"#);
        assert_eq!(ask(Reply::Pieces(vec![cut]), Api::OpenAi).await.unwrap_err().class, Class::Cut);
    }

    #[tokio::test]
    async fn a_rate_limit_brings_its_hint_along() {
        let reply = Reply::Status(429, r#"{"error":{"message":"slow down"}}"#, vec![("retry-after", "7")]);
        let f = ask(reply, Api::OpenAi).await.unwrap_err();
        assert_eq!(
            (f.class, f.hint, f.status),
            (Class::RateLimited, Some(Duration::from_secs(7)), Some(429))
        );
    }

    #[tokio::test]
    async fn a_refused_connection_is_transient() {
        let model = model("m", "http://127.0.0.1:9/v1", Api::OpenAi);
        let client = reqwest::Client::builder().build().unwrap();
        let limits = Limits { total: Duration::from_secs(2), answer_max: 10_000 };
        let f = attempt(&client, &model, &Request::new(String::new(), None), "s", limits).await.unwrap_err();
        assert_eq!(f.class, Class::Transient);
    }

    #[tokio::test]
    async fn the_other_dialect_is_understood_as_well() {
        let events = concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"c-1\",\"usage\":{\"input_tokens\":11}}}\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"{}\"}}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        );
        let whole = ask(Reply::Pieces(vec![events.as_bytes().to_vec()]), Api::Anthropic).await.unwrap();
        assert_eq!((whole.text.as_str(), whole.model.as_str(), whole.output_tokens), ("{}", "c-1", 5));
        let overloaded = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
        let f = ask(Reply::Pieces(vec![overloaded.as_bytes().to_vec()]), Api::Anthropic).await.unwrap_err();
        assert_eq!(f.class, Class::Overloaded, "an error inside a stream that began well");
    }

    #[tokio::test]
    async fn a_connection_that_hangs_after_the_finish_signal_costs_a_second_and_not_the_answer() {
        let finish = data(r#"{"choices":[{"delta":{"content":"1}"},"finish_reason":"stop"}]}"#);
        let hangs = ask(Reply::ThenSilence(vec![data(BEGINS), finish]), Api::OpenAi).await.unwrap();
        assert_eq!(hangs.text, r#"{"a":1}"#);
    }

    #[tokio::test]
    async fn p3_what_goes_wrong_after_the_finish_signal_costs_the_usage_and_not_the_answer() {
        let finish = data(r#"{"choices":[{"delta":{"content":"1}"},"finish_reason":"stop"}]}"#);
        let error = r#"{"error":{"message":"oops","type":"server_error"}}"#;
        for trouble in [data("{oops"), data(error), b"data: \xff\xfe\n\n".to_vec()] {
            let pieces = vec![data(BEGINS), finish.clone(), trouble];
            assert_eq!(ask(Reply::Pieces(pieces), Api::OpenAi).await.unwrap().text, r#"{"a":1}"#);
        }
        let long = data(&format!(
            r#"{{"choices":[{{"delta":{{"content":"{}"}},"finish_reason":"stop"}}]}}"#,
            "x".repeat(10_001)
        ));
        let f = ask(Reply::Pieces(vec![long]), Api::OpenAi).await.unwrap_err();
        assert_eq!(f.class, Class::Oversized, "what is too long is so with its finish signal, too");
        let late = concat!(
            "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"{}\"}}\n\n",
            "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
            "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\" and more\"}}\n\n",
            "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"\"}}\n\n",
        );
        let whole = ask(Reply::Pieces(vec![late.as_bytes().to_vec()]), Api::Anthropic).await.unwrap();
        assert_eq!(whole.text, "{}", "the answer ends with its finish signal");
    }

    #[tokio::test]
    async fn a_stream_that_says_it_was_aborted_is_no_answer() {
        for word in ["abort", "error", "pause_turn"] {
            let end =
                data(&format!(r#"{{"choices":[{{"delta":{{"content":"[1]"}},"finish_reason":"{word}"}}]}}"#));
            let f = ask(Reply::Pieces(vec![end, data("[DONE]")]), Api::OpenAi).await.unwrap_err();
            assert_eq!(f.class, Class::Malformed, "{word}");
            let end = data(&format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{word}"}}}}"#));
            let f = ask(Reply::Pieces(vec![end]), Api::Anthropic).await.unwrap_err();
            assert_eq!(f.class, Class::Malformed, "{word}");
        }
        let end = data(r#"{"choices":[{"delta":{"content":"{}"},"finish_reason":"eos"}]}"#);
        assert_eq!(
            ask(Reply::Pieces(vec![end]), Api::OpenAi).await.unwrap().text,
            "{}",
            "others are good ends"
        );
    }

    #[tokio::test]
    async fn pings_are_no_first_token_and_drops_without_end_are_bounded_by_the_total() {
        let ms = Duration::from_millis;
        let pings = Reply::Drip(vec![], ms(5), b": ping\n\n".to_vec());
        let f = ask(pings, Api::OpenAi).await.unwrap_err();
        assert_eq!((f.class, f.first_token_ms), (Class::Timeout, None));
        assert!(f.detail.contains("no first token"), "{}", f.detail);
        let drops = Reply::Drip(vec![], ms(50), data(r#"{"choices":[{"delta":{"content":"x"}}]}"#));
        let f = ask(drops, Api::OpenAi).await.unwrap_err();
        assert!(f.class == Class::Timeout && f.first_token_ms.is_some(), "{f:?}");
        assert!(!f.ours, "the limit was the model's own");
    }

    #[tokio::test]
    async fn a_model_that_thinks_aloud_is_not_silent() {
        let thought = data(r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#);
        let end = data(r#"{"choices":[{"delta":{"content":"{}"},"finish_reason":"stop"}]}"#);
        let thinks = Reply::Drip(vec![thought], Duration::from_millis(250), end);
        assert_eq!(ask(thinks, Api::OpenAi).await.unwrap().text, "{}");
    }

    #[tokio::test]
    async fn what_a_cut_answer_cost_is_kept() {
        let cut = data(r#"{"choices":[{"delta":{"content":"{"},"finish_reason":"length"}]}"#);
        let usage = data(r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#);
        let f = ask(Reply::Pieces(vec![cut, usage]), Api::OpenAi).await.unwrap_err();
        assert_eq!((f.class, f.tokens, f.partial.as_deref()), (Class::Cut, (7, 3), Some("{")));
    }

    #[tokio::test]
    async fn a_last_word_is_heard_and_a_long_error_page_is_bounded() {
        let reply = Reply::Status(500, "<html>", vec![("x-should-retry", "false")]);
        let f = ask(reply, Api::OpenAi).await.unwrap_err();
        assert!(f.final_word && f.class == Class::Transient);
        let page: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
        let f = ask(Reply::Status(502, page, vec![]), Api::OpenAi).await.unwrap_err();
        assert_eq!((f.class, f.detail.len()), (Class::Transient, 300));
    }

    #[tokio::test]
    async fn a_stream_that_breaks_in_the_middle_of_a_character_is_malformed() {
        let torn = b"data: {\"choices\":[{\"delta\":{\"content\":\"gr\xc3".to_vec();
        let f = ask(Reply::Pieces(vec![torn]), Api::OpenAi).await.unwrap_err();
        assert_eq!(f.class, Class::Malformed);
    }
}
