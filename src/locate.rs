//! From the path that a target asks for to the file that answers: clean URLs.
//!
//! [`locate`] is pure and asks for names one by one, so that a name that no scan admitted has no
//! spelling here either. A name that is there answers under itself. Beyond that a *stem* `a` can
//! have two pages, `a.html` and `a/index.html`, and [`HtmlHandling`] says under which URL each is
//! answered:
//!
//! | | `a.html` | `a/index.html` | `/a` where both are there |
//! |---|---|---|---|
//! | `suffix` | `/a`, `/a.html` | `/a/`, `/a/index.html` | redirects to `/a/` |
//! | `auto-trailing-slash` | `/a` | `/a/` | `a.html` |
//! | `force-trailing-slash` | `/a/` | `/a/` | redirects to `/a/`: `a/index.html` |
//! | `drop-trailing-slash` | `/a` | `/a` | `a.html` |
//! | `none` | `/a.html` | `/a/index.html` | nothing |
//!
//! Under the three words of the middle each page has one URL, and `/a`, `/a/`, `/a.html`,
//! `/a/index` and `/a/index.html` redirect to it. A page whose URL belongs to another is
//! answered under the name of its file. They behave as Cloudflare's `html_handling` of the same
//! name, but for the status of a redirect, which is 308 as everywhere in etagd: the address is
//! the page's for good, search engines take it so, and its `Cache-Control` has everyone ask again
//! before they follow it, so that another word can be chosen later.

use std::borrow::Cow;

use crate::semantics::target::Target;
use crate::settings::HtmlHandling;

/// Where a path leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Located<T> {
    /// To this.
    Here(T),
    /// To this path, which is answered, and by no redirect.
    At(Vec<u8>),
    /// To nothing.
    Nowhere,
}

/// Finds what answers to `target`. `find` tells what has a name: raw bytes below the root, without
/// the leading slash.
pub fn locate<T>(
    handling: HtmlHandling,
    target: &Target<'_>,
    find: impl Fn(&[u8]) -> Option<T>,
) -> Located<T> {
    // No file has an empty segment (RFC 3986 3.3): redirect to the path without them, if that
    // names something.
    let path = match target.collapsed() {
        Some(path) => Cow::Owned(path),
        None => Cow::Borrowed(target.path()),
    };
    let found = locate_path(handling, &path, find);
    match (path, found) {
        (Cow::Owned(path), Located::Here(_)) => Located::At(path),
        (_, found) => found,
    }
}

/// [`locate`] for a path without empty segments.
fn locate_path<T>(
    handling: HtmlHandling,
    path: &[u8],
    find: impl Fn(&[u8]) -> Option<T>,
) -> Located<T> {
    match handling {
        HtmlHandling::Suffix => by_suffix(path, find),
        HtmlHandling::AutoTrailingSlash => by_url(path, &PageUrls::new(false, true, find)),
        HtmlHandling::ForceTrailingSlash => by_url(path, &PageUrls::new(true, true, find)),
        HtmlHandling::DropTrailingSlash => by_url(path, &PageUrls::new(false, false, find)),
        HtmlHandling::None => find(path).map_or(Located::Nowhere, Located::Here),
    }
}

/// What answers whoever follows a path without empty segments to its end: raw bytes below the
/// root, without the leading slash.
pub fn resolve<T>(
    handling: HtmlHandling,
    path: &[u8],
    find: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let found = match locate_path(handling, path, &find) {
        // It is answered there.
        Located::At(path) => locate_path(handling, &path, find),
        found => found,
    };
    match found {
        Located::Here(found) => Some(found),
        Located::At(_) | Located::Nowhere => None,
    }
}

/// Whatever can be meant is found, and nothing redirects but a directory without its slash.
fn by_suffix<T>(path: &[u8], find: impl Fn(&[u8]) -> Option<T>) -> Located<T> {
    let found = if path.is_empty() || path.ends_with(b"/") {
        find(&[path, b"index.html"].concat())
    } else if let Some(found) = find(path) {
        Some(found)
    } else if find(&[path, b"/index.html"].concat()).is_some() {
        return Located::At([path, b"/"].concat());
    } else {
        find(&[path, b".html"].concat())
    };
    found.map_or(Located::Nowhere, Located::Here)
}

