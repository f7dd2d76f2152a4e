//! Every rule of RFC 9110 and 9112 that a request can show, as cases in `tests/cases/`.
//!
//! Each case runs with data in memory, in one read and in groups, with much memory and with
//! little, and with a site below a base path; each GET also as HEAD; answered by the front and by
//! hyper, alike; and each connection must be as usable afterwards as it says.
//! `tests/support/case.rs` explains the language of the cases.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use support::case::{self, Case, Connection, Request, parse};
use support::fixture::fixture;
use support::ground::Ground;
use support::{Client, Releases, Response, Server, TestSite, check};

/// The ways of keeping data: in memory, read whole at each request, and in groups.
const FILES: [&str; 3] = ["/small.txt", "/middle.bin", "/big.bin"];
const SERVERS: [(Source, &[&str], &str); 6] = [
    (Source::Directory, &[], ""),
    (Source::Directory, &["--memory", "64KiB"], ""),
    (Source::Directory, &["--base-path", "/base"], "/base"),
    // Nothing of what is asked for changes where codings are made of other files.
    (Source::Directory, &["--compress"], ""),
    (Source::Store(&[]), &[], ""),
    (
        Source::Store(&["--base-path", "/base", "--compress"]),
        &["--memory", "64KiB", "--prefetch", "none"],
        "/base",
    ),
];
const SENTINEL: &str = "/sentinel.txt";

/// Where a server has the site from.
#[derive(Clone, Copy)]
enum Source {
    Directory,
    /// From a store, where a release was made with these flags.
    Store(&'static [&'static str]),
}

impl Source {
    /// A server of `site`, with the flags that a file of cases asks for.
    fn serve(self, site: &TestSite, flags: &[&str], asked: &[&str]) -> (Server, Option<Releases>) {
        match self {
            Self::Directory => (Server::with(site, &[flags, asked].concat()), None),
            Self::Store(pushed) => {
                let releases = Releases::of(site, &[pushed, asked].concat());
                (releases.serve(flags), Some(releases))
            }
        }
    }
}

#[test]
fn methods() {
    run("methods.txt");
}

#[test]
fn targets() {
    run("targets.txt");
}

#[test]
fn admission() {
    run("admission.txt");
}

#[test]
fn framing() {
    run("framing.txt");
}

#[test]
fn conditions() {
    run("conditions.txt");
}

#[test]
fn dates() {
    run("dates.txt");
}

#[test]
fn precedence() {
    run("precedence.txt");
}

#[test]
fn fields() {
    run("fields.txt");
}

#[test]
fn not_found() {
    run("not_found.txt");
}

#[test]
fn html_suffix() {
    run("html_suffix.txt");
}

#[test]
fn html_auto_trailing_slash() {
    run("html_auto_trailing_slash.txt");
}

#[test]
fn html_force_trailing_slash() {
    run("html_force_trailing_slash.txt");
}

#[test]
fn html_drop_trailing_slash() {
    run("html_drop_trailing_slash.txt");
}

#[test]
fn html_none() {
    run("html_none.txt");
}

#[test]
fn not_found_none() {
    run("not_found_none.txt");
}

#[test]
fn listing() {
    run("listing.txt");
}

#[test]
fn single_page_application() {
    run("single_page_application.txt");
}

#[test]
fn immutable() {
    run("immutable.txt");
}

#[test]
fn ranges() {
    run("ranges.txt");
}

#[test]
fn codings() {
    run("codings.txt");
}

#[test]
fn dictionaries() {
    run("dictionaries.txt");
}

#[test]
fn if_range() {
    run("if_range.txt");
}

#[test]
fn each_file_of_cases_runs_and_each_name_occurs_once() {
    let this = include_str!("requests.rs");
    let mut names = HashSet::new();
    for entry in fs::read_dir(cases("")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            this.contains(&format!("run(\"{file}\")")),
            "{file} is run by no test"
        );
        for case in parse(&fs::read_to_string(cases(&file)).unwrap()) {
            assert!(
                names.insert(case.name.clone()),
                "{} is there twice",
                case.name
            );
        }
    }
    assert!(names.len() >= 200, "only {} cases", names.len());
}

fn cases(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(file)
}

/// Runs the cases of one file and tells all that fail at once.
fn run(file: &str) {
    let text = fs::read_to_string(cases(file)).unwrap();
    let cases = parse(&text);
    let (site, files) = fixture();
    let mut failures = BTreeMap::new();
    for (source, flags, base) in SERVERS {
        let (mut server, _store) = source.serve(&site, flags, &case::flags(&text));
        let address = server.address();
        let doors = Door::ALL.map(|door| Http1 {
            address,
            door,
            base,
        });
        for (number, case) in cases.iter().enumerate() {
            for subject in subjects(case) {
                let ground = Ground {
                    files: &files,
                    subject,
                };
                let mut answers = Vec::new();
                for http1 in &doors {
                    let over = format!("{subject} {:?} {}", http1.door, flags.join(" "));
                    let failures = failures.entry(number).or_insert_with(Vec::new);
                    if let Some(failure) = failure(case, &ground, http1) {
                        failures.push((over.clone(), failure));
                    }
                    // Compared once: that a request which comes in pieces is as it should be is enough.
                    if http1.door != Door::Bytes {
                        let request = case.request(&ground).below(base);
                        answers.push((over, request.and_then(|request| http1.carry(&request))));
                    }
                }
                let [
                    (_, Some(Ok((of_front, _)))),
                    (over, Some(Ok((of_hyper, _)))),
                ] = &answers[..]
                else {
                    continue;
                };
                let unlike = check::different(of_front, of_hyper);
                let unlike = unlike.into_iter().map(|unlike| (over.clone(), unlike));
                failures
                    .entry(number)
                    .or_insert_with(Vec::new)
                    .extend(unlike);
            }
        }
        server.assert_alive();
    }
    failures.retain(|_, failures| !failures.is_empty());
    // One case often fails over all data: shown once.
    let shown = failures.iter().map(|(&number, failures)| {
        let over: Vec<_> = failures.iter().map(|(over, _)| over.trim_end()).collect();
        format!(
            "{file}: {}\n  over {}\n{}",
            cases[number].name,
            over.join(", "),
            failures[0].1
        )
    });
    let shown: Vec<_> = shown.collect();
    assert!(
        shown.is_empty(),
        "{} cases fail:\n\n{}",
        shown.len(),
        shown.join("\n\n")
    );
}

