//! The ledger's store on one Redis or Valkey server, 6.2 or later.
//!
//! ```text
//!  <prefix>:claim:<scope>             one hash: the entry, see `written`
//!  <prefix>:refused:<scope>/<origin>  when that origin was refused; expires with the dedupe window
//!  <prefix>:open                      the scopes of open claims, in order, for `list`
//!  <prefix>:beat:<instance>           expires one lease after the last heartbeat
//!  <prefix>:log                       the Kafka cluster and the group that the claims belong to
//!  <prefix>:tie                       random, new whenever an empty store is tied to a cluster, and when it was
//!                                     found that it had lost what it knew
//! ```
//!
//! Every call of the ledger is one script, which the server runs whole and alone, by its own clock. The rules
//! are those of `dedupe`; a test holds the scripts to them. The one call that may take a second round trip is
//! an admission whose payload was admitted under another rule of fingerprints: the first answer names that
//! rule and changes nothing, the second brings the digest under it, and it ends after a few.
//!
//! What a connection never received the server must never see: a request may still lie unread in the socket
//! of a connection that was given up. So the first thing that a new connection does is to have the server
//! close the one before it.
//!
//! What is stored outlives a crash of the server only as its settings say: `checks` tells.

mod batches;
mod calls;
pub mod checks;
mod connection;
mod scripts;
pub mod written;

pub use connection::RedisConnection;

use super::client::{Broken, Connection, Store};
use super::lock;
use crate::task::Timestamp;
use checks::{Durability, Refused};
use connection::text_of;
use futures::future::BoxFuture;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use written::{BadPrefix, Keys};

/// Of everything that comes before the first call. A server that takes longer is as good as away.
const CONNECT: Duration = Duration::from_secs(5);
const TIE: &str = include_str!("scripts/tie.lua");
/// Where the ledger lies, or what in that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    #[error("the ledger's address must be redis://[USER:PASSWORD@]HOST:PORT, or rediss:// for TLS: {0}")]
    Url(redis::RedisError),
    #[error(transparent)]
    Prefix(#[from] BadPrefix),
}

/// One process's way to the store. It has one connection at a time: a new one ends the one before.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    client: Client,
    keys: Keys,
    window: Duration,
    last: Mutex<Option<Numbered>>,
}

/// A connection as the server numbers it, anew in each of its runs.
#[derive(Clone, PartialEq, Eq)]
struct Numbered {
    run: String,
    id: String,
}

impl RedisStore {
    /// `window`: how long what is closed or refused is remembered.
    pub fn new(url: &str, prefix: &str, window: Duration) -> Result<Self, BadAddress> {
        let info = url.into_connection_info().map_err(BadAddress::Url)?;
        // A call is one small packet: it must not wait for the answer to the one before.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(BadAddress::Url)?;
        let keys = Keys::new(prefix)?;
        Ok(RedisStore(Arc::new(Inner { client, keys, window, last: Mutex::new(None) })))
    }

    /// Whether the server may be the ledger, and what of it outlives a crash. For the start: every
    /// connection asks the same.
    pub async fn check(&self) -> Result<Durability, Broken> {
        self.0
            .within(async {
                let connection = self.0.dial().await?;
                Ok(self.0.ask_settings(&connection).await?.1)
            })
            .await
    }

    /// A new connection, with every script loaded.
    pub async fn reach(&self) -> Result<RedisConnection, Broken> {
        self.0
            .within(async {
                let connection = self.0.dial().await?;
                let (run, _) = self.0.ask_settings(&connection).await?;
                self.0.succeed(&connection, run).await?;
                connection.load().await
            })
            .await
    }
}

/// Whose claims a store keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Those of the log that asked; `new`: from now on, for it kept none before.
    Here {
        new: bool,
    },
    Elsewhere(String),
    /// Processes of this group are alive, or were a moment ago.
    OtherGroup(String),
}

/// One tying of a store to its log: a name of its own, and when it was found that the store had lost what it knew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tie {
    pub name: String,
    pub emptied: Option<Timestamp>,
}

impl Tie {
    fn new(emptied: Option<Timestamp>) -> Self {
        Tie { name: format!("{:032x}", rand::random::<u128>()), emptied }
    }

    fn read(text: &str) -> Self {
        let (name, emptied) = text.split_once(' ').unwrap_or((text, ""));
        Tie { name: name.to_owned(), emptied: emptied.parse().ok().map(Timestamp) }
    }

