//! URLs in rules: their hosts are written out, or refused.

use std::borrow::Cow;

use super::Origin;
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
        std::str::from_utf8(self.authority).map_err(|_| "a host has letters of ASCII only".into())
    }

    /// Written out to the last letter: nothing that a client sends may end up in it.
    pub(super) fn origin(&self) -> Result<Origin, Cow<'static, str>> {
        let authority = self.authority()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
            _ => (authority, None),
        };
        let is_port = |port: &str| port.parse::<u16>().is_ok() && !port.starts_with('+');
        let host = Host::parse(host).ok().filter(Host::is_exact);
        let Some(host) = host.filter(|_| port.is_none_or(is_port)) else {
            let shown = shown(self.authority);
            return Err(format!("the target's host {shown} has to be written out").into());
        };
        Ok(Origin {
            text: format!("{}{}", self.scheme, authority.to_ascii_lowercase()).into(),
            host: host.text().into(),
        })
    }
}
