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

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with("-incomplete") {
            return Err("an incomplete digest names no state of a site".to_owned());
        }
        let expected =
            |_| "64 hexadecimal digits are expected, as etagd manifest --digest prints them";
        let hash = blake3::Hash::from_hex(text).map_err(expected)?;
        Ok(Self(hash))
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
            let error = bad.parse::<Digest>().expect_err(bad);
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
        let error = format!("{hex}-incomplete").parse::<Digest>();
        assert!(error.is_err_and(|error| error.contains("incomplete")));
    }
}
