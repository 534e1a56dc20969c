//! `tidegate demo --once`: what it shows adds up, by its own figures and by its own events.

use crate::demo_ends::{demo, nothing_is_left};
use crate::rig::is_for_embedded_only;
use crate::rig::place::scratch;
use crate::rig::process::{Process, tidegate};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the demo promises to whoever waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// One event line: `00:05 model       down                main-model: ...`.
struct Event {
    at: u64,
    what: String,
    code: String,
    detail: String,
}

impl Event {
    /// `kind/key`, where the line begins with one.
    fn of(&self) -> &str {
        self.detail.split([' ', ':']).next().unwrap()
    }
}

fn events(said: &str) -> Vec<Event> {
    let form = Regex::new(
        r"^(\d\d):(\d\d) (task|result|review|dead letter|model|worker) {1,11}([A-Za-z][\w-]+)(?: +(\S.*))?$",
    )
    .unwrap();
    // The summary comes after an empty line.
    let lines = said.lines().take_while(|line| !line.is_empty());
    let event = |line: &str| {
        let found = form.captures(line).unwrap_or_else(|| panic!("no event with a code: `{line}`"));
        assert!(line.chars().count() <= 80, "wider than a terminal: `{line}`");
        let text = |n: usize| found.get(n).map_or(String::new(), |m| m.as_str().to_owned());
        let number = |n: usize| text(n).parse::<u64>().unwrap();
        Event { at: number(1) * 60 + number(2), what: text(3), code: text(4), detail: text(5) }
    };
    lines.map(event).collect()
}

/// The numbers of the one line that has this form.
fn figures<const N: usize>(said: &str, form: &str) -> [u64; N] {
    let form = Regex::new(&format!("(?m)^{form}$")).unwrap();
    let all: Vec<_> = form.captures_iter(said).collect();
    assert_eq!(all.len(), 1, "one line like `{form}` in:\n{said}");
    std::array::from_fn(|n| all[0].get(n + 1).map_or(0, |m| m.as_str().parse().unwrap()))
}

#[test]
fn p1_p2_the_demo_ends_in_time_and_every_record_has_one_place() {
    if is_for_embedded_only("the demo needs no server") {
        return;
    }
    let (temporary, beside) = (scratch(), scratch());
    let mut process = Process::start(demo(temporary.path()), &beside.path().join("said"));
    let status = process.wait(LIMIT).unwrap_or_else(|| panic!("runs longer than {LIMIT:?}"));
    let said = process.words();
    assert_eq!(status.code(), Some(0), "{said}");
    nothing_is_left(temporary.path());

    the_sums_add_up(&said);
    let events = events(&said);
    the_events_are_what_the_sums_count(&said, &events);
    the_outage_is_told(&said, &events);
    every_reason_is_explained(&events);
}

fn the_sums_add_up(said: &str) {
    let [records, tasks, duplicates, refused] =
        figures(said, r"records in (\d+) = tasks (\d+) \+ duplicates (\d+) \+ refused (\d+)");
    assert_eq!(records, tasks + duplicates + refused, "{said}");
    let [results, waiting, letters, again] =
        figures(said, r"results (\d+) \+ waiting for a person (\d+) \+ dead letters (\d+) = tasks (\d+)");
    assert_eq!((results + waiting + letters, again), (tasks, tasks), "{said}");
    for (what, n) in [
        ("tasks", tasks),
        ("duplicates", duplicates),
        ("refused", refused),
        ("results", results),
        ("waiting", waiting),
        ("letters", letters),
    ] {
        assert!(n > 0, "a demo without {what} shows less than it could:\n{said}");
    }
    let kinds: [[u64; 5]; 3] = ["ticket", "refund", "receipt"]
        .map(|kind| figures(said, &format!(r"{kind} +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)")));
    let columns: [u64; 5] = std::array::from_fn(|n| kinds.iter().map(|row| row[n]).sum());
    assert_eq!(columns, [tasks, results, waiting, letters, 0], "the table and the sums:\n{said}");

    let [missing, twice, repeated] = figures(
        said,
        r"missing (\d+), twice (\d+); calls repeated after a kill: (?:0|(\d+), each explained)",
    );
    assert_eq!((missing, twice), (0, 0), "{said}");
    let [answered] = figures(said, r"the models' own log: (\d+) answers given twice, of \d+ calls repeated");
    assert!(answered <= repeated, "bought again without a kill:\n{said}");
}

