//! Digest fields (RFC 9530): whether a client wants one, how it is written, and what a client
//! says of its own content.

use std::fmt;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::head::FieldLines;

/// Asks for digests of the selected representation (RFC 9530 section 4).
pub const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
/// The fields that say what content hashes to.
const DIGEST_FIELDS: [HeaderName; 2] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Whether Want-Repr-Digest asks for SHA-256 with a preference above 0 (RFC 9530 section 4).
#[must_use]
pub fn wants_sha256(fields: &impl FieldLines) -> bool {
    let Ok(wanted) = dictionary(fields, &WANT_REPR_DIGEST) else {
        return false;
    };
    match wanted.get("sha-256") {
        Some(ListEntry::Item(item)) => match &item.bare_item {
            BareItem::Integer(preference) => (1..=10).contains(&i64::from(*preference)),
            _ => false,
        },
        _ => false,
    }
}

/// Several lines are one dictionary (RFC 9651 section 4.2).
fn dictionary(fields: &impl FieldLines, name: &HeaderName) -> Result<Dictionary, BadDigest> {
    let value = fields.lines(name).collect::<Vec<_>>().join(&b',');
    Parser::new(&value).parse().map_err(|_| BadDigest)
}

/// What content must hash to, by Content-Digest and Repr-Digest of a request whose content is the
/// whole representation without a coding (RFC 9530 sections 2 and 3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Digests {
    /// Its SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// Its SHA-512.
    pub sha512: Option<[u8; 64]>,
}

impl Digests {
    /// Reads both fields. Algorithms that are not known here are passed over.
    ///
    /// # Errors
    /// When a field does not parse, or the two contradict each other: whoever sends one wants it
    /// to be looked at.
    pub fn parse(fields: &HeaderMap) -> Result<Self, BadDigest> {
        let mut digests = Self::default();
        for name in DIGEST_FIELDS {
            let dictionary = dictionary(fields, &name)?;
            merge(&mut digests.sha256, dictionary.get("sha-256"))?;
            merge(&mut digests.sha512, dictionary.get("sha-512"))?;
        }
        Ok(digests)
    }
}

fn merge<const N: usize>(
    known: &mut Option<[u8; N]>,
    entry: Option<&ListEntry>,
) -> Result<(), BadDigest> {
    let Some(entry) = entry else { return Ok(()) };
    let ListEntry::Item(item) = entry else {
        return Err(BadDigest);
    };
    let BareItem::ByteSequence(bytes) = &item.bare_item else {
        return Err(BadDigest);
    };
    let digest: [u8; N] = bytes.as_slice().try_into().map_err(|_| BadDigest)?;
    if known.is_some_and(|known| known != digest) {
        return Err(BadDigest);
    }
    *known = Some(digest);
    Ok(())
}

/// A digest field says nothing that content can be held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadDigest;

impl fmt::Display for BadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed or contradictory Content-Digest and Repr-Digest")
    }
}

impl std::error::Error for BadDigest {}

/// The value of Repr-Digest (RFC 9530 section 3).
#[must_use]
pub fn repr_digest(sha256: &[u8; 32]) -> String {
    use base64::Engine;
    let digest = base64::engine::general_purpose::STANDARD.encode(sha256);
    format!("sha-256=:{digest}:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::fields;

    #[test]
    fn who_wants_sha256() {
        let cases = [
            ("4 absent", "accept: x", false),
            ("4 alone", "want-repr-digest: sha-256=10", true),
            ("4 the least", "want-repr-digest: sha-256=1", true),
            ("4 not acceptable", "want-repr-digest: sha-256=0", false),
            (
                "4 among others",
                "want-repr-digest: sha-512=3, sha-256=10, unixsum=0",
                true,
            ),
            ("4 another", "want-repr-digest: sha-512=9", false),
            ("4 no preference", "want-repr-digest: sha-256", false),
            ("4 beyond the scale", "want-repr-digest: sha-256=11", false),
            (
                "4 two lines",
                "want-repr-digest: sha-512=1 | want-repr-digest: sha-256=1",
                true,
            ),
            (
                "4 the last one counts",
                "want-repr-digest: sha-256=1, sha-256=0",
                false,
            ),
            ("4 garbage", "want-repr-digest: sha-256=10;;", false),
            ("4 a list", "want-repr-digest: sha-256=(1 2)", false),
        ];
        for (name, lines, want) in cases {
            assert_eq!(wants_sha256(&fields(lines)), want, "{name}");
        }
    }

    #[test]
    fn what_content_must_hash_to() {
        let zeros = "A".repeat(43);
        let (short, long) = ([0; 32], [0; 64]);
        let (sha256, sha512) = (
            format!("sha-256=:{zeros}=:"),
            format!("sha-512=:{}==:", "A".repeat(86)),
        );
        let none = Digests::default();
        let of = |sha256, sha512| Ok(Digests { sha256, sha512 });
        let cases = [
            ("2 none", String::new(), Ok(none.clone())),
            (
                "2 one",
                format!("content-digest: {sha256}"),
                of(Some(short), None),
            ),
            (
                "3 one",
                format!("repr-digest: {sha512}"),
                of(None, Some(long)),
            ),
            (
                "3 both fields",
                format!("repr-digest: {sha512} | content-digest: {sha256}"),
                of(Some(short), Some(long)),
            ),
            (
                "2 unknown ones",
                "content-digest: md5=:AAAA:, unixsum=1".into(),
                Ok(none),
            ),
            (
                "2 unknown beside",
                format!("content-digest: md5=:AA==:, {sha256}"),
                of(Some(short), None),
            ),
            (
                "2 too short",
                "content-digest: sha-256=:AAAA:".into(),
                Err(BadDigest),
            ),
            (
                "2 no bytes",
                "content-digest: sha-256=1".into(),
                Err(BadDigest),
            ),
            (
                "2 a list",
                "content-digest: sha-256=(1)".into(),
                Err(BadDigest),
            ),
            (
                "2 garbage",
                "content-digest: sha-256=:;;".into(),
                Err(BadDigest),
            ),
            (
                "3 contradiction",
                format!(
                    "repr-digest: sha-256=:B{}=: | content-digest: {sha256}",
                    "A".repeat(42)
                ),
                Err(BadDigest),
            ),
        ];
        for (name, lines, want) in cases {
            assert_eq!(Digests::parse(&fields(&lines)), want, "{name}");
        }
    }

    #[test]
    fn a_digest_is_a_byte_sequence() {
        let sha256 = [0xe3; 32];
        assert!(repr_digest(&sha256).starts_with("sha-256=:4+Pj"));
        assert!(repr_digest(&sha256).ends_with("=:"));
    }
}
