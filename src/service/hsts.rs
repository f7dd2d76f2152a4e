//! Strict-Transport-Security, which only answers over TLS may have (RFC 6797 section 7.2).

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, header};
use memchr::memmem::Finder;

use super::handler::Connection;
use crate::client::TrustedProxies;
use crate::semantics::head::RequestHead;

/// How the field begins in a head of bytes, with the end of the line before it.
const LINE_START: &[u8] = b"\r\nstrict-transport-security: ";

/// Leaves Strict-Transport-Security out of answers that do not reach their client over TLS.
pub struct HstsFilter {
    trusted: TrustedProxies,
    /// Whether the next answer that loses the field is worth a warning.
    warns: AtomicBool,
    line: Finder<'static>,
}

impl HstsFilter {
    /// `trusted` proxies are believed about how their clients came. With `warns`, the first answer
    /// that loses the field is reported.
    pub fn new(trusted: TrustedProxies, warns: bool) -> Self {
        Self {
            trusted,
            warns: AtomicBool::new(warns),
            line: Finder::new(LINE_START),
        }
    }

    /// Whether the answer to a request goes to its client over TLS, ours or that of a proxy.
    pub(super) fn is_secure(
        &self,
        request: &impl RequestHead,
        connection: &dyn Connection,
    ) -> bool {
        connection.is_secure_to_client(&self.trusted, request.fields())
    }

    /// Removes the field from the answer to a request that is not secure.
    pub(super) fn remove(&self, fields: &mut HeaderMap) {
        if fields.remove(header::STRICT_TRANSPORT_SECURITY).is_some() {
            self.warn();
        }
    }

    /// The same in a head of bytes, whose lines all have their end, and which begins at `start`. A rule
    /// may have set the field more than once.
    pub(super) fn remove_line(&self, head: &mut Vec<u8>, start: usize) {
        while let Some(line) = head.get(start..).and_then(|head| self.line.find(head)) {
            let line = start + line;
            let field = line + LINE_START.len();
            let rest = head.get(field..).unwrap_or_default();
            let length = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
            head.drain(line..field + length);
            self.warn();
        }
    }

    fn warn(&self) {
        if self.warns.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                "left Strict-Transport-Security out of an answer without TLS, where RFC 6797 forbids \
                 it: if a proxy in front speaks TLS, name it with --trusted-proxy and have it send \
                 X-Forwarded-Proto: https"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_removed_and_nothing_else() {
        let filter = HstsFilter::new(TrustedProxies::default(), false);
        let field = "strict-transport-security: max-age=1\r\n";
        let other = "x-strict-transport-security: max-age=1\r\na: strict-transport-security: 1\r\n";
        for (head, expected) in [
            (
                "HTTP/1.1 200 OK\r\n".to_owned(),
                "HTTP/1.1 200 OK\r\n".to_owned(),
            ),
            (format!("A\r\n{field}"), "A\r\n".to_owned()),
            (
                format!("A\r\n{field}{field}b: c\r\n"),
                "A\r\nb: c\r\n".to_owned(),
            ),
            (format!("A\r\n{other}{field}"), format!("A\r\n{other}")),
        ] {
            // What stands before belongs to the response before.
            let before = format!("A\r\n{field}\r\n");
            let mut bytes = (before.clone() + &head).into_bytes();
            filter.remove_line(&mut bytes, before.len());
            let found = String::from_utf8(bytes).expect("text");
            assert_eq!(found, before + &expected);
        }
    }
}
