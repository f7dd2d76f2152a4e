//! How long it takes until a change is served: from the last write to the first response with the new
//! tag, on a server that has nothing else to do.
//!
//! `cargo bench --bench freshness [-- EDITS]`. Each figure contains the quiet period of 100 ms.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program to be run by hand"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::version::content;
use support::writer::WRITERS;
use support::{Server, TestSite, tag};

fn main() {
    let edits = std::env::args().find_map(|argument| argument.parse().ok());
    let edits: u64 = edits.unwrap_or(200);
    let site = (0..1000).fold(TestSite::new(), |site, index| {
        site.file(
            format!("{}/{index}.html", index % 20),
            content(index, 8 << 10),
        )
    });
    let path = site.path("7/7.html");
    let server = Server::start(&site);
    let mut client = server.client();
    println!(
        "{:10} {:>10} {:>10} {:>10} ms",
        "", "median", "99 %", "longest"
    );
    for writer in WRITERS {
        let mut times: Vec<Duration> = (0..edits)
            .map(|edit| {
                let next = content(edit * 31 + writer as u64, 20 << 10);
                let new = tag(&next);
                // At any moment between two looks at the root.
                thread::sleep(Duration::from_millis(60 + edit * 37 % 250));
                writer.write(&path, &next);
                let written = Instant::now();
                while client.request("HEAD", "/7/7.html", &[]).field("ETag") != Some(&new) {
                    thread::sleep(Duration::from_micros(300));
                }
                written.elapsed()
            })
            .collect();
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let [median, most, longest] = [0.5, 0.99, 1.0].map(|share| at(share).as_secs_f64() * 1e3);
        println!(
            "{:10} {median:10.1} {most:10.1} {longest:10.1}",
            writer.name()
        );
    }
}
