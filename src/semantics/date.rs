//! HTTP-date (RFC 9110 5.6.7): whole seconds, read in three formats, written as IMF-fixdate.
//!
//! The calendar is [`httpdate`]'s; this type keeps its panics out of reach. Refused: years before
//! 1970 and after 9999, a day that its month does not have, a weekday that is not that day's, a
//! leap second, anything before or after the date but OWS. A two-digit year of the obsolete
//! RFC 850 form falls in 1970 to 2069: the sliding window of 5.6.7 would need a clock.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, UNIX_EPOCH};

use super::trim_ows;

/// A moment as HTTP knows it (RFC 9110 5.6.7), in 1970 to 9999.
///
/// Seconds after the epoch, and one more: so an `Option` of it takes no more room, of which a site of
/// a million files has two million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HttpDate(NonZeroU64);

impl HttpDate {
    /// The date this many seconds after the epoch; `None` where an IMF-fixdate cannot say it, which is
    /// before 1970 and from the year 10000 on (RFC 9110 5.6.7: `year = 4DIGIT`).
    #[must_use]
    pub fn from_unix(seconds: i64) -> Option<Self> {
        Self::new(u64::try_from(seconds).ok()?)
    }

    fn new(seconds: u64) -> Option<Self> {
        let is_in_time = seconds < YEAR_10000;
        is_in_time.then_some(Self(NonZeroU64::MIN.saturating_add(seconds)))
    }

    /// Reads IMF-fixdate, RFC 850 or asctime form (RFC 9110 5.6.7).
    ///
    /// ```abnf
    /// HTTP-date    = IMF-fixdate / obs-date
    /// IMF-fixdate  = day-name "," SP date1 SP time-of-day SP GMT
    /// obs-date     = rfc850-date / asctime-date
    /// ```
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = trim_ows(value);
        // `httpdate` trims more than OWS; its forms begin with a letter and end alphanumeric.
        if !(value.first()?.is_ascii_alphabetic() && value.last()?.is_ascii_alphanumeric()) {
            return None;
        }
        let time = httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()?;
        Self::new(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
    }

    /// Seconds after the epoch.
    #[must_use]
    pub const fn unix(self) -> u64 {
        self.0.get() - 1
    }
}

/// IMF-fixdate, the only form to generate (RFC 9110 5.6.7).
impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH
            .checked_add(Duration::from_secs(self.unix()))
            .ok_or(fmt::Error)?;
        // Does not panic: `new` holds it below the year 10000.
        httpdate::HttpDate::from(time).fmt(f)
    }
}

