//! Releases: the records of a channel, each of which names what the site is from then on.

use std::fmt;
use std::time::SystemTime;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::layout::{BlobHash, FORMAT_VERSION};

/// One release of a channel. Its record is created once and never changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The version of the layout.
    pub format: u32,
    /// Its number in the channel, from 1.
    pub number: u64,
    /// What tells it from the release with the same number that somebody else wanted to make.
    pub id: String,
    /// The site digest.
    pub digest: BlobHash,
    /// The listing of its files: the hash of that object.
    pub manifest: BlobHash,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they have, without their codings.
    pub bytes: u64,
    /// The release that was the newest when this one was made.
    pub previous: Option<u64>,
    /// When it was made, by the clock of who made it.
    pub at: ReleaseTime,
    /// Who made it.
    pub who: String,
    /// What they had to say about it.
    #[serde(default)]
    pub note: String,
    /// The release that it brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<u64>,
}

/// A moment in whole seconds. Displays as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReleaseTime(SystemTime);

impl From<SystemTime> for ReleaseTime {
    fn from(time: SystemTime) -> Self {
        // RFC 3339 can't say what was before 1970.
        Self(time.max(SystemTime::UNIX_EPOCH))
    }
}

impl From<ReleaseTime> for SystemTime {
    fn from(time: ReleaseTime) -> Self {
        time.0
    }
}

impl fmt::Display for ReleaseTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(self.0).fmt(f)
    }
}

impl Serialize for ReleaseTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReleaseTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text).map_err(de::Error::custom)?;
        Ok(time.into())
    }
}

/// Why an object is no release.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It was made by a later version.
    #[error(
        "it has format {0}, and this version of etagd reads {FORMAT_VERSION}: install a later one"
    )]
    Format(u32),
    /// It is no record, or a damaged one.
    #[error("it is no release ({0}): it was not written by etagd, or is damaged")]
    Content(#[from] serde_json::Error),
    /// It is the record of another release.
    #[error("it is the record of release {0}: the store has mixed up its objects")]
    Number(u64),
}

/// What is read first, so that a later form is refused for its version.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Refuses JSON of another version of the layout.
fn format_of(bytes: &[u8]) -> Result<u32, serde_json::Error> {
    serde_json::from_slice::<FormatOnly>(bytes).map(|it| it.format)
}

impl ReleaseRecord {
    /// The longest record that is read. A note of some kilobytes is no use to anybody.
    pub const MAX_LENGTH: u64 = 64 << 10;

    /// Reads the record of the release with this number.
    ///
    /// # Errors
    /// When it is another one, or none.
    pub fn read(bytes: &[u8], number: u64) -> Result<Self, RecordError> {
        let format = format_of(bytes)?;
        if format != FORMAT_VERSION {
            return Err(RecordError::Format(format));
        }
        let record: Self = serde_json::from_slice(bytes)?;
        if record.number != number {
            return Err(RecordError::Number(record.number));
        }
        Ok(record)
    }

    /// As it is stored.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and numbers can be written, and memory takes them.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ReleaseRecord {
        ReleaseRecord {
            format: FORMAT_VERSION,
            number: 42,
            id: "a1b2".to_owned(),
            digest: BlobHash::of(b"digest"),
            manifest: BlobHash::of(b"listing"),
            files: 3,
            bytes: 1000,
            previous: Some(41),
            at: humantime::parse_rfc3339("2026-11-29T12:00:00Z")
                .expect("a time")
                .into(),
            who: "ci@example".to_owned(),
            note: "it's \"new\"".to_owned(),
            rollback_to: None,
        }
    }

    #[test]
    fn records_are_read_back() {
        for record in [
            record(),
            ReleaseRecord {
                previous: None,
                rollback_to: Some(7),
                note: String::new(),
                ..record()
            },
        ] {
            let json = record.to_json();
            assert_eq!(ReleaseRecord::read(&json, 42).expect("a record"), record);
        }
        let json = String::from_utf8(record().to_json()).expect("text");
        assert!(json.starts_with("{\"format\":1,\"number\":42,"), "{json}");
        assert!(json.contains("\"at\":\"2026-11-29T12:00:00Z\""), "{json}");
    }

    #[test]
    fn what_later_versions_add_is_ignored_and_what_they_change_is_refused() {
        let json = String::from_utf8(record().to_json()).expect("text");
        let more = json.replacen('{', "{\"colour\":\"red\",", 1);
        let read = ReleaseRecord::read(more.as_bytes(), 42);
        assert_eq!(read.expect("a record"), record());
        let says = |json: &str| {
            let error = ReleaseRecord::read(json.as_bytes(), 42).expect_err("an error");
            error.to_string()
        };
        assert!(says("{\"format\":2,\"x\":1}").contains("format 2"));
        assert!(says("").contains("no release"));
        assert!(says(&json[..json.len() / 2]).contains("no release"));
        assert!(says(&json.replace("42", "43")).contains("release 43"));
    }
}