/// Each page has one URL; its other names lead there.
fn by_url<T>(path: &[u8], urls: &PageUrls<impl Fn(&[u8]) -> Option<T>>) -> Located<T> {
    if let Some(found) = (urls.find)(path) {
        let url = PageKind::of_file(path).and_then(|(page, stem)| urls.url_of(page, stem));
        return url.map_or(Located::Here(found), Located::At);
    }
    if let Some((_, found)) = urls.at(path) {
        return Located::Here(found);
    }
    let plain = path.strip_suffix(b"/").unwrap_or(path);
    [spelled_out(path), Some(plain)]
        .into_iter()
        .flatten()
        .flat_map(|stem| [(PageKind::Index, stem), (PageKind::File, stem)])
        .find_map(|(page, stem)| urls.url_of(page, stem))
        .map_or(Located::Nowhere, Located::At)
}

/// The two pages that a stem can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PageKind {
    /// `a.html`.
    File,
    /// `a/index.html`.
    Index,
}

impl PageKind {
    /// Which page the file of this name is, and of which stem.
    fn of_file(name: &[u8]) -> Option<(Self, &[u8])> {
        match in_directory(name, b"index.html") {
            Some(stem) => Some((Self::Index, stem)),
            None => Some((Self::File, name.strip_suffix(b".html")?)),
        }
    }

    /// The name of its file. `a/index` has no file of its own: `a/index.html` belongs to `a`.
    fn file(self, stem: &[u8]) -> Option<Vec<u8>> {
        match (self, stem) {
            (Self::File, [] | [.., b'/']) => None,
            (Self::File, _) if in_directory(stem, b"index").is_some() => None,
            (Self::File, _) => Some([stem, b".html"].concat()),
            (Self::Index, []) => Some(b"index.html".to_vec()),
            (Self::Index, _) => Some([stem, b"/index.html"].concat()),
        }
    }
}

/// `a` for `a/NAME`, nothing for `NAME` itself.
fn in_directory<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match path.strip_suffix(name)? {
        [] => Some(&[]),
        directory => directory.strip_suffix(b"/"),
    }
}

/// The stem of a path that says more than is needed: `/a/index`, `/a/index.html`, `/a.html`.
fn spelled_out(path: &[u8]) -> Option<&[u8]> {
    in_directory(path, b"index")
        .or_else(|| in_directory(path, b"index.html"))
        .or_else(|| path.strip_suffix(b".html"))
}

/// Under which URLs pages are answered.
struct PageUrls<F> {
    file_has_slash: bool,
    index_has_slash: bool,
    find: F,
}

impl<T, F: Fn(&[u8]) -> Option<T>> PageUrls<F> {
    fn new(file_has_slash: bool, index_has_slash: bool, find: F) -> Self {
        Self {
            file_has_slash,
            index_has_slash,
            find,
        }
    }

    /// The root has its slash under any word.
    fn has_slash(&self, page: PageKind, stem: &[u8]) -> bool {
        match page {
            PageKind::File => self.file_has_slash,
            PageKind::Index => self.index_has_slash || stem.is_empty(),
        }
    }

    /// The page that is answered at `path`. Where two would be, the one whose file looks like it.
    fn at(&self, path: &[u8]) -> Option<(PageKind, T)> {
        let (stem, slash, pages) = match path {
            [] => (path, true, [PageKind::Index, PageKind::File]),
            [stem @ .., b'/'] => (stem, true, [PageKind::Index, PageKind::File]),
            _ => (path, false, [PageKind::File, PageKind::Index]),
        };
        let mut pages = pages.into_iter();
        pages.find_map(|page| {
            let file = page
                .file(stem)
                .filter(|_| self.has_slash(page, stem) == slash)?;
            Some((page, (self.find)(&file)?))
        })
    }

    /// The path of a page's URL, if the page is there and the URL is not another's.
    fn url_of(&self, page: PageKind, stem: &[u8]) -> Option<Vec<u8>> {
        let slash: &[u8] = match self.has_slash(page, stem) {
            true if !stem.is_empty() => b"/",
            _ => b"",
        };
        let path = [stem, slash].concat();
        let is_file = (self.find)(&path).is_some();
        let answered = self.at(&path).filter(|_| !is_file);
        answered.is_some_and(|(at, _)| at == page).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use HtmlHandling::{
        AutoTrailingSlash as Auto, DropTrailingSlash as Drop, ForceTrailingSlash as Force,
        None as Plain, Suffix,
    };

    use std::collections::BTreeSet;

    use super::*;

    const WORDS: [HtmlHandling; 5] = [Suffix, Auto, Force, Drop, Plain];

    /// In words: `= a.html`, `> /a`, or `-`.
    fn locate_among(files: &[&str], handling: HtmlHandling, target: &str) -> String {
        let uri = target.parse().expect("a URI");
        let target = Target::parse(&uri).expect("a target");
        let find = |path: &[u8]| {
            let files = files.iter().copied();
            files.clone().find(|file| file.as_bytes() == path)
        };
        match locate(handling, &target, find) {
            Located::Here(file) => format!("= {file}"),
            Located::At(path) => format!("> /{}", String::from_utf8_lossy(&path)),
            Located::Nowhere => "-".to_owned(),
        }
    }

    type Row = (&'static str, [&'static str; 5]);

