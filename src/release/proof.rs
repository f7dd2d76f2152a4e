//! Whether a tree has everything that a manifest lists. Pure: both are in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::inventory::{Entry, Inventory, url};
use crate::manifest::{Manifest, ancestors};
use crate::representation::Resource;
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;

/// What was found in a tree that has everything that is listed.
#[derive(Debug)]
pub(super) struct Proven {
    /// The listed resources, without codings that are not listed.
    pub(super) resources: Vec<Arc<Resource>>,
    /// The listed folders without files, without a slash at the end; none where folders are not
    /// listed.
    pub(super) empty_folders: Vec<Box<[u8]>>,
    /// Those of the listed files that there is no room for the listed codings of.
    pub(super) without_codings: BTreeSet<Box<[u8]>>,
    /// How many files of the tree are not listed.
    pub(super) unlisted: usize,
}

/// How a tree differs from a list.
#[derive(Debug)]
pub(super) struct Faults {
    /// How many there are.
    pub(super) count: usize,
    /// The first of them.
    pub(super) shown: Vec<Fault>,
}

/// Something listed that the tree does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The rules of the tree mean something else than the listed ones.
    Rules,
    /// A representation.
    Entry {
        path: Box<[u8]>,
        coding: Coding,
        kind: Kind,
    },
}

/// What is wrong with a representation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Missing,
    Unreadable(String),
    /// Somebody is writing to it: its content is not final.
    Unsettled,
    Other(ETag),
}

impl Fault {
    /// The URL of the listed file, unless the rules differ.
    pub(super) fn path(&self) -> Option<String> {
        match self {
            Self::Rules => None,
            Self::Entry { path, .. } => Some(url(path)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Entry { path, coding, kind } = self else {
            return f.write_str("_headers or _redirects differs");
        };
        f.write_str(&url(path))?;
        if coding.extension().is_some() {
            write!(f, " ({})", coding.token())?;
        }
        match kind {
            Kind::Missing => f.write_str(" is missing"),
            Kind::Unreadable(reason) => write!(f, " cannot be read: {reason}"),
            Kind::Unsettled => f.write_str(" is being written"),
            Kind::Other(etag) => write!(f, " is {etag}"),
        }
    }
}

/// Compares a tree with an inventory. The first `max_shown` faults are described, the others only
/// counted.
pub(super) fn prove(
    inventory: &Inventory,
    tree: &Manifest,
    max_shown: usize,
) -> Result<Proven, Faults> {
    let (mut resources, mut empty_folders) = (Vec::new(), Vec::new());
    let (mut count, mut shown) = (0, Vec::new());
    if inventory.head.rules != tree.head().rules {
        count = 1;
        shown.push(Fault::Rules);
    }
    let listed_folders = (inventory.head.empty_folders.iter())
        .filter(|_| tree.settings().lists())
        .filter_map(|folder| folder.strip_suffix(b"/"));
    for folder in listed_folders {
        if tree.has_folder(folder) {
            empty_folders.push(folder.into());
            continue;
        }
        count += 1;
        if shown.len() < max_shown {
            let reason = unreadable(folder, tree.unreadable());
            shown.push(Fault::Entry {
                path: [folder, b"/"].concat().into(),
                coding: Coding::Identity,
                kind: reason.map_or(Kind::Missing, |reason| Kind::Unreadable(reason.clone())),
            });
        }
    }
    for entries in inventory.entries.chunk_by(|a, b| a.path == b.path) {
        let Some(first) = entries.first() else {
            continue;
        };
        let resource = tree.locate(&first.path);
        for entry in entries {
            if let Some(kind) = fault(entry, resource, tree) {
                count += 1;
                if shown.len() < max_shown {
                    shown.push(Fault::Entry {
                        path: entry.path.clone(),
                        coding: entry.coding,
                        kind,
                    });
                }
            }
        }
        if count == 0 {
            resources.extend(resource.map(|resource| listed(resource, entries)));
        }
    }
    if count > 0 {
        return Err(Faults { count, shown });
    }
    let without_codings = tree.without_codings().iter();
    Ok(Proven {
        unlisted: tree.len() - resources.len(),
        without_codings: without_codings
            .filter(|path| inventory.has(path))
            .cloned()
            .collect(),
        resources,
        empty_folders,
    })
}

fn fault(entry: &Entry, resource: Option<&Arc<Resource>>, tree: &Manifest) -> Option<Kind> {
    if let Some(reason) = unreadable(&entry.path, tree.unreadable()) {
        return Some(Kind::Unreadable(reason.clone()));
    }
    let Some(resource) = resource else {
        return Some(Kind::Missing);
    };
    if !resource.settled {
        return Some(Kind::Unsettled);
    }
    let mut all = resource.representations();
    match all.find(|each| each.coding() == entry.coding) {
        // The file itself is as listed, and sent. The digest says that there should be more.
        None if entry.coding != Coding::Identity
            && tree.without_codings().contains(&entry.path) =>
        {
            None
        }
        None => Some(Kind::Missing),
        Some(found) if found.etag != entry.etag => Some(Kind::Other(found.etag)),
        Some(_) => None,
    }
}

/// Why a path can't be read, or a directory above it.
fn unreadable<'a>(path: &[u8], unreadable: &'a BTreeMap<Box<[u8]>, String>) -> Option<&'a String> {
    if unreadable.is_empty() {
        return None;
    }
    let mut all = std::iter::once(path).chain(ancestors(path));
    all.find_map(|path| unreadable.get(path))
}

