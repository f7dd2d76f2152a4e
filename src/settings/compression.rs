//! Which content codings the scan makes of files (`--compress`).

use std::fmt;
use std::str::FromStr;

use crate::semantics::coding::Coding;

/// The content codings that are made of the files of a site, and how: a policy whose name stands for
/// the levels of the encoders, their versions, and the rule which files are worth it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompressionPolicy {
    /// In the order of [`Coding`], at least one.
    codings: Vec<Coding>,
}

impl CompressionPolicy {
    /// The name of the policy. What it stands for never changes: where an encoder gives other bytes,
    /// the policy gets another name, so that replicas of both versions do not claim to agree.
    pub const NAME: &str = "etagd-1";

    /// The codings, in the order of [`Coding`].
    pub fn codings(&self) -> &[Coding] {
        &self.codings
    }
}

impl Default for CompressionPolicy {
    /// Browsers take brotli from sites with TLS and gzip from others; what takes zstd takes brotli,
    /// too.
    fn default() -> Self {
        Self {
            codings: vec![Coding::Brotli, Coding::Gzip],
        }
    }
}

/// As it is typed, with the name of the policy: `br,gz (etagd-1)`.
impl fmt::Display for CompressionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extensions: Vec<_> = self
            .codings
            .iter()
            .filter_map(|coding| coding.extension())
            .collect();
        write!(f, "{} ({})", extensions.join(","), Self::NAME)
    }
}

/// A text is no [`CompressionPolicy`].
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected br, zst and gz, with commas between them, or off")]
pub struct InvalidPolicy;

impl FromStr for CompressionPolicy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let named = |name: &str| {
            let mut made = Coding::ALL.into_iter();
            made.find(|coding| coding.extension().is_some_and(|it| it == name))
                .ok_or(InvalidPolicy)
        };
        let mut codings = text
            .split(',')
            .map(|name| named(name.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        codings.sort_unstable();
        codings.dedup();
        Ok(Self { codings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        for (text, shown) in [
            ("br,gz", "br,gz (etagd-1)"),
            ("gz, br", "br,gz (etagd-1)"),
            ("zst", "zst (etagd-1)"),
            ("br,zst,gz,br", "br,zst,gz (etagd-1)"),
        ] {
            let policy: CompressionPolicy = text.parse().expect(text);
            assert_eq!(policy.to_string(), shown, "{text}");
        }
        assert_eq!("gz,br".parse(), Ok(CompressionPolicy::default()));
        for bad in ["", ",", "br,", "gzip", "identity", "br gz", "BR"] {
            assert_eq!(
                bad.parse::<CompressionPolicy>(),
                Err(InvalidPolicy),
                "{bad}"
            );
        }
    }
}