    /// Each row: a path, and what it leads to under each of [`WORDS`].
    fn assert_rows(files: &[&str], rows: &[Row]) {
        for (target, wanted) in rows {
            for (word, wanted) in WORDS.into_iter().zip(wanted) {
                let found = locate_among(files, word, target);
                assert_eq!(&found, wanted, "{word:?} {target} in {files:?}");
            }
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_file() {
        assert_rows(&["file.html"], &[
            //                      suffix          auto           force           drop           none
            ("/file",            ["= file.html", "= file.html", "> /file/",     "= file.html", "-"]),
            ("/file.html",       ["= file.html", "> /file",     "> /file/",     "> /file",     "= file.html"]),
            ("/file/",           ["-",           "> /file",     "= file.html",  "> /file",     "-"]),
            ("/file/index",      ["-",           "> /file",     "> /file/",     "> /file",     "-"]),
            ("/file/index.html", ["-",           "> /file",     "> /file/",     "> /file",     "-"]),
            ("/file.html/",      ["-",           "-",           "-",            "-",           "-"]),
            ("/file.html.html",  ["-",           "-",           "-",            "-",           "-"]),
            ("/FILE",            ["-",           "-",           "-",            "-",           "-"]),
            ("/",                ["-",           "-",           "-",            "-",           "-"]),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_folder() {
        const INDEX: &str = "= folder/index.html";
        assert_rows(&["folder/index.html"], &[
            //                        suffix        auto          force         drop         none
            ("/folder",            ["> /folder/", "> /folder/", "> /folder/", INDEX,       "-"]),
            ("/folder/",           [INDEX,        INDEX,        INDEX,        "> /folder", "-"]),
            ("/folder.html",       ["-",          "> /folder/", "> /folder/", "> /folder", "-"]),
            ("/folder/index",      [INDEX,        "> /folder/", "> /folder/", "> /folder", "-"]),
            ("/folder/index.html", [INDEX,        "> /folder/", "> /folder/", "> /folder", INDEX]),
            ("/folder/index/",     ["-",          "-",          "-",          "-",         "-"]),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn the_root() {
        const INDEX: &str = "= index.html";
        assert_rows(&["index.html"], &[
            ("/",            [INDEX, INDEX, INDEX, INDEX, "-"]),
            ("/index",       [INDEX, "> /", "> /", "> /", "-"]),
            ("/index.html",  [INDEX, "> /", "> /", "> /", INDEX]),
            ("/index/",      ["-",   "-",   "-",   "-",   "-"]),
            ("/.html",       ["-",   "> /", "> /", "> /", "-"]),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_file_and_a_folder_of_one_stem() {
        const FILE: &str = "= both.html";
        const INDEX: &str = "= both/index.html";
        assert_rows(&["both.html", "both/index.html"], &[
            ("/both",            ["> /both/", FILE,       "> /both/", FILE,      "-"]),
            ("/both/",           [INDEX,      INDEX,      INDEX,      "> /both", "-"]),
            ("/both.html",       [FILE,       "> /both",  FILE,       "> /both", FILE]),
            ("/both/index",      [INDEX,      "> /both/", "> /both/", "> /both", "-"]),
            // Its URL would be the other's.
            ("/both/index.html", [INDEX,      "> /both/", "> /both/", INDEX,     INDEX]),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_name_without_extension_beside_a_page() {
        const BARE: &str = "= bin";
        const PAGE: &str = "= bin.html";
        assert_rows(&["bin", "bin.html"], &[
            ("/bin",            [BARE, BARE, BARE,      BARE, BARE]),
            ("/bin.html",       [PAGE, PAGE, "> /bin/", PAGE, PAGE]),
            ("/bin/",           ["-",  "-",  PAGE,      "-",  "-"]),
            ("/bin/index",      ["-",  "-",  "> /bin/", "-",  "-"]),
            ("/bin/index.html", ["-",  "-",  "> /bin/", "-",  "-"]),
        ]);
        assert_rows(&["d/index", "d/index.html"], &[
            ("/d/index", ["= d/index"; 5]),
            ("/d/",      ["= d/index.html", "= d/index.html", "= d/index.html", "> /d", "-"]),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn other_files_are_left_alone() {
        assert_rows(&["a.js", "deep/er/b.css", "c.htm", "D.HTML"], &[
            ("/a.js",          ["= a.js"; 5]),
            ("/a.js/",         ["-"; 5]),
            ("/a",             ["-"; 5]),
            ("/deep/er/b.css", ["= deep/er/b.css"; 5]),
            ("/deep/er",       ["-"; 5]),
            ("/deep/er/",      ["-"; 5]),
            ("/c.htm",         ["= c.htm"; 5]),
            ("/c",             ["-"; 5]),
            ("/D.HTML",        ["= D.HTML"; 5]),
            ("/D",             ["-"; 5]),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn empty_segments() {
        assert_rows(&["a/file.html", "a/index.html", "b.js"], &[
            ("//b.js",         ["> /b.js"; 5]),
            ("//a//file",      ["> /a/file", "> /a/file", "> /a/file/", "> /a/file", "-"]),
            ("/a//file.html",  ["> /a/file.html", "> /a/file", "> /a/file/", "> /a/file", "> /a/file.html"]),
            ("/a/file//",      ["-", "> /a/file", "> /a/file/", "> /a/file", "-"]),
            ("//a",            ["> /a/", "> /a/", "> /a/", "> /a", "-"]),
            ("/a//",           ["> /a/", "> /a/", "> /a/", "> /a", "-"]),
            ("///",            ["-"; 5]),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn names_that_look_like_something_else() {
        assert_rows(&["index/index.html"], &[
            ("/index",  ["> /index/", "> /index/", "> /index/", "= index/index.html", "-"]),
            ("/index/", ["= index/index.html", "= index/index.html", "= index/index.html", "> /index", "-"]),
            ("/",       ["-"; 5]),
        ]);
        assert_rows(&["a.html/index.html"], &[
            ("/a.html",  ["> /a.html/", "> /a.html/", "> /a.html/", "= a.html/index.html", "-"]),
            ("/a.html/", ["= a.html/index.html", "= a.html/index.html", "= a.html/index.html", "> /a.html", "-"]),
            ("/a",       ["-"; 5]),
        ]);
        assert_rows(&["a.html.html"], &[
            ("/a.html",      ["= a.html.html", "= a.html.html", "> /a.html/", "= a.html.html", "-"]),
            ("/a.html.html", ["= a.html.html", "> /a.html", "> /a.html/", "> /a.html", "= a.html.html"]),
            ("/a",           ["-"; 5]),
        ]);
    }

    /// In every tree of these files, whatever is asked for.
    #[test]
    fn redirects_end_at_once_and_every_file_can_be_had() {
        const FILES: [&str; 10] = [
            "a",
            "a.html",
            "a/index.html",
            "a/index",
            "a/index/index.html",
            "a.html.html",
            "a.html/index.html",
            "index",
            "index.html",
            "index/index.html",
        ];
        let is_tree = |files: &[&str]| {
            let above = |file: &str, other: &str| other.starts_with(&format!("{file}/"));
            !files
                .iter()
                .any(|file| files.iter().any(|other| above(file, other)))
        };
        let stems = ["", "a", "a/index", "a.html", "index"];
        let ends = ["", "/", "/index", "/index.html", ".html", "//", "/index/"];
        let targets: BTreeSet<_> = stems
            .iter()
            .flat_map(|stem| ends.map(|end| format!("/{stem}{end}")))
            .collect();
        let mut trees = 0;
        for chosen in 0..1_u32 << FILES.len() {
            let is_chosen = |(number, _): &(usize, &&str)| chosen & 1 << number != 0;
            let files = FILES.iter().enumerate().filter(is_chosen);
            let files: Vec<_> = files.map(|(_, file)| *file).collect();
            if !is_tree(&files) {
                continue;
            }
            trees += 1;
            for word in WORDS {
                let mut had = Vec::new();
                for target in &targets {
                    let found = locate_among(&files, word, target);
                    if let Some(next) = found.strip_prefix("> ") {
                        let at = locate_among(&files, word, next);
                        let is_here = at.starts_with("= ");
                        assert!(is_here, "{word:?} {target} > {next} {at} in {files:?}");
                    }
                    had.extend(found.strip_prefix("= ").map(str::to_owned));
                }
                let mut once = had.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), files.len(), "{word:?} {had:?} of {files:?}");
                if word != Suffix {
                    assert_eq!(had.len(), once.len(), "{word:?}: two URLs in {had:?}");
                }
            }
        }
        assert!(trees > 100, "{trees} trees");
    }
}