    fn written(&self) -> String {
        let emptied = self.emptied.map(|at| format!(" {}", at.0));
        format!("{}{}", self.name, emptied.unwrap_or_default())
    }
}

impl RedisStore {
    /// The other log that the keys under this prefix are tied to, if they are.
    pub async fn is_of_another(&self, log: &str) -> Result<Option<String>, Broken> {
        self.0
            .within(async {
                let connection = self.0.dial().await?;
                let bound = connection.ask(redis::cmd("GET").arg(self.0.keys.bound())).await?;
                let bound: Option<String> =
                    redis::from_redis_value(bound).map_err(|e| Broken(e.to_string()))?;
                let other = bound.and_then(|bound| Some(bound.split(' ').next()?.to_owned()));
                Ok(other.filter(|other| other != log))
            })
            .await
    }

    /// Ties the keys under this prefix to one log and to one group of readers: records of another log would be
    /// taken for copies, and two groups would each publish what the other publishes. The log stays for good;
    /// another group may follow once no process of the one before is alive.
    pub async fn bind(&self, log: &str, group: &str) -> Result<Bound, Broken> {
        self.0
            .within(async {
                let connection = self.0.dial().await?;
                let wanted = format!("{log} {group}");
                let (bound, _, new) = self.0.tie(&connection, &wanted, Tie::new(None)).await?;
                if bound == wanted {
                    return Ok(Bound::Here { new });
                }
                let (other, readers) = bound.split_once(' ').unwrap_or((&bound, ""));
                if other != log {
                    return Ok(Bound::Elsewhere(other.to_owned()));
                }
                if self.0.is_somebody_alive(&connection).await? {
                    return Ok(Bound::OtherGroup(readers.to_owned()));
                }
                connection.ask(redis::cmd("SET").arg(self.0.keys.bound()).arg(&wanted)).await?;
                Ok(Bound::Here { new })
            })
            .await
    }

    /// What it was tied to anew had been done before: from now on every process that looks finds so.
    pub async fn mark_emptied(&self, at: Timestamp) -> Result<(), Broken> {
        self.0.within(async { self.0.mark_emptied(&self.0.dial().await?, at).await }).await
    }
}

/// How a store stands that was in order at the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Its settings were changed to what no start would accept: why, and what to do.
    pub refused: Option<String>,
    pub keeps: Keeps,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// Our claims, since this tie. Where it knew nothing any more, and so of no claim from before either, it is tied
    /// again, and the tie says so to everybody; likewise where it has dropped keys to make room.
    Ours(Tie),
    /// Those of this log and group.
    Another(String),
}

impl RedisStore {
    /// Looks whether it is still what `check` and `bind` have found.
    pub async fn look(&self, log: &str, group: &str, now: Timestamp) -> Result<Looked, Broken> {
        self.0
            .within(async {
                let connection = self.0.dial().await?;
                let judged = self.0.judged(&connection).await?;
                self.0.look_for_dropped(&connection, &judged.dropped, now).await?;
                let ours = format!("{log} {group}");
                let (bound, tie, _) = self.0.tie(&connection, &ours, Tie::new(Some(now))).await?;
                Ok(Looked {
                    refused: judged.durability.err().map(|refused| refused.to_string()),
                    keeps: if bound == ours { Keeps::Ours(tie) } else { Keeps::Another(bound) },
                })
            })
            .await
    }
}

/// What a server says of itself.
struct Judged {
    run: String,
    dropped: String,
    durability: Result<Durability, Refused>,
}

impl Inner {
    async fn within<T>(&self, steps: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
        let late =
            |_| Broken(format!("no connection to Redis at {} within {} s", self.at(), CONNECT.as_secs()));
        tokio::time::timeout(CONNECT, steps).await.unwrap_or_else(|e| Err(late(e)))
    }

    /// `host:port`: what of the address is no secret.
    fn at(&self) -> &ConnectionAddr {
        self.client.get_connection_info().addr()
    }

    /// What the store is tied to, since which tie, and whether it was tied to nothing before.
    async fn tie(
        &self,
        connection: &RedisConnection,
        to: &str,
        tie: Tie,
    ) -> Result<(String, Tie, bool), Broken> {
        let mut run = redis::cmd("EVAL");
        run.arg(TIE).arg(2).arg(self.keys.bound()).arg(self.keys.tie()).arg(to).arg(tie.written());
        let found: (String, String, String) =
            redis::from_redis_value(connection.ask(&run).await?).map_err(|e| Broken(e.to_string()))?;
        Ok((found.0, Tie::read(&found.1), found.2 == "new"))
    }

