//! Whether a store may be the ledger, and what its settings cost: decided from what it says of itself.
//!
//! Nothing here asks: the connection hands in the text of `INFO` and what `CONFIG GET` answered, which may
//! be nothing where an operator has forbidden it.

use std::collections::BTreeMap;

/// The oldest server that the scripts are written for.
const OLDEST: (u32, u32) = (6, 2);

/// Why a store cannot be the ledger. Each says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    #[error("the ledger's server says nothing of its version: it must be Redis 6.2 or Valkey, or later")]
    NoVersion,
    #[error("the ledger's server is Redis {0}: run 6.2 or later, or Valkey")]
    TooOld(String),
    #[error("the ledger's server runs in cluster mode: give Tidegate a single node of its own")]
    Cluster,
    #[error("the ledger's server is a replica: give Tidegate the address of its primary")]
    Replica,
    #[error(
        "the ledger's server drops keys when its memory is full (`maxmemory-policy` is `{0}`), and a claim that \
         is dropped lets a task through twice: set `maxmemory-policy noeviction`"
    )]
    Evicts(String),
    #[error("the ledger's server is still loading its data: it is tried again")]
    Loading,
}

/// What of the acknowledged writes outlives a crash of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    Always,
    /// `appendfsync always`, but not while the append-only file is rewritten.
    PausedByRewrites,
    EverySecond,
    /// The append-only file is written, and synced when the operating system likes.
    BySystem,
    /// No append-only file: snapshots, or nothing at all.
    None,
    /// The server does not tell.
    Untold,
}

impl Durability {
    /// Whether the one-outcome promise (P1) holds in full, but for failover to another server.
    pub fn is_full(self) -> bool {
        self == Durability::Always
    }

    /// In one sentence, for whoever starts Tidegate.
    pub fn says(self) -> &'static str {
        match self {
            Durability::Always => {
                "the ledger syncs every write before it answers (appendfsync always): a crash of its server \
                 forgets nothing; a failover to a replica still can"
            }
            Durability::PausedByRewrites => {
                "the ledger syncs every write, but not while it rewrites its file: a crash in such a moment can let \
                 a copy of a record through a second time; set no-appendfsync-on-rewrite no"
            }
            Durability::EverySecond => {
                "the ledger syncs once a second (appendfsync everysec): a crash of its machine forgets up to two \
                 seconds of claims, so a copy of a record can get through a second time and a call be bought again; \
                 set appendfsync always to close this"
            }
            Durability::BySystem => {
                "the ledger syncs when its operating system likes (appendfsync no): a crash of its machine forgets \
                 half a minute of claims or more, so copies of records can get through a second time and calls be \
                 bought again; set appendfsync always"
            }
            Durability::None => {
                "the ledger keeps no append-only file (appendonly no): a restart of its server forgets every claim \
                 since the last snapshot, so copies of records get through a second time and calls are bought again; \
                 set appendonly yes and appendfsync always"
            }
            Durability::Untold => {
                "the ledger's server does not say how it syncs: unless it does before it answers (appendfsync \
                 always), a crash can let a copy of a record through a second time"
            }
        }
    }
}

/// Which of its runs a server is in, and how many keys it has dropped in it to make room: `run n`.
pub fn dropped(info: &str) -> String {
    let of = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name));
    format!("{} {}", of("run_id:").unwrap_or_default(), of("evicted_keys:").unwrap_or("0"))
}

/// Whether some were dropped between two looks. `before`: the first look, of a new installation perhaps, is none.
pub fn has_dropped_more(before: Option<&str>, now: &str) -> bool {
    let read = |text: &str| {
        let (run, n) = text.split_once(' ').unwrap_or((text, ""));
        (run.to_owned(), n.parse::<u64>().unwrap_or(0))
    };
    let Some((before, known)) = before.map(read) else { return false };
    let (run, n) = read(now);
    // A server that was started anew counts anew.
    n > if run == before { known } else { 0 }
}

