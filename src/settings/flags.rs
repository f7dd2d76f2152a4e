//! Settings as the flags that they were typed as, and back: what a release carries, so that whoever
//! serves it gives the answers that its publisher meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{
    CompressionPolicy, DictionaryChoice, HtmlHandling, ImmutableFiles, NotFound, RedirectsDialect,
    ReprDigest, Settings,
};
use crate::exclude::ExcludePattern;
use crate::semantics::base_path::BasePath;

/// The value of `--compress` where nothing is compressed.
const OFF: &str = "off";

/// A flag without its dashes, and what follows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingFlag {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: FlagValues,
}

/// What follows a flag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlagValues {
    /// One value.
    One(String),
    /// A flag that may be repeated: each of its values.
    Many(Vec<String>),
}

impl SettingFlag {
    fn one(name: &'static str, value: impl ToString) -> Self {
        Self {
            name,
            values: FlagValues::One(value.to_string()),
        }
    }

    fn many<'v>(name: &'static str, values: impl IntoIterator<Item = &'v str>) -> Self {
        let values = values.into_iter().map(str::to_owned).collect();
        Self {
            name,
            values: FlagValues::Many(values),
        }
    }

    /// A flag that is on or off, and off.
    #[must_use]
    pub fn off(name: &'static str) -> Self {
        Self::one(name, false)
    }

    /// The values, whether it may have several or not.
    #[must_use]
    pub fn values(&self) -> &[String] {
        match &self.values {
            FlagValues::One(value) => std::slice::from_ref(value),
            FlagValues::Many(values) => values,
        }
    }
}

/// As one text: several values with a space between them. One that has spaces or quotes itself is quoted,
/// so that no two lists read the same.
impl fmt::Display for FlagValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(value) => f.write_str(value),
            Self::Many(values) => f.write_str(&listed(values)),
        }
    }
}

fn listed(values: &[String]) -> String {
    let is_odd = |character: char| character.is_whitespace() || character == '"';
    let values = values.iter().map(|value| match value {
        value if value.is_empty() || value.contains(is_odd) => format!("{value:?}"),
        value => value.clone(),
    });
    values.collect::<Vec<_>>().join(" ")
}

/// The most characters of a value in a message: patterns may be thousands.
const MAX_SHOWN: usize = 200;

/// A flag that one site has with other values than another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingChange {
    name: String,
    old: String,
    new: String,
}

/// As `--immutable auto -> none`.
impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, old, new } = self;
        write!(f, "--{name} {old} -> {new}")
    }
}

/// What two sites differ in, of flags as [`Settings::flags`] has them. One that is missing has its default.
#[must_use]
pub fn setting_changes(
    old: &BTreeMap<String, Vec<String>>,
    new: &BTreeMap<String, Vec<String>>,
) -> Vec<SettingChange> {
    let mut defaults = Settings::default().flags();
    defaults.push(SettingFlag::off("listing"));
    let value = |flags: &BTreeMap<String, Vec<String>>, name: &str| {
        let default = || defaults.iter().find(|flag| flag.name == name);
        let values = flags.get(name).map(Vec::as_slice);
        shown(values.unwrap_or_else(|| default().map_or(&[], SettingFlag::values)))
    };
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .map(|name| SettingChange {
            name: name.clone(),
            old: value(old, name),
            new: value(new, name),
        })
        .filter(|change| change.old != change.new)
        .collect()
}

fn shown(values: &[String]) -> String {
    let text = match values {
        [value] => value.clone(),
        values => listed(values),
    };
    match text.char_indices().nth(MAX_SHOWN) {
        // So that two long ones do not look the same.
        Some((end, _)) => format!("{}... ({} values)", &text[..end], values.len()),
        None if values.iter().all(String::is_empty) => "none".to_owned(),
        None => text,
    }
}

/// Why flags are no [`Settings`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidFlags {
    /// Flags of a later version.
    #[error("--{0} is not known to this version of etagd: install a later one")]
    Unknown(String),
    /// A value that the flag does not take, or not the number of values that it has.
    #[error("--{name} cannot be {value}: {reason}")]
    Value {
        /// The flag without its dashes.
        name: String,
        /// Its values.
        value: String,
        /// What is wrong with them.
        reason: String,
    },
}

