//! What of a site will not be served as its author hopes.
//!
//! All of it is found in a manifest and the walk that made it: what etagd would answer is asked of
//! [`answer`] itself.
//!
//! [`answer`]: crate::answer::answer

mod links;
mod names;

use std::fmt;

use http::request::Parts;
use http::{Request, StatusCode, header};
use rayon::iter::{IntoParallelIterator, ParallelExtend, ParallelIterator};
use serde::Serialize;

use crate::answer::{Answer, answer};
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::rules::{Fixed, Outcome, RuleFile, Severity};
use crate::scan::{Link, Scanner, stem};
use crate::semantics::coding::Coding;
use crate::semantics::target::encode_path;

/// The host of a site that nobody serves yet.
const HOST: &str = "site.invalid";
/// Browsers follow no more redirects.
const LONGEST_CHAIN: usize = 20;

/// Something that is not as its author hopes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// The file, percent-encoded, below the site's directory.
    pub file: String,
    /// Number of the line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// How bad it is: `note`, `warning` or `error`.
    #[serde(serialize_with = "word")]
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
            0 => write!(f, "{file}: {}: {reason}", name(*severity)),
            line => write!(f, "{file}:{line}: {}: {reason}", name(*severity)),
        }
    }
}

const fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn word<S: serde::Serializer>(severity: &Severity, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(name(*severity))
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
pub struct Site<'a> {
    /// Its directory.
    pub root: &'a Root,
    /// What would be served.
    pub manifest: &'a Manifest,
    /// The links in it.
    pub links: &'a [Link],
    /// Which links it follows.
    pub scanner: &'a Scanner,
}

/// All findings, ordered by file and line.
pub fn lint(site: Site<'_>) -> Vec<Finding> {
    let mut findings: Vec<_> = rules(site.manifest)
        .chain(unreadable(site.manifest))
        .chain(lost_links(site))
        .chain(sidecars(site.manifest))
        .chain(names::look_alike(site.manifest))
        .chain(names::left_out(site.root))
        .collect();
    let pages: Vec<_> = site.manifest.iter().filter(|each| each.is_html()).collect();
    let of_page = |page: &Resource| match links::targets(site.root, page) {
        Ok(targets) => missing(site.manifest, page, targets),
        Err(error) => vec![Finding::new(
            &page.path,
            0,
            Severity::Warning,
            format!("its links were not looked at: {error}"),
        )],
    };
    let of_pages = pages.into_par_iter().flat_map_iter(|page| of_page(page));
    findings.par_extend(of_pages);
    findings.sort();
    findings.dedup();
    findings
}

/// What is wrong with the rules, and which of them never apply or lead to nothing.
fn rules(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    let rules = manifest.rules();
    let complaints = RuleFile::ALL
        .into_iter()
        .flat_map(|file| rules.complaints(file))
        .map(|each| {
            let file = each.file.name().as_bytes();
            Finding::new(file, each.line, each.severity, each.reason.clone())
        });
    let fixed = rules.redirects.fixed();
    let misled = fixed.filter_map(|rule| {
        let (severity, reason) = misled(manifest, &rule)?;
        let file = RuleFile::Redirects.name().as_bytes();
        Some(Finding::new(file, rule.line, severity, reason))
    });
    complaints.chain(misled).chain(idle_fields(manifest))
}

/// The paths of `_headers` that nothing answers.
fn idle_fields(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    let headers = &manifest.rules().headers;
    let paths = manifest.iter().flat_map(|resource| {
        let path = &*resource.path;
        let clean = path.strip_suffix(b"index.html");
        let clean = clean.or_else(|| path.strip_suffix(b".html"));
        let paths = [Some(path), clean].into_iter().flatten();
        paths.map(|path| [b"/", path].concat())
    });
    let unmatched = match headers.is_empty() {
        true => Vec::new(),
        false => headers.unmatched(paths),
    };
    let idle = unmatched.into_iter().filter(|(_, path)| {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let reference = format!("/{}", encode_path(path));
        matches!(end(manifest, &reference), End::Nowhere)
    });
    idle.map(|(line, _)| {
        let file = RuleFile::Headers.name().as_bytes();
        let reason = "no file has such a path: the fields are on errors alone";
        Finding::new(file, line, Severity::Warning, reason)
    })
}

