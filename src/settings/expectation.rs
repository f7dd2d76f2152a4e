//! Which state of the site the operator expects.

use std::str::FromStr;

/// The site that the operator expects.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// Its digest.
    pub digest: Digest,
    /// Whether it must hold all the time. Else once is enough: a deploy in place must not take a
    /// whole fleet out of service.
    pub always: bool,
}

/// The hash of a site, as `etagd manifest --digest` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// The hash itself.
    pub fn hash(&self) -> &blake3::Hash {
        &self.0
    }
}

/// Why a text is no [`Digest`].
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidDigest {
    /// It was printed while a file could not be read, or was still changing.
    #[error("an incomplete digest does not identify a state of a site")]
    Incomplete,
    /// No hash.
    #[error("expected 64 hexadecimal digits, as etagd manifest --digest prints them")]
    Syntax,
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        if text.ends_with("-incomplete") {
            return Err(InvalidDigest::Incomplete);
        }
        blake3::Hash::from_hex(text)
            .map(Self)
            .map_err(|_| InvalidDigest::Syntax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let hex = blake3::hash(b"site").to_hex().to_string();
        assert_eq!(hex.parse::<Digest>(), Ok(Digest(blake3::hash(b"site"))));
        assert_eq!(hex.to_uppercase().parse::<Digest>(), hex.parse());
        for bad in [
            "",
            "abc",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace(&hex[..1], "g"),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(InvalidDigest::Syntax), "{bad}");
        }
        let incomplete = format!("{hex}-incomplete");
        assert_eq!(incomplete.parse::<Digest>(), Err(InvalidDigest::Incomplete));
    }
}