impl Settings {
    /// Each flag that changes answers, with its values. `from_flags` makes the same settings of them,
    /// apart from what a developer sees in addition.
    #[must_use]
    pub fn flags(&self) -> Vec<SettingFlag> {
        let Self {
            last_modified,
            repr_digest,
            html_handling,
            not_found,
            immutable,
            immutable_query,
            redirects,
            listing,
            base_path,
            exclude,
            dictionaries,
            compress,
            additions: _,
        } = self;
        let last_modified = if *last_modified { "mtime" } else { OFF };
        // As in the digest, their order and how often each is there does not count.
        let immutable: BTreeSet<_> = immutable.iter().map(ImmutableFiles::as_str).collect();
        // Also where it is off: only names that both sides have are compared.
        let compress = compress
            .as_ref()
            .map_or_else(|| OFF.to_owned(), ToString::to_string);
        let mut flags = vec![
            SettingFlag::one("last-modified", last_modified),
            SettingFlag::one("repr-digest", repr_digest.as_str()),
            SettingFlag::one("html-handling", html_handling.as_str()),
            SettingFlag::one("not-found", not_found.as_str()),
            SettingFlag::many("immutable", immutable),
            SettingFlag::one("immutable-query", immutable_query),
            SettingFlag::one("redirects", redirects.as_str()),
            SettingFlag::one("base-path", base_path),
            SettingFlag::many("exclude", exclude.as_strs()),
            SettingFlag::many("dictionary", dictionaries.patterns()),
            SettingFlag::one("compress", compress),
        ];
        // As in the digest: without it, all is as it was before there were listings.
        if *listing {
            flags.push(SettingFlag::one("listing", listing));
        }
        flags
    }

    /// Each flag without its dashes, and its value as it would be typed.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, String)> {
        self.flags()
            .into_iter()
            .map(|flag| (flag.name, flag.values.to_string()))
            .collect()
    }

    /// The settings that [`Self::flags`] has made these flags of; the default for a flag that is missing.
    ///
    /// # Errors
    /// When a flag or a value is not known.
    pub fn from_flags(flags: &BTreeMap<String, Vec<String>>) -> Result<Self, InvalidFlags> {
        let mut settings = Self::default();
        for (name, values) in flags {
            let read = FlagReader { name, values };
            match name.as_str() {
                "last-modified" => {
                    settings.last_modified = read.choice(&["mtime", OFF])? == "mtime";
                }
                "repr-digest" => settings.repr_digest = read.one()?,
                "html-handling" => settings.html_handling = read.one()?,
                "not-found" => settings.not_found = read.one()?,
                "immutable" => settings.immutable = read.many()?,
                "immutable-query" => settings.immutable_query = read.one()?,
                "redirects" => settings.redirects = read.one()?,
                "listing" => settings.listing = read.one()?,
                // The whole host is shown as nothing.
                "base-path" if values.iter().all(String::is_empty) => {
                    settings.base_path = BasePath::default();
                }
                "base-path" => settings.base_path = read.one()?,
                "exclude" => {
                    let patterns: Vec<ExcludePattern> = read.many()?;
                    settings.exclude = Arc::new(patterns.into());
                }
                "dictionary" => {
                    let choices: Vec<DictionaryChoice> = read.many()?;
                    settings.dictionaries = choices.into_iter().collect();
                }
                "compress" => settings.compress = read.compression()?,
                _ => return Err(InvalidFlags::Unknown(name.clone())),
            }
        }
        Ok(settings)
    }
}

/// A flag that is being read.
struct FlagReader<'f> {
    name: &'f str,
    values: &'f [String],
}

