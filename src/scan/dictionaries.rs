//! Which files are dictionaries for what replaces them (RFC 9842 section 2.1).
//!
//! A client keeps one dictionary for a pattern of URLs, the one it fetched last. Where many files of
//! one release match the same pattern, as the chunks of a bundler do, that one is seldom the file that
//! a new one replaces. So a file is a dictionary only if its family has few members.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{MAX_DICTIONARY_LENGTH, Scanner, encode};
use crate::manifest::{Changes, Manifest};
use crate::representation::{DictionaryUse, Resource, TextKind};
use crate::semantics::base_path::BasePath;
use crate::settings::{DictionaryFiles, Family, PathGlob, url_pattern};

/// The most files of one family in one release. `etagd compress --against` makes a delta of each
/// against each of the old ones, for a client may have any of them.
pub const MAX_FAMILY: usize = 4;

/// What is there before some changes, and whether all of it is to be looked at: at a start, what an
/// earlier process has saved.
#[derive(Clone, Copy)]
pub(super) struct StateBefore<'a> {
    pub(super) base: &'a Manifest,
    pub(super) is_start: bool,
}

/// Adds to the changes the resources that are dictionaries from now on, or are no longer.
pub(super) fn attach(scanner: &Scanner, before: StateBefore<'_>, changes: &mut Changes) {
    let base_path = &scanner.settings.base_path;
    match scanner.settings.dictionaries() {
        DictionaryFiles::None => {}
        DictionaryFiles::Matching(globs) => attach_chosen(globs, base_path, before, changes),
        DictionaryFiles::Families => attach_families(base_path, before, changes),
    }
}

/// The URL Pattern on the host for one of the site.
fn on_host(base_path: &BasePath, pattern: String) -> String {
    match base_path.is_whole_host() {
        true => pattern,
        false => url_pattern(base_path.path()) + &pattern,
    }
}

/// Those that the operator has chosen.
fn attach_chosen(
    globs: &[PathGlob],
    base_path: &BasePath,
    before: StateBefore<'_>,
    changes: &mut Changes,
) {
    let chosen = |resource: &Resource| {
        let is_chosen = globs.iter().any(|glob| glob.matches(&resource.path));
        is_chosen.then(|| {
            let family = Family::of(&resource.path);
            let pattern = family.map_or_else(
                || url_pattern(&resource.path),
                |family| family.url_pattern(),
            );
            DictionaryUse::chosen(&on_host(base_path, pattern))
        })
    };
    let restored = before.base.iter().filter(|_| before.is_start);
    replace(changes, restored, chosen);
}

/// Those whose families have few members.
fn attach_families(base_path: &BasePath, before: StateBefore<'_>, changes: &mut Changes) {
    let StateBefore { base, is_start } = before;
    let touched: BTreeSet<Box<[u8]>> = changes
        .changed
        .iter()
        .map(|resource| &resource.path)
        .chain(&changes.removed)
        .filter(|path| Family::of(path).is_some())
        .cloned()
        .collect();
    if touched.is_empty() && !is_start {
        return;
    }
    let families: BTreeSet<_> = touched.iter().filter_map(|path| Family::of(path)).collect();
    let is_touched = |family: &Family<'_>| is_start || families.contains(family);
    let replaced: BTreeSet<&[u8]> = changes
        .changed
        .iter()
        .map(|resource| &*resource.path)
        .chain(changes.removed.iter().map(AsRef::as_ref))
        .collect();
    let mut left = Vec::new();
    let mut members: HashMap<Family<'_>, usize> = HashMap::new();
    let known = match is_start {
        true => base.iter().collect(),
        false => {
            let prefixes = families.iter().map(|family| family.prefix().to_vec());
            base.with_prefixes(prefixes.collect())
        }
    };
    for resource in known.into_iter().filter(|it| !replaced.contains(&*it.path)) {
        if let Some(family) = delta_family(&resource.path).filter(is_touched) {
            *members.entry(family).or_default() += 1;
            left.push(Arc::clone(resource));
        }
    }
    let changed = changes.changed.clone();
    for family in changed.iter().filter_map(|it| delta_family(&it.path)) {
        *members.entry(family).or_default() += 1;
    }
    replace(changes, left.iter(), |resource| {
        let family = delta_family(&resource.path)?;
        let count = members.get(&family).copied().unwrap_or_default();
        let is_short = resource.identity.length <= MAX_DICTIONARY_LENGTH;
        let pattern = on_host(base_path, family.url_pattern());
        (is_short && count <= MAX_FAMILY).then(|| DictionaryUse::of_immutable(&pattern))
    });
}

/// The family of a file that has deltas and is a dictionary: one rule for what `etagd compress --against`
/// writes and for what is advertised. A delta against a file that nobody was told to keep would be of no
/// use, and so would a dictionary that nothing is compressed with.
///
/// These are the types that `etagd compress` compresses. Pictures and most fonts are compressed as they
/// are, so that two of them have little in common. The name alone decides, so that a family has the same
/// members for a server and for a build.
pub fn delta_family(path: &[u8]) -> Option<Family<'_>> {
    Family::of(path).filter(|_| encode::is_compressible(path, TextKind::Binary))
}

/// Gives all that has changed, and those of `known` for which it differs, what `choose` says.
fn replace<'a>(
    changes: &mut Changes,
    known: impl Iterator<Item = &'a Arc<Resource>>,
    choose: impl Fn(&Resource) -> Option<DictionaryUse>,
) {
    let changed = &mut changes.changed;
    let indices: HashMap<_, _> = (0..)
        .zip(changed.iter())
        .map(|(index, resource)| (resource.path.clone(), index))
        .collect();
    let with = |resource: &Arc<Resource>| {
        let dictionary_use = choose(resource);
        (dictionary_use.as_ref() != resource.dictionary_use()).then(|| {
            let mut resource = Resource::clone(resource);
            resource.set_dictionary_use(dictionary_use);
            Arc::new(resource)
        })
    };
    let mut new = Vec::new();
    for resource in known.filter(|it| !indices.contains_key(&it.path)) {
        new.extend(with(resource));
    }
    for resource in changed.iter_mut() {
        if let Some(replaced) = with(resource) {
            *resource = replaced;
        }
    }
    changed.extend(new);
}