/// The files for which a case is to run.
fn subjects(case: &Case) -> &'static [&'static str] {
    match (case.mentions("{file}"), case.mentions("{large}")) {
        (true, _) => &FILES,
        (_, true) => &FILES[1..],
        _ => &FILES[..1],
    }
}

/// What a case shows to be wrong, with the request that shows it.
fn failure(case: &Case, ground: &Ground<'_>, carrier: &impl Carrier) -> Option<String> {
    let base = carrier.base();
    let request = case.request(ground).below(base)?;
    let expected = case.expected(ground).below(base);
    let mut wrong = Vec::new();
    match carrier.carry(&request)? {
        Err(message) => wrong.push(message),
        Ok((response, stays_open)) => {
            wrong.extend(check::differences(&expected, &response));
            wrong.extend(check::broken_rules(case, &request.method(), &response));
            match (expected.connection, stays_open) {
                (Connection::StaysOpen, Some(false)) => wrong.push("it closes".to_owned()),
                (Connection::Closes, Some(true)) => wrong.push("it stays open".to_owned()),
                _ => {}
            }
            match request.as_head().and_then(|head| carrier.carry(&head)) {
                Some(Ok((head, _))) => wrong.extend(check::unlike(&response, &head)),
                Some(Err(message)) => wrong.push(format!("HEAD: {message}")),
                None => {}
            }
        }
    }
    let shown = request.bytes();
    let shown = shown[..shown.len().min(400)].escape_ascii();
    (!wrong.is_empty()).then(|| format!("  {shown}\n  - {}", wrong.join("\n  - ")))
}

/// A way to send a request to the server.
trait Carrier {
    /// The response, and whether the connection stays usable where that can be known.
    /// None where this way can't carry such a request.
    fn carry(&self, request: &Request) -> Option<Result<(Response, Option<bool>), String>>;

    /// The base path of the site.
    fn base(&self) -> &'static str;
}

/// Who answers a request, and how it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Door {
    /// The front, if it takes the request.
    Front,
    /// hyper: something that is not for the front comes with the request, and before it.
    Hyper,
    /// The front, which gets the request in as many pieces as the kernel makes of single bytes.
    Bytes,
}

impl Door {
    const ALL: [Self; 3] = [Self::Front, Self::Hyper, Self::Bytes];
}

/// A connection of its own for each request, and a second request behind it: it finds whatever
/// the first has left in the connection.
struct Http1 {
    address: SocketAddr,
    door: Door,
    base: &'static str,
}

impl Carrier for Http1 {
    fn carry(&self, request: &Request) -> Option<Result<(Response, Option<bool>), String>> {
        Some(
            self.exchange(request)
                .map(|(response, stays_open)| (response, Some(stays_open))),
        )
    }

    fn base(&self) -> &'static str {
        self.base
    }
}

impl Http1 {
    fn exchange(&self, request: &Request) -> Result<(Response, bool), String> {
        let mut client = Client::connect(self.address);
        let before = match self.door {
            Door::Hyper => support::wire::head("OPTIONS", "*", &[]).into_bytes(),
            Door::Front | Door::Bytes => Vec::new(),
        };
        let bytes = [before.clone(), request.bytes()].concat();
        let size = match self.door {
            Door::Bytes => 1,
            Door::Front | Door::Hyper => bytes.len(),
        };
        // A server that answers early may not take everything in.
        let _ = bytes.chunks(size).try_for_each(|piece| client.send(piece));
        if !before.is_empty() {
            let options = client
                .receive("OPTIONS")
                .map_err(|error| error.to_string())?;
            assert_eq!(options.map(|options| options.status), Some(204));
        }
        let response = client
            .receive(&request.method())
            .map_err(|error| error.to_string())?
            .ok_or("the connection ends without a response")?;
        if !response.says_close() {
            let fields = [("Connection", "close")];
            let _ = client.send(support::wire::head(
                "GET",
                &format!("{}{SENTINEL}", self.base),
                &fields,
            ));
            match client
                .receive("GET")
                .map_err(|error| format!("the next request: {error}"))?
            {
                None => return Ok((response, false)),
                Some(next) if next.status == 200 && next.body == b"sentinel" => {}
                Some(next) => return Err(format!("the next request is answered {}", next.status)),
            }
        }
        match client.ends() {
            Ok(true) => Ok((response.clone(), !response.says_close())),
            Ok(false) => Err("bytes behind the last response".to_owned()),
            Err(error) => Err(format!("the end does not come: {error}")),
        }
    }
}