/// A resource without the codings that are not listed.
fn listed(resource: &Arc<Resource>, entries: &[Entry]) -> Arc<Resource> {
    let is_listed = |coding| entries.iter().any(|entry| entry.coding == coding);
    if resource.encoded.iter().all(|each| is_listed(each.coding())) {
        return Arc::clone(resource);
    }
    let encoded = resource
        .encoded
        .iter()
        .filter(|each| is_listed(each.coding()))
        .cloned();
    Arc::new(Resource {
        encoded: encoded.collect(),
        ..Resource::clone(resource)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Changes;
    use crate::representation::{Data, Fields, REVALIDATE, Representation};
    use crate::rules::{Dialect, RuleFile, Rules};
    use crate::settings::Settings;

    /// What a test says of a file: path, content, the content of its brotli coding.
    type Said<'a> = (&'a str, &'a str, Option<&'a str>);

    fn manifest(files: &[Said<'_>], unreadable: &[&str], unsettled: &[&str]) -> Manifest {
        let content_type = http::HeaderValue::from_static("text/plain");
        let fields = Arc::new(Fields::new(content_type, REVALIDATE));
        let representation = |coding, content: &str| {
            let etag = ETag::new(*blake3::hash(content.as_bytes()).as_bytes());
            let data = Data::Memory(bytes::Bytes::new());
            Representation::new(coding, etag, content.len() as u64, data)
        };
        let resource = |(path, content, brotli): &Said<'_>| {
            let identity = representation(Coding::Identity, content);
            let mut resource = Resource::new(path.as_bytes().into(), Arc::clone(&fields), identity);
            resource.settled = !unsettled.contains(path);
            let brotli = brotli.iter();
            resource.encoded = brotli
                .map(|content| representation(Coding::Brotli, content))
                .collect();
            Arc::new(resource)
        };
        let reason = |path: &&str| (path.as_bytes().into(), "not permitted".to_owned());
        Manifest::empty(Settings::default()).with(Changes {
            changed: files.iter().map(resource).collect(),
            unreadable: unreadable.iter().map(reason).collect(),
            ..Changes::default()
        })
    }

    fn ruled(manifest: &Manifest) -> Manifest {
        let rules = Rules::default();
        let text = Some(&b"/x /y"[..]);
        let rules = rules.with(RuleFile::Redirects, text, Dialect::Netlify);
        manifest.with(Changes {
            rules: rules.map(Arc::new),
            ..Changes::default()
        })
    }

    const LISTED: &[Said<'static>] = &[
        ("a.txt", "a", None),
        ("d/b.html", "b", Some("brotli of b")),
        ("d/b.html.br", "brotli of b", None),
    ];

    #[test]
    fn what_is_listed_and_no_more_is_proven() {
        let inventory = manifest(LISTED, &[], &[]).inventory();
        let mut more = LISTED.to_vec();
        more[0].2 = Some("a coding that is not listed");
        more.push(("more.txt", "more", None));
        let proven = prove(&inventory, &manifest(&more, &["other"], &["more.txt"]), 9);
        let proven = proven.expect("all is there");
        assert_eq!(proven.unlisted, 1);
        let served = Manifest::empty(Settings::default()).with(Changes {
            changed: proven.resources,
            ..Changes::default()
        });
        assert_eq!(served.inventory().entries, inventory.entries);
        assert_eq!(served.digest().to_string(), inventory.head.digest);
    }

    #[test]
    fn listed_folders_are_proven_by_being_there_where_folders_are_listed() {
        let folder = |path: &&str| path.as_bytes().into();
        let tree = |listing, folders: &[&str], unreadable: &[&str]| {
            let settings = Settings {
                listing,
                ..Settings::default()
            };
            let reason = |path: &&str| (path.as_bytes().into(), "not permitted".to_owned());
            Manifest::empty(settings).with(Changes {
                changed: manifest(&LISTED[..1], &[], &[]).iter().cloned().collect(),
                new_folders: folders.iter().map(folder).collect(),
                unreadable: unreadable.iter().map(reason).collect(),
                ..Changes::default()
            })
        };
        let inventory = tree(true, &["e", "e/g"], &[]).inventory();
        assert_eq!(inventory.head.empty_folders.len(), 2);
        let proven = prove(&inventory, &tree(true, &["e", "e/g", "more"], &[]), 9);
        let proven = proven.expect("all is there");
        assert_eq!(proven.empty_folders.len(), 2);
        let served = tree(true, &[], &[]).with(Changes {
            new_folders: proven.empty_folders,
            ..Changes::default()
        });
        assert_eq!(served.digest().to_string(), inventory.head.digest);
        let faults = |tree: &Manifest| {
            let faults = prove(&inventory, tree, 9).expect_err("not all is there");
            let shown = faults.shown.iter().map(ToString::to_string);
            shown.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(faults(&tree(true, &["e"], &[])), "/e/g/ is missing");
        let unreadable = tree(true, &["e"], &["e/g"]);
        assert_eq!(faults(&unreadable), "/e/g/ cannot be read: not permitted");
        let proven = prove(&inventory, &tree(false, &[], &[]), 9).expect("nobody can ask");
        assert!(proven.empty_folders.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let inventory = manifest(LISTED, &[], &[]).inventory();
        let other = format!("\"{}\"", blake3::hash(b"other"));
        #[rustfmt::skip]
        let cases: &[(&str, Manifest, &[&str])] = &[
            ("nothing is there", manifest(&[], &[], &[]),
                &["/a.txt is missing", "/d/b.html is missing", "/d/b.html (br) is missing", "/d/b.html.br is missing"]),
            ("a file is missing", manifest(&LISTED[1..], &[], &[]), &["/a.txt is missing"]),
            ("other content", manifest(&[("a.txt", "other", None), LISTED[1], LISTED[2]], &[], &[]),
                &[&format!("/a.txt is {other}")]),
            ("a coding is missing", manifest(&[LISTED[0], ("d/b.html", "b", None), LISTED[2]], &[], &[]),
                &["/d/b.html (br) is missing"]),
            ("a coding is another", manifest(&[LISTED[0], ("d/b.html", "b", Some("other")), LISTED[2]], &[], &[]),
                &[&format!("/d/b.html (br) is {other}")]),
            ("a file can't be read, and its last state is known", manifest(LISTED, &["a.txt"], &[]),
                &["/a.txt cannot be read: not permitted"]),
            ("a directory can't be read", manifest(&LISTED[..1], &["d"], &[]),
                &["/d/b.html cannot be read: not permitted", "/d/b.html (br) cannot be read: not permitted",
                  "/d/b.html.br cannot be read: not permitted"]),
            ("a file is being written", manifest(LISTED, &[], &["a.txt"]), &["/a.txt is being written"]),
            ("the rules are others", ruled(&manifest(LISTED, &[], &[])), &["_headers or _redirects differs"]),
        ];
        for (name, tree, want) in cases {
            let faults = prove(&inventory, tree, 9).expect_err(name);
            let found: Vec<_> = faults.shown.iter().map(ToString::to_string).collect();
            assert_eq!(found, *want, "{name}");
            assert_eq!(faults.count, want.len(), "{name}");
            let faults = prove(&inventory, tree, 1).expect_err(name);
            assert_eq!(
                (faults.count, faults.shown.len()),
                (want.len(), 1),
                "{name}"
            );
        }
    }
}