    async fn mark_emptied(&self, connection: &RedisConnection, at: Timestamp) -> Result<(), Broken> {
        let tie = Tie::new(Some(at)).written();
        connection.ask(redis::cmd("SET").arg(self.keys.tie()).arg(tie)).await.map(drop)
    }

    /// Marks the tie where keys were dropped since the last look, and remembers this one once that is done.
    async fn look_for_dropped(
        &self,
        connection: &RedisConnection,
        now_dropped: &str,
        now: Timestamp,
    ) -> Result<(), Broken> {
        let before = connection.ask(redis::cmd("GET").arg(self.keys.dropped())).await?;
        let before: Option<String> = redis::from_redis_value(before).map_err(|e| Broken(e.to_string()))?;
        if before.as_deref() == Some(now_dropped) {
            return Ok(());
        }
        if checks::has_dropped_more(before.as_deref(), now_dropped) {
            self.mark_emptied(connection, now).await?;
        }
        connection.ask(redis::cmd("SET").arg(self.keys.dropped()).arg(now_dropped)).await.map(drop)
    }

    /// Whether any heartbeat has not run out. Reads the names of all keys: for a start that finds another group.
    async fn is_somebody_alive(&self, connection: &RedisConnection) -> Result<bool, Broken> {
        let pattern = format!("{}*", self.keys.beats());
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1_000);
            let answer = connection.ask(&scan).await?;
            let (next, found): (String, Vec<String>) =
                redis::from_redis_value(answer).map_err(|e| Broken(e.to_string()))?;
            if !found.is_empty() {
                return Ok(true);
            }
            if next == "0" {
                return Ok(false);
            }
            cursor = next;
        }
    }

    async fn dial(&self) -> Result<RedisConnection, Broken> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let line = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let line = line.map_err(|e| {
            Broken(format!("no connection to Redis at {}: {}", self.at(), connection::said(&e)))
        })?;
        Ok(RedisConnection::new(line, self.keys.clone(), self.window))
    }

    /// The server's run, and what `checks` says of it.
    async fn ask_settings(&self, connection: &RedisConnection) -> Result<(String, Durability), Broken> {
        let Judged { run, durability, .. } = self.judged(connection).await?;
        Ok((run, durability.map_err(|refused| Broken(refused.to_string()))?))
    }

    async fn judged(&self, connection: &RedisConnection) -> Result<Judged, Broken> {
        let info = text_of(connection.ask(&redis::cmd("INFO")).await?);
        connection.may_batch().await?;
        let config =
            connection.settings(&["maxmemory-policy", "append*", "no-appendfsync-on-rewrite"]).await?;
        let run = info.lines().find_map(|line| line.trim_end().strip_prefix("run_id:"));
        Ok(Judged {
            run: run.unwrap_or_default().to_owned(),
            dropped: checks::dropped(&info),
            durability: checks::judge(&info, &config),
        })
    }

    /// Has the server close the connection before this one, and remembers this one's number.
    async fn succeed(&self, connection: &RedisConnection, run: String) -> Result<(), Broken> {
        let before = lock(&self.last).clone();
        // Another run has other numbers, and nothing unread.
        if let Some(before) = before.filter(|before| before.run == run) {
            connection.ask(redis::cmd("CLIENT").arg("KILL").arg("ID").arg(before.id)).await?;
        }
        let id = text_of(connection.ask(redis::cmd("CLIENT").arg("ID")).await?);
        *lock(&self.last) = Some(Numbered { run, id });
        Ok(())
    }
}

impl RedisConnection {
    /// Nothing where the server does not tell: some operators forbid it.
    async fn settings(&self, patterns: &[&str]) -> Result<BTreeMap<String, String>, Broken> {
        let mut told = BTreeMap::new();
        for pattern in patterns {
            // Several at once are understood from 7.0 on.
            if let Some(answer) = self.try_ask(redis::cmd("CONFIG").arg("GET").arg(pattern)).await? {
                told.extend(redis::from_redis_value::<BTreeMap<String, String>>(answer).unwrap_or_default());
            }
        }
        Ok(told)
    }
}

impl Store for RedisStore {
    fn connect(&self) -> BoxFuture<'static, Result<Arc<dyn Connection>, Broken>> {
        let store = self.clone();
        Box::pin(async move {
            let connection: Arc<dyn Connection> = Arc::new(store.reach().await?);
            Ok(connection)
        })
    }
}
