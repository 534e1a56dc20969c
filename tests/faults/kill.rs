//! P1, P2 and P3 under kill -9, with a strong ledger, a weak one, and one that forgets.

use crate::books::{Complaint, reckon};
use crate::calls::{differences, expected, unexplained};
use crate::campaign::{Campaign, Mode, Sizes, shelf};
use crate::rig::number;
use std::collections::BTreeSet;

/// Every place where the engine can be made to crash, each between two durable steps.
fn points() -> Vec<&'static str> {
    tidegate::engine::crash::CRASH_POINTS.to_vec()
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
async fn campaign(mode: Mode, offset: u64) -> Vec<Complaint> {
    let sizes = sizes(offset);
    println!("TIDEGATE_SEED={} for this run of {mode:?}", sizes.seed - offset);
    let mut campaign = Campaign::new(mode, sizes.seed).await;
    let rest = campaign.run(&sizes, &points()).await;
    let shelf = shelf(&rest).await;
    let books = reckon(&shelf);
    println!("{mode:?}: {:?}, crash points reached {:?}", books.sums, campaign.reached);
    let noted: u64 = expected(&campaign.pairs).values().sum();
    println!(
        "{mode:?}: {noted} calls repeated after a kill, {} requests in all",
        campaign.provider.asked().len()
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
    for point in points() {
        assert!(campaign.reached.contains_key(point), "{mode:?}: crash point `{point}` was never reached");
    }
    if mode != Mode::Forgetting {
        let differ = differences(&shelf, &campaign.pairs);
        assert!(differ.is_empty(), "{mode:?}: (slot, published repeats, noted at the kills): {differ:#?}");
        let extra = unexplained(&campaign.provider.asked(), &shelf, &campaign.pairs);
        assert!(extra.is_empty(), "{mode:?}: bought again without a reason: {extra:#?}");
    }
    books.complaints
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_every_key_has_one_resting_place_whatever_is_killed() {
    let complaints = campaign(Mode::Normal, 0).await;
    assert!(complaints.is_empty(), "{} complaints: {complaints:#?}", complaints.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_every_key_has_one_resting_place_also_with_a_weak_ledger() {
    let complaints = campaign(Mode::Weak, 1).await;
    assert!(complaints.is_empty(), "{} complaints: {complaints:#?}", complaints.len());
}
