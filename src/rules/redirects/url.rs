//! URLs in rules: their hosts are written out, or refused.

use std::borrow::Cow;

use super::TargetOrigin;
use crate::rules::complaint::shown;
use crate::rules::host::Host;

/// `http://` or `https://`, and what comes after it.
pub(super) struct Url<'t> {
    scheme: &'static str,
    authority: &'t [u8],
    /// Path, query and fragment.
    pub(super) rest: &'t [u8],
}

/// Reads one; `None` where that is no URL.
pub(super) fn url(text: &[u8]) -> Option<Url<'_>> {
    let (scheme, after) = ["https://", "http://"].iter().find_map(|scheme| {
        let (start, after) = text.split_at_checked(scheme.len())?;
        let is_it = start.eq_ignore_ascii_case(scheme.as_bytes());
        is_it.then_some((*scheme, after))
    })?;
    let end = after.iter().position(|byte| b"/?#".contains(byte));
    let (authority, rest) = after.split_at(end.unwrap_or(after.len()));
    Some(Url {
        scheme,
        authority,
        rest,
    })
}

impl<'t> Url<'t> {
    /// The host, and the port where there is one.
    pub(super) fn authority(&self) -> Result<&'t str, Cow<'static, str>> {
        std::str::from_utf8(self.authority).map_err(|_| "the host must be ASCII".into())
    }

    /// Written out to the last letter: nothing that a client sends may end up in it.
    pub(super) fn origin(&self) -> Result<TargetOrigin, Cow<'static, str>> {
        let authority = self.authority()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
            _ => (authority, None),
        };
        // `u16::from_str` accepts a leading plus, a URL's port does not (RFC 3986 3.2.3).
        let has_valid_port =
            port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
        let host = Host::parse(host).ok().filter(Host::is_exact);
        let Some(host) = host.filter(|_| has_valid_port) else {
            let shown = shown(self.authority);
            return Err(format!("the target's host {shown} must be written out").into());
        };
        Ok(TargetOrigin {
            text: format!("{}{}", self.scheme, authority.to_ascii_lowercase()).into(),
            host: host.text().into(),
        })
    }
}
