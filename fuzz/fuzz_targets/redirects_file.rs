//! `_redirects`: whatever is in it, and whatever is asked for, no request makes a host.
//!
//! Input: a request target, and below it the file.
#![no_main]

use std::time::Instant;

use etagd::rules::{Dialect, Query, Redirects, RuleMatch, RuleOutcome};
use etagd_fuzz::asked;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (target, file) = etagd_fuzz::split(input);
    let Some((host, path, query)) = asked(target) else {
        return;
    };
    for dialect in [Dialect::Netlify, Dialect::Cloudflare] {
        let (redirects, complaints) = Redirects::parse(file, dialect);
        let lines = file.split(|byte| *byte == b'\n').count();
        assert!(complaints.iter().all(|each| each.line <= lines));

        // What means nothing changes nothing.
        if !file.starts_with(b"\xef\xbb\xbf") {
            let padded = [b"# \n\n", file, b"\n\r\n#"].concat();
            assert_eq!(
                Redirects::parse(&padded, dialect).0.hash(),
                redirects.hash()
            );
        }

        let asked = Query {
            path: &path,
            query: query.as_deref(),
            host: host.as_deref(),
        };
        let started = Instant::now();
        let found = redirects.find(asked);
        assert!(
            started.elapsed().as_millis() < 200,
            "{:?}",
            started.elapsed()
        );
        assert_eq!(found, redirects.find(asked), "deterministic");
        let Some(RuleMatch { is_forced, outcome }) = found else {
            continue;
        };
        assert!(!is_forced || redirects.has_forced());
        assert!(is_forced || dialect == Dialect::Netlify);
        match outcome {
            RuleOutcome::Answer(status, path) => {
                assert!(!status.is_redirection());
                assert!(!path.starts_with(b"/") && !has_empty_segment(&path));
            }
            RuleOutcome::Redirect(status, location) => {
                assert!(status.is_redirection());
                assert!(
                    HeaderValue::from_bytes(location.as_bytes()).is_ok(),
                    "{location:?}"
                );
                assert!(location.len() <= 16 << 10);
                is_written(&location, file);
                assert_ne!(location.as_bytes(), target, "to itself");
            }
        }
    }
});

fn has_empty_segment(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"//")
}

/// A reference stays on its host, or leads to one that stands in the file.
fn is_written(location: &str, file: &[u8]) {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    assert!(
        path.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    );
    match location.as_bytes() {
        [b'/', rest @ ..] => {
            assert!(!rest.starts_with(b"/") && !has_empty_segment(path.as_bytes()))
        }
        _ => {
            let end = location.find("://").expect("a scheme") + 3;
            let end = end + location[end..].find('/').expect("a path");
            let origin = &location.as_bytes()[..end];
            let mut places = file.windows(origin.len());
            assert!(
                places.any(|place| place.eq_ignore_ascii_case(origin)),
                "{location}"
            );
        }
    }
}
