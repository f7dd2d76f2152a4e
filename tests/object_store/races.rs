//! Two publishers at once: each number is given once, and what was published stays.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::releases::{assert_complete, digest, end, records, small_site, start_push};
use crate::support::TestSite;
use crate::support::store::{ADMIN, Ceph, Ran};
use crate::support::store_proxy::{CREATES, Fault, Gate, Rule};

/// How long both may take to come as far as the release.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn two_publishers_race() {
    race(20);
}

#[test]
#[ignore = "two minutes"]
fn two_publishers_race_two_hundred_times() {
    race(200);
}

fn race(rounds: u64) {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let proxy = bucket.proxy();
    let mut published = Vec::new();
    for round in 0..rounds {
        let sites = [1, 2].map(|who| small_site(round * 2 + who));
        // In every second round both are at the release before either has made it.
        let is_held = round % 2 == 0;
        let (gate, arrivals) = Gate::new();
        if is_held {
            let rule = Rule::on(CREATES, "/channels/live/", Fault::Hold(gate.clone()));
            proxy.add(rule);
        }
        let pushes = sites
            .each_ref()
            .map(|site| start_push(bucket.command_through(&proxy, ADMIN), site, &bucket, &[]));
        if is_held {
            for _ in 0..2 {
                arrivals.recv_timeout(PATIENCE).expect("both come as far");
            }
            gate.open();
        }
        let ends = pushes.map(end);
        proxy.clear();
        let winners = winners(&sites, &ends);
        match is_held {
            true => assert_eq!(winners.len(), 1, "round {round}: {}", said(&ends)),
            false => assert!(!winners.is_empty(), "round {round}: {}", said(&ends)),
        }
        let newest = assert_complete(&bucket, "live")["digest"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(winners.contains(&newest), "round {round}");
        published.extend(winners);
    }
    let records = records(&bucket, "live");
    let numbers: Vec<_> = records
        .iter()
        .map(|record| record["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>());
    let previous: Vec<_> = records
        .iter()
        .map(|record| record["previous"].as_u64().unwrap_or(0))
        .collect();
    assert_eq!(previous, (0..records.len() as u64).collect::<Vec<_>>());
    // Each that was said to be published is there, once, and no other.
    let count = |digests: &mut dyn Iterator<Item = &str>| {
        digests.fold(BTreeMap::new(), |mut counts, digest| {
            *counts.entry(digest.to_owned()).or_insert(0) += 1;
            counts
        })
    };
    let stored = count(
        &mut records
            .iter()
            .map(|record| record["digest"].as_str().unwrap()),
    );
    assert_eq!(stored, count(&mut published.iter().map(String::as_str)));
}

/// The digests of those who were told that they have published. The others must be told why not.
fn winners(sites: &[TestSite; 2], ends: &[Ran; 2]) -> Vec<String> {
    let mut winners = Vec::new();
    for (site, ran) in sites.iter().zip(ends) {
        match ran.code {
            Some(0) => winners.push(digest(site)),
            Some(1) => assert!(ran.said.contains("release "), "{}", ran.said),
            _ => panic!("{}", ran.said),
        }
    }
    winners
}

fn said(ends: &[Ran; 2]) -> String {
    ends.iter().map(|ran| format!("{}\n", ran.said)).collect()
}
