//! Where the objects of a store are: pure names. `docs/STORE.md` is about them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::settings::Channel;

/// The version of the layout, of releases and of listings.
pub const FORMAT_VERSION: u32 = 1;
/// Below it, the bytes of representations.
pub const BLOBS: &str = "blobs";
/// Below it, the trees of long blobs.
pub const TREES: &str = "trees";
/// Below it, what each release has.
pub const LISTINGS: &str = "manifests";
/// Below it, the channels.
pub const CHANNELS: &str = "channels";
/// Below it, who is publishing, and who is collecting what nobody needs.
pub const LOCKS: &str = "locks";
/// Below it, what finds out whether the store can be relied on.
pub const PROBES: &str = "probe";
/// The object of a channel that says which release is the newest, as far as its writer knew.
const HINT: &str = "latest";
/// What follows the hash in the name of a listing.
const LISTING_SUFFIX: &str = ".json.zst";
/// Digits of a release's number, so that the order of names is that of numbers.
const NUMBER_DIGITS: usize = 20;
/// The largest number of a release: there is always one more.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

/// A BLAKE3 hash, which is the name of what has it. Displays in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; 32]);

impl BlobHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// This hash.
    #[must_use]
    pub const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no hash in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected 64 hex digits in lower case")]
pub struct InvalidBlobHash;

impl FromStr for BlobHash {
    type Err = InvalidBlobHash;

    fn from_str(text: &str) -> Result<Self, InvalidBlobHash> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| InvalidBlobHash)?;
        // One spelling for one hash: it is an object's name.
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        is_lower
            .then_some(Self(*hash.as_bytes()))
            .ok_or(InvalidBlobHash)
    }
}

impl Serialize for BlobHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The name of an object, from the prefix of the store on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The object with this name, as a store has listed it.
    pub(super) fn listed(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The bytes of one representation.
#[must_use]
pub fn blob(hash: &BlobHash) -> ObjectKey {
    let hash = hash.to_string();
    ObjectKey(format!("{BLOBS}/{}/{hash}", &hash[..2]))
}

/// The chaining values of the groups of a long blob, 32 bytes each.
#[must_use]
pub fn tree(hash: &BlobHash) -> ObjectKey {
    let hash = hash.to_string();
    ObjectKey(format!("{TREES}/{}/{hash}", &hash[..2]))
}

/// What a release has, named by the hash of the object itself.
#[must_use]
pub fn listing(hash: &BlobHash) -> ObjectKey {
    ObjectKey(format!("{LISTINGS}/{hash}{LISTING_SUFFIX}"))
}

/// A release of a channel. Who creates this object has published.
#[must_use]
pub fn release(channel: &Channel, number: u64) -> ObjectKey {
    ObjectKey(format!(
        "{CHANNELS}/{channel}/{number:0width$}",
        width = NUMBER_DIGITS
    ))
}

/// What names the newest release of a channel, and may be out of date.
#[must_use]
pub fn hint(channel: &Channel) -> ObjectKey {
    ObjectKey(format!("{CHANNELS}/{channel}/{HINT}"))
}

/// The folder of a channel.
#[must_use]
pub fn channel(channel: &Channel) -> String {
    format!("{CHANNELS}/{channel}")
}

/// What a probe makes and removes again.
#[must_use]
pub fn probe(id: &str) -> ObjectKey {
    ObjectKey(format!("{PROBES}/{id}"))
}

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// A publisher that is about to make a release.
    Push,
    /// A collector that deletes what no release needs.
    Collect,
}

impl LockKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Push => "push-",
            Self::Collect => "gc-",
        }
    }

    /// Whether an object is a lock of this kind.
    #[must_use]
    pub fn has(self, key: &ObjectKey) -> bool {
        key.as_str().starts_with(LOCKS) && key.file_name().starts_with(self.prefix())
    }
}

/// The lock of a publisher or collector that calls itself `id`.
#[must_use]
pub fn lock(kind: LockKind, id: &str) -> ObjectKey {
    ObjectKey(format!("{LOCKS}/{}{id}", kind.prefix()))
}

/// The hash in the name of a blob or a tree, or of a listing.
#[must_use]
pub fn hash_of(key: &ObjectKey) -> Option<BlobHash> {
    let name = key.file_name();
    name.strip_suffix(LISTING_SUFFIX)
        .unwrap_or(name)
        .parse()
        .ok()
}

/// The channel and the number of a release.
#[must_use]
pub fn release_of(key: &ObjectKey) -> Option<(Channel, u64)> {
    let (channel, digits) = key
        .as_str()
        .strip_prefix(CHANNELS)?
        .strip_prefix('/')?
        .split_once('/')?;
    let is_number = digits.len() == NUMBER_DIGITS && digits.bytes().all(|it| it.is_ascii_digit());
    is_number.then_some(())?;
    let number = digits.parse().ok().filter(|it| *it <= MAX_NUMBER)?;
    Some((channel.parse().ok()?, number))
}

/// The channel that an object is the hint of.
#[must_use]
pub fn channel_of_hint(key: &ObjectKey) -> Option<Channel> {
    let name = key.as_str().strip_prefix(CHANNELS)?;
    let (channel, name) = name.strip_prefix('/')?.split_once('/')?;
    channel.parse().ok().filter(|_| name == HINT)
}

/// Whether an object is the hint of a channel.
#[must_use]
pub fn is_hint(key: &ObjectKey) -> bool {
    channel_of_hint(key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let hash = BlobHash::of(b"");
        let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(hash.to_string(), hex);
        let live = Channel::default();
        for (key, name) in [
            (blob(&hash), format!("blobs/af/{hex}")),
            (tree(&hash), format!("trees/af/{hex}")),
            (listing(&hash), format!("manifests/{hex}.json.zst")),
            (
                release(&live, 42),
                "channels/live/00000000000000000042".to_owned(),
            ),
            (
                release(&live, u64::MAX),
                "channels/live/18446744073709551615".to_owned(),
            ),
            (hint(&live), "channels/live/latest".to_owned()),
            (lock(LockKind::Push, "a1"), "locks/push-a1".to_owned()),
            (lock(LockKind::Collect, "a1"), "locks/gc-a1".to_owned()),
        ] {
            assert_eq!(key.as_str(), name);
        }
    }

    #[test]
    fn names_are_read_back() {
        let hash = BlobHash::of(b"x");
        for key in [blob(&hash), tree(&hash), listing(&hash)] {
            assert_eq!(hash_of(&key), Some(hash), "{key}");
        }
        let channel: Channel = "pr-17".parse().expect("a channel");
        let release = release(&channel, 7);
        assert_eq!(release_of(&release), Some((channel.clone(), 7)));
        assert_eq!(release_of(&hint(&channel)), None);
        for other in [
            "channels/live/7",
            "channels/live/0000000000000000004x",
            "channels/live/18446744073709551615",
            "channels/Live/00000000000000000001",
            "x",
        ] {
            assert_eq!(release_of(&ObjectKey::listed(other)), None, "{other}");
        }
        assert_eq!(hash_of(&ObjectKey::listed("blobs/af/AF")), None);
        assert!(LockKind::Push.has(&lock(LockKind::Push, "1")));
        assert!(!LockKind::Push.has(&lock(LockKind::Collect, "1")));
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hex = BlobHash::of(b"x").to_string();
        assert_eq!(hex.parse(), Ok(BlobHash::of(b"x")));
        for wrong in [&hex.to_uppercase(), &hex[1..], "", "x"] {
            assert_eq!(wrong.parse::<BlobHash>(), Err(InvalidBlobHash), "{wrong}");
        }
    }
}
