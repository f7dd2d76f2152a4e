//! Range requests (RFC 9110 14): which bytes of the selected representation to send.
//!
//! [`select`] reads Range and If-Range and answers a [`Selection`] of [`ByteRange`]s that lie
//! inside the representation. A malformed Range, an unknown unit or a second line means the whole
//! representation, never an error (14.2). The caller asks for GET only, after the preconditions.
//! Multipart framing is not written here.

use std::cmp::Ordering;

use http::header::{IF_RANGE, RANGE};

use super::etag::{ETag, EntityTag, strong_eq};
use super::head::FieldLines;
use super::members;

/// What to send (RFC 9110 14.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selection {
    /// 200 with everything.
    Whole,
    /// 206 with one range, which may still be the whole representation.
    One(ByteRange),
    /// 206 as multipart/byteranges: 2 to [`MAX_PARTS`] ranges, neither overlapping nor adjacent; up
    /// to [`MAX_PARTS_AS_ASKED`] in the order asked for, more of them by position.
    Many(Vec<ByteRange>),
    /// 416 with [`unsatisfied_range`].
    Unsatisfiable,
}

/// Bytes `first` to `last`, both included, inside a representation (RFC 9110 14.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    first: u64,
    last: u64,
}

impl ByteRange {
    /// The bytes `first` to `last`, if they lie inside `length` bytes (RFC 9110 14.4).
    #[must_use]
    pub const fn new(first: u64, last: u64, length: u64) -> Option<Self> {
        if first <= last && last < length {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// Offset of the first byte.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Offset of the last byte.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many bytes; at least one.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// The value of Content-Range for this part of `length` bytes (RFC 9110 14.4).
    #[must_use]
    pub fn content_range(&self, length: u64) -> String {
        format!("bytes {}-{}/{length}", self.first, self.last)
    }
}

/// The value of Content-Range in a 416 for `length` bytes (RFC 9110 14.4, 15.5.17).
#[must_use]
pub fn unsatisfied_range(length: u64) -> String {
    format!("bytes */{length}")
}

/// Selects the bytes to send of a representation of `length` bytes (RFC 9110 14.2).
///
/// Ranges that overlap or touch are merged, in the place of the one asked for first; the others
/// keep their order (15.3.7.2). More than [`MAX_PARTS_AS_ASKED`] are put in the order of the
/// representation, so that no part of a file has to be read twice. More than [`MAX_PARTS`] after
/// merging cost more than they save, so the answer is the whole.
#[must_use]
pub fn select(fields: &impl FieldLines, etag: &ETag, length: u64) -> Selection {
    // 14.2: no list, so two lines do not parse.
    let Some(value) = fields.only_line(&RANGE) else {
        return Selection::Whole;
    };
    if !if_range(fields, etag) {
        return Selection::Whole;
    }
    match RangeSet::parse(value, length) {
        Some(set) => set.selection(length),
        None => Selection::Whole,
    }
}

/// Whether If-Range lets Range stand (RFC 9110 13.1.5). A date never does: an mtime can be set at
/// will, so it is no strong validator. What does not parse cannot match, and here that must not
/// read as absent: the client said that it holds a part of *something*.
///
/// ```abnf
/// If-Range = entity-tag / HTTP-date
/// ```
fn if_range(fields: &impl FieldLines, etag: &ETag) -> bool {
    match fields.only_line(&IF_RANGE) {
        Some(value) => EntityTag::parse(value).is_some_and(|theirs| strong_eq(etag, theirs)),
        None => !fields.has(&IF_RANGE),
    }
}

/// What a well-formed range-set comes to in a representation of known length.
#[derive(Default)]
struct RangeSet {
    /// The satisfiable ranges, as sent.
    ranges: Vec<ByteRange>,
    /// A suffix of an empty representation: satisfiable (14.1.2), but no Content-Range can say it.
    empty_suffix: bool,
}

impl RangeSet {
    /// Reads the field value; `None` where it is malformed or in another unit.
    ///
    /// ```abnf
    /// Range            = ranges-specifier
    /// ranges-specifier = range-unit "=" range-set
    /// range-set        = 1#range-spec
    /// ```
    fn parse(value: &[u8], length: u64) -> Option<Self> {
        let (unit, specs) = value.split_at_checked(6)?;
        // 14.1: range units are case-insensitive.
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        let mut set = Self::default();
        let mut specs = members(specs).peekable();
        specs.peek()?;
        for spec in specs {
            match RangeSpec::parse(spec)?.within(length) {
                Extent::Bytes(range) => set.ranges.push(range),
                Extent::EmptySuffix => set.empty_suffix = true,
                Extent::Unsatisfiable => {}
            }
        }
        Some(set)
    }

    /// Merged and bounded.
    fn selection(mut self, length: u64) -> Selection {
        debug_assert!(self.ranges.iter().all(|range| range.last < length));
        let mut asked: Vec<(usize, ByteRange)> = self.ranges.drain(..).enumerate().collect();
        asked.sort_unstable_by_key(|(_, range)| range.first);
        asked.dedup_by(|(next_place, next), (place, kept)| {
            let touches = next.first <= kept.last.saturating_add(1);
            if touches {
                kept.last = kept.last.max(next.last);
                *place = (*place).min(*next_place);
            }
            touches
        });
        match asked.as_slice() {
            // A 206 of nothing cannot be told from an impossible one; 200 says all there is.
            [] if self.empty_suffix => Selection::Whole,
            [] => Selection::Unsatisfiable,
            [(_, range)] => Selection::One(*range),
            ranges if ranges.len() > MAX_PARTS => Selection::Whole,
            _ => {
                if asked.len() <= MAX_PARTS_AS_ASKED {
                    asked.sort_unstable_by_key(|(place, _)| *place);
                }
                Selection::Many(asked.into_iter().map(|(_, range)| range).collect())
            }
        }
    }
}

/// A range-spec as sent, its numbers saturated (RFC 9110 14.1.1).
enum RangeSpec {
    /// From an offset to another, or to the end.
    Int { first: u64, last: Option<u64> },
    /// This many bytes at the end.
    Suffix(u64),
}

/// What a range-spec comes to (RFC 9110 14.1.2).
enum Extent {
    Bytes(ByteRange),
    EmptySuffix,
    Unsatisfiable,
}

impl RangeSpec {
    /// ```abnf
    /// range-spec   = int-range / suffix-range
    /// int-range    = first-pos "-" [ last-pos ]
    /// suffix-range = "-" suffix-length
    /// ```
    fn parse(spec: &[u8]) -> Option<Self> {
        let dash = spec.iter().position(|byte| *byte == b'-')?;
        let (before, after) = spec.split_at_checked(dash)?;
        match (before, after.strip_prefix(b"-")?) {
            ([], suffix) => Some(Self::Suffix(Decimal::parse(suffix)?.saturated())),
            (first, []) => Some(Self::Int {
                first: Decimal::parse(first)?.saturated(),
                last: None,
            }),
            (first, last) => {
                let (first, last) = (Decimal::parse(first)?, Decimal::parse(last)?);
                // 14.1.1: invalid, even where both are beyond 2^64.
                if first.compare(&last) == Ordering::Greater {
                    return None;
                }
                Some(Self::Int {
                    first: first.saturated(),
                    last: Some(last.saturated()),
                })
            }
        }
    }

    fn within(&self, length: u64) -> Extent {
        let end = length.checked_sub(1);
        match (self, end) {
            (Self::Suffix(0), _) | (Self::Int { .. }, None) => Extent::Unsatisfiable,
            (Self::Suffix(_), None) => Extent::EmptySuffix,
            (Self::Suffix(suffix), Some(last)) => Extent::Bytes(ByteRange {
                first: length.saturating_sub(*suffix),
                last,
            }),
            (Self::Int { first, .. }, Some(end)) if *first > end => Extent::Unsatisfiable,
            (Self::Int { first, last }, Some(end)) => Extent::Bytes(ByteRange {
                first: *first,
                last: last.unwrap_or(end).min(end),
            }),
        }
    }
}

/// `1*DIGIT`, of any length, without its leading zeros.
struct Decimal<'a>(&'a [u8]);

impl<'a> Decimal<'a> {
    fn parse(mut digits: &'a [u8]) -> Option<Self> {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        while let [b'0', rest @ ..] = digits {
            digits = rest;
        }
        Some(Self(digits))
    }

