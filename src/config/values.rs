//! Values of flags: parsed once, into types that cannot be wrong.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use humantime::DurationError;

use crate::settings::{CompressionPolicy, InvalidPolicy};

/// What `BoolishValueParser` takes for true, as people write it: a flag that is on may need another
/// one. clap compares letter by letter, since a flag without a value can't ignore case.
pub(super) const TRUE_WORDS: [&str; 14] = [
    "true", "True", "TRUE", "t", "T", "yes", "Yes", "YES", "y", "Y", "on", "On", "ON", "1",
];
/// The same for false.
const FALSE_WORDS: [&str; 14] = [
    "false", "False", "FALSE", "f", "F", "no", "No", "NO", "n", "N", "off", "Off", "OFF", "0",
];
/// Far longer than anyone waits, and short enough that no clock overflows.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Threads or connections at once.
const MAX_THREADS: usize = 1024;
/// Uploads at once: each has a descriptor, and a semaphore of tokio can't count much further.
const MAX_UPLOADS: usize = 1 << 20;
/// hyper panics below 8 KiB (`max_buf_size`), and no client sends a megabyte of header fields.
const HEADER_SIZES: RangeInclusive<u64> = 8 << 10..=1 << 20;

/// Why a value is refused; clap adds the flag and the value.
#[derive(PartialEq, Debug, thiserror::Error)]
pub(super) enum InvalidValue {
    #[error("expected a time such as 100ms, 10s, 1m 30s or 7d")]
    NotATime,
    #[error("expected a port, 0 to 65535")]
    NotAPort,
    #[error("must be at most 10 years")]
    TooLong,
    #[error("must be greater than zero")]
    Zero,
    #[error("must be at least 1")]
    TooFew,
    #[error("must be at most {MAX_THREADS}")]
    TooMany,
    #[error("must be at most {MAX_UPLOADS}")]
    TooManyUploads,
    #[error("expected a whole number")]
    NotANumber,
    #[error("expected the number of a release: etagd releases lists them")]
    NotARelease,
    #[error("expected a size such as 512MiB")]
    NotASize,
    #[error("must be between 8KiB and 1MiB")]
    HeaderSize,
}

/// `10s`, `1m 30s`, `100ms`.
pub(super) fn duration(text: &str) -> Result<Duration, InvalidValue> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        Ok(_) | Err(DurationError::NumberOverflow) => Err(InvalidValue::TooLong),
        Err(_) => Err(InvalidValue::NotATime),
    }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, InvalidValue> {
    match duration(text)? {
        Duration::ZERO => Err(InvalidValue::Zero),
        duration => Ok(duration),
    }
}

pub(super) fn port(text: &str) -> Result<u16, InvalidValue> {
    text.parse().map_err(|_| InvalidValue::NotAPort)
}

pub(super) fn positive_port(text: &str) -> Result<u16, InvalidValue> {
    match port(text)? {
        0 => Err(InvalidValue::Zero),
        port => Ok(port),
    }
}

pub(super) fn threads(text: &str) -> Result<usize, InvalidValue> {
    match at_least_one(text)? {
        number if number > MAX_THREADS => Err(InvalidValue::TooMany),
        number => Ok(number),
    }
}

