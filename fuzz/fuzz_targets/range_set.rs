//! Range and If-Range: what is selected lies inside, in order, merged, and is what a reading of
//! RFC 9110 14.1.2 byte by byte selects.
//!
//! Input: a line with the length, one with If-Range (absent where empty; `@` stands for our tag),
//! then the lines of Range.
#![no_main]

use etagd::semantics::etag::ETag;
use etagd::semantics::range::{ByteRange, MAX_PARTS, Selection, select, unsatisfied_range};
use etagd_fuzz::{append, lines, trim};
use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};
use libfuzzer_sys::fuzz_target;

const TAG: ETag = ETag::new([0xab; 32]);
/// Up to this length the reference looks at every byte.
const SMALL: u64 = 256;

fuzz_target!(|input: &[u8]| {
    let mut lines = lines(input);
    let length = lines.next().and_then(|line| str::from_utf8(line).ok());
    let Some(length) = length.and_then(|line| line.parse::<u64>().ok()) else {
        return;
    };
    let tag = TAG.to_string();
    let condition = match lines.next() {
        Some(b"@") => tag.as_bytes(),
        Some(line) => line,
        None => b"",
    };
    let ranges: Vec<_> = lines.collect();
    let mut fields = HeaderMap::new();
    let given = (!condition.is_empty()).then_some(condition);
    if append(&mut fields, &IF_RANGE, given).is_none()
        || append(&mut fields, &RANGE, ranges.iter().copied()).is_none()
    {
        return;
    }
    let selection = select(&fields, &TAG, length);
    assert_eq!(selection, select(&fields, &TAG, length), "deterministic");

    let parts = match &selection {
        Selection::Whole => &[][..],
        Selection::One(part) => std::slice::from_ref(part),
        Selection::Many(parts) => {
            assert!((2..=MAX_PARTS).contains(&parts.len()));
            parts
        }
        Selection::Unsatisfiable => {
            assert_eq!(unsatisfied_range(length), format!("bytes */{length}"));
            &[]
        }
    };
    for part in parts {
        assert!(part.first() <= part.last() && part.last() < length);
        assert_eq!(part.length(), part.last() - part.first() + 1);
        check_content_range(part, length);
    }
    let mut ascending = parts.to_vec();
    ascending.sort_by_key(|part| part.first());
    for pair in ascending.windows(2) {
        assert!(pair[0].last() + 1 < pair[1].first(), "merged");
    }

    let holds = given.is_none_or(|value| trim(value) == tag.as_bytes());
    if !holds || ranges.len() != 1 {
        assert_eq!(selection, Selection::Whole);
    } else if length <= SMALL {
        // Parts come in the order asked for; the reference knows the bytes alone.
        let bytes = match &selection {
            Selection::Many(_) => Selection::Many(ascending),
            other => other.clone(),
        };
        assert_eq!(bytes, reference(ranges[0], length));
    }
});

fn check_content_range(part: &ByteRange, length: u64) {
    let text = part.content_range(length);
    let numbers: Option<Vec<u64>> = text
        .strip_prefix("bytes ")
        .map(|rest| rest.split(['-', '/']).flat_map(str::parse).collect());
    assert_eq!(numbers, Some(vec![part.first(), part.last(), length]));
}

/// Marks every byte that the value asks for, and reads the marks.
fn reference(value: &[u8], length: u64) -> Selection {
    let mut marks = vec![false; length as usize];
    let mut suffix_of_nothing = false;
    let Some(specs) = specs(value) else {
        return Selection::Whole;
    };
    for spec in specs {
        let Some((first, last)) = spec else {
            return Selection::Whole;
        };
        let asked = match (first, last) {
            (None, last) => {
                suffix_of_nothing |= length == 0 && last != Some(0);
                length.saturating_sub(last.unwrap_or(0))..length
            }
            (Some(first), None) => first..length,
            (Some(first), Some(last)) => first..length.min(last.saturating_add(1)),
        };
        for at in asked {
            marks[at as usize] = true;
        }
    }
    let mut parts = Vec::new();
    let mut start = None;
    for at in 0..=length {
        match (marks.get(at as usize).is_some_and(|mark| *mark), start) {
            (true, None) => start = Some(at),
            (false, Some(first)) => {
                parts.extend(ByteRange::new(first, at - 1, length));
                start = None;
            }
            _ => {}
        }
    }
    match parts.len() {
        0 if suffix_of_nothing => Selection::Whole,
        0 => Selection::Unsatisfiable,
        1 => Selection::One(parts[0]),
        2..=MAX_PARTS => Selection::Many(parts),
        _ => Selection::Whole,
    }
}

type Spec = (Option<u64>, Option<u64>);

/// The range-specs in `value`, each `None` where it is none; `None` where there is no range-set.
fn specs(value: &[u8]) -> Option<Vec<Option<Spec>>> {
    let value = str::from_utf8(value).ok()?;
    let (unit, set) = value.split_once('=')?;
    let specs: Vec<_> = set
        .split(',')
        .map(|spec| spec.trim_matches([' ', '\t']))
        .filter(|spec| !spec.is_empty())
        .map(spec)
        .collect();
    (unit.eq_ignore_ascii_case("bytes") && !specs.is_empty()).then_some(specs)
}

fn spec(spec: &str) -> Option<Spec> {
    let (first, last) = spec.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return None;
    }
    // Compared as text, since numbers may have any length.
    let key = |text: &str| {
        let text = text.trim_start_matches('0');
        (text.len(), text.to_owned())
    };
    if !first.is_empty() && !last.is_empty() && key(first) > key(last) {
        return None;
    }
    let number = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX));
    Some((number(first), number(last)))
}
