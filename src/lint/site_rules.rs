//! What is wrong with `_headers` and `_redirects`: lines that are not understood, never apply, lead
//! nowhere, or contradict each other.

use std::collections::{BTreeMap, HashSet};

use http::{StatusCode, header};

use super::destination::{Destination, follow, is_served};
use super::finding::{Code, Finding};
use crate::manifest::Manifest;
use crate::representation::Resource;
use crate::rules::{FixedRule, Matching, Query, RuleFile, RuleOutcome, Severity};
use crate::scan::own_coding;
use crate::semantics::target::encode_path;

/// What the parser of the rule files complains about.
pub(super) fn complaints(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    RuleFile::ALL
        .into_iter()
        .flat_map(|file| manifest.rules().complaints(file))
        .map(|complaint| {
            let code = match complaint.severity {
                Severity::Note => Code::RulePortability,
                Severity::Warning => Code::RuleDoubtful,
                Severity::Error => Code::RuleInvalid,
            };
            let file = complaint.file.name().as_bytes();
            Finding::new(file, complaint.line, code, complaint.reason.clone())
        })
}

/// Redirects that never apply, or lead nowhere.
pub(super) fn misleading_redirects(manifest: &Manifest) -> Vec<Finding> {
    let mut findings: BTreeMap<usize, Finding> = manifest
        .rules()
        .redirects
        .fixed()
        .filter_map(|rule| {
            let (code, reason) = redirect_problem(manifest, &rule)?;
            let file = RuleFile::Redirects.name().as_bytes();
            Some((rule.line, Finding::new(file, rule.line, code, reason)))
        })
        .collect();
    for finding in hidden_files(manifest) {
        findings.entry(finding.line).or_insert(finding);
    }
    findings.into_values().collect()
}

/// Rules with `!` that take a file away and lead nowhere instead. What a pattern captures decides
/// where, so each is tried with the files that it hides.
fn hidden_files(manifest: &Manifest) -> impl Iterator<Item = Finding> {
    let redirects = &manifest.rules().redirects;
    // In the manifest's order, which is not the paths'.
    let mut paths: Vec<_> = match redirects.has_forced() {
        true => manifest
            .iter()
            .flat_map(|resource| request_paths(resource))
            .collect(),
        false => Vec::new(),
    };
    paths.sort_unstable();
    let mut found = BTreeMap::new();
    for path in paths {
        let asked = Query {
            path: &path,
            query: None,
            host: None,
        };
        let Some((line, outcome)) = redirects.first_forced(asked) else {
            continue;
        };
        let (target, problem) = match outcome {
            RuleOutcome::Redirect(_, reference) if reference.starts_with('/') => {
                let problem = follow(manifest, &reference).problem();
                (reference, problem)
            }
            RuleOutcome::Answer(StatusCode::OK, target) if !is_served(manifest, &target) => {
                let target = format!("/{}", encode_path(&target));
                (target, Destination::Missing.problem())
            }
            RuleOutcome::Redirect(..) | RuleOutcome::Answer(..) => continue,
        };
        if let Some(problem) = problem {
            let hidden = encode_path(&path);
            found
                .entry(line)
                .or_insert_with(|| format!("hides {hidden} and leads to {target}, {problem}"));
        }
    }
    found.into_iter().map(|(line, reason)| {
        let file = RuleFile::Redirects.name().as_bytes();
        Finding::new(file, line, Code::RuleTarget, reason)
    })
}

/// Why a rule never applies, or leads nowhere.
fn redirect_problem(manifest: &Manifest, rule: &FixedRule) -> Option<(Code, String)> {
    if let Some(path) = &rule.path
        && !rule.is_forced
        && is_served(manifest, path)
    {
        let reason =
            "never applies: a file answers there (a ! behind the status lets the rule win)";
        return Some((Code::RuleUnused, reason.to_owned()));
    }
    match &rule.outcome {
        RuleOutcome::Redirect(_, reference) if reference.starts_with('/') => {
            let problem = follow(manifest, reference).problem()?;
            Some((Code::RuleTarget, format!("leads to {reference}, {problem}")))
        }
        RuleOutcome::Answer(StatusCode::OK, path) if !is_served(manifest, path) => {
            let path = encode_path(path);
            let reason = format!("leads to /{path}, where nothing is");
            Some((Code::RuleTarget, reason))
        }
        // The status is right without its page, so this is no error.
        RuleOutcome::Answer(status, path) if !is_served(manifest, path) => {
            let (path, status) = (encode_path(path), status.as_u16());
            let reason =
                format!("its page /{path} is not there: another one is sent with {status}");
            Some((Code::RulePage, reason))
        }
        RuleOutcome::Redirect(..) | RuleOutcome::Answer(..) => None,
    }
}

/// Paths of `_headers` that match nothing.
pub(super) fn unused_headers(manifest: &Manifest) -> impl Iterator<Item = Finding> {
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
            follow(manifest, &reference) == Destination::Missing
        })
        .map(|(line, _)| {
            let file = RuleFile::Headers.name().as_bytes();
            let reason = "no file has such a path: the fields are on errors alone";
            Finding::new(file, line, Code::HeadersUnused, reason)
        })
}

