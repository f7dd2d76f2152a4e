//! From one release to the next: what differs. Pure.

use std::sync::Arc;

use crate::manifest::{Changes, Manifest};
use crate::representation::{Representation, Resource};

/// What turns `current` into `target`.
pub(super) fn between(current: &Manifest, target: &Manifest) -> Changes {
    let (mut known, mut changed) = (0, Vec::new());
    for new in target.iter() {
        let old = current.locate(&new.path);
        known += usize::from(old.is_some());
        if !old.is_some_and(|old| is_known(old, new)) {
            changed.push(Arc::clone(new));
        }
    }
    let gone = current
        .iter()
        .filter(|old| target.locate(&old.path).is_none());
    let removed = match current.len() - known {
        0 => Vec::new(),
        _ => gone.map(|old| old.path.clone()).collect(),
    };
    let folders = |of: &Manifest, not_of: &Manifest| {
        let folders = of.folders().filter(|folder| !not_of.has_folder(folder));
        folders.map(Box::from).collect()
    };
    let have_rules_changed = target.rules().hash() != current.rules().hash();
    let have_settings_changed = target.settings().flags() != current.settings().flags();
    Changes {
        changed,
        removed,
        new_folders: folders(target, current),
        removed_folders: folders(current, target),
        rules: have_rules_changed.then(|| Arc::clone(target.rules())),
        settings: have_settings_changed.then(|| Arc::clone(target.shared_settings())),
        ..Changes::default()
    }
}

/// Whether a resource is as it was: the same content in the same place, and what follows from it.
fn is_known(old: &Resource, new: &Resource) -> bool {
    let is_same = |(old, new): (&Representation, &Representation)| {
        old.coding() == new.coding()
            && old.etag == new.etag
            // The digest does not have it: a release may only put a wrong one right.
            && old.length == new.length
            && old.sha256() == new.sha256()
            && old.data.has_same_location(&new.data)
    };
    old.last_modified == new.last_modified
        && old.newest_date() == new.newest_date()
        && old.text == new.text
        && old.fields == new.fields
        && old.dictionary_use() == new.dictionary_use()
        && old.clean().map(|clean| &clean.fields) == new.clean().map(|clean| &clean.fields)
        && old.encoded.len() == new.encoded.len()
        && old
            .representations()
            .zip(new.representations())
            .all(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderValue;

    use crate::representation::{Data, Fields, REVALIDATE};
    use crate::rules::{Dialect, RuleFile, Rules};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;
    use crate::settings::Settings;

    fn site(settings: Settings, files: &[(&str, &str)], folders: &[&str], rules: &str) -> Manifest {
        let content_type = HeaderValue::from_static("text/plain");
        let fields = Arc::new(Fields::new(content_type, REVALIDATE));
        let resource = |(path, content): &(&str, &str)| {
            let etag = ETag::new(*blake3::hash(content.as_bytes()).as_bytes());
            let data = Data::Memory(Bytes::copy_from_slice(content.as_bytes()));
            let length = content.len() as u64;
            let identity = Representation::new(Coding::Identity, etag, length, data);
            Arc::new(Resource::new(
                path.as_bytes().into(),
                Arc::clone(&fields),
                identity,
            ))
        };
        let text = Some(rules.as_bytes());
        let rules = Rules::default().with(RuleFile::Headers, text, Dialect::Netlify);
        Manifest::empty(settings).with(Changes {
            changed: files.iter().map(resource).collect(),
            new_folders: folders
                .iter()
                .map(|folder| folder.as_bytes().into())
                .collect(),
            rules: rules.map(Arc::new),
            ..Changes::default()
        })
    }

    #[test]
    fn a_length_that_is_put_right_is_a_change() {
        let right = site(Settings::default(), &[("a", "1")], &[], "");
        let mut resource = Resource::clone(right.locate(b"a").expect("a file"));
        resource.identity.length += 1;
        let wrong = right.with(Changes {
            changed: vec![Arc::new(resource)],
            ..Changes::default()
        });
        assert_eq!(wrong.digest(), right.digest());
        assert_eq!(between(&wrong, &right).changed.len(), 1);
    }

    #[test]
    fn any_release_becomes_any_other() {
        let listing = || Settings {
            listing: true,
            ..Settings::default()
        };
        let sites = [
            site(Settings::default(), &[], &[], ""),
            site(Settings::default(), &[("a", "1"), ("b/c", "2")], &[], ""),
            site(
                Settings::default(),
                &[("a", "1"), ("b/d", "2")],
                &[],
                "/a\n  X-A: 1\n",
            ),
            site(
                listing(),
                &[("a", "2"), ("b/c", "2")],
                &["e", "b/f"],
                "/*\n  X-A: 1\n",
            ),
            site(listing(), &[("a", "2"), ("b/c", "2")], &["b/f"], ""),
            site(
                Settings {
                    immutable_query: true,
                    ..Settings::default()
                },
                &[("a", "2")],
                &[],
                "",
            ),
        ];
        for from in &sites {
            for to in &sites {
                let changes = between(from, to);
                let is_same = from.digest() == to.digest();
                assert_eq!(changes.changes_nothing_in(from), is_same);
                let became = from.with(changes);
                assert_eq!(became.digest(), to.digest());
                assert_eq!(became.inventory().entries, to.inventory().entries);
            }
        }
        let one = between(&sites[1], &sites[2]);
        assert_eq!(
            (one.changed.len(), one.removed.len()),
            (2, 1),
            "a has other fields"
        );
        let none = between(&sites[3], &sites[4]);
        assert_eq!(none.removed_folders.len(), 1);
    }
}
