//! The difference between two states of a site.

use std::sync::Arc;

use super::Manifest;
use crate::inventory::{ChangeKind, Difference};
use crate::representation::Resource;

impl Manifest {
    /// The paths whose answers differ between this state and a `newer` one, in order. Redirects are
    /// not compared.
    pub fn diff(&self, newer: &Self) -> Vec<Difference> {
        let is_alike = self.settings.named() == newer.settings.named();
        let is_comparable = is_alike && self.rules().headers.hash() == newer.rules().headers.hash();
        let mut differences = Vec::new();
        // A bucket's hash covers tags, not fields: equal hashes mean equal answers only under equal
        // settings and rules.
        for (old, new) in self.buckets.iter().zip(&newer.buckets) {
            if Arc::ptr_eq(old, new) || (is_comparable && old.hash == new.hash) {
                continue;
            }
            let mut add = |path: &[u8], reason| {
                let path = path.into();
                differences.push(Difference { path, reason });
            };
            for resource in new.table.resources() {
                match self.locate(&resource.path) {
                    None => add(&resource.path, ChangeKind::Added),
                    Some(before) if !answers_alike(before, resource) => {
                        add(&resource.path, ChangeKind::Changed);
                    }
                    Some(_) => {}
                }
            }
            for resource in old.table.resources() {
                if newer.locate(&resource.path).is_none() {
                    add(&resource.path, ChangeKind::Removed);
                }
            }
        }
        differences.sort_unstable();
        differences
    }
}

/// Whether two resources give the same tags and fields, dates aside, at each of their paths.
fn answers_alike(one: &Resource, other: &Resource) -> bool {
    let tags = |resource: &Resource| -> Vec<_> {
        resource
            .representations()
            .map(|each| (each.coding(), each.etag))
            .collect()
    };
    let clean = |resource: &'_ Resource| resource.clean().map(|clean| Arc::clone(&clean.fields));
    one.fields == other.fields && clean(one) == clean(other) && tags(one) == tags(other)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::inventory::between;
    use crate::manifest::Changes;
    use crate::representation::{Data, Fields, NO_STORE, REVALIDATE, Representation};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;
    use crate::settings::Settings;

    /// A resource of a test: path, content, whether it has a coding, whether it is settled.
    type ResourceFixture = (&'static str, u8, bool, bool);

    /// Its name, what changes, what goes, and what should be found.
    type DiffCase<'a> = (
        &'a str,
        &'a [ResourceFixture],
        &'a [&'a str],
        &'a [(&'a str, ChangeKind)],
    );

    fn resource((path, content, is_coded, settled): ResourceFixture) -> Arc<Resource> {
        let tag = |salt: u8| ETag::new(*blake3::hash(&[content, salt]).as_bytes());
        let data = Data::Memory(bytes::Bytes::new());
        let representation =
            |coding, salt| Representation::new(coding, tag(salt), u64::from(content), data.clone());
        let cache_control = if settled { REVALIDATE } else { NO_STORE };
        let content_type = HeaderValue::from_static("text/plain");
        let fields = Arc::new(Fields::new(content_type, cache_control));
        let identity = representation(Coding::Identity, 0);
        let mut resource = Resource::new(path.as_bytes().into(), fields, identity);
        resource.settled = settled;
        if is_coded {
            resource.encoded = [representation(Coding::Gzip, 1)].into();
        }
        Arc::new(resource)
    }

    fn changes(changed: &[ResourceFixture], removed: &[&str]) -> Changes {
        Changes {
            changed: changed.iter().copied().map(resource).collect(),
            removed: removed.iter().map(|path| path.as_bytes().into()).collect(),
            ..Changes::default()
        }
    }

    fn found(old: &Manifest, new: &Manifest) -> Vec<(String, ChangeKind)> {
        let differences = old.diff(new);
        assert_eq!(differences, between(&old.inventory(), &new.inventory()));
        let path = |each: &Difference| String::from_utf8_lossy(&each.path).into_owned();
        differences
            .iter()
            .map(|each| (path(each), each.reason))
            .collect()
    }

    #[test]
    fn what_lies_between_two_states() {
        let base = [
            ("a", 1, false, true),
            ("b", 2, true, true),
            ("c", 3, false, true),
        ];
        let base = Manifest::empty(Settings::default()).with(changes(&base, &[]));
        #[rustfmt::skip]
        let cases: &[DiffCase<'_>] = &[
            ("nothing", &[], &[], &[]),
            ("the same again", &[("a", 1, false, true), ("b", 2, true, true)], &[], &[]),
            ("other content", &[("a", 9, false, true)], &[], &[("a", ChangeKind::Changed)]),
            ("a coding more", &[("a", 1, true, true)], &[], &[("a", ChangeKind::Changed)]),
            ("a coding less", &[("b", 2, false, true)], &[], &[("b", ChangeKind::Changed)]),
            ("a path more", &[("d", 1, false, true)], &[], &[("d", ChangeKind::Added)]),
            ("a path less", &[], &["c"], &[("c", ChangeKind::Removed)]),
            ("a path that was not there", &[], &["x"], &[]),
            ("all of it", &[("d", 1, false, true), ("b", 7, true, true)], &["a", "c"],
                &[("a", ChangeKind::Removed), ("b", ChangeKind::Changed), ("c", ChangeKind::Removed), ("d", ChangeKind::Added)]),
        ];
        for (name, changed, removed, want) in cases {
            let new = base.with(changes(changed, removed));
            let want: Vec<_> = want
                .iter()
                .map(|(path, reason)| ((*path).to_owned(), *reason))
                .collect();
            assert_eq!(found(&base, &new), want, "{name}");
            let back: Vec<_> = want
                .into_iter()
                .map(|(path, reason)| match reason {
                    ChangeKind::Changed => (path, ChangeKind::Changed),
                    ChangeKind::Added => (path, ChangeKind::Removed),
                    ChangeKind::Removed => (path, ChangeKind::Added),
                })
                .collect();
            assert_eq!(found(&new, &base), back, "{name}, backwards");
        }
    }

    #[test]
    fn a_change_is_found_among_many_thousand() {
        let names: Vec<String> = (0..20_000).map(|n| format!("d{}/f{n}", n % 70)).collect();
        let all = names.iter().map(|name| {
            let content = Representation::new(
                Coding::Identity,
                ETag::new(*blake3::hash(name.as_bytes()).as_bytes()),
                1,
                Data::Memory(bytes::Bytes::new()),
            );
            let fields = Arc::clone(&resource(("x", 0, false, true)).fields);
            Arc::new(Resource::new(name.as_bytes().into(), fields, content))
        });
        let base = Manifest::empty(Settings::default()).with(Changes {
            changed: all.collect(),
            ..Changes::default()
        });
        let new = base.with(changes(&[("d7/new", 1, false, true)], &["d3/f3", "d5/f5"]));
        let want = [
            ("d3/f3".to_owned(), ChangeKind::Removed),
            ("d5/f5".to_owned(), ChangeKind::Removed),
            ("d7/new".to_owned(), ChangeKind::Added),
        ];
        assert_eq!(found(&base, &new), want);
    }

    #[test]
    fn other_settings_have_every_field_compared() {
        let base =
            Manifest::empty(Settings::default()).with(changes(&[("a", 1, false, true)], &[]));
        let settings = Settings {
            last_modified: false,
            ..Settings::default()
        };
        let other = Manifest::empty(settings).with(changes(&[("a", 1, false, false)], &[]));
        assert_eq!(base.diff(&other).len(), 1);
    }
}