/// 10000-01-01 00:00:00 UTC; `httpdate` panics from here on.
const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: u64 = 784_111_777;

    #[test]
    fn parse() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], Option<u64>)] = &[
            ("5.6.7 IMF-fixdate", b"Sun, 06 Nov 1994 08:49:37 GMT", Some(RFC)),
            ("5.6.7 RFC 850", b"Sunday, 06-Nov-94 08:49:37 GMT", Some(RFC)),
            ("5.6.7 asctime", b"Sun Nov  6 08:49:37 1994", Some(RFC)),
            ("5.6.7 asctime, two-digit day", b"Wed Nov 16 08:49:37 1994", Some(RFC + 864_000)),
            ("5.6.7 asctime, zero for space", b"Sun Nov 06 08:49:37 1994", Some(RFC)),
            ("5.6.7 epoch", b"Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("5.6.7 last second", b"Fri, 31 Dec 9999 23:59:59 GMT", Some(YEAR_10000 - 1)),
            ("5.6.7 leap day", b"Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("5.6.7 leap day of a century", b"Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400)),
            ("5.6.7 69 is 2069", b"Tuesday, 01-Jan-69 00:00:00 GMT", Some(3_124_224_000)),
            ("5.6.7 RFC 850, 70 is 1970", b"Thursday, 01-Jan-70 00:00:00 GMT", Some(0)),
            ("5.6.7 RFC 850, longest", b"Wednesday, 09-Nov-94 08:49:37 GMT", Some(RFC + 3 * 86_400)),
            ("5.6.3 OWS around", b" \tSun, 06 Nov 1994 08:49:37 GMT\t ", Some(RFC)),
            ("5.6.7 empty", b"", None),
            ("5.6.7 only OWS", b" \t ", None),
            ("5.6.7 zero", b"0", None),
            ("5.6.7 minus one", b"-1", None),
            ("5.6.7 seconds", b"784111777", None),
            ("5.6.7 word", b"yesterday", None),
            ("5.6.7 before 1970", b"Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("5.6.7 year 0000", b"Sat, 01 Jan 0000 00:00:00 GMT", None),
            ("5.6.7 asctime before 1970", b"Wed Dec 31 23:59:59 1969", None),
            ("5.6.7 five-digit year", b"Sat, 01 Jan 10000 00:00:00 GMT", None),
            ("5.6.7 no day 30 in February", b"Fri, 30 Feb 2024 00:00:00 GMT", None),
            ("5.6.7 no leap day in 2023", b"Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("5.6.7 no leap day in 2100", b"Mon, 29 Feb 2100 00:00:00 GMT", None),
            ("5.6.7 no day 31 in November", b"Thu, 31 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 day 32", b"Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 day 00", b"Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 last day of 9999 and one", b"Sat, 32 Dec 9999 00:00:00 GMT", None),
            ("5.6.7 weekday is another", b"Mon, 06 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 RFC 850, weekday is another", b"Monday, 06-Nov-94 08:49:37 GMT", None),
            ("5.6.7 asctime, weekday is another", b"Mon Nov  6 08:49:37 1994", None),
            ("5.6.7 leap second", b"Sat, 31 Dec 2016 23:59:60 GMT", None),
            ("5.6.7 second 61", b"Sun, 06 Nov 1994 08:49:61 GMT", None),
            ("5.6.7 minute 60", b"Sun, 06 Nov 1994 08:60:37 GMT", None),
            ("5.6.7 hour 24", b"Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("5.6.7 trailing bytes", b"Sun, 06 Nov 1994 08:49:37 GMT; length=5", None),
            ("5.6.7 trailing comma", b"Sun, 06 Nov 1994 08:49:37 GMT,", None),
            ("5.6.7 two dates", b"Sun, 06 Nov 1994 08:49:37 GMT, Mon, 07 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 trailing form feed", b"Sun, 06 Nov 1994 08:49:37 GMT\x0c", None),
            ("5.6.7 leading newline", b"\nSun, 06 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 other zone", b"Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("5.6.7 offset for GMT", b"Sun, 06 Nov 1994 08:49:37 +0000", None),
            ("5.6.7 no zone", b"Sun, 06 Nov 1994 08:49:37", None),
            ("5.6.7 case of the zone", b"Sun, 06 Nov 1994 08:49:37 gmt", None),
            ("5.6.7 case of the month", b"Sun, 06 NOV 1994 08:49:37 GMT", None),
            ("5.6.7 one-digit day", b"Sun, 6 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 no comma", b"Sun 06 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 quoted", b"\"Sun, 06 Nov 1994 08:49:37 GMT\"", None),
            ("5.6.7 sign in a number", b"Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("5.6.7 ISO 8601", b"1994-11-06T08:49:37Z", None),
            ("5.6.7 obs-text", b"Sun, 06 Nov 1994 08:49:37 GM\xd4", None),
            ("5.6.7 UTF-8 of the right length", "Sün, 06 Nov 199 08:49:37 GMT".as_bytes(), None),
            ("5.6.7 NUL", b"Sun, 06 Nov 1994 08:49:37 GM\0", None),
            ("5.6.7 shortest RFC 850", b"Sunday, 06-Nov-94 08:49", None),
        ];
        for (name, value, want) in cases {
            assert_eq!(HttpDate::parse(value).map(HttpDate::unix), *want, "{name}");
        }
    }

    #[test]
    fn display_and_back() {
        #[rustfmt::skip]
        let cases = [
            ("5.6.7 epoch", 0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("5.6.7 the RFC's example", 784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("5.6.7 leap day", 951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            ("5.6.7 2^31", 2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            ("5.6.7 last second", 253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (name, seconds, want) in cases {
            let date = HttpDate::from_unix(seconds).unwrap();
            assert_eq!(date.to_string(), want, "{name}");
            assert_eq!(HttpDate::parse(want.as_bytes()), Some(date), "{name}");
        }
    }

    #[test]
    fn dates_that_cannot_be_written() {
        for seconds in [-1, -86_400, i64::MIN, 253_402_300_800, i64::MAX] {
            assert_eq!(HttpDate::from_unix(seconds), None, "5.6.7 {seconds}");
        }
    }

    #[test]
    fn hostile_cuts_and_changes() {
        let forms = [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Wednesday, 09-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ];
        for form in forms {
            for cut in 0..form.len() {
                assert_eq!(
                    HttpDate::parse(&form.as_bytes()[..cut]),
                    None,
                    "5.6.7 {form} {cut}"
                );
                for byte in 0..=255 {
                    let mut changed = form.as_bytes().to_vec();
                    changed[cut] = byte;
                    if let Some(date) = HttpDate::parse(&changed) {
                        assert_eq!(HttpDate::parse(date.to_string().as_bytes()), Some(date));
                    }
                }
            }
        }
    }
}
