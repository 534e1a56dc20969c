//! P1, P2, P3 and P5 under kill -9, with a strong ledger, a weak one, and one that forgets.

use crate::books::{Complaint, Shelf, reckon};
use crate::calls::{bought, differences, expected, published, scope_of, uncounted};
use crate::campaign::{Campaign, Loss, Mode, Sizes, parked, shelf};
use crate::rig::number;
use std::collections::BTreeMap;

/// Every named crash point, each between two durable steps. Retention has nothing to give back while
/// the outcomes are young: its points are the engine's own tests'. Transactions are Kafka's. Only a weak
/// ledger's marks are apart from their commit.
fn points(mode: Mode) -> Vec<String> {
    let all = tidegate::engine::crash::POINTS.iter();
    let mine = |p: &&&str| {
        let elsewhere = ["retention.", "transaction."].iter().any(|begin| p.starts_with(begin));
        !elsewhere && (mode != Mode::Normal || !p.starts_with("commit."))
    };
    all.filter(mine).map(|p| (*p).to_owned()).collect()
}

fn sizes(offset: u64) -> Sizes {
    let clock = std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.subsec_nanos());
    Sizes {
        records: number("TIDEGATE_TASKS", 4_000),
        kills: number("TIDEGATE_KILLS", 20),
        seed: number("TIDEGATE_SEED", u64::from(clock)) + offset,
    }
}

/// What a campaign leaves to complain of, and what its ledger has forgotten.
struct Reckoned {
    complaints: Vec<Complaint>,
    /// Slot, `kind/key`, how often.
    uncounted: Vec<(String, String, u64)>,
    losses: Vec<Loss>,
}

/// The whole campaign and its reckoning.
async fn campaign(mode: Mode, offset: u64) -> Reckoned {
    let sizes = sizes(offset);
    println!("TIDEGATE_SEED={} for this run of {mode:?}", sizes.seed - offset);
    let points = points(mode);
    let mut campaign = Campaign::new(mode, sizes.seed).await;
    let rest = campaign.run(&sizes, &points).await;
    let shelf = shelf(&rest).await;
    let books = reckon(&shelf);
    println!("{mode:?}: {:?}, crash points reached {:?}", books.sums, campaign.reached);
    println!("{mode:?}: dead letters {:?}", reasons(&shelf));
    let parked = parked(&rest).await;
    let promised = campaign.promised.lock().unwrap().clone();
    println!(
        "{mode:?}: {} appended, {} accepted by HTTP, {parked} parked, {} decisions and {} redrives answered",
        promised.appended.len(),
        promised.accepted.len(),
        promised.decided.len(),
        promised.redriven.len()
    );
    assert!(
        promised.appended.len() as u64 == sizes.records && !promised.accepted.is_empty(),
        "{mode:?}: see above"
    );
    assert!(
        parked > 0 && !promised.redriven.is_empty() && !promised.decided.is_empty(),
        "{mode:?}: see above"
    );
    assert!(
        books.sums.results > 0 && books.sums.doubts_decided > 0 && books.sums.doubts_open > 0,
        "{mode:?}: see above"
    );
    let broken = promised.broken(&shelf);
    show(mode, "promises that the log does not keep", &broken);
    let passed = |point: &&String| campaign.reached.keys().any(|r| r.starts_with(&format!("{point}:")));
    let missed: Vec<&String> = points.iter().filter(|p| !passed(p)).collect();
    show(mode, "crash points that were never reached", &missed);
    show(mode, "complaints", &books.complaints);
    assert!(broken.is_empty(), "{mode:?}: {} promises broken, see above", broken.len());
    let asked = campaign.asked();
    let noted: u64 = expected(&campaign.pairs).values().sum();
    let counted = published(&shelf);
    println!(
        "{mode:?}: {} requests in all, {noted} calls cut off by a kill, {} repeats published",
        asked.len(),
        counted.values().sum::<u64>()
    );
    let uncounted = uncounted(&asked, &counted);
    if mode != Mode::Forgetting {
        let differ = differences(&shelf, &campaign.pairs);
        show(mode, "(slot, published repeats, noted at the kills) that differ", &differ);
        show(mode, "bought again and not counted", &uncounted);
        assert!(noted > 0 && differ.is_empty() && uncounted.is_empty(), "{mode:?}: see above");
        assert!(missed.is_empty(), "{mode:?}: see above");
    }
    if mode == Mode::Normal {
        let bought = bought(&asked, &shelf, &campaign.pairs);
        println!(
            "{mode:?}: of the calls cut off {} were seen by the provider, {} had not left",
            bought.again, bought.unsent
        );
        show(mode, "slots whose requests do not add up", &bought.wrong);
        assert!(bought.wrong.is_empty() && bought.again + bought.unsent == noted, "{mode:?}: see above");
    }
    Reckoned { complaints: books.complaints, uncounted, losses: campaign.losses() }
}

