//! The URLs to purge from caches after a change of the site.

use std::collections::BTreeMap;

use crate::inventory::{ChangeKind, Difference};
use crate::semantics::base_path::BasePath;
use crate::settings::HtmlHandling;

/// The URLs whose answers have changed because of `differences`: absolute paths, percent-encoded, with
/// the base path of the site.
///
/// A page has several URLs: `/dir/index.html` is also `/dir/`, `/about.html` is also `/about`. If
/// the HTML handling redirects all of them to one, every URL that answers with a redirect is
/// listed too. `/dir/index`, which nobody links to, is left out.
pub fn urls<'a>(
    differences: impl IntoIterator<Item = &'a Difference>,
    handling: HtmlHandling,
    base_path: &BasePath,
) -> BTreeMap<String, ChangeKind> {
    let mut urls = BTreeMap::new();
    for Difference { path, reason } in differences {
        let mut add = |path: &[u8]| {
            let known = urls.entry(base_path.url(path)).or_insert(*reason);
            // One file with this URL was added, another one removed.
            if known != reason {
                *known = ChangeKind::Changed;
            }
        };
        add(path);
        let Some((stem, is_index)) = page(path) else {
            continue;
        };
        let with_slash = [stem, b"/"].concat();
        match handling {
            HtmlHandling::None => {}
            _ if stem.is_empty() => add(b""),
            HtmlHandling::Suffix if is_index => {
                add(&with_slash);
                // `/dir` redirects to `/dir/` only while the index exists.
                if *reason != ChangeKind::Changed {
                    add(stem);
                }
            }
            HtmlHandling::Suffix => add(stem),
            HtmlHandling::AutoTrailingSlash
            | HtmlHandling::ForceTrailingSlash
            | HtmlHandling::DropTrailingSlash => {
                add(stem);
                add(&with_slash);
            }
        }
    }
    urls
}

/// The path of a page without its ending: `a` for `a.html` and for `a/index.html`, and whether it
/// is an index.
fn page(path: &[u8]) -> Option<(&[u8], bool)> {
    match path.strip_suffix(b"index.html") {
        Some([]) => return Some((b"", true)),
        Some([directory @ .., b'/']) => return Some((directory, true)),
        _ => {}
    }
    let stem = path.strip_suffix(b".html")?;
    (!matches!(stem, [] | [.., b'/'])).then_some((stem, false))
}

#[cfg(test)]
mod tests {
    use super::ChangeKind::{Added, Changed, Removed};
    use super::*;
    use crate::locate::{Located, locate};
    use crate::semantics::target::Target;

    type Urls<'a> = &'a [(&'a str, ChangeKind)];
    type PurgeCase<'a> = (&'a str, HtmlHandling, Urls<'a>, Urls<'a>);

    const ALL: [HtmlHandling; 5] = [
        HtmlHandling::Suffix,
        HtmlHandling::AutoTrailingSlash,
        HtmlHandling::ForceTrailingSlash,
        HtmlHandling::DropTrailingSlash,
        HtmlHandling::None,
    ];

    fn differences(reasons: Urls<'_>) -> Vec<Difference> {
        let difference = |(path, reason): &(&str, ChangeKind)| Difference {
            path: path.as_bytes().into(),
            reason: *reason,
        };
        reasons.iter().map(difference).collect()
    }

    #[test]
    fn urls_that_a_cache_should_forget() {
        use HtmlHandling::{AutoTrailingSlash as Auto, None as Plain, Suffix};
        #[rustfmt::skip]
        let cases: &[PurgeCase<'_>] = &[
            ("a file", Suffix, &[("a.css", Changed)], &[("/a.css", Changed)]),
            ("the first page", Suffix, &[("index.html", Changed)], &[("/", Changed), ("/index.html", Changed)]),
            ("the first page is new", Suffix, &[("index.html", Added)], &[("/", Added), ("/index.html", Added)]),
            ("an index", Suffix, &[("d/index.html", Changed)], &[("/d/", Changed), ("/d/index.html", Changed)]),
            ("an index more", Suffix, &[("d/index.html", Added)],
                &[("/d", Added), ("/d/", Added), ("/d/index.html", Added)]),
            ("an index less", Suffix, &[("d/index.html", Removed)],
                &[("/d", Removed), ("/d/", Removed), ("/d/index.html", Removed)]),
            ("a page", Suffix, &[("about.html", Removed)], &[("/about", Removed), ("/about.html", Removed)]),
            ("no index", Suffix, &[("d/xindex.html", Changed)], &[("/d/xindex", Changed), ("/d/xindex.html", Changed)]),
            ("no name before the dot", Suffix, &[("d/.html", Changed)], &[("/d/.html", Changed)]),
            ("another type", Suffix, &[("about.htm", Changed)], &[("/about.htm", Changed)]),
            ("hard to write", Suffix, &[("a b/100%.html", Added)],
                &[("/a%20b/100%25", Added), ("/a%20b/100%25.html", Added)]),
            ("from a page to an index", Suffix, &[("a.html", Removed), ("a/index.html", Added)],
                &[("/a", Changed), ("/a.html", Removed), ("/a/", Added), ("/a/index.html", Added)]),
            ("a page with one URL", Auto, &[("a.html", Changed)],
                &[("/a", Changed), ("/a.html", Changed), ("/a/", Changed)]),
            ("an index with one URL", Auto, &[("a/index.html", Changed)],
                &[("/a", Changed), ("/a/", Changed), ("/a/index.html", Changed)]),
            ("files are files", Plain, &[("a.html", Changed), ("index.html", Added)],
                &[("/a.html", Changed), ("/index.html", Added)]),
        ];
        for (name, handling, reasons, want) in cases {
            let base_path = BasePath::default();
            let found = urls(&differences(reasons), *handling, &base_path);
            let found: Vec<_> = found.into_iter().collect();
            let want: Vec<_> = want
                .iter()
                .map(|(url, reason)| ((*url).to_owned(), *reason))
                .collect();
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn urls_have_the_base_path() {
        let base_path = "/app".parse().expect("a path");
        let changed = [("index.html", Changed), ("a b.html", Changed)];
        let found = urls(&differences(&changed), HtmlHandling::Suffix, &base_path);
        let found: Vec<_> = found.into_keys().collect();
        let expected = ["/app/", "/app/a%20b", "/app/a%20b.html", "/app/index.html"];
        assert_eq!(found, expected);
    }

    /// Everything that is answered with a file is forgotten with it, whatever stands beside it.
    #[test]
    fn no_url_that_a_file_answers_is_left_out() {
        let files = [
            "index.html",
            "a.html",
            "a/index.html",
            "a",
            "b.html",
            "c/index.html",
        ];
        let asked = [
            "/",
            "/a",
            "/a/",
            "/a.html",
            "/a/index.html",
            "/b",
            "/b/",
            "/b.html",
            "/c",
            "/c/",
            "/c/index.html",
            "/index.html",
        ];
        for handling in ALL {
            for present in 0..1 << files.len() {
                let is_there = |name: &[u8]| {
                    let place = files.iter().position(|file| file.as_bytes() == name)?;
                    (present & 1 << place != 0).then_some(files[place])
                };
                for asked in asked {
                    let uri: http::Uri = asked.parse().expect("a URI");
                    let target = Target::parse(&uri).expect("a target");
                    let Located::Here(file) = locate(handling, &target, is_there) else {
                        continue;
                    };
                    let base_path = BasePath::default();
                    let urls = urls(&differences(&[(file, Changed)]), handling, &base_path);
                    assert!(urls.contains_key(asked), "{handling:?}: {asked} is {file}");
                }
            }
        }
    }
}
