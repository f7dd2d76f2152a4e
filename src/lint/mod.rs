//! Finds problems of a site before it is served: bad rules, broken links, stale sidecars,
//! look-alike names.
//!
//! It works on a manifest and on the walk that made it. What etagd would answer to a request comes
//! from [`answer`] itself.
//!
//! [`answer`]: crate::answer::answer

mod links;
mod names;

use std::fmt;
use std::path::Path;

use http::request::Parts;
use http::{Request, StatusCode, header};
use rayon::iter::{IntoParallelIterator, ParallelExtend, ParallelIterator};
use serde::Serialize;

use crate::answer::{Answer, answer};
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::rules::{FixedRule, RuleFile, RuleOutcome, Severity};
use crate::scan::{Link, LinkVerdict, stem};
use crate::semantics::target::encode_path;

/// A host name for a site that has none yet; `.invalid` never resolves (RFC 2606 section 2).
const HOST: &str = "site.invalid";
/// Browsers give up after this many redirects (Fetch Standard, 4.4).
const MAX_REDIRECTS: usize = 20;

/// One problem of a site.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// The path of the file in the site, percent-encoded.
    pub file: String,
    /// The number of the line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// How bad it is: `note`, `warning` or `error`.
    #[serde(serialize_with = "serialize_severity")]
    pub severity: Severity,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

/// `file:line: severity: reason`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            severity,
            reason,
        } = self;
        match line {
            0 => write!(f, "{file}: {}: {reason}", severity_name(*severity)),
            line => write!(f, "{file}:{line}: {}: {reason}", severity_name(*severity)),
        }
    }
}

const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn serialize_severity<S: serde::Serializer>(
    severity: &Severity,
    out: S,
) -> Result<S::Ok, S::Error> {
    out.serialize_str(severity_name(*severity))
}

impl Finding {
    fn new(path: &[u8], line: usize, severity: Severity, reason: impl Into<String>) -> Self {
        Self {
            file: encode_path(path),
            line,
            severity,
            reason: reason.into(),
        }
    }
}

/// A site as a scan has found it.
#[derive(Clone, Copy, Debug)]
pub struct ScannedSite<'a> {
    /// Its directory.
    pub root: &'a Root,
    /// What would be served.
    pub manifest: &'a Manifest,
    /// The symbolic links in it.
    pub links: &'a [Link],
}

/// All findings, ordered by file and line.
pub fn lint(site: ScannedSite<'_>) -> Vec<Finding> {
    let mut findings: Vec<_> = complaints(site.manifest)
        .chain(misleading_redirects(site.manifest))
        .chain(unused_headers(site.manifest))
        .chain(unreadable(site.manifest))
        .chain(lost_links(site))
        .chain(stale_sidecars(site.manifest))
        .chain(names::look_alike(site.manifest))
        .chain(names::not_served(site.root))
        .collect();
    let pages: Vec<_> = site
        .manifest
        .iter()
        .filter(|resource| resource.is_html())
        .collect();
    findings.par_extend(
        pages
            .into_par_iter()
            .flat_map_iter(|page| broken_links(site, page)),
    );
    findings.sort();
    findings.dedup();
    findings
}

/// What the parser of the rule files complains about.
fn complaints(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    RuleFile::ALL
        .into_iter()
        .flat_map(|file| manifest.rules().complaints(file))
        .map(|complaint| {
            Finding::new(
                complaint.file.name().as_bytes(),
                complaint.line,
                complaint.severity,
                complaint.reason.clone(),
            )
        })
}

/// Redirects that never apply, or lead nowhere.
fn misleading_redirects(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    manifest.rules().redirects.fixed().filter_map(|rule| {
        let (severity, reason) = redirect_problem(manifest, &rule)?;
        let file = RuleFile::Redirects.name().as_bytes();
        Some(Finding::new(file, rule.line, severity, reason))
    })
}

/// Paths of `_headers` that match nothing.
fn unused_headers(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    let headers = &manifest.rules().headers;
    let unmatched = match headers.is_empty() {
        true => Vec::new(),
        false => headers.unmatched(manifest.iter().flat_map(|resource| request_paths(resource))),
    };
    unmatched
        .into_iter()
        .filter(|(_, path)| {
            // A rewrite or redirect may answer there.
            let path = path.strip_prefix(b"/").unwrap_or(path);
            let reference = format!("/{}", encode_path(path));
            matches!(follow(manifest, &reference), Destination::Missing)
        })
        .map(|(line, _)| {
            let file = RuleFile::Headers.name().as_bytes();
            let reason = "no file has such a path: the fields are on errors alone";
            Finding::new(file, line, Severity::Warning, reason)
        })
}

/// The paths, with a leading slash, that a resource answers: its own and that without
/// `index.html` or `.html`.
fn request_paths(resource: &Resource) -> impl Iterator<Item = Vec<u8>> {
    let path = &*resource.path;
    let clean = path
        .strip_suffix(b"index.html")
        .or_else(|| path.strip_suffix(b".html"));
    [Some(path), clean]
        .into_iter()
        .flatten()
        .map(|path| [b"/", path].concat())
}