/// Blocks of `_headers` whose values of Cache-Control, appended to each other, contradict each
/// other: named once for each combination of blocks.
pub(super) fn contradictory_caching(manifest: &Manifest) -> Vec<Finding> {
    let headers = &manifest.rules().headers;
    if headers.is_empty() {
        return Vec::new();
    }
    let mut paths: Vec<_> = manifest
        .iter()
        .flat_map(|resource| request_paths(resource))
        .collect();
    paths.sort_unstable();
    let mut seen: HashSet<Matching> = HashSet::new();
    let mut findings = Vec::new();
    for path in paths {
        let matching = headers.matching(&path, None);
        let lines = headers.lines_with(&matching, &header::CACHE_CONTROL);
        let Some((last, earlier)) = lines.split_last().filter(|(_, rest)| !rest.is_empty()) else {
            continue;
        };
        if !seen.insert(matching.clone()) {
            continue;
        }
        let overlay = headers.overlay(&matching, &path);
        let value = overlay
            .lines
            .iter()
            .find(|(name, _)| name == header::CACHE_CONTROL)
            .and_then(|(_, value)| value.to_str().ok());
        let Some((value, contradiction)) = value.and_then(|it| Some((it, contradiction(it)?)))
        else {
            continue;
        };
        let earlier: Vec<_> = earlier.iter().map(ToString::to_string).collect();
        let reason = format!(
            "{} gets \"Cache-Control: {value}\", put together with line {}: {contradiction}; \
             \"! Cache-Control\" takes the earlier value away",
            encode_path(&path),
            earlier.join(", ")
        );
        let file = RuleFile::Headers.name().as_bytes();
        findings.push(Finding::new(file, *last, Code::CacheControl, reason));
    }
    findings
}

/// Files that are not encoded as `_headers` or their name says: the first for each line, with the
/// reason.
pub(super) fn refused_codings(manifest: &Manifest) -> Vec<Finding> {
    let headers = &manifest.rules().headers;
    let mut refused: BTreeMap<usize, (String, usize)> = BTreeMap::new();
    let mut findings = Vec::new();
    for resource in manifest.resources() {
        if resource.fields.decoding().is_some() {
            continue;
        }
        let Some(coding) = own_coding::wanted(headers, resource).into_iter().next() else {
            continue;
        };
        let ruled = headers.content_codings(&[b"/", &*resource.path].concat());
        let line = ruled.first().map(|(_, line)| *line);
        if let Some((_, others)) = line.and_then(|line| refused.get_mut(&line)) {
            *others += 1;
            continue;
        }
        let (identity, _) = resource.of_files();
        let Err(reason) = own_coding::prove(coding, identity) else {
            continue;
        };
        let reason = format!(
            "is sent without \"Content-Encoding: {}\": {reason}",
            coding.token()
        );
        match line {
            Some(line) => {
                let path = encode_path(&resource.path);
                refused.insert(line, (format!("/{path} {reason}"), 0));
            }
            None => findings.push(Finding::new(
                &resource.path,
                0,
                Code::ContentEncoding,
                reason,
            )),
        }
    }
    let file = RuleFile::Headers.name().as_bytes();
    findings.extend(refused.into_iter().map(|(line, (reason, others))| {
        let reason = match others {
            0 => reason,
            1 => format!("{reason}; and so is 1 more file"),
            others => format!("{reason}; and so are {others} more files"),
        };
        Finding::new(file, line, Code::ContentEncoding, reason)
    }));
    findings
}

/// What two directives of a Cache-Control say against each other, if any do (RFC 9111 section
/// 5.2.2).
fn contradiction(value: &str) -> Option<String> {
    let directives: Vec<_> = value
        .split(',')
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    let has = |name: &str| directives.iter().any(|directive| directive == name);
    for name in ["max-age", "s-maxage"] {
        let mut values = directives
            .iter()
            .filter_map(|each| each.strip_prefix(name)?.strip_prefix('='));
        let first = values.next();
        if let Some(other) = values.find(|value| Some(*value) != first) {
            let first = first.unwrap_or_default();
            return Some(format!("{name} is both {first} and {other}"));
        }
    }
    let is_fresh = directives.iter().any(|directive| {
        let age = directive.strip_prefix("max-age=");
        age.is_some_and(|age| !age.trim_matches('"').trim_start_matches('0').is_empty())
    });
    let is_dated = is_fresh || has("immutable");
    let contradictory = [
        (
            has("no-store") && is_dated,
            "no-store and a time to keep it",
        ),
        (
            has("no-cache") && has("immutable"),
            "no-cache and immutable",
        ),
        (has("public") && has("private"), "public and private"),
    ];
    let found = contradictory.iter().find(|(is_met, _)| *is_met);
    found.map(|(_, reason)| (*reason).to_owned())
}

/// The paths, with a leading slash, that a resource answers: its own and that without
/// `index.html` or `.html`.
fn request_paths(resource: &Resource) -> impl Iterator<Item = Vec<u8>> + use<> {
    let path = &*resource.path;
    let clean = path
        .strip_suffix(b"index.html")
        .or_else(|| path.strip_suffix(b".html"));
    [Some(path), clean]
        .map(|path| path.map(|path| [b"/", path].concat()))
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_control_contradicts_itself_or_not() {
        for value in [
            "max-age=60, max-age=3600",
            "public, max-age=60, Max-Age=0",
            "s-maxage=1, s-maxage=2",
            "no-store, max-age=60",
            "no-store, immutable",
            "public, max-age=31536000, immutable, no-cache",
            "public, private",
        ] {
            assert!(contradiction(value).is_some(), "{value}");
        }
        for value in [
            "",
            "max-age=60, max-age=60",
            "private, no-store, max-age=0",
            "no-cache, max-age=60",
            "max-age=60, s-maxage=600",
            "public, max-age=31536000, immutable",
            "private=\"x\", public",
        ] {
            assert_eq!(contradiction(value), None, "{value}");
        }
    }
}