    fn compare(&self, other: &Self) -> Ordering {
        (self.0.len(), self.0).cmp(&(other.0.len(), other.0))
    }

    fn saturated(&self) -> u64 {
        self.0.iter().fold(0_u64, |number, digit| {
            let digit = u64::from(digit.saturating_sub(b'0'));
            number.saturating_mul(10).saturating_add(digit)
        })
    }
}

/// Limit for the parts of a multipart response. zsync asks for up to 200 at once, and gives up where
/// it gets the whole.
pub const MAX_PARTS: usize = 200;
/// Limit for the parts that are sent in whatever order they are asked for.
pub const MAX_PARTS_AS_ASKED: usize = 16;

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::fields;
    use super::Selection::{Unsatisfiable, Whole};
    use super::*;

    const TAG: ETag = ETag::new([0xab; 32]);

    fn one(first: u64, last: u64) -> Selection {
        Selection::One(ByteRange { first, last })
    }

    fn many(ranges: &[(u64, u64)]) -> Selection {
        let ranges = ranges.iter().map(|(first, last)| ByteRange {
            first: *first,
            last: *last,
        });
        Selection::Many(ranges.collect())
    }

    #[test]
    fn one_line() {
        const MAX: u64 = u64::MAX;
        #[rustfmt::skip]
        let cases = [
            // name, Range, length, selection
            ("14.1.2 first bytes", "bytes=0-4", 10, one(0, 4)),
            ("14.1.2 one byte", "bytes=0-0", 10, one(0, 0)),
            ("14.1.2 last byte", "bytes=9-9", 10, one(9, 9)),
            ("14.1.2 middle", "bytes=3-6", 10, one(3, 6)),
            ("14.1.2 open end", "bytes=4-", 10, one(4, 9)),
            ("14.1.2 open end at the last byte", "bytes=9-", 10, one(9, 9)),
            ("14.1.2 open end at the length", "bytes=10-", 10, Unsatisfiable),
            ("14.1.2 everything, open", "bytes=0-", 10, one(0, 9)),
            ("14.1.2 everything, closed", "bytes=0-9", 10, one(0, 9)),
            ("14.1.2 last-pos at the length", "bytes=0-10", 10, one(0, 9)),
            ("14.1.2 last-pos beyond the length", "bytes=5-500", 10, one(5, 9)),
            ("14.1.2 first-pos at the length", "bytes=10-20", 10, Unsatisfiable),
            ("14.1.2 first-pos beyond the length", "bytes=500-600", 10, Unsatisfiable),
            ("14.1.2 suffix", "bytes=-3", 10, one(7, 9)),
            ("14.1.2 suffix of one", "bytes=-1", 10, one(9, 9)),
            ("14.1.2 suffix of the length", "bytes=-10", 10, one(0, 9)),
            ("14.1.2 suffix longer than the representation", "bytes=-500", 10, one(0, 9)),
            ("14.1.2 suffix of nothing", "bytes=-0", 10, Unsatisfiable),
            ("14.1.2 suffix of nothing, longer", "bytes=-000", 10, Unsatisfiable),
            ("14.1.2 one byte of one", "bytes=0-0", 1, one(0, 0)),
            ("14.1.2 second byte of one", "bytes=1-1", 1, Unsatisfiable),

            ("14.1.2 empty, int-range", "bytes=0-0", 0, Unsatisfiable),
            ("14.1.2 empty, open end", "bytes=0-", 0, Unsatisfiable),
            ("14.1.2 empty, beyond", "bytes=5-6", 0, Unsatisfiable),
            ("14.1.2 empty, suffix", "bytes=-5", 0, Whole),
            ("14.1.2 empty, suffix of one", "bytes=-1", 0, Whole),
            ("14.1.2 empty, suffix of nothing", "bytes=-0", 0, Unsatisfiable),
            ("14.1.2 empty, int-range and suffix", "bytes=0-0,-5", 0, Whole),
            ("14.1.2 empty, int-range and -0", "bytes=0-0,-0", 0, Unsatisfiable),
            ("14.1.2 empty, malformed", "bytes=x", 0, Whole),

            ("14.1.1 last-pos 2^64-1", "bytes=0-18446744073709551615", 10, one(0, 9)),
            ("14.1.1 last-pos 2^64", "bytes=0-18446744073709551616", 10, one(0, 9)),
            ("14.1.1 last-pos 10^40", "bytes=2-10000000000000000000000000000000000000000", 10, one(2, 9)),
            ("14.1.1 first-pos 2^64-1", "bytes=18446744073709551615-", 10, Unsatisfiable),
            ("14.1.1 first-pos 2^64", "bytes=18446744073709551616-", 10, Unsatisfiable),
            ("14.1.1 both 2^64", "bytes=18446744073709551616-18446744073709551616", 10, Unsatisfiable),
            ("14.1.1 both beyond 2^64, descending", "bytes=99999999999999999999-88888888888888888888", 10, Whole),
            ("14.1.1 both beyond 2^64, by digits", "bytes=100000000000000000000-99999999999999999999", 10, Whole),
            ("14.1.1 suffix 2^64", "bytes=-18446744073709551616", 10, one(0, 9)),
            ("14.1.1 2^63 as signed minus", "bytes=-9223372036854775808", 10, one(0, 9)),
            ("14.1.1 longest representation", "bytes=0-", MAX, one(0, MAX - 1)),
            ("14.1.1 end of the longest", "bytes=18446744073709551614-", MAX, one(MAX - 1, MAX - 1)),
            ("14.1.1 beyond the longest", "bytes=18446744073709551615-", MAX, Unsatisfiable),
            ("14.1.1 suffix of the longest", "bytes=-1", MAX, one(MAX - 1, MAX - 1)),
            ("14.1.1 halves of the longest", "bytes=0-9223372036854775807,9223372036854775808-", MAX, one(0, MAX - 1)),
            ("14.1.1 leading zeros", "bytes=0001-00000000000000000000000003", 10, one(1, 3)),
            ("14.1.1 leading zeros, descending", "bytes=0003-1", 10, Whole),

            ("14.1.1 descending", "bytes=5-4", 10, Whole),
            ("14.1.1 descending beyond the length", "bytes=50-40", 10, Whole),
            ("14.1.1 descending in a set", "bytes=0-1,5-4", 10, Whole),
            ("14.1.1 empty set", "bytes=", 10, Whole),
            ("14.1.1 only commas", "bytes=,,", 10, Whole),
            ("14.1.1 only OWS", "bytes= ", 10, Whole),
            ("14.1.1 only a dash", "bytes=-", 10, Whole),
            ("14.1.1 two dashes", "bytes=--1", 10, Whole),
            ("14.1.1 three positions", "bytes=1-2-3", 10, Whole),
            ("14.1.1 dash at the end", "bytes=1-2-", 10, Whole),
            ("14.1.1 no dash", "bytes=5", 10, Whole),
            ("14.1.1 letters", "bytes=a-b", 10, Whole),
            ("14.1.1 letters after digits", "bytes=0-4x", 10, Whole),
            ("14.1.1 hex", "bytes=0x0-0x4", 10, Whole),
            ("14.1.1 plus sign", "bytes=+0-4", 10, Whole),
            ("14.1.1 plus sign of the last", "bytes=0-+4", 10, Whole),
            ("14.1.1 fraction", "bytes=0.5-4", 10, Whole),
            ("14.1.1 quoted", "bytes=\"0-4\"", 10, Whole),
            ("14.1.1 other digits", "bytes=٠-٤", 10, Whole),
            ("14.1.1 space before the dash", "bytes=0 -4", 10, Whole),
            ("14.1.1 space after the dash", "bytes=0- 4", 10, Whole),
            ("14.1.1 space between digits", "bytes=0-1 2", 10, Whole),
            ("14.1.1 space before =", "bytes =0-4", 10, Whole),
            ("14.1.1 colon for =", "bytes:0-4", 10, Whole),
            ("14.1.1 form of Content-Range", "bytes 0-4/10", 10, Whole),
            ("14.1.1 semicolon between", "bytes=0-1;3-4", 10, Whole),
            ("14.1.1 good and bad", "bytes=0-1,x", 10, Whole),
            ("14.1.1 bad and good", "bytes=x,0-1", 10, Whole),
            ("14.1.1 unsatisfiable and bad", "bytes=50-60,x", 10, Whole),
            ("14.1.1 unit twice", "bytes=0-1,bytes=3-4", 10, Whole),

            ("14.1 unit in capitals", "BYTES=0-4", 10, one(0, 4)),
            ("14.1 unit in both", "Bytes=-3", 10, one(7, 9)),
            ("14.2 other unit", "lines=0-3", 10, Whole),
            ("14.2 other unit of five letters", "bytez=0-3", 10, Whole),
            ("14.2 unit cut", "byte=0-3", 10, Whole),
            ("14.2 unit and more", "bytess=0-3", 10, Whole),
            ("14.2 unit none", "none", 10, Whole),
            ("14.2 no unit", "=0-3", 10, Whole),
            ("14.2 range alone", "0-3", 10, Whole),
            ("14.2 unit alone", "bytes", 10, Whole),
            ("14.2 empty value", "", 10, Whole),
            ("14.2 a space before the unit", " bytes=0-3", 10, Whole),

            ("5.6.1 empty member first", "bytes=,0-1", 10, one(0, 1)),
            ("5.6.1 empty member last", "bytes=0-1,", 10, one(0, 1)),
            ("5.6.1 empty member between", "bytes=0-1,,3-4", 10, many(&[(0, 1), (3, 4)])),
            ("5.6.1 OWS around commas", "bytes=0-1 \t,\t 3-4", 10, many(&[(0, 1), (3, 4)])),
            ("5.6.1 OWS at both ends", "bytes= 0-1 ", 10, one(0, 1)),

            ("15.3.7.2 two", "bytes=0-1,3-4", 10, many(&[(0, 1), (3, 4)])),
            ("15.3.7.2 first and last byte", "bytes=0-0,-1", 10, many(&[(0, 0), (9, 9)])),
            ("15.3.7.2 descending ranges", "bytes=6-7,0-1,3-4", 10, many(&[(6, 7), (0, 1), (3, 4)])),
            ("15.3.7.2 merged into the first place", "bytes=6-7,0-1,8-9", 10, many(&[(6, 9), (0, 1)])),
            ("15.3.7.2 merged into the earlier place", "bytes=4-5,0-0,2-3", 10, many(&[(2, 5), (0, 0)])),
            ("15.3.7.2 adjacent", "bytes=0-1,2-4", 10, one(0, 4)),
            ("15.3.7.2 adjacent, descending", "bytes=2-4,0-1", 10, one(0, 4)),
            ("15.3.7.2 overlapping", "bytes=0-5,3-8", 10, one(0, 8)),
            ("15.3.7.2 inside another", "bytes=0-8,3-4", 10, one(0, 8)),
            ("15.3.7.2 inside, then apart", "bytes=0-6,1-2,8-8", 10, many(&[(0, 6), (8, 8)])),
            ("15.3.7.2 same twice", "bytes=3-4,3-4", 10, one(3, 4)),
            ("15.3.7.2 same first-pos", "bytes=3-4,3-7", 10, one(3, 7)),
            ("15.3.7.2 same first-pos, longer first", "bytes=3-7,3-4", 10, one(3, 7)),
            ("15.3.7.2 a chain", "bytes=0-2,4-6,2-4", 10, one(0, 6)),
            ("15.3.7.2 everything in pieces", "bytes=0-4,5-", 10, one(0, 9)),
            ("15.3.7.2 suffix meets int-range", "bytes=0-6,-3", 10, one(0, 9)),
            ("15.3.7.2 suffix inside int-range", "bytes=5-,-2", 10, one(5, 9)),
            ("14.1.2 unsatisfiable among others", "bytes=0-1,50-60", 10, one(0, 1)),
            ("14.1.2 -0 among others", "bytes=-0,0-1", 10, one(0, 1)),
            ("14.1.2 all unsatisfiable", "bytes=10-,50-60,-0", 10, Unsatisfiable),
        ];
        for (name, value, length, want) in cases {
            let mut fields = HeaderMap::new();
            fields.insert(
                RANGE,
                http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
            assert_eq!(select(&fields, &TAG, length), want, "{name}");
        }
    }

    #[test]
    fn with_if_range() {
        #[rustfmt::skip]
        let cases = [
            // name, fields with `@` for our opaque-tag, selection of 10 bytes
            ("14.2 absent", "", Whole),
            ("14.2 two lines", "range: bytes=0-4 | range: bytes=6-7", Whole),
            ("14.2 two equal lines", "range: bytes=0-4 | range: bytes=0-4", Whole),
            ("14.2 bad line, good line", "range: x | range: bytes=0-4", Whole),
            ("13.1.5 same", r#"range: bytes=0-4 | if-range: "@""#, one(0, 4)),
            ("13.1.5 same, OWS", "range: bytes=0-4 | if-range: \t\"@\" ", one(0, 4)),
            ("13.1.5 same, unsatisfiable", r#"range: bytes=10- | if-range: "@""#, Unsatisfiable),
            ("13.1.5 stale", r#"range: bytes=0-4 | if-range: "x""#, Whole),
            ("13.1.5 stale, unsatisfiable", r#"range: bytes=10- | if-range: "x""#, Whole),
            ("13.1.5 weak", r#"range: bytes=0-4 | if-range: W/"@""#, Whole),
            ("13.1.5 without Range", r#"if-range: "@""#, Whole),
            ("13.1.5 date", "range: bytes=0-4 | if-range: Sun, 06 Nov 1994 08:49:37 GMT", Whole),
            ("13.1.5 later date", "range: bytes=0-4 | if-range: Fri, 31 Dec 9999 23:59:59 GMT", Whole),
            ("13.1.5 star", "range: bytes=0-4 | if-range: *", Whole),
            ("13.1.5 unquoted", "range: bytes=0-4 | if-range: @", Whole),
            ("13.1.5 empty", "range: bytes=0-4 | if-range: ", Whole),
            ("13.1.5 list", r#"range: bytes=0-4 | if-range: "@", "x""#, Whole),
            ("13.1.5 list of the same", r#"range: bytes=0-4 | if-range: "@","@""#, Whole),
            ("13.1.5 comma after", r#"range: bytes=0-4 | if-range: "@","#, Whole),
            ("13.1.5 two lines", r#"range: bytes=0-4 | if-range: "@" | if-range: "@""#, Whole),
            ("13.1.5 text after", r#"range: bytes=0-4 | if-range: "@"x"#, Whole),
            ("13.1.5 not closed", r#"range: bytes=0-4 | if-range: "@"#, Whole),
        ];
        for (name, lines, want) in cases {
            let fields = fields(&lines.replace('@', &TAG.opaque()));
            assert_eq!(select(&fields, &TAG, 10), want, "{name}");
        }
    }

    #[test]
    fn many_parts() {
        let every_other = |count: u64| {
            let specs: Vec<_> = (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect();
            fields(&format!("range: bytes={}", specs.join(",")))
        };
        let parts = |fields: &HeaderMap| match select(fields, &TAG, 100_000) {
            Selection::Many(ranges) => ranges.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(parts(&every_other(2)), 2, "14.2 two");
        assert_eq!(parts(&every_other(16)), 16, "14.2 sixteen");
        assert_eq!(parts(&every_other(200)), 200, "14.2 two hundred");
        assert_eq!(
            select(&every_other(201), &TAG, 100_000),
            Whole,
            "14.2 two hundred and one"
        );
        let descending = |count: u64| {
            let specs = (0..count).rev().map(|n| format!("{}-{}", 2 * n, 2 * n));
            let specs: Vec<_> = specs.collect();
            fields(&format!("range: bytes={}", specs.join(",")))
        };
        let first = |fields: &HeaderMap| match select(fields, &TAG, 100_000) {
            Selection::Many(ranges) => ranges[0].first(),
            other => panic!("{other:?}"),
        };
        assert_eq!(first(&descending(16)), 30, "15.3.7.2 in the order asked");
        assert_eq!(first(&descending(17)), 0, "15.3.7.2 many, by position");
        assert_eq!(
            select(&every_other(1500), &TAG, 100_000),
            Whole,
            "14.2 a field full"
        );
        let same = fields(&format!("range: bytes={}", "0-,".repeat(5000)));
        assert_eq!(
            select(&same, &TAG, 10),
            one(0, 9),
            "14.2 five thousand times everything"
        );
        let dashes = fields(&format!("range: bytes={}", "-".repeat(16_000)));
        assert_eq!(select(&dashes, &TAG, 10), Whole, "14.2 a field of dashes");
        let digits = fields(&format!("range: bytes=0-{}", "9".repeat(16_000)));
        assert_eq!(
            select(&digits, &TAG, 10),
            one(0, 9),
            "14.1.1 a field of digits"
        );
    }

    /// Against a bitmap: what is selected is what was asked for, inside the length.
    #[test]
    fn agrees_with_a_bitmap() {
        let specs = [
            "0-0", "0-2", "1-3", "4-", "5-5", "3-99", "7-9", "-1", "-4", "-99", "-0", "6-",
        ];
        for length in 0..9_u64 {
            for set in 1..1_u32 << specs.len() {
                let chosen = specs.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1);
                let chosen: Vec<_> = chosen.map(|(_, spec)| *spec).collect();
                let wanted = |at: u64| {
                    chosen
                        .iter()
                        .any(|spec| match spec.split_once('-').unwrap() {
                            ("", suffix) => at + suffix.parse::<u64>().unwrap() >= length,
                            (first, last) => {
                                first.parse::<u64>().unwrap() <= at
                                    && (last.is_empty() || at <= last.parse::<u64>().unwrap())
                            }
                        })
                };
                let mut request = HeaderMap::new();
                let value = format!("bytes={}", chosen.join(","));
                request.insert(RANGE, value.parse().unwrap());
                let ranges = match select(&request, &TAG, length) {
                    Whole => {
                        assert_eq!(length, 0, "14.1.2 {value}");
                        continue;
                    }
                    Unsatisfiable => Vec::new(),
                    Selection::One(range) => vec![range],
                    Selection::Many(ranges) => ranges,
                };
                assert!(
                    ranges.iter().all(|range| range.last() < length),
                    "14.1.2 {value}"
                );
                let mut ranges = ranges;
                ranges.sort_by_key(ByteRange::first);
                let apart = |pair: &[ByteRange]| pair[0].last() + 1 < pair[1].first();
                assert!(ranges.windows(2).all(apart), "15.3.7.2 {value}");
                for at in 0..length {
                    let sent = ranges
                        .iter()
                        .any(|range| range.first() <= at && at <= range.last());
                    assert_eq!(sent, wanted(at), "14.1.2 {value} of {length} at {at}");
                }
            }
        }
    }

    #[test]
    fn content_range() {
        let range = ByteRange::new(0, 4, 10).unwrap();
        assert_eq!(range.content_range(10), "bytes 0-4/10", "14.4");
        assert_eq!(range.length(), 5, "14.4");
        assert_eq!(unsatisfied_range(10), "bytes */10", "15.5.17");
        assert_eq!(unsatisfied_range(0), "bytes */0", "15.5.17");
        for (first, last, length) in [(0, 10, 10), (5, 4, 10), (0, 0, 0), (10, 10, 10)] {
            assert_eq!(ByteRange::new(first, last, length), None, "14.4");
        }
        let longest = ByteRange::new(0, u64::MAX - 1, u64::MAX).unwrap();
        assert_eq!(longest.length(), u64::MAX, "14.4");
    }
}
