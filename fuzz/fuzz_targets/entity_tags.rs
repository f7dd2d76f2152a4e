//! If-Match and If-None-Match against a second, differently built reading of RFC 9110 8.8.3.
//!
//! Input: the lines of the field. `@` stands for our opaque-tag, which no mutation would find.
#![no_main]

use etagd::semantics::etag::{ETag, EntityTags, strong_eq, weak_eq};
use etagd_fuzz::{append, lines, trim};
use http::HeaderMap;
use http::header::IF_NONE_MATCH;
use libfuzzer_sys::fuzz_target;

const PLAIN: ETag = ETag::new([0xab; 32]);
const SUFFIXED: ETag = PLAIN.with_fields([1, 2, 3, 4]);

fuzz_target!(|input: &[u8]| {
    let lines: Vec<Vec<u8>> = lines(input).map(insert_tag).collect();
    for line in &lines {
        if let Some(tag) = ETag::parse(line) {
            assert_eq!(tag.to_string().as_bytes(), line, "one tag has one spelling");
        }
    }
    let mut fields = HeaderMap::new();
    if append(&mut fields, &IF_NONE_MATCH, lines.iter().map(Vec::as_slice)).is_none() {
        return;
    }
    // RFC 9110 5.3: lines join into one list.
    let joined = lines.join(&b", "[..]);
    let wanted = reference(&joined);
    let found = EntityTags::parse(&fields, &IF_NONE_MATCH);
    let found: Option<Vec<_>> = match found {
        None => None,
        Some(EntityTags::Any) => {
            assert_eq!(trim(&joined), b"*");
            return;
        }
        Some(EntityTags::One(tag)) => Some(vec![tag]),
        Some(EntityTags::Listed(tags)) => Some(tags.iter().collect()),
    };
    assert_ne!(trim(&joined), b"*");
    let plain: Option<Vec<_>> = found
        .as_ref()
        .map(|tags| tags.iter().map(|tag| (tag.weak, tag.opaque)).collect());
    assert_eq!(plain, wanted);
    for theirs in found.into_iter().flatten() {
        for ours in [PLAIN, SUFFIXED] {
            let same = theirs.opaque == ours.opaque().as_bytes();
            assert_eq!(weak_eq(&ours, theirs), same);
            assert_eq!(strong_eq(&ours, theirs), same && !theirs.weak);
        }
    }
});

fn insert_tag(line: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = line.split(|byte| *byte == b'@').collect();
    parts.join(PLAIN.opaque().as_bytes())
}

/// The tags of a list: with quotes as the separators, every second piece is an opaque-tag, and
/// what stands between two of them is a comma, whitespace, and perhaps `W/`.
fn reference(value: &[u8]) -> Option<Vec<(bool, &[u8])>> {
    let pieces: Vec<_> = value.split(|byte| *byte == b'"').collect();
    let last = pieces.len() - 1;
    let mut weak = false;
    let mut tags = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        if index % 2 == 1 {
            let is_etagc = |byte: &u8| *byte > b' ' && *byte != 0x7f;
            if index == last || !piece.iter().all(is_etagc) {
                return None;
            }
            tags.push((weak, piece));
            continue;
        }
        let between = piece.strip_suffix(b"W/").filter(|_| index != last);
        weak = between.is_some();
        let between = between.unwrap_or(piece);
        let is_separator = between.iter().all(|byte| b" \t,".contains(byte));
        let needs_comma = index != 0 && index != last;
        if !is_separator || (needs_comma && !between.contains(&b',')) {
            return None;
        }
    }
    Some(tags)
}
