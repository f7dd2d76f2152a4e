//! HTTP-date: what is read is written as one IMF-fixdate, which reads as the same moment, and the
//! calendar is the proleptic Gregorian one.
//!
//! Input: the value of a date field; its first eight bytes also serve as a number of seconds.
#![no_main]

use etagd::semantics::date::HttpDate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(date) = HttpDate::parse(input) {
        check(date);
    }
    if let Some(seconds) = input.first_chunk() {
        let seconds = i64::from_le_bytes(*seconds);
        match HttpDate::from_unix(seconds) {
            Some(date) => check(date),
            None => assert!(!(0..253_402_300_800).contains(&seconds)),
        }
        // Most numbers of 64 bits are no date; all of 37 are.
        let seconds = seconds & ((1 << 37) - 1);
        check(HttpDate::from_unix(seconds).expect("before the year 10000"));
    }
});

fn check(date: HttpDate) {
    let text = date.to_string();
    assert_eq!(text, imf_fixdate(date.unix()));
    assert_eq!(HttpDate::parse(text.as_bytes()), Some(date));
    assert_eq!(HttpDate::from_unix(date.unix() as i64), Some(date));
}

/// By Howard Hinnant's `civil_from_days`: years that begin in March, in eras of 400.
fn imf_fixdate(seconds: u64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
    ];
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let (weekday, month) = (WEEKDAYS[days as usize % 7], MONTHS[month as usize]);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}