/// Why a rule never applies, or leads nowhere.
fn redirect_problem(manifest: &Manifest, rule: &FixedRule) -> Option<(Severity, String)> {
    if let Some(path) = &rule.path
        && !rule.is_forced
        && is_served(manifest, path)
    {
        let reason =
            "never applies: a file answers there (a ! behind the status lets the rule win)";
        return Some((Severity::Warning, reason.to_owned()));
    }
    match &rule.outcome {
        RuleOutcome::Redirect(_, reference) if reference.starts_with('/') => {
            let problem = follow(manifest, reference).problem()?;
            Some((Severity::Error, format!("leads to {reference}, {problem}")))
        }
        RuleOutcome::Answer(StatusCode::OK, path) if !is_served(manifest, path) => {
            let path = encode_path(path);
            Some((
                Severity::Error,
                format!("leads to /{path}, where nothing is"),
            ))
        }
        // The status is right without its page, so this is no error.
        RuleOutcome::Answer(status, path) if !is_served(manifest, path) => {
            let (path, status) = (encode_path(path), status.as_u16());
            let reason =
                format!("its page /{path} is not there: another one is sent with {status}");
            Some((Severity::Warning, reason))
        }
        RuleOutcome::Redirect(..) | RuleOutcome::Answer(..) => None,
    }
}

fn unreadable(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    manifest.unreadable().iter().map(|(path, reason)| {
        let reason = format!("cannot be read, and is not served: {reason}");
        Finding::new(path, 0, Severity::Error, reason)
    })
}

/// Symbolic links that are not followed.
fn lost_links(site: ScannedSite<'_>) -> impl Iterator<Item = Finding> {
    site.links.iter().filter_map(|link| {
        let target = link.target.as_deref().unwrap_or(Path::new("")).display();
        let (severity, reason) = match (link.verdict, &link.target) {
            (LinkVerdict::Followed, _) => return None,
            (LinkVerdict::Excluded, None) => (Severity::Error, "leads nowhere".to_owned()),
            (LinkVerdict::Excluded, Some(_)) => (
                Severity::Error,
                format!("leads to {target}, and is not followed (see --symlinks)"),
            ),
            (LinkVerdict::Repeats, _) => (
                Severity::Note,
                format!(
                    "leads to {target} once more, and is not followed here: a link to a folder \
                     above is followed once"
                ),
            ),
            (LinkVerdict::TooMuch, _) => (
                Severity::Error,
                format!(
                    "leads to {target}, and is not followed: links would bring too many files to \
                     the site"
                ),
            ),
        };
        Some(Finding::new(&link.path, 0, severity, reason))
    })
}

/// Files that are named like sidecars, and are not used as content codings.
fn stale_sidecars(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    manifest.iter().filter_map(|resource| {
        let original = manifest.locate(stem(&resource.path)?)?;
        let is_used = original.encoded.iter().any(|encoded| {
            encoded
                .coding
                .extension()
                .is_some_and(|extension| resource.path.ends_with(extension.as_bytes()))
        });
        (!is_used).then(|| {
            let reason = "is not used as a content coding: it does not decode to the file next to \
                          it (see etagd compress)";
            Finding::new(&resource.path, 0, Severity::Warning, reason)
        })
    })
}

/// The links of a page that lead nowhere.
fn broken_links(site: ScannedSite<'_>, page: &Resource) -> Vec<Finding> {
    match links::page_links(site.root, page) {
        Ok(links) => links
            .into_iter()
            .filter_map(|link| {
                let problem = follow(site.manifest, &link.target).problem()?;
                let reason = format!("links to {}, {problem}", link.target);
                Some(Finding::new(&page.path, link.line, Severity::Error, reason))
            })
            .collect(),
        Err(error) => vec![Finding::new(
            &page.path,
            0,
            Severity::Warning,
            format!("its links were not checked: {error}"),
        )],
    }
}

/// Whether a file answers a path (decoded, with its leading slash).
fn is_served(manifest: &Manifest, path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let handling = manifest.settings().html_handling;
    crate::locate::resolve(handling, path, |path| manifest.locate(path)).is_some()
}

/// Where a reference leads in the end.
#[derive(Clone, Copy)]
enum Destination {
    /// To a response, or out of the site.
    Reached,
    /// To an error.
    Missing,
    /// From redirect to redirect, more often than a browser follows.
    RedirectLoop,
}

impl Destination {
    /// What is wrong with it.
    const fn problem(self) -> Option<&'static str> {
        match self {
            Self::Reached => None,
            Self::Missing => Some("where nothing is"),
            Self::RedirectLoop => Some("from where redirects go on and on"),
        }
    }
}

/// Follows a path-absolute reference as a browser does.
fn follow(manifest: &Manifest, reference: &str) -> Destination {
    let mut reference = reference.to_owned();
    for _ in 0..MAX_REDIRECTS {
        // A browser does not send the fragment (RFC 9110 section 7.1).
        let target = reference.split('#').next().unwrap_or_default();
        let Some(request) = navigation(target) else {
            return Destination::Missing;
        };
        match answer(manifest, &request) {
            Answer::Redirect(_, location) if location.starts_with('/') => reference = location,
            Answer::NotFound(..) | Answer::Refused(..) => return Destination::Missing,
            _ => return Destination::Reached,
        }
    }
    Destination::RedirectLoop
}

/// The head of a GET request for a path of the site; `None` if it is not a valid target.
fn navigation(target: &str) -> Option<Parts> {
    let request = Request::get(target).header(header::HOST, HOST);
    Some(request.body(()).ok()?.into_parts().0)
}