fn the_events_are_what_the_sums_count(said: &str, events: &[Event]) {
    let of = |what: &str| events.iter().filter(|e| e.what == what).collect::<Vec<_>>();
    let names = |events: Vec<&Event>| events.iter().map(|e| e.of().to_owned()).collect::<BTreeSet<_>>();
    let [results, waiting, letters] =
        figures(said, r"results (\d+) \+ waiting for a person (\d+) \+ dead letters (\d+) = tasks \d+");
    let accepted: BTreeSet<String> = names(of("task").into_iter().filter(|e| e.code == "accepted").collect());
    // Poison was put on its topic by hand: buried, and no task.
    let (poison, dead): (Vec<_>, Vec<_>) =
        of("dead letter").into_iter().partition(|e| !accepted.contains(e.of()));
    assert_eq!(
        names(poison),
        ["poison-0".to_owned(), "poison-1".to_owned()].map(|p| format!("ticket/{p}")).into()
    );
    let mut places: BTreeMap<&str, u64> = BTreeMap::new();
    let (came, asked) = (of("result"), of("review"));
    for event in came.iter().chain(&asked).chain(&dead) {
        *places.entry(event.of()).or_default() += 1;
    }
    assert_eq!((came.len() as u64, asked.len() as u64, dead.len() as u64), (results, waiting, letters));
    let more: Vec<_> = places.iter().filter(|(_, n)| **n > 1).collect();
    assert!(more.is_empty(), "in more than one place: {more:?}");
    let places: BTreeSet<String> = places.into_keys().map(str::to_owned).collect();
    assert_eq!(places, accepted, "what was accepted, and what has a place");
    let killed: Vec<&str> = of("worker").iter().map(|e| e.code.as_str()).collect();
    assert_eq!(killed, ["killed", "runs"]);
    let [repeated] = figures(said, r".*calls repeated after a kill: (\d+)(?:, each explained)?");
    let told = of("model").into_iter().filter(|e| e.code == "repeated").count() as u64;
    assert!(told >= u64::from(repeated > 0), "a repeated call is told:\n{said}");
}

fn the_outage_is_told(said: &str, events: &[Event]) {
    let main = |code: &str| {
        let of = events.iter().find(|e| e.what == "model" && e.code == code && e.of() == "main-model");
        of.unwrap_or_else(|| panic!("main-model is never `{code}`:\n{said}")).at
    };
    let (down, well) = (main("down"), main("well"));
    // Out from the fourth second after the first call to the thirteenth.
    assert!((4..13).contains(&down) && well >= 13, "down at {down} s and well at {well} s:\n{said}");
    let spare = events.iter().filter(|e| e.what == "result" && e.detail.contains(" by spare-model"));
    let in_outage = spare.filter(|e| (down..well).contains(&e.at)).count();
    assert!(in_outage > 20, "the spare model answered {in_outage} tasks while the main one was down");
    let [calls, failed] = figures(said, r"main-model +well +(\d+) +(\d+) +\d+ ms");
    assert!(failed > 5 && failed < calls, "{failed} of {calls} calls failed:\n{said}");
}

fn every_reason_is_explained(events: &[Event]) {
    let codes: BTreeSet<&str> = events
        .iter()
        .filter(|e| matches!(e.what.as_str(), "review" | "dead letter"))
        .map(|e| e.code.as_str())
        .chain(events.iter().filter(|e| e.detail.ends_with("refused at the door")).map(|e| e.code.as_str()))
        .collect();
    assert!(codes.len() >= 4, "{codes:?}");
    for code in codes {
        assert!(code.starts_with("TG-"), "`{code}` is no code");
        let said = tidegate().args(["explain", code]).output().unwrap();
        assert!(said.status.success(), "{code} is not explained");
    }
}