fn reasons(shelf: &Shelf) -> BTreeMap<&str, usize> {
    let mut found = BTreeMap::new();
    for letter in &shelf.dead_letters {
        *found.entry(letter.headers["tidegate-reason"].as_str()).or_insert(0) += 1;
    }
    found
}

/// The loss that limit 1 or 2 of `claims.md` can blame for a complaint: a copy of a record, or a second
/// decision, that published again after the claim had been lost; a copy that was silent, or in dead
/// letters, because the key was another's before or after the loss. Nothing else is excused: no record
/// is lost, and with one copy there is never a second outcome.
fn blamed<'a>(complaint: &Complaint, losses: &'a [Loss]) -> Option<&'a Loss> {
    // The commit that a loss made possible comes after it, by the same clock.
    let of = |(kind, key, _): &(String, String, u32), from: i64, to: i64| {
        let claim = format!("{kind}/{key}");
        losses.iter().find(|loss| loss.claim == claim && (from..=to).contains(&loss.at_ms))
    };
    match complaint {
        Complaint::Twice { name, copies, from_ms, to_ms, .. } if *copies > 1 => of(name, *from_ms, *to_ms),
        Complaint::Buried { name: Some(name), times: 0, twin: true, .. } => of(name, 0, i64::MAX),
        Complaint::Wrongly { name: Some(name), reason, rival: true, .. } if reason == "TG-key-conflict" => {
            of(name, 0, i64::MAX)
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_ledger_that_forgets_loses_nothing_and_is_blamed_for_every_second_outcome() {
    let Reckoned { complaints, uncounted, losses } = campaign(Mode::Forgetting, 2).await;
    let scopes: BTreeMap<String, &Loss> = losses
        .iter()
        .filter_map(|loss| loss.claim.split_once('/').map(|(kind, key)| (scope_of(kind, key), loss)))
        .collect();
    println!("{} claims lost their latest writes", scopes.len());
    let mut wrong = Vec::new();
    for complaint in complaints {
        match blamed(&complaint, &losses) {
            Some(loss) => println!("limit 1 or 2, by loss {} of {}: {complaint:?}", loss.number, loss.claim),
            None => wrong.push(format!("{complaint:?}")),
        }
    }
    for (slot, name, times) in uncounted {
        match scopes.get(slot.get(..16).unwrap_or_default()) {
            Some(loss) => println!(
                "limit 1, bought again {times} times and not counted, by loss {} of {}: {slot}",
                loss.number, loss.claim
            ),
            None => wrong.push(format!("{slot} of `{name}` was bought again {times} times, and not counted")),
        }
    }
    assert!(!losses.is_empty(), "nothing was forgotten: this proves nothing");
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
async fn p1_p2_p3_p5_every_key_has_one_resting_place_whatever_is_killed() {
    let Reckoned { complaints, .. } = campaign(Mode::Normal, 0).await;
    assert!(complaints.is_empty(), "{} complaints, see above", complaints.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_p5_every_key_has_one_resting_place_also_with_a_weak_ledger() {
    let Reckoned { complaints, .. } = campaign(Mode::Weak, 1).await;
    assert!(complaints.is_empty(), "{} complaints, see above", complaints.len());
}
