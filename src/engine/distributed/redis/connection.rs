//! One connection to the store, from the first question to its end.
//!
//! Calls share it: each is in line as soon as it is first polled, in that order, and many are under way at
//! once (see `batches`). It never connects again: after an error, or an answer that takes too
//! long, it is broken for good, and whoever still waits or asks is told so.

use super::batches::Batches;
use super::calls::{self, BadReply, Heard, Run, Setting};
use super::scripts::{self, Script};
use super::written::{self, Keys};
use crate::dedupe::{ClaimView, Entry, Fence, Instance};
use crate::engine::distributed::client::{Broken, Connection, Sent};
use crate::engine::distributed::{link, lock};
use crate::engine::script::LedgerReply;
use crate::task::{ScopedKey, Timestamp};
use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, Value};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Of each call: a sync of the slowest disk fits many times, and a process that hears nothing for longer
/// must not go on as if it did.
const LIMIT: Duration = Duration::from_secs(2);
/// The store's scripts stop it for everybody: reading this many claims takes well under a millisecond.
const PAGE: usize = 64;
/// An entry's rule changes with a deploy, and while one is rolled out perhaps back; asking again more often
/// than this means that something else is wrong.
const RULES: usize = 3;
/// Many times what a process has in flight. Who had to wait for room could be overtaken, so nobody does.
const CALLS: usize = 16_384;

pub struct RedisConnection(Arc<Line>);

struct Line {
    /// Gone once it is broken: with it the socket closes.
    batches: Mutex<Option<Batches>>,
    why: OnceLock<String>,
    broken: CancellationToken,
    room: Semaphore,
    /// Of the scripts, in the order of [`Script`].
    names: Vec<String>,
    keys: Keys,
    window: Duration,
}

impl RedisConnection {
    pub(super) fn new(line: MultiplexedConnection, keys: Keys, window: Duration) -> Self {
        RedisConnection(Arc::new(Line {
            batches: Mutex::new(Some(Batches::of(line))),
            why: OnceLock::new(),
            broken: CancellationToken::new(),
            room: Semaphore::new(CALLS),
            names: Vec::new(),
            keys,
            window,
        }))
    }

    /// Loads the scripts, so that each call names its own by a digest.
    pub(super) async fn load(self) -> Result<Self, Broken> {
        let mut names = Vec::new();
        for text in scripts::TEXTS {
            names.push(text_of(self.ask(redis::cmd("SCRIPT").arg("LOAD").arg(text)).await?));
        }
        let mut line =
            Arc::into_inner(self.0).ok_or_else(|| Broken("the connection is in use".to_owned()))?;
        line.names = names;
        Ok(RedisConnection(Arc::new(line)))
    }

    pub(super) async fn ask(&self, command: &redis::Cmd) -> Result<Value, Broken> {
        self.0.ask(command.clone()).await
    }

    /// Whether this user may have several calls run at once, which nothing at the start does.
    pub(super) async fn may_batch(&self) -> Result<(), Broken> {
        for command in ["MULTI", "EXEC"] {
            let answer = self.0.hear(redis::cmd(command)).await?;
            if let Err(refused) = answer.extract_error() {
                let why = format!("{command} is refused ({refused}): let this user run MULTI and EXEC");
                return Err(self.0.end(why));
            }
        }
        Ok(())
    }

    /// Nothing where the server answers with an error.
    pub(super) async fn try_ask(&self, command: &redis::Cmd) -> Result<Option<Value>, Broken> {
        let answer = self.0.hear(command.clone()).await?;
        Ok(if matches!(answer, Value::ServerError(_)) { None } else { Some(answer) })
    }

    /// As `call`, with this time in place of the store's clock and this fence in place of a random one: so
    /// that a test can run the rules beside the scripts. Nothing else may use it.
    pub async fn call_at(
        &self,
        instance: Instance,
        sent: Sent,
        now: Timestamp,
        fence: Fence,
    ) -> Result<LedgerReply, Broken> {
        self.0.call(instance, sent, Some(now), fence).await
    }
}