/// Why a rule never applies, or leads to nothing.
fn misled(manifest: &Manifest, rule: &Fixed) -> Option<(Severity, String)> {
    let own = rule.path.as_ref().filter(|_| !rule.is_forced);
    if own.is_some_and(|path| is_there(manifest, path)) {
        let reason =
            "never applies: a file answers there (a ! behind the status lets the rule win)";
        return Some((Severity::Warning, reason.to_owned()));
    }
    match &rule.outcome {
        Outcome::Redirect(_, reference) if reference.starts_with('/') => {
            let end = end(manifest, reference);
            let reason = end
                .reason()
                .map(|why| format!("leads to {reference}, {why}"));
            reason.map(|reason| (Severity::Error, reason))
        }
        Outcome::Answer(status, path) if !is_there(manifest, path) => {
            let path = encode_path(path);
            Some(match *status {
                StatusCode::OK => {
                    let reason = format!("leads to /{path}, where nothing is");
                    (Severity::Error, reason)
                }
                status => {
                    let status = status.as_u16();
                    let reason = format!("its page /{path} is not there: another says {status}");
                    (Severity::Warning, reason)
                }
            })
        }
        Outcome::Redirect(..) | Outcome::Answer(..) => None,
    }
}

fn unreadable(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    let all = manifest.unreadable().iter();
    all.map(|(path, reason)| {
        let reason = format!("cannot be read, and is not served: {reason}");
        Finding::new(path, 0, Severity::Error, reason)
    })
}

fn lost_links(site: Site<'_>) -> impl Iterator<Item = Finding> {
    let all = site.links.iter();
    let lost = all.filter(move |link| site.scanner.excludes(site.root, link));
    lost.map(|link| {
        let reason = match &link.target {
            Some(target) => format!(
                "leads to {}, and is not followed (see --symlinks)",
                target.display()
            ),
            None => "leads nowhere".to_owned(),
        };
        Finding::new(&link.path, 0, Severity::Error, reason)
    })
}

/// Files that look like sidecars, and are no content codings.
fn sidecars(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    manifest.iter().filter_map(|resource| {
        let beside = manifest.locate(stem(&resource.path)?)?;
        let is_its_coding = |coding: Coding| {
            let extension = coding.extension();
            extension.is_some_and(|extension| resource.path.ends_with(extension.as_bytes()))
        };
        let is_used = beside.encoded.iter().any(|each| is_its_coding(each.coding));
        (!is_used).then(|| {
            let reason = "is not used as a content coding: it does not decode to the file beside \
                          it (see etagd compress)";
            Finding::new(&resource.path, 0, Severity::Warning, reason)
        })
    })
}

/// The links of a page that lead to nothing.
fn missing(manifest: &Manifest, page: &Resource, targets: Vec<links::Target>) -> Vec<Finding> {
    let broken = targets.into_iter().filter_map(|target| {
        let why = end(manifest, &target.reference).reason()?;
        let reason = format!("links to {}, {why}", target.reference);
        Some(Finding::new(
            &page.path,
            target.line,
            Severity::Error,
            reason,
        ))
    });
    broken.collect()
}

/// Whether a file answers a path (decoded, with its leading slash).
fn is_there(manifest: &Manifest, path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let handling = manifest.settings().html_handling;
    crate::locate::resolve(handling, path, |path| manifest.locate(path)).is_some()
}

/// Where a reference leads in the end.
#[derive(Clone, Copy)]
enum End {
    /// To an answer, or out of the site.
    Somewhere,
    /// To an error.
    Nowhere,
    /// From redirect to redirect.
    Never,
}

impl End {
    /// What is wrong with it.
    const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Somewhere => None,
            Self::Nowhere => Some("where nothing is"),
            Self::Never => Some("from where redirects go on and on"),
        }
    }
}

/// Follows a path-absolute reference.
fn end(manifest: &Manifest, reference: &str) -> End {
    let mut reference = reference.to_owned();
    for _ in 0..LONGEST_CHAIN {
        // A fragment is the browser's.
        let target = reference.split('#').next().unwrap_or_default();
        let Some(request) = navigation(target) else {
            return End::Nowhere;
        };
        match answer(manifest, &request) {
            Answer::Redirect(_, location) if location.starts_with('/') => reference = location,
            Answer::NotFound(..) | Answer::Refused(..) => return End::Nowhere,
            _ => return End::Somewhere,
        }
    }
    End::Never
}

/// A GET of a path of the site.
fn navigation(target: &str) -> Option<Parts> {
    let request = Request::get(target).header(header::HOST, HOST);
    Some(request.body(()).ok()?.into_parts().0)
}
