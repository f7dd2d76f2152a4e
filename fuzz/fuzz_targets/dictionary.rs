//! Deltas (RFC 9842): Available-Dictionary names one dictionary or none, and whatever a file that is
//! named like a delta has in it, its proof ends without more memory than a window.
//!
//! Input: a line that is the value of Available-Dictionary; the rest is a file.
#![no_main]

use etagd::scan::sidecar::prove_delta;
use etagd::semantics::coding::{Coding, MAX_HEADER_LENGTH, delta_stem};
use etagd::semantics::dictionary::{AVAILABLE_DICTIONARY, DictionaryHash, available};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// SHA-256 of no bytes: what a mutated header can still name.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (value, file) = input.split_at(end.unwrap_or(input.len()));
    if let Ok(value) = HeaderValue::from_bytes(value) {
        let named =
            |value: HeaderValue| available(&HeaderMap::from_iter([(AVAILABLE_DICTIONARY, value)]));
        if let Some(hash) = named(value) {
            let again = HeaderValue::try_from(hash.field_value()).expect("a field value");
            assert_eq!(named(again), Some(hash));
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
    }
    let file = file.get(1..).unwrap_or_default();
    let stem = delta_stem(file);
    assert!(stem.is_none_or(|stem| file.starts_with(stem) && stem.len() + 21 == file.len()));

    if let Some(coding) = Coding::of_header(file) {
        let header = coding.header().expect("a coding with a dictionary");
        assert!(file.starts_with(&header) && header.len() <= MAX_HEADER_LENGTH);
    }
    let empty: DictionaryHash = EMPTY.parse().expect("a hash");
    for coding in Coding::with_dictionary(empty) {
        let stream = [&coding.header().expect("a header")[..], file].concat();
        let hash = *blake3::hash(b"what it should be").as_bytes();
        let proof = prove_delta(coding, b"", stream.as_slice(), &hash, 17);
        let is_named_wrong =
            matches!(&proof, Err(reason) if reason.to_string().contains("in its name"));
        assert!(!is_named_wrong, "its header is right");
    }
});
