//! A publisher that is killed at any moment: nothing half is visible, and the next one goes on.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::support::{TestSite, noise};

fn kill(rounds: u64) {
    let (site, store) = (TestSite::new(), Folder::new());
    for file in 0..200 {
        fs::write(site.path(format!("{file}.bin")), noise(2000, file)).unwrap();
    }
    fs::write(site.path("long.bin"), noise((20 << 20) + 1, 1)).unwrap();
    let began = Instant::now();
    assert_eq!(store.push(&site.root(), &[]).code, 0);
    let whole = began.elapsed();
    let mut seen = 1;
    for round in 0..rounds {
        for file in 0..50 {
            fs::write(
                site.path(format!("{file}.bin")),
                noise(2000, round * 1000 + file + 1),
            )
            .unwrap();
        }
        let mut push = store.push_command(&site.root(), &[]);
        let mut child = push
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // All moments of a push, and a few after its end.
        let moment = noise(2, round);
        let part = u32::from(u16::from_le_bytes([moment[0], moment[1]]));
        thread::sleep(whole.mul_f64(1.2) * part / u32::from(u16::MAX));
        child.kill().unwrap();
        child.wait().unwrap();
        let numbers = store.numbers("live");
        assert!(numbers.len() as u64 - seen <= 1, "{numbers:?}");
        seen = numbers.len() as u64;
        let last = *numbers.last().unwrap();
        assert_eq!(last, seen);
        store.assert_whole("live", last);
    }
    fs::write(site.path("end.txt"), "the end").unwrap();
    let end = store.push(&site.root(), &[]);
    assert_eq!(end.code, 0, "{end:?}");
    for number in store.numbers("live") {
        store.assert_whole("live", number);
    }
    // What the killed ones have left goes once nobody can need it.
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    for name in store.objects() {
        fs::File::open(store.path(&name))
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    let collected = store.run("gc", &["--keep", "1", "--grace", "10m"]);
    assert_eq!(collected.code, 0, "{collected:?}");
    let last = *store.numbers("live").last().unwrap();
    assert_eq!(store.numbers("live"), [last]);
    store.assert_whole("live", last);
    assert_eq!(
        store.below("blobs/").len(),
        store.needed("live", last).len()
    );
    assert_eq!(store.below("locks/").len() + store.below("probe/").len(), 0);
    let unfinished = store
        .objects()
        .into_iter()
        .filter(|name| name.contains('#'));
    assert_eq!(unfinished.count(), 0);
}

#[test]
fn a_push_that_is_killed_leaves_no_broken_release() {
    kill(15);
}

#[test]
#[ignore = "takes minutes"]
fn a_push_that_is_killed_a_hundred_times_leaves_no_broken_release() {
    kill(100);
}
