//! Request targets: what is accepted names nothing above the root, and its name has a spelling
//! that names it again.
//!
//! Input: a request target as it stands in the request line.
#![no_main]

use etagd::semantics::target::{BadTarget, Target, encode_path};
use http::Uri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(uri) = Uri::try_from(input) else {
        return;
    };
    let target = match Target::parse(&uri) {
        Ok(target) => target,
        Err(refusal) => {
            assert!(refusal.status().is_client_error());
            return;
        }
    };
    let path = target.path();
    assert!(!path.contains(&0));
    assert!(is_inside(path));
    assert_eq!(
        target.is_directory(),
        path.is_empty() || path.ends_with(b"/")
    );
    assert_eq!(
        target.raw_path().strip_prefix('/').map(decode),
        Some(path.to_vec())
    );
    names(path);

    match target.collapsed() {
        Some(collapsed) => {
            // `/` before it must not make another host's address of it.
            assert!(!collapsed.starts_with(b"/"));
            assert!(!has_empty_segment(&collapsed));
            assert!(is_inside(&collapsed));
            assert!(collapsed.len() < path.len());
            names(&collapsed);
        }
        None => assert!(!path.starts_with(b"/") && !has_empty_segment(path)),
    }
});

fn is_inside(path: &[u8]) -> bool {
    let mut segments = path.split(|byte| *byte == b'/');
    segments.all(|segment| segment != b"." && segment != b"..")
}

fn has_empty_segment(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"//")
}

/// `/` and the encoded path parse back to it.
fn names(path: &[u8]) {
    let reference = format!("/{}", encode_path(path));
    assert!(reference.bytes().all(|byte| byte.is_ascii_graphic()));
    let uri: Uri = reference.parse().expect("a reference of ours is a URI");
    assert_eq!(uri.query(), None);
    match Target::parse(&uri) {
        Ok(target) => assert_eq!(target.path(), path),
        // Encoding can make three bytes of one.
        Err(refusal) => assert_eq!(refusal, BadTarget::TooLong, "{reference}"),
    }
}

/// Percent-decoding, once.
fn decode(encoded: &str) -> Vec<u8> {
    let mut bytes = encoded.bytes();
    let mut decoded = Vec::new();
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => (high * 16 + low) as u8,
                other => panic!("accepted an escape of {other:?}"),
            },
            byte => byte,
        });
    }
    decoded
}