/// `config`: what `CONFIG GET` answered, empty where that is forbidden.
pub fn judge(info: &str, config: &BTreeMap<String, String>) -> Result<Durability, Refused> {
    let told: BTreeMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let info = |name: &str| told.get(name).copied();
    let set = |name: &str| config.get(name).map(String::as_str);

    // Valkey gives the Redis version that it speaks like.
    let version = info("redis_version").ok_or(Refused::NoVersion)?;
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
        return Err(Refused::TooOld(version.to_owned()));
    }
    if info("loading") == Some("1") {
        return Err(Refused::Loading);
    }
    if info("cluster_enabled") == Some("1") {
        return Err(Refused::Cluster);
    }
    if info("role") == Some("slave") {
        return Err(Refused::Replica);
    }
    match set("maxmemory-policy").or(info("maxmemory_policy")) {
        None | Some("noeviction") => {}
        Some(other) => return Err(Refused::Evicts(other.to_owned())),
    }
    let kept = match set("appendonly") {
        Some(kept) => Some(kept == "yes"),
        None => info("aof_enabled").map(|kept| kept == "1"),
    };
    Ok(match (kept, set("appendfsync")) {
        (Some(false), _) => Durability::None,
        (Some(true), Some("always")) if set("no-appendfsync-on-rewrite") == Some("yes") => {
            Durability::PausedByRewrites
        }
        (Some(true), Some("always")) => Durability::Always,
        (Some(true), Some("everysec")) => Durability::EverySecond,
        (Some(true), Some("no")) => Durability::BySystem,
        _ => Durability::Untold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n\
        loading:0\r\naof_enabled:1\r\nrole:master\r\ncluster_enabled:0\r\n";

    fn config(set: &[(&str, &str)]) -> BTreeMap<String, String> {
        let sound = [("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("appendfsync", "always")];
        sound.iter().chain(set).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn p1_keys_that_a_server_drops_are_noticed_whenever_there_are_more_and_never_those_of_before() {
        let at =
            |run: &str, n: u64| dropped(&format!("redis_version:7\r\nrun_id:{run}\r\nevicted_keys:{n}\r\n"));
        let more = |before: Option<&str>, now: String| has_dropped_more(before, &now);
        assert!(!more(None, at("a", 5)), "a new installation has lost none");
        let known = at("a", 5);
        assert!(!more(Some(&known), at("a", 5)) && more(Some(&known), at("a", 6)));
        assert!(!more(Some(&known), at("b", 0)) && more(Some(&known), at("b", 1)), "started anew");
        assert_eq!(dropped("redis_version:7\r\n"), " 0");
        assert!(!more(Some(" 0"), " 0".to_owned()));
    }

    #[test]
    fn p1_a_server_that_could_not_keep_a_claim_is_refused_with_what_to_do() {
        let refused = |from: &str, to: &str| {
            assert!(INFO.contains(from));
            judge(&INFO.replace(from, to), &BTreeMap::new()).unwrap_err().to_string()
        };
        for (from, to, says) in [
            ("redis_version:7.0.15", "redis_version:6.0.16", "is Redis 6.0.16: run 6.2 or later"),
            ("redis_version:7.0.15", "redis_mode:standalone", "says nothing of its version"),
            ("cluster_enabled:0", "cluster_enabled:1", "give Tidegate a single node"),
            ("role:master", "role:slave", "the address of its primary"),
            ("loading:0", "loading:1", "still loading"),
            ("noeviction", "allkeys-lru", "(`maxmemory-policy` is `allkeys-lru`)"),
        ] {
            let told = refused(from, to);
            assert!(told.contains(says), "{told}");
        }
        let told = judge(INFO, &config(&[("maxmemory-policy", "volatile-ttl")])).unwrap_err().to_string();
        assert!(
            told.contains("`volatile-ttl`") && told.ends_with("set `maxmemory-policy noeviction`"),
            "{told}"
        );
    }

    #[test]
    fn the_oldest_version_and_a_valkey_pass() {
        for version in ["6.2.0", "6.10.1", "7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1", "10.0.0"] {
            let info = INFO.replace("7.0.15", version);
            assert_eq!(judge(&info, &config(&[])), Ok(Durability::Always), "{version}");
        }
    }

    #[test]
    fn p1_what_a_crash_may_cost_is_told_for_every_way_to_persist() {
        for (set, found, word) in [
            (&[][..], Durability::Always, "forgets nothing"),
            (&[("appendfsync", "everysec")], Durability::EverySecond, "two seconds"),
            (&[("appendfsync", "no")], Durability::BySystem, "half a minute"),
            (&[("appendonly", "no")], Durability::None, "since the last snapshot"),
            (&[("no-appendfsync-on-rewrite", "yes")], Durability::PausedByRewrites, "while it rewrites"),
        ] {
            assert_eq!(judge(INFO, &config(set)), Ok(found));
            assert!(found.says().contains(word), "{}", found.says());
            assert_eq!(found.is_full(), found == Durability::Always);
        }
    }

    #[test]
    fn where_its_settings_may_not_be_read_nothing_good_is_assumed() {
        assert_eq!(judge(INFO, &BTreeMap::new()), Ok(Durability::Untold));
        let without = INFO.replace("aof_enabled:1", "aof_enabled:0");
        assert_eq!(judge(&without, &BTreeMap::new()), Ok(Durability::None));
    }
}