impl FlagReader<'_> {
    fn invalid(&self, reason: impl ToString) -> InvalidFlags {
        InvalidFlags::Value {
            name: self.name.to_owned(),
            value: listed(self.values),
            reason: reason.to_string(),
        }
    }

    fn only(&self) -> Result<&str, InvalidFlags> {
        match self.values {
            [value] => Ok(value),
            _ => Err(self.invalid("it has one value")),
        }
    }

    fn one<T: FromStr<Err: fmt::Display>>(&self) -> Result<T, InvalidFlags> {
        self.only()?.parse().map_err(|reason| self.invalid(reason))
    }

    fn many<T: FromStr<Err: fmt::Display>>(&self) -> Result<Vec<T>, InvalidFlags> {
        self.values
            .iter()
            .map(|value| value.parse().map_err(|reason| self.invalid(reason)))
            .collect()
    }

    fn choice(&self, choices: &[&'static str]) -> Result<&'static str, InvalidFlags> {
        choice(self.only()?, choices.iter().copied(), |it| it).map_err(|error| self.invalid(error))
    }

    /// `br,gz (etagd-1)`: the name of the policy counts, since it stands for what the encoders give.
    fn compression(&self) -> Result<Option<CompressionPolicy>, InvalidFlags> {
        let value = self.only()?;
        if value == OFF {
            return Ok(None);
        }
        let policy = format!(" ({})", CompressionPolicy::NAME);
        let codings = value.strip_suffix(&policy).ok_or_else(|| {
            self.invalid(format_args!(
                "this version of etagd compresses by the policy {} alone: install the version that \
                 made the release",
                CompressionPolicy::NAME
            ))
        })?;
        codings
            .parse()
            .map(Some)
            .map_err(|reason| self.invalid(reason))
    }
}

/// A text is none of the values that a flag takes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected one of {0}")]
pub struct InvalidChoice(String);

/// The one of `all` that is typed as `text`.
fn choice<T: Copy>(
    text: &str,
    all: impl IntoIterator<Item = T> + Clone,
    as_str: impl Fn(T) -> &'static str,
) -> Result<T, InvalidChoice> {
    let found = all.clone().into_iter().find(|it| as_str(*it) == text);
    found.ok_or_else(|| InvalidChoice(all.into_iter().map(as_str).collect::<Vec<_>>().join(", ")))
}

/// Reads the values of an enum with a method `as_str`.
macro_rules! read_choices {
    ($($type:ident: $($variant:ident),+;)+) => {$(
        impl FromStr for $type {
            type Err = InvalidChoice;

            fn from_str(text: &str) -> Result<Self, InvalidChoice> {
                choice(text, [$(Self::$variant),+], Self::as_str)
            }
        }
    )+};
}

read_choices! {
    HtmlHandling: Suffix, AutoTrailingSlash, ForceTrailingSlash, DropTrailingSlash, None;
    NotFound: None, Page, SinglePageApplication;
    RedirectsDialect: Netlify, Cloudflare;
    ReprDigest: Off, Wanted, Always;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(settings: &Settings) -> BTreeMap<String, Vec<String>> {
        let flags = settings.flags().into_iter();
        flags
            .map(|flag| (flag.name.to_owned(), flag.values().to_vec()))
            .collect()
    }

    fn patterns<T: FromStr<Err: fmt::Debug>>(texts: &[&str]) -> Vec<T> {
        texts.iter().map(|it| it.parse().expect(it)).collect()
    }

    #[test]
    fn what_two_releases_differ_in_is_said_as_it_is_typed() {
        let changes = |old: &Settings, new: &Settings| {
            let changes = setting_changes(&map(old), &map(new));
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            changes.join(", ")
        };
        let plain = Settings::default();
        let full = Settings {
            compress: Some("br,gz".parse().expect("codings")),
            immutable: patterns(&["auto"]),
            listing: true,
            base_path: "/app".parse().expect("a path"),
            ..Settings::default()
        };
        assert_eq!(changes(&full, &full), "");
        assert_eq!(
            changes(&full, &plain),
            "--base-path /app -> none, --compress br,gz (etagd-1) -> off, --immutable auto -> none, \
             --listing true -> false"
        );
        // What an earlier version did not write has its default.
        let all = map(&plain);
        let mut few = all.clone();
        few.remove("compress");
        assert_eq!(setting_changes(&few, &all), []);
        let many = |number: usize| {
            let patterns = (0..number).map(|number| format!("/{number}/**")).collect();
            BTreeMap::from([("exclude".to_owned(), patterns)])
        };
        let change = &setting_changes(&many(1000), &many(1001))[0];
        let change = change.to_string();
        assert!(
            change.len() < 600 && change.contains("(1001 values)"),
            "{change}"
        );
    }

    /// One for each value that a flag may have.
    fn all() -> Vec<Settings> {
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings
        };
        let exclude = |texts: &[&str]| {
            let patterns: Vec<ExcludePattern> = patterns(texts);
            Arc::new(patterns.into())
        };
        let mut all = vec![
            with(&|_| {}),
            with(&|to| to.last_modified = false),
            with(&|to| to.immutable = patterns(&["/a b/**", "auto", "/\"x"])),
            with(&|to| to.immutable_query = true),
            with(&|to| to.redirects = RedirectsDialect::Cloudflare),
            with(&|to| to.listing = true),
            with(&|to| to.base_path = "/a%20b/c".parse().expect("a path")),
            with(&|to| to.exclude = exclude(&["*.map", "!keep.map", "a b"])),
            with(&|to| to.exclude = exclude(&["!keep.map", "*.map"])),
            with(&|to| to.dictionaries = patterns(&["off"]).into_iter().collect()),
            with(&|to| to.dictionaries = patterns(&["/b c", "/a"]).into_iter().collect()),
            with(&|to| to.compress = Some(CompressionPolicy::default())),
            with(&|to| to.compress = "zst".parse().ok()),
        ];
        for repr_digest in [ReprDigest::Wanted, ReprDigest::Always] {
            all.push(with(&|to| to.repr_digest = repr_digest));
        }
        for handling in [
            HtmlHandling::AutoTrailingSlash,
            HtmlHandling::ForceTrailingSlash,
            HtmlHandling::DropTrailingSlash,
            HtmlHandling::None,
        ] {
            all.push(with(&|to| to.html_handling = handling));
        }
        for not_found in [NotFound::None, NotFound::SinglePageApplication] {
            all.push(with(&|to| to.not_found = not_found));
        }
        all
    }

    #[test]
    fn settings_are_what_their_flags_make() {
        let mut seen = BTreeSet::new();
        for settings in all() {
            let flags = map(&settings);
            let again = Settings::from_flags(&flags).expect("settings");
            assert_eq!(map(&again), flags);
            assert_eq!(again.named(), settings.named());
            assert!(seen.insert(format!("{flags:?}")), "{flags:?} twice");
        }
        let default = Settings::from_flags(&BTreeMap::new()).expect("settings");
        assert_eq!(map(&default), map(&Settings::default()));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (name, values, says) in [
            ("colour", &["red"][..], "--colour is not known"),
            (
                "not-found",
                &["x"],
                "--not-found cannot be x: expected one of none, 404-page",
            ),
            ("not-found", &[], "it has one value"),
            ("not-found", &["none", "none"], "it has one value"),
            ("last-modified", &["ctime"], "expected one of mtime, off"),
            ("immutable", &["x"], "expected a path from the root"),
            ("listing", &["2"], "--listing cannot be 2"),
            ("base-path", &["x"], "begins with a slash"),
            (
                "compress",
                &["br,gz (etagd-2)"],
                "by the policy etagd-1 alone",
            ),
            ("compress", &["xz (etagd-1)"], "expected br, zst and gz"),
            ("exclude", &["#"], "expected a pattern"),
        ] {
            let values = values.iter().map(ToString::to_string).collect();
            let flags = BTreeMap::from([(name.to_owned(), values)]);
            let error = Settings::from_flags(&flags).expect_err(name).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn no_two_lists_read_the_same() {
        let lists: [&[&str]; 8] = [
            &[],
            &[""],
            &["a", "b"],
            &["a b"],
            &["\"a", "b\""],
            &["\"a b\""],
            &["a\nb"],
            &["a\\nb"],
        ];
        let read = lists.map(|list| {
            let values: Vec<_> = list.iter().map(ToString::to_string).collect();
            listed(&values)
        });
        let different: BTreeSet<_> = read.iter().collect();
        assert_eq!(different.len(), lists.len(), "{read:?}");
        assert_eq!(read[2], "a b");
    }
}
