//! Which files are dictionaries for the next release (RFC 9842).

use std::fmt;
use std::str::FromStr;

use super::globs::{InvalidGlob, PathGlob};

/// The value that stands for [`DictionaryFiles::None`].
const OFF: &str = "off";

/// Files that browsers may keep as dictionaries for what replaces them.
#[derive(Clone, Debug, Default)]
pub enum DictionaryFiles {
    /// Those that are immutable and whose family is unambiguous.
    #[default]
    Families,
    /// Those whose paths match one of these.
    Matching(Vec<PathGlob>),
    /// None, and deltas are not sent.
    None,
}

impl DictionaryFiles {
    /// Whether deltas are used.
    pub fn are_used(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// The patterns, without those that are there twice, in order: neither counts.
    pub(super) fn patterns(&self) -> Vec<&str> {
        match self {
            Self::Families => Vec::new(),
            Self::None => vec![OFF],
            Self::Matching(globs) => {
                let mut patterns: Vec<_> = globs.iter().map(PathGlob::pattern).collect();
                patterns.sort_unstable();
                patterns.dedup();
                patterns
            }
        }
    }
}

impl PartialEq for DictionaryFiles {
    fn eq(&self, other: &Self) -> bool {
        self.patterns() == other.patterns()
    }
}

/// The values as they are typed after `--dictionary`, separated by spaces.
impl fmt::Display for DictionaryFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.patterns().join(" "))
    }
}

/// One value of `--dictionary`.
#[derive(Clone, Debug)]
pub enum DictionaryChoice {
    /// Files that match.
    Glob(PathGlob),
    /// No file.
    Off,
}

impl FromStr for DictionaryChoice {
    type Err = InvalidGlob;

    fn from_str(value: &str) -> Result<Self, InvalidGlob> {
        match value {
            // A pattern begins with a slash.
            OFF => Ok(Self::Off),
            pattern => pattern.parse().map(Self::Glob),
        }
    }
}

/// `off` takes precedence: whoever adds it to other values wants to be rid of them.
impl FromIterator<DictionaryChoice> for DictionaryFiles {
    fn from_iter<T: IntoIterator<Item = DictionaryChoice>>(choices: T) -> Self {
        let mut globs = Vec::new();
        for choice in choices {
            match choice {
                DictionaryChoice::Off => return Self::None,
                DictionaryChoice::Glob(glob) => globs.push(glob),
            }
        }
        match globs.is_empty() {
            true => Self::Families,
            false => Self::Matching(globs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let of = |values: &[&str]| -> DictionaryFiles {
            let choices = values.iter().map(|value| value.parse().expect("a value"));
            choices
                .collect::<Vec<DictionaryChoice>>()
                .into_iter()
                .collect()
        };
        for (values, shown) in [
            (&[][..], ""),
            (&["off"], "off"),
            (&["/a/*.js"], "/a/*.js"),
            (&["/b", "/a", "/b"], "/a /b"),
            (&["/b", "off"], "off"),
        ] {
            assert_eq!(of(values).to_string(), shown, "{values:?}");
        }
        assert_eq!(of(&["/a", "/b"]), of(&["/b", "/a"]));
        assert_ne!(of(&["/a"]), of(&[]));
        assert!(!of(&["off"]).are_used() && of(&[]).are_used());
        for wrong in ["", "a.js", "OFF", "/[", "auto"] {
            assert!(wrong.parse::<DictionaryChoice>().is_err(), "{wrong}");
        }
    }
}
