//! A disk that fills up in the middle of load, and has room again later: intake pauses and says so,
//! nothing that was accepted is lost, and work goes on by itself.

use crate::rig::place::Place;
use crate::rig::{eventually, left_out};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Room for the reserve, the state and some load.
const SMALL_MIB: u32 = 160;
const LARGE_MIB: u32 = 700;
const LIMIT: Duration = Duration::from_secs(60);

/// A file system of its own on a directory; gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={SMALL_MIB}m"), "tmpfs"], at)
            .then(|| Mount(at.to_owned()))
    }

    fn grow(&self) {
        assert!(mount(&["-o", &format!("remount,size={LARGE_MIB}m")], &self.0));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(options: &[&str], at: &Path) -> bool {
    Command::new("mount").args(options).arg(at).output().is_ok_and(|out| out.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_full_disk_pauses_intake_and_its_return_loses_nothing() {
    let place = Place::new("[tasks.copy]\n[engine]\ndir = \"small/data\"\n");
    let Some(small) = Mount::new(&place.path("small")) else {
        left_out("a full disk under load", "this user may not mount a small file system");
        return;
    };
    let mut process = place.run().await;
    let api = place.api();
    let filler = "x".repeat(32 * 1024);
    let (mut accepted, mut refusal) = (BTreeSet::new(), None);
    for n in 0..20_000 {
        let key = format!("k{n}");
        let task = json!({ "kind": "copy", "key": key, "payload": { "n": n, "filler": filler } });
        match api.post("/v1/tasks", &task).await.unwrap() {
            (202, _) => drop(accepted.insert(key)),
            (status, body) => {
                refusal = Some((status, body));
                break;
            }
        }
    }
    let (status, body) = refusal.expect("the disk never filled up");
    assert_eq!(status, 503, "{body}");
    let words = body.to_string();
    assert!(words.contains("disk") || words.contains("space"), "it says why: {words}");
    assert!(accepted.len() > 100, "only {} tasks fitted", accepted.len());
    let (status, ready) = api.get("/readyz").await.unwrap();
    assert_eq!(status, 503, "it cannot accept, and says so: {ready}");
    // What was accepted before must still get its outcome out of the reserve, or wait; nothing ends.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(process.ended().is_none(), "{}", process.words());

    small.grow();
    eventually("it is ready again by itself", LIMIT, || async { api.is_ready().await.then_some(()) }).await;
    api.submit("copy", "afterwards", json!({ "n": 0 })).await;
    accepted.insert("afterwards".to_owned());
    for key in &accepted {
        api.until("copy", key, "done").await;
    }
    assert!(process.stop(LIMIT).success());
    let rest = place.open();
    let results: Vec<String> = rest
        .all("results")
        .await
        .iter()
        .map(|r| {
            serde_json::from_slice::<Value>(r.value.as_ref().unwrap()).unwrap()["key"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let once: BTreeSet<String> = results.iter().cloned().collect();
    assert_eq!(once.len(), results.len(), "some key has two results");
    // A request that failed may have been written all the same; what was accepted must have been.
    assert!(accepted.is_subset(&once), "lost: {:?}", accepted.difference(&once).collect::<Vec<_>>());
    assert_eq!(rest.open_records().await, []);
    rest.close().await;
    drop(small);
}
