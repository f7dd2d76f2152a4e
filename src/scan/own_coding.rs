//! Files that are compressed under their own name: `.svgz`, and what a rule says so of.
//!
//! `Content-Encoding` is sent only for what is proven to decode, since a browser shows nothing of a
//! response that does not. The proof is made once for each content, when its name or a rule asks for
//! it, and is remembered with the fields of the resource.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::proven::read_proven;
use super::sidecar::{Unproven, decoded_text};
use super::{Pass, ScanOutcome, Scanner, lock, media, site_path};
use crate::disk;
use crate::manifest::{Changes, Manifest};
use crate::representation::{Decoding, Representation, Resource};
use crate::rules::Headers;
use crate::semantics::coding::Coding;

/// Refused codings that are named one by one; beyond this number they are only counted.
const MAX_SHOWN: usize = 20;

/// A coding that a file does not have.
struct RefusedCoding {
    path: Box<[u8]>,
    coding: Coding,
    reason: Unproven,
}

/// Adds to the changes the resources that are compressed under their own name from now on, or are
/// no longer.
pub(super) fn attach(scanner: &Scanner, pass: &Pass<'_>, outcome: &mut ScanOutcome) {
    let rules = outcome.changes.rules.as_ref();
    let headers = &rules.unwrap_or(pass.base.rules()).headers;
    let refused = Mutex::default();
    let recoded: Vec<_> = candidates(pass, &outcome.changes)
        .into_par_iter()
        .filter_map(|resource| {
            let decoding = decoding(pass.base, headers, &resource, &refused);
            (decoding != resource.fields.decoding()).then(|| {
                let Resource {
                    path,
                    text,
                    settled,
                    ..
                } = &*resource;
                let fields = scanner.fields(path, *text, *settled, decoding);
                Arc::new(resource.with_fields(fields))
            })
        })
        .collect();
    let mut refused = std::mem::take(&mut *lock(&refused));
    refused.sort_by(|one, other| one.path.cmp(&other.path));
    if pass.dropped.is_none() {
        report(pass, &refused);
    }
    for RefusedCoding { path, reason, .. } in refused {
        if let Unproven::Unreadable(error) = reason {
            // Reading may succeed later; until then the digest is incomplete (P7).
            outcome
                .changes
                .unreadable
                .insert(path.clone(), error.to_string());
            if disk::is_passing(&error) && !pass.has_given_up(&path, &error) {
                outcome.not_now.insert(path, error);
            }
        }
    }
    if recoded.is_empty() {
        return;
    }
    let changed = &mut outcome.changes.changed;
    let indices: HashMap<_, _> = (0..)
        .zip(changed.iter())
        .map(|(index, resource)| (resource.path.clone(), index))
        .collect();
    for resource in recoded {
        match indices.get(&resource.path) {
            Some(index) => changed[*index] = resource,
            None => changed.push(resource),
        }
    }
}

/// What may be compressed under its own name from now on, or no longer: what is changed, what could
/// not be read before, and with new rules everything; at a start, too, since rules may have gone while
/// nothing was served.
fn candidates(pass: &Pass<'_>, changes: &Changes) -> Vec<Arc<Resource>> {
    let had_codings = pass.base.rules().headers.has_codings();
    let has_codings = match &changes.rules {
        Some(rules) => rules.headers.has_codings(),
        None => had_codings,
    };
    // Most sites have no such file, and nothing is copied for them.
    let is_concerned = |resource: &Resource| {
        has_codings
            || media::own_coding(&resource.path).is_some()
            || resource.fields.decoding().is_some()
    };
    let changed = changes.changed.iter();
    let mut candidates: Vec<_> = changed.filter(|it| is_concerned(it)).cloned().collect();
    let is_reruled = changes.rules.is_some() && (had_codings || has_codings);
    // Where something is dropped, all else was looked at a moment ago.
    let looks_at_all = is_reruled || pass.is_start && pass.dropped.is_none();
    if !looks_at_all && pass.base.unreadable().is_empty() {
        return candidates;
    }
    let touched: HashSet<&[u8]> = changes
        .changed
        .iter()
        .map(|resource| &*resource.path)
        .chain(changes.removed.iter().map(AsRef::as_ref))
        .collect();
    let is_left =
        |resource: &&Arc<Resource>| is_concerned(resource) && !touched.contains(&*resource.path);
    if looks_at_all {
        candidates.extend(pass.base.iter().filter(is_left).cloned());
    } else {
        let retried = pass
            .base
            .unreadable()
            .keys()
            .filter(|path| pass.covers(path));
        let there = retried.filter_map(|path| pass.base.locate(path));
        candidates.extend(there.filter(is_left).cloned());
    }
    candidates
}

/// How a resource decodes, if its name or a rule says that it does and that is proven.
fn decoding(
    base: &Manifest,
    headers: &Headers,
    resource: &Resource,
    refused: &Mutex<Vec<RefusedCoding>>,
) -> Option<Decoding> {
    let wanted = wanted(headers, resource);
    if wanted.is_empty() {
        return None;
    }
    let (identity, _) = resource.of_files();
    // A proof holds as long as the file has the bytes it had.
    let before = base
        .locate(&resource.path)
        .filter(|it| it.of_files().0.etag.hash() == identity.etag.hash());
    let proven = before.and_then(|before| before.fields.decoding());
    if let Some(proven) = proven.filter(|proven| wanted.contains(&proven.coding)) {
        return Some(proven);
    }
    for coding in wanted {
        match prove(coding, identity) {
            Ok(decoding) => return Some(decoding),
            Err(reason) => lock(refused).push(RefusedCoding {
                path: resource.path.clone(),
                coding,
                reason,
            }),
        }
    }
    None
}

/// The codings that the name of a resource or a rule says it has; the one that applies comes first.
pub fn wanted(headers: &Headers, resource: &Resource) -> Vec<Coding> {
    let ruled = match headers.has_codings() {
        true => headers.content_codings(&[b"/", &*resource.path].concat()),
        false => Vec::new(),
    };
    // An SVG that is not compressed is one, too, whatever its name.
    let own = media::own_coding(&resource.path).filter(|_| !resource.text.is_text());
    let mut wanted = Vec::new();
    for coding in ruled.into_iter().map(|(coding, _)| coding).chain(own) {
        if !wanted.contains(&coding) {
            wanted.push(coding);
        }
    }
    wanted
}

/// Proves that content decodes.
///
/// # Errors
/// Why it does not, or why that can't be told.
pub fn prove(coding: Coding, content: &Representation) -> Result<Decoding, Unproven> {
    let text = read_proven(content, |encoded| decoded_text(coding, encoded))?;
    Ok(Decoding { coding, text })
}

fn report(pass: &Pass<'_>, refused: &[RefusedCoding]) {
    for RefusedCoding {
        path,
        coding,
        reason,
    } in refused.iter().take(MAX_SHOWN)
    {
        let shown = site_path::join(pass.root.path(), path);
        let (shown, coding) = (shown.display(), coding.token());
        tracing::warn!(
            path = %shown, coding, %reason,
            "{shown} is sent without \"Content-Encoding: {coding}\": {reason}"
        );
    }
    match refused.len().saturating_sub(MAX_SHOWN) {
        0 => {}
        1 => tracing::warn!(count = 1, "1 more file is sent without Content-Encoding"),
        count => tracing::warn!(
            count,
            "{count} more files are sent without Content-Encoding"
        ),
    }
}
