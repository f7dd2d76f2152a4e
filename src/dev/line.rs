//! The access log of a terminal: one short line a request.

use std::io::{self, Write};

use bytesize::ByteSize;
use http::{StatusCode, Uri};

use crate::access::{AccessEntry, escape};

/// Columns that a request target is padded to, so that most lines are aligned.
const TARGET_WIDTH: usize = 40;

/// Writes status, method, target, size and time; for a missing file, the page that asked for it.
/// If `QUIET`, only requests that failed.
///
/// # Errors
/// None: a vector takes everything.
pub fn line<const COLOURS: bool, const QUIET: bool>(
    entry: &AccessEntry<'_>,
    line: &mut Vec<u8>,
) -> io::Result<()> {
    // Browsers ask for an icon, and for files of their developer tools, on their own.
    let is_noise = entry.target == "/favicon.ico" || entry.target.starts_with("/.well-known/");
    let is_missing = matches!(entry.status, Some(StatusCode::NOT_FOUND | StatusCode::GONE));
    let is_bad = entry.status.is_none_or(|status| status.as_u16() >= 400);
    // Live reload's own requests say nothing about the site.
    if entry.target.contains("/_etagd/") || (QUIET && (!is_bad || is_noise)) {
        return Ok(());
    }
    let (colour, dim, end) = match COLOURS {
        true => (colour(entry.status), "\x1b[2m", "\x1b[0m"),
        false => ("", "", ""),
    };
    write!(line, "{colour}")?;
    match entry.status {
        Some(status) => write!(line, "{}", status.as_u16())?,
        None => line.extend_from_slice(b"---"),
    }
    let is_unchanged = entry.status == Some(StatusCode::NOT_MODIFIED);
    write!(
        line,
        "{} {:4} ",
        if is_unchanged { dim } else { end },
        entry.method.as_str()
    )?;
    let start = line.len();
    escape(entry.target.as_bytes(), line)?;
    let padding = TARGET_WIDTH.saturating_sub(line.len() - start);
    let size = match entry.status {
        Some(StatusCode::NOT_MODIFIED) => "unchanged".to_owned(),
        _ => ByteSize::b(entry.bytes).display().iec().to_string(),
    };
    let milliseconds = entry.elapsed.as_secs_f64() * 1e3;
    write!(
        line,
        "{end}{:padding$} {dim}{size:>10} {milliseconds:6.1} ms{end}",
        ""
    )?;
    if entry.is_cut {
        line.extend_from_slice(b" (cut)");
    }
    let page = entry
        .referer
        .and_then(|page| page.to_str().ok()?.parse().ok());
    if let Some(page) = page.filter(|_| is_missing && !is_noise) {
        let page: Uri = page;
        write!(line, " {colour}missing in{end} ")?;
        escape(page.path().as_bytes(), line)?;
    }
    line.push(b'\n');
    Ok(())
}

fn colour(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16()) {
        Some(304) => "\x1b[2;36m",
        Some(200..300) => "\x1b[32m",
        Some(300..400) => "\x1b[36m",
        Some(400..500) => "\x1b[1;33m",
        _ => "\x1b[1;31m",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderValue, Method, Version};

    use super::*;
    use crate::access::LineFormat;
    use crate::client::Peer;
    use crate::metrics::{Door, Outcome};

    fn written(form: LineFormat, target: &str, status: u16) -> String {
        let page = HeaderValue::from_static("http://localhost:8080/a/page.html?x");
        let entry = AccessEntry {
            time: SystemTime::UNIX_EPOCH,
            client: Peer::Unix,
            method: &Method::GET,
            target,
            host: None,
            request_id: None,
            version: Version::HTTP_11,
            door: Door::Http1,
            status: StatusCode::from_u16(status).ok(),
            bytes: 2048,
            is_cut: false,
            elapsed: Duration::from_micros(1234),
            tag: None,
            outcome: Outcome::None,
            coding: None,
            digest: None,
            referer: Some(&page),
            user_agent: None,
        };
        let mut line = Vec::new();
        form(&entry, &mut line).expect("a vector");
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn a_line_shows_a_request_and_its_result() {
        let plain = |target, status| written(line::<false, false>, target, status);
        let found = plain("/a.css", 200);
        assert_eq!(
            found,
            format!("200 GET  {:40}    2.0 KiB    1.2 ms\n", "/a.css")
        );
        assert!(plain("/a.css", 304).contains(" unchanged "));
        assert!(plain("/a.png", 404).ends_with(" missing in /a/page.html\n"));
        assert!(!plain("/a.png", 403).contains("missing"));
        assert!(!plain("/favicon.ico", 404).contains("missing"));
        assert!(plain("/\x1b[31m", 404).contains("\\x1b[31m"));
        assert_eq!(plain("/_etagd/events", 200), "");
    }

    #[test]
    fn quiet_shows_failed_requests_only() {
        let quiet = |target, status| written(line::<true, true>, target, status);
        assert_eq!(quiet("/a.css", 200), "");
        assert_eq!(quiet("/favicon.ico", 404), "");
        assert!(quiet("/a.png", 404).starts_with("\x1b[1;33m404"));
        assert!(quiet("/a.png", 503).starts_with("\x1b[1;31m503"));
    }
}