/// An error, and what a person can do about it.
pub(super) fn said(e: &RedisError) -> String {
    let code = match e.kind() {
        ErrorKind::AuthenticationFailed => Some("WRONGPASS"),
        _ => e.code(),
    };
    let remedy = match code {
        Some("NOAUTH") => "give `[engine] redis` its password",
        Some("WRONGPASS") => "mend the password in `[engine] redis`",
        Some("NOPERM") => "let this user run what is refused",
        Some("OOM") => "its memory is full, and no claim may be dropped: raise its maxmemory",
        Some("MISCONF") => "it cannot write to its disk: see to that",
        Some("READONLY") => "it is a replica: give `[engine] redis` the address of its primary",
        _ => return e.to_string(),
    };
    format!("{}: {remedy}", e.to_string().trim_end_matches('.'))
}

impl Line {
    /// Breaks on any error.
    async fn ask(&self, command: redis::Cmd) -> Result<Value, Broken> {
        self.hear(command).await?.extract_error().map_err(|e| self.end(said(&e)))
    }

    /// The answer, which may be an error of the server's. Breaks on any other.
    async fn hear(&self, command: redis::Cmd) -> Result<Value, Broken> {
        let Ok(_under_way) = self.room.try_acquire() else {
            return Err(Broken(format!("more than {CALLS} calls to the ledger are under way")));
        };
        let asked = lock(&self.batches).as_ref().map(|batches| batches.ask(command));
        let Some(answer) = asked else { return Err(self.told()) };
        let answer = tokio::select! {
            biased;
            () = self.broken.cancelled() => return Err(self.told()),
            answer = tokio::time::timeout(LIMIT, answer) => answer,
        };
        let why = match answer {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(e))) => said(&e),
            Ok(Err(_)) => "no answer came".to_owned(),
            Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
        };
        Err(self.end(why))
    }

    fn end(&self, why: String) -> Broken {
        let _ = self.why.set(why);
        lock(&self.batches).take();
        self.broken.cancel();
        self.told()
    }

    fn told(&self) -> Broken {
        let why = self.why.get().map_or("it was closed", String::as_str);
        Broken(format!("the connection to Redis is broken: {why}"))
    }

    async fn run(&self, run: &Run) -> Result<Value, Broken> {
        let mut command = redis::cmd("EVALSHA");
        let name = self.names.get(run.script as usize).map_or("", String::as_str);
        command.arg(name).arg(run.keys.len()).arg(&run.keys);
        for arg in &run.args {
            command.arg(&arg[..]);
        }
        self.ask(command).await
    }

    async fn call(
        &self,
        instance: Instance,
        sent: Sent,
        now: Option<Timestamp>,
        fence: Fence,
    ) -> Result<LedgerReply, Broken> {
        let setting =
            Setting { keys: &self.keys, window: self.window, instance, settled: sent.settled, fence, now };
        let mut prints = Vec::new();
        for _ in 0..=RULES {
            let Some(run) = calls::run(&sent.call, &setting, &prints) else { return Ok(LedgerReply::Done) };
            let reply =
                parts(self.run(&run).await?).ok_or_else(|| self.end("a strange answer".to_owned()))?;
            match calls::heard(&sent.call, fence, reply) {
                Ok(Heard::Reply(reply)) => return Ok(reply),
                Ok(Heard::Rule(print)) => prints.push(print),
                // Only this claim: the others are as well as they were.
                Err(BadReply::Unreadable(e)) => return Err(Broken(e.to_string())),
                Err(strange) => return Err(self.end(strange.to_string())),
            }
        }
        Err(Broken("the rule of the claim's fingerprint changed at every question".to_owned()))
    }

    async fn look(&self, keys: &[ScopedKey]) -> Result<Vec<Option<ClaimView>>, Broken> {
        let mut found = Vec::new();
        for page in keys.chunks(PAGE) {
            let names = page.iter().map(|key| self.keys.claim(&written::scope(key))).collect();
            let run = Run { script: Script::Look, keys: names, args: Vec::new() };
            let Value::Array(claims) = self.run(&run).await? else { return Err(self.strange()) };
            for (key, claim) in page.iter().zip(claims) {
                let entry = self.entry(claim)?.map_err(|e| Broken(e.to_string()))?;
                found.push(entry.map(|e| e.view(key.clone())));
            }
        }
        Ok(found)
    }

    async fn list(&self, after: Option<ScopedKey>, max: usize) -> Result<Vec<ClaimView>, Broken> {
        let mut after = after.map(|key| written::scope(&key)).unwrap_or_default();
        let mut found = Vec::new();
        while found.len() < max {
            let wanted = PAGE.min(max - found.len());
            let args = [self.keys.claims(), after, wanted.to_string()].map(bytes::Bytes::from).to_vec();
            let run = Run { script: Script::List, keys: vec![self.keys.open()], args };
            let Value::Array(page) = self.run(&run).await? else { return Err(self.strange()) };
            let more = page.len() == 2 * wanted;
            let mut page = page.into_iter();
            after = String::new();
            while let (Some(scope), Some(claim)) = (page.next(), page.next()) {
                after = text_of(scope);
                match (written::read_scope(&after), self.entry(claim)?) {
                    (Some(key), Ok(Some(entry))) => found.push(entry.view(key)),
                    // One that cannot be read hides no other.
                    (_, Err(why)) => tracing::warn!(scope = %after, %why, "a claim is left out of the list"),
                    (_, Ok(_)) => tracing::warn!(scope = %after, "the index names a claim that is not there"),
                }
            }
            if !more {
                break;
            }
        }
        Ok(found)
    }

    fn entry(&self, claim: Value) -> Result<Result<Option<Entry>, written::Unreadable>, Broken> {
        let mut parts = parts(claim).ok_or_else(|| self.strange())?.into_iter();
        let mut fields = Vec::with_capacity(parts.len() / 2);
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            fields.push((name, value));
        }
        Ok(written::read(fields))
    }

    fn strange(&self) -> Broken {
        self.end("a strange answer".to_owned())
    }
}

