//! Digest fields (RFC 9530): whether a client wants one, and how it is written.

use http::HeaderMap;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// The field that says which digests are wanted.
const WANT: &str = "want-repr-digest";

/// Whether Want-Repr-Digest asks for SHA-256 with a preference above 0 (RFC 9530 section 4).
#[must_use]
pub fn wants_sha256(fields: &HeaderMap) -> bool {
    let lines: Vec<_> = fields
        .get_all(WANT)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    if lines.is_empty() {
        return false;
    }
    // Several lines are one dictionary (RFC 9651 section 4.2).
    let value = lines.join(&b',');
    let Ok(wanted) = Parser::new(&value).parse::<Dictionary>() else {
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
    fn a_digest_is_a_byte_sequence() {
        let sha256 = [0xe3; 32];
        assert!(repr_digest(&sha256).starts_with("sha-256=:4+Pj"));
        assert!(repr_digest(&sha256).ends_with("=:"));
    }
}
