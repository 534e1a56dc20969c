//! P1, P2 and P3 under kill -9, with a strong ledger, a weak one, and one that forgets.

use crate::books::{Complaint, Shelf, reckon};
use crate::calls::{differences, expected, scope_of, unexplained};
use crate::campaign::{Campaign, Mode, Sizes, parked, shelf};
use crate::rig::number;
use std::collections::{BTreeMap, BTreeSet};

/// Every named crash point, each between two durable steps. Retention has nothing to give back while
/// the outcomes are young; its points are the engine's own tests'.
fn points() -> Vec<String> {
    let all = tidegate::engine::crash::POINTS.iter();
    all.filter(|point| !point.starts_with("retention.")).map(|p| (*p).to_owned()).collect()
}

fn sizes(offset: u64) -> Sizes {
    let clock = std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.subsec_nanos());
    Sizes {
        records: number("TIDEGATE_TASKS", 4_000),
        kills: number("TIDEGATE_KILLS", 20),
        seed: number("TIDEGATE_SEED", u64::from(clock)) + offset,
    }
}

/// The whole campaign and its reckoning. Returns what there is to complain of.
async fn campaign(mode: Mode, offset: u64) -> (Vec<Complaint>, BTreeSet<String>) {
    let sizes = sizes(offset);
    println!("TIDEGATE_SEED={} for this run of {mode:?}", sizes.seed - offset);
    let mut campaign = Campaign::new(mode, sizes.seed).await;
    let rest = campaign.run(&sizes, &points()).await;
    let shelf = shelf(&rest).await;
    let books = reckon(&shelf);
    println!("{mode:?}: {:?}, crash points reached {:?}", books.sums, campaign.reached);
    println!("{mode:?}: dead letters {:?}", reasons(&shelf));
    let noted: u64 = expected(&campaign.pairs).values().sum();
    println!(
        "{mode:?}: {noted} calls repeated after a kill, {} requests in all",
        campaign.provider.asked().len()
    );

    let parked = parked(&rest).await;
    println!(
        "{mode:?}: {parked} parked, {} redriven, {} decisions",
        shelf.resume.len(),
        shelf.review_decisions.len()
    );
    assert!(
        parked > 0 && !shelf.resume.is_empty() && !shelf.review_decisions.is_empty(),
        "{mode:?}: see above"
    );
    let sent: BTreeSet<&str> = shelf
        .tasks
        .values()
        .flatten()
        .filter_map(|r| r.headers.get("idempotency-key").map(String::as_str))
        .collect();
    let accepted = campaign.accepted.lock().unwrap().clone();
    let lost: Vec<&String> = accepted.iter().filter(|key| !sent.contains(key.as_str())).collect();
    assert!(lost.is_empty(), "answered with 202 and not in the log: {lost:?}");
    assert!(
        books.sums.records as u64 >= sizes.records * 9 / 10 && books.sums.results > 0,
        "{:?}",
        books.sums
    );
    let missed: Vec<String> = points().into_iter().filter(|p| !campaign.reached.contains_key(p)).collect();
    show(mode, "crash points that were never reached", &missed);
    show(mode, "complaints", &books.complaints);
    if mode != Mode::Forgetting {
        let differ = differences(&shelf, &campaign.pairs);
        show(mode, "(slot, published repeats, noted at the kills) that differ", &differ);
        let extra = unexplained(&campaign.provider.asked(), &shelf, &campaign.pairs);
        show(mode, "bought again without a reason", &extra);
        assert!(differ.is_empty() && extra.is_empty() && missed.is_empty(), "{mode:?}: see above");
    }
    (books.complaints, campaign.forgotten())
}

fn reasons(shelf: &Shelf) -> BTreeMap<&str, usize> {
    let mut found = BTreeMap::new();
    for letter in &shelf.dead_letters {
        *found.entry(letter.headers["tidegate-reason"].as_str()).or_insert(0) += 1;
    }
    found
}

/// What a ledger that forgets is to blame for: a copy of a record, or a second decision, that published
/// again or met a stranger; and refusals it does not remember. Each is told beside the loss.
fn blamed(complaint: &Complaint, lost: &BTreeSet<String>) -> bool {
    let forgot = |(kind, key, _): &(String, String, u32)| lost.contains(&scope_of(kind, key));
    match complaint {
        Complaint::Twice { name, copies, .. } => *copies > 1 && forgot(name),
        Complaint::Buried { name: Some(name), .. } | Complaint::Wrongly { name: Some(name), .. } => {
            forgot(name)
        }
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_ledger_that_forgets_loses_nothing_and_is_blamed_for_every_second_outcome() {
    let (complaints, lost) = campaign(Mode::Forgetting, 2).await;
    println!("{} claims lost their latest writes", lost.len());
    let (explained, wrong): (Vec<_>, Vec<_>) = complaints.into_iter().partition(|c| blamed(c, &lost));
    for complaint in &explained {
        println!("limit 1 or 2, after a loss of this claim: {complaint:?}");
    }
    assert!(!lost.is_empty(), "nothing was forgotten: this proves nothing");
    assert!(wrong.is_empty(), "{} complaints that no loss explains, see above: {wrong:#?}", wrong.len());
}

/// The first few of what is wrong, and how many there are.
fn show<T: std::fmt::Debug>(mode: Mode, what: &str, wrong: &[T]) {
    if !wrong.is_empty() {
        println!("{mode:?}: {} {what}, such as", wrong.len());
        wrong.iter().take(12).for_each(|w| println!("  {w:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_every_key_has_one_resting_place_whatever_is_killed() {
    let (complaints, _) = campaign(Mode::Normal, 0).await;
    assert!(complaints.is_empty(), "{} complaints, see above", complaints.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_every_key_has_one_resting_place_also_with_a_weak_ledger() {
    let (complaints, _) = campaign(Mode::Weak, 1).await;
    assert!(complaints.is_empty(), "{} complaints, see above", complaints.len());
}
