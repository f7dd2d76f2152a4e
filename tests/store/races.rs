//! Several publishers at once: each number is given once, and no release is lost.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};

use super::folder::Folder;
use super::support::TestSite;

/// Lets `publishers` publish at the same time, so often.
fn race(rounds: usize, publishers: usize) {
    let store = Folder::new();
    let sites: Vec<_> = (0..publishers).map(|_| TestSite::new()).collect();
    let mut released = BTreeMap::new();
    for round in 0..rounds {
        let run = |(index, site): (usize, &TestSite)| {
            fs::write(site.path("a.txt"), format!("{round} {index}")).unwrap();
            let mut push = store.push_command(&site.root(), &["--note", &index.to_string()]);
            push.stdout(Stdio::piped()).stderr(Stdio::piped());
            push.spawn().unwrap()
        };
        let running: Vec<Child> = sites.iter().enumerate().map(run).collect();
        let mut winners = 0;
        for (index, child) in running.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            let (out, err) = (
                String::from_utf8(output.stdout).unwrap(),
                String::from_utf8(output.stderr).unwrap(),
            );
            match output.status.code() {
                Some(0) => {
                    winners += 1;
                    let number: u64 = out.trim().parse().unwrap();
                    let twice = released.insert(number, index);
                    assert_eq!(twice, None, "release {number} twice");
                }
                code => {
                    assert_eq!(code, Some(1), "{err}");
                    assert!(err.contains("is newer than the release"), "{err}");
                    assert!(err.contains("of tester@"), "{err}");
                }
            }
        }
        assert!(winners > 0, "nobody has published in round {round}");
    }
    let numbers = store.numbers("live");
    assert_eq!(numbers, released.keys().copied().collect::<Vec<_>>());
    assert_eq!(numbers.len() as u64, *numbers.last().unwrap());
    for (number, publisher) in released {
        let record = store.record("live", number).unwrap();
        assert_eq!(record["note"], publisher.to_string());
        assert_eq!(record["number"], number);
        store.assert_whole("live", number);
    }
}

#[test]
fn of_publishers_that_race_one_wins() {
    race(10, 3);
}

#[test]
#[ignore = "takes a minute"]
fn of_publishers_that_race_two_hundred_times_one_wins() {
    race(200, 2);
}