pub(super) fn uploads(text: &str) -> Result<usize, InvalidValue> {
    match at_least_one(text)? {
        number if number > MAX_UPLOADS => Err(InvalidValue::TooManyUploads),
        number => Ok(number),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, InvalidValue> {
    match text.parse() {
        Ok(0) => Err(InvalidValue::TooFew),
        Ok(number) => Ok(number),
        Err(_) => Err(InvalidValue::NotANumber),
    }
}

/// The number of a release.
pub(super) fn release_number(text: &str) -> Result<u64, InvalidValue> {
    match release_or_none(text)? {
        0 => Err(InvalidValue::NotARelease),
        number => Ok(number),
    }
}

/// The number of a release, or 0 for none.
pub(super) fn release_or_none(text: &str) -> Result<u64, InvalidValue> {
    text.parse().map_err(|_| InvalidValue::NotARelease)
}

/// `512MiB`, `2G`, or a number of bytes.
pub(super) fn size(text: &str) -> Result<ByteSize, InvalidValue> {
    text.parse().map_err(|_| InvalidValue::NotASize)
}

/// The value of `--compress`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compress {
    /// Nothing is compressed.
    Off,
    /// What the policy says.
    On(CompressionPolicy),
}

/// `br,gz`; or a word for true, as `--compress` alone and `ETAGD_COMPRESS=1` have it, or for false.
pub(super) fn compress(text: &str) -> Result<Compress, InvalidPolicy> {
    if TRUE_WORDS.contains(&text) {
        return Ok(Compress::On(CompressionPolicy::default()));
    }
    if FALSE_WORDS.contains(&text) {
        return Ok(Compress::Off);
    }
    text.parse().map(Compress::On)
}

pub(super) fn header_size(text: &str) -> Result<ByteSize, InvalidValue> {
    let size = size(text)?;
    match HEADER_SIZES.contains(&size.as_u64()) {
        true => Ok(size),
        false => Err(InvalidValue::HeaderSize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(parsed: Result<T, impl std::error::Error>) -> String {
        parsed
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn codings_to_make() {
        for on in ["on", "1", "true", "br,gz"] {
            let policy = CompressionPolicy::default();
            assert_eq!(compress(on), Ok(Compress::On(policy)), "{on}");
        }
        for off in ["off", "0", "false"] {
            assert_eq!(compress(off), Ok(Compress::Off), "{off}");
        }
        assert_eq!(
            refusal(compress("gzip")),
            "expected br, zst and gz, with commas between them, or off"
        );
    }

    #[test]
    fn a_refusal_says_what_is_accepted() {
        assert_eq!(refusal(duration("11years")), "must be at most 10 years");
        for bad in ["", "x", "10", "10 parsecs", "-1s"] {
            let expected = "expected a time such as 100ms, 10s, 1m 30s or 7d";
            assert_eq!(refusal(duration(bad)), expected, "{bad:?}");
        }
        let beyond = "99999999999999999999999s";
        assert_eq!(refusal(duration(beyond)), "must be at most 10 years");
        for bad in ["", "abc", "-1", "65536", ":80"] {
            assert_eq!(refusal(port(bad)), "expected a port, 0 to 65535", "{bad:?}");
        }
        assert_eq!(port("0"), Ok(0));
        assert_eq!(refusal(positive_port("0")), "must be greater than zero");
        assert_eq!(positive_port("8443"), Ok(8443));
        assert_eq!(
            refusal(positive_duration("0s")),
            "must be greater than zero"
        );
        assert_eq!(refusal(threads("1025")), "must be at most 1024");
        assert_eq!(refusal(at_least_one("0")), "must be at least 1");
        assert_eq!(refusal(at_least_one("x")), "expected a whole number");
        for bad in ["0", "-1", "abc", ""] {
            let expected = "expected the number of a release: etagd releases lists them";
            assert_eq!(refusal(release_number(bad)), expected, "{bad:?}");
        }
        assert_eq!(release_number("7"), Ok(7));
        assert_eq!(release_or_none("0"), Ok(0));
        assert_eq!(refusal(size("abc")), "expected a size such as 512MiB");
        assert_eq!(
            refusal(header_size("4KiB")),
            "must be between 8KiB and 1MiB"
        );
        assert_eq!(size("2KiB"), Ok(ByteSize::kib(2)));
        assert_eq!(threads("1024"), Ok(1024));
        for number in ["1048577", "2305843009213693952", "18446744073709551615"] {
            assert_eq!(refusal(uploads(number)), "must be at most 1048576");
        }
        assert_eq!(uploads("1048576"), Ok(1 << 20));
    }
}