/// What a script answers: a list of texts.
fn parts(value: Value) -> Option<Vec<Vec<u8>>> {
    let part = |value| match value {
        Value::BulkString(part) => Some(part),
        _ => None,
    };
    match value {
        Value::Array(parts) => parts.into_iter().map(part).collect(),
        _ => None,
    }
}

/// Empty where the answer is no text.
pub(super) fn text_of(value: Value) -> String {
    redis::from_redis_value(value).unwrap_or_default()
}

impl Connection for RedisConnection {
    fn beat(&self, instance: Instance) -> BoxFuture<'static, Result<(), Broken>> {
        let line = self.0.clone();
        Box::pin(async move {
            let lease = calls::millis(link::LEASE);
            let mut command = redis::cmd("SET");
            command.arg(line.keys.beat(instance)).arg(1).arg("PX").arg(lease);
            line.ask(command).await.map(|_| ())
        })
    }

    fn call(&self, instance: Instance, sent: Sent) -> BoxFuture<'static, Result<LedgerReply, Broken>> {
        let line = self.0.clone();
        Box::pin(async move { line.call(instance, sent, None, Fence(rand::random())).await })
    }

    fn look(&self, keys: Vec<ScopedKey>) -> BoxFuture<'static, Result<Vec<Option<ClaimView>>, Broken>> {
        let line = self.0.clone();
        Box::pin(async move { line.look(&keys).await })
    }

    fn list(
        &self,
        after: Option<ScopedKey>,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<ClaimView>, Broken>> {
        let line = self.0.clone();
        Box::pin(async move { line.list(after, max).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_a_person_can_end_says_how() {
        for (answer, ends) in [
            (
                "-NOAUTH Authentication required.",
                "Authentication required: give `[engine] redis` its password",
            ),
            ("-OOM command not allowed when used memory > 'maxmemory'.", "raise its maxmemory"),
            (
                "-MISCONF Redis is configured to save RDB snapshots",
                "it cannot write to its disk: see to that",
            ),
            ("-READONLY You can't write against a read only replica.", "the address of its primary"),
            ("-NOPERM User default has no permissions", "let this user run what is refused"),
            ("-WRONGPASS invalid username-password pair", "mend the password in `[engine] redis`"),
            ("-WHATEVER else.", "else."),
        ] {
            let value = redis::parse_redis_value(format!("{answer}\r\n").as_bytes()).unwrap();
            let said = said(&value.extract_error().unwrap_err());
            assert!(said.ends_with(ends), "{answer}: {said}");
        }
    }
}
