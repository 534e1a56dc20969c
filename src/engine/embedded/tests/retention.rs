//! What is given back and what is not: results stay at least as long as their keys are known.

use super::super::simulated::Simulated;
use super::super::*;
use super::{done, next_record, output, quick, specs, token};
use crate::engine::Commit;
use crate::task::{Position, Topic};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_results_stay_as_long_as_the_window_while_older_segments_go() {
    let settings = EmbeddedSettings { window: WINDOW, ..quick(1 << 14) };
    let engine = open(settings, specs(), Simulated::new()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let payload = "x".repeat(2_000);
    let mut published: Vec<(Instant, Position)> = Vec::new();
    let (mut gone, mut kept) = (0, 0);
    let began = Instant::now();
    // Five windows, and until something has gone.
    while began.elapsed() < WINDOW * 5 || (gone == 0 && began.elapsed() < WINDOW * 50) {
        engine.log.append(vec![output("tasks", &published.len().to_string(), &payload)]).await.unwrap();
        let d = next_record(&mut group).await;
        engine.ledger.admit(&d, &token(&d), None).await.unwrap();
        let key = String::from_utf8_lossy(d.record.key.as_deref().unwrap()).into_owned();
        let outputs = vec![output("results", &key, &payload)];
        let Commit::Visible(at) = engine.commits.commit(done(&d, outputs)).await else { panic!("{key}") };
        published.push((Instant::now(), at[0].clone()));
        for (since, at) in published.iter().rev().step_by(7) {
            let found = engine.log.read(at.clone(), 1).await.unwrap();
            if found.first().is_some_and(|r| r.position == *at) {
                kept += 1;
                continue;
            }
            gone += 1;
            // From after its commit to after the look: it was at least so old.
            assert!(since.elapsed() >= WINDOW, "{at} is gone after {:?}", since.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(gone > 0 && kept > 0, "{gone} looks found nothing, {kept} found their result");
    let storage = engine.operation.storage().await;
    let all: u64 = 2 * 2_000 * published.len() as u64;
    assert!(storage.log_bytes < all / 2, "{storage:?} of {all} bytes that were written");
    engine.operation.close().await;
}
