//! Replicas that are killed at any moment, while releases come: what comes after is whole.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::tree::digest_of;
use crate::support::{Releases, TestSite, noise};
use crate::{ADMIN, OFTEN, told};

/// How many replicas are killed.
const KILLS: u64 = if cfg!(debug_assertions) { 12 } else { 50 };

/// Each file names the release that it is from.
fn site(number: u64) -> TestSite {
    let mut site = TestSite::new();
    for file in 0..40 {
        let content = noise(20_000, number * 1000 + file);
        site = site.file(format!("{file}.bin"), content);
    }
    site.file("release.txt", number.to_string())
        .file("large.bin", noise(2 << 20, number))
}

#[test]
fn a_replica_that_is_killed_leaves_nothing_broken() {
    let releases = Releases::of(&site(1), &[]);
    let cache = releases.beside("cache");
    let flags = [&ADMIN[..], &OFTEN, &["--cache", &cache]].concat();
    for kill in 2..2 + KILLS {
        let mut replica = releases.spawn(&flags);
        let next = site(kill);
        std::thread::scope(|scope| {
            scope.spawn(|| releases.push(&next, &[]));
            // From before its first look to long after it has taken the release.
            std::thread::sleep(Duration::from_millis(kill * 37 % 450));
            replica.signal(Signal::KILL);
        });
        replica.wait();
        if kill % 3 != 0 {
            continue;
        }
        let server = releases.serve(&flags);
        let digest = told(&server, "/digest").1;
        assert_eq!(digest.trim(), digest_of(&next.root()), "after {kill}");
        assert_eq!(
            server.body("/release.txt").unwrap(),
            kill.to_string().as_bytes()
        );
        assert_eq!(
            server.body("/7.bin").unwrap(),
            noise(20_000, kill * 1000 + 7)
        );
        assert_eq!(server.body("/large.bin").unwrap(), noise(2 << 20, kill));
    }
}
