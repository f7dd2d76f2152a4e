//! Values of flags: parsed once, into types that cannot be wrong.

use std::time::Duration;

use bytesize::ByteSize;

/// `10s`, `1m 30s`, `100ms`; so long that no clock overflows, and longer than anybody waits.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST {
        return Err("ten years are the most".to_owned());
    }
    Ok(duration)
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("more than 0 is needed".to_owned()),
        duration => Ok(duration),
    }
}

pub(super) fn workers(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number if number > 1024 => Err("1024 are the most".to_owned()),
        number => Ok(number),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("a whole number is expected".to_owned()),
    }
}

pub(super) fn header_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if (8 << 10..=1 << 20).contains(&size.as_u64()) {
        Ok(size)
    } else {
        Err("from 8KiB to 1MiB is accepted".to_owned())
    }
}
