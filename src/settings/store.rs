//! Where releases are kept: the URL of a store, and the channels in it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The most characters that the name of a channel has.
const MAX_CHANNEL_LENGTH: usize = 64;
/// The scheme of a bucket.
const S3: &str = "s3://";
/// The scheme of a folder.
const FILE: &str = "file://";

/// Where a store is: `s3://BUCKET/PREFIX`, or `file:///FOLDER`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum StoreUrl {
    /// A bucket of an S3-compatible store.
    S3 {
        /// Its name.
        bucket: String,
        /// What the names of all objects begin with, without a slash at either end; perhaps nothing.
        prefix: String,
    },
    /// A folder: of this machine, or one that several machines have mounted.
    Folder(PathBuf),
}

impl StoreUrl {
    /// Whether a text is meant to be the URL of a store, rather than a folder or a server.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        [S3, FILE]
            .iter()
            .any(|scheme| text.starts_with(scheme.trim_end_matches('/')))
    }
}

/// As it is typed.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "{S3}{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "{S3}{bucket}/{prefix}"),
            Self::Folder(path) => match url::Url::from_file_path(path) {
                Ok(url) => write!(f, "{url}"),
                // Only a relative path has no URL, and none is taken.
                Err(()) => write!(f, "{FILE}{}", path.display()),
            },
        }
    }
}

/// Why a text is no [`StoreUrl`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidStoreUrl {
    /// Another scheme, or none.
    #[error("expected s3://BUCKET, s3://BUCKET/PREFIX or file:///FOLDER")]
    Scheme,
    /// The path of a folder.
    #[error("expected s3://BUCKET, s3://BUCKET/PREFIX or file:///FOLDER: for this folder, {0}")]
    Path(StoreUrl),
    /// A name that no bucket has.
    #[error(
        "{0:?} is not the name of a bucket: expected 3 to 63 letters, digits, dots and hyphens, as in s3://BUCKET/PREFIX"
    )]
    Bucket(String),
    /// A prefix that is spelt differently by different programs.
    #[error(
        "{0:?} is not a prefix: expected names of letters, digits and - _ . = with one slash between them"
    )]
    Prefix(String),
    /// `file://` with a host, or with a relative path.
    #[error("expected the absolute path of a folder after file://, as in file:///srv/releases")]
    Folder,
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, InvalidStoreUrl> {
        if let Some(rest) = text.strip_prefix(S3) {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            if !is_bucket(bucket) {
                return Err(InvalidStoreUrl::Bucket(bucket.to_owned()));
            }
            if !prefix.is_empty() && !prefix.split('/').all(is_segment) {
                return Err(InvalidStoreUrl::Prefix(prefix.to_owned()));
            }
            return Ok(Self::S3 {
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
            });
        }
        if !text.starts_with(FILE) {
            let is_path = text.starts_with('/') && text != "/";
            return Err(match is_path {
                true => InvalidStoreUrl::Path(Self::Folder(text.into())),
                false => InvalidStoreUrl::Scheme,
            });
        }
        let url = url::Url::parse(text).map_err(|_| InvalidStoreUrl::Folder)?;
        let is_plain = url.host().is_none() && url.query().is_none() && url.fragment().is_none();
        match url.to_file_path() {
            Ok(path) if is_plain && path != Path::new("/") => {
                // Without the slash that it may end with.
                Ok(Self::Folder(path.components().collect()))
            }
            _ => Err(InvalidStoreUrl::Folder),
        }
    }
}

/// Stores differ in which names they take; each takes some of these.
fn is_bucket(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (3..=63).contains(&name.len()) && name.bytes().all(is_allowed) && !name.starts_with('.')
}

fn is_segment(name: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'=');
    !matches!(name, "" | "." | "..") && name.bytes().all(is_allowed)
}

/// The name of a list of releases: `live`, `pr-17`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Channel(Box<str>);

impl Channel {
    /// As it is typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Channel {
    /// What is served where nobody says which channel.
    fn default() -> Self {
        Self("live".into())
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is no [`Channel`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "expected up to {MAX_CHANNEL_LENGTH} small letters, digits and . _ - that begin with a letter or digit, such as live or pr-17"
)]
pub struct InvalidChannel;

impl FromStr for Channel {
    type Err = InvalidChannel;

    fn from_str(text: &str) -> Result<Self, InvalidChannel> {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_allowed = |byte: u8| is_letter(byte) || matches!(byte, b'.' | b'_' | b'-');
        let begins_well = text.bytes().next().is_some_and(is_letter);
        let is_name =
            begins_well && text.len() <= MAX_CHANNEL_LENGTH && text.bytes().all(is_allowed);
        is_name.then(|| Self(text.into())).ok_or(InvalidChannel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_stores() {
        for (text, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            (
                "s3://my-bucket.x/sites/a_b=c/",
                "s3://my-bucket.x/sites/a_b=c",
            ),
            ("file:///srv/releases", "file:///srv/releases"),
            ("file:///srv/releases/", "file:///srv/releases"),
            ("file://localhost/srv", "file:///srv"),
            ("file:///a%20b", "file:///a%20b"),
            ("file:///a b", "file:///a%20b"),
        ] {
            let url: StoreUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(url.to_string().parse().as_ref(), Ok(&url), "{text}");
        }
        assert_eq!("file:///a%20b".parse(), Ok(StoreUrl::Folder("/a b".into())));
        for wrong in [
            "",
            "s3:",
            "s3://",
            "s3://a",
            "s3:///x",
            "s3://a b/c",
            "s3://.bucket",
            "s3://bucket//x",
            "s3://bucket/a//b",
            "s3://bucket/../x",
            "s3://bucket/a?b",
            "s3://bucket/ä",
            "s3://key:secret@bucket/x",
            "file://",
            "file:///",
            "file://host/x",
            "file://relative",
            "file:x",
            "http://a",
            "/srv",
            "gs://bucket",
            "S3://bucket",
        ] {
            assert!(wrong.parse::<StoreUrl>().is_err(), "{wrong}");
        }
        for (text, is_meant) in [
            ("s3://bucket", true),
            ("s3:bucket", true),
            ("file:/x", true),
            ("http://a", false),
            ("public", false),
        ] {
            assert_eq!(StoreUrl::is_meant(text), is_meant, "{text}");
        }
    }

    #[test]
    fn channels() {
        let longest = "a".repeat(MAX_CHANNEL_LENGTH);
        for name in ["live", "pr-17", "0", "a.b_c", &longest] {
            assert_eq!(
                name.parse::<Channel>().map(|it| it.to_string()),
                Ok(name.to_owned())
            );
        }
        let too_long = "a".repeat(MAX_CHANNEL_LENGTH + 1);
        for wrong in ["", "-a", ".", "..", "a/b", "Live", "ä", "a b", &too_long] {
            assert_eq!(wrong.parse::<Channel>(), Err(InvalidChannel), "{wrong}");
        }
    }
}
