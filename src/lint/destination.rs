//! Where a reference leads, as a browser follows it: each step is what etagd would answer.

use http::request::Parts;
use http::{Request, header};
use url::Url;

use super::HOST;
use crate::answer::{Answer, answer};
use crate::manifest::Manifest;
use crate::semantics::base_path::Entrance;
use crate::semantics::target::Target;

/// Browsers give up after this many redirects (Fetch Standard, section 4.4).
const MAX_REDIRECTS: usize = 20;

/// Where a reference leads in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// To a response, or out of the site.
    Reached,
    /// To an error.
    Missing,
    /// Past the base path, to what the site has below it.
    PastTheSite,
    /// From redirect to redirect, more often than a browser follows.
    RedirectLoop,
}

impl Destination {
    /// What is wrong with it.
    pub(super) const fn problem(self) -> Option<&'static str> {
        match self {
            Self::Reached => None,
            Self::Missing => Some("where nothing is"),
            Self::PastTheSite => Some("which lacks the base path of the site"),
            Self::RedirectLoop => Some("from where redirects go on and on"),
        }
    }
}

/// Follows a path of the site, as its rules have them: without the base path.
pub(super) fn follow(manifest: &Manifest, reference: &str) -> Destination {
    let base_path = &manifest.settings().base_path;
    follow_link(manifest, &base_path.lead(reference.to_owned()))
}

/// Follows a path-absolute reference, as pages have them: with the base path.
pub(super) fn follow_link(manifest: &Manifest, reference: &str) -> Destination {
    let Ok(mut url) = Url::parse(&format!("http://{HOST}{reference}")) else {
        return Destination::Missing;
    };
    let mut target = reference.to_owned();
    for _ in 0..MAX_REDIRECTS {
        // A browser does not send the fragment (RFC 9110 section 7.1).
        let Some(request) = navigation(target.split('#').next().unwrap_or_default()) else {
            return Destination::Missing;
        };
        if let Some(path) = path_elsewhere(manifest, &request) {
            // Another site of the host, unless it was meant to be this one.
            return match is_served(manifest, &path) {
                true => Destination::PastTheSite,
                false => Destination::Reached,
            };
        }
        match answer(manifest, &request) {
            Answer::Redirect(_, location) => match url.join(&location) {
                Ok(next) if next.host_str() == Some(HOST) => {
                    target = match next.query() {
                        Some(query) => format!("{}?{query}", next.path()),
                        None => next.path().to_owned(),
                    };
                    url = next;
                }
                _ => return Destination::Reached,
            },
            Answer::NotFound(..) | Answer::Refused(..) => return Destination::Missing,
            _ => return Destination::Reached,
        }
    }
    Destination::RedirectLoop
}

/// The path that a request asks for, decoded, if that is outside the base path of the site.
fn path_elsewhere(manifest: &Manifest, request: &Parts) -> Option<Vec<u8>> {
    let target = Target::parse(&request.uri).ok()?;
    let path = target.path().to_vec();
    match manifest.settings().base_path.enter(target) {
        Entrance::Elsewhere => Some(path),
        Entrance::Site(_) | Entrance::Bare(_) => None,
    }
}

/// Whether a file answers a path (decoded, with its leading slash).
pub(super) fn is_served(manifest: &Manifest, path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let handling = manifest.settings().html_handling;
    crate::locate::resolve(handling, path, |path| manifest.locate(path)).is_some()
}

/// The head of a GET request for a path of the site; `None` if it is not a valid target.
fn navigation(target: &str) -> Option<Parts> {
    let request = Request::get(target).header(header::HOST, HOST);
    Some(request.body(()).ok()?.into_parts().0)
}
