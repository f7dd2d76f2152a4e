//! `_headers`: whatever is in it, what remains is fields that a response may have.
//!
//! Input: a request target, and below it the file.
#![no_main]

use etagd::rules::{Headers, Severity};
use etagd_fuzz::asked;
use http::header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (target, file) = etagd_fuzz::split(input);
    let Some((host, path, _)) = asked(target) else {
        return;
    };
    let (headers, complaints) = Headers::parse(file);
    let lines = file.split(|byte| *byte == b'\n').count();
    assert!(complaints.iter().all(|each| each.line <= lines));
    assert!(complaints.is_sorted_by_key(|each| (each.line == 0, each.line)));

    // What means nothing changes nothing.
    let padded = [b"# \n\n", file, b"\n\r\n#"].concat();
    let (again, again_complaints) = Headers::parse(&padded);
    if !file.starts_with(b"\xef\xbb\xbf") {
        assert_eq!(again.hash(), headers.hash());
        let errors = |all: &[etagd::rules::Complaint]| {
            let errors = all.iter().filter(|each| each.severity == Severity::Error);
            errors.count()
        };
        assert_eq!(errors(&again_complaints), errors(&complaints));
    }

    let matching = headers.matching(&path, host.as_deref());
    assert!(!headers.is_empty() || matching.is_empty());
    let overlay = headers.overlay(&matching, &path);
    for (name, _) in &overlay.lines {
        assert!(!is_reserved(name.as_str()), "{name}");
        assert!(!overlay.removed.contains(name), "{name} is there and not");
    }
    for name in &overlay.removed {
        assert!(!is_reserved(name.as_str()), "{name}");
        assert!(*name != header::CONTENT_TYPE && *name != header::VARY);
    }
    // One line a field, but for cookies.
    let names = || overlay.lines.iter().map(|(name, _)| name);
    let other = names().filter(|name| **name != header::SET_COOKIE);
    assert!(
        other
            .clone()
            .all(|name| names().filter(|other| *other == name).count() == 1)
    );
    // `/a` is `/a/`, whatever its case.
    let mut other = path.to_ascii_uppercase();
    if path.len() > 1 && !path.ends_with(b"/") {
        other.push(b'/');
    }
    assert_eq!(headers.matching(&other, host.as_deref()), matching);
});

fn is_reserved(name: &str) -> bool {
    let reserved = [
        "accept-ranges",
        "age",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "date",
        "etag",
        "keep-alive",
        "last-modified",
        "location",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
    ];
    reserved.contains(&name)
}
