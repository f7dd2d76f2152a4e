//! The listing of a directory without an index, as a page or as JSON.
//!
//! It is made from the manifest alone, so that equal sites have equal listings and nothing is
//! listed that is not served. A folder without files is served as an empty listing.

mod sorting;

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;
use http::{HeaderValue, header};
use serde::Serialize;

use crate::manifest::Manifest;
use crate::page::Text;
use crate::representation::{Data, Fields, REVALIDATE, Representation, Resource};
use crate::semantics::coding::{Coding, delta_stem};
use crate::semantics::etag::ETag;
use crate::semantics::head::FieldLines;
use crate::semantics::target::encode_path;
use sorting::SortKey;

pub use sorting::Sorting;

/// The Content-Security-Policy of the page; `$script` and `$more` are for the script of a tail.
macro_rules! policy {
    ($script:literal, $more:literal) => {
        concat!(
            "default-src 'none'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'self'; style-src 'sha256-Xkb8DM/EhIF0h5VPazB/8ZrkHSmdSJVf7SjqGeR7cgg='; \
             script-src 'sha256-y4FdjwAOV1SmT6UxfmxKtDn3oUB6S8m3nSPG4rurFqY='",
            $script,
            $more
        )
    };
}

/// Number of entries of a directory that are listed. A page of 100,000 would be 18 MB, which no
/// reader scrolls through.
const MAX_ENTRIES: usize = 10_000;
/// A site without an icon says so in its listings: browsers would ask for this one, and get a 404.
const ICON: &[u8] = b"favicon.ico";
const NO_ICON: &str = "<link rel=\"icon\" href=\"data:,\">\n";
/// Number of hex digits of a tag to show.
const TAG_DIGITS: usize = 8;

/// The entries of one directory.
#[derive(Debug)]
pub struct Listing<'m> {
    /// The directory's path below the root, with the slash at its end; empty for the root.
    directory: &'m [u8],
    directories: Vec<Subdirectory<'m>>,
    /// Without the sidecars that are sent as content codings of their file.
    files: Vec<&'m Resource>,
    has_icon: bool,
}

#[derive(Debug)]
struct Subdirectory<'m> {
    name: &'m [u8],
    /// Number of files in it and below.
    files: usize,
}

/// The format in which a listing is sent.
#[derive(Clone, Copy, Debug)]
pub enum ListingFormat<'a> {
    /// A page in this order, with this tail.
    Html(Sorting, &'a str),
    /// JSON, for programs.
    Json,
}

impl ListingFormat<'_> {
    /// A word for this format and order, for cache keys. The tail is the same for the whole site.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Html(Sorting { key, descending }, _) => match (key, descending) {
                (SortKey::Name, false) => "name",
                (SortKey::Name, true) => "name-desc",
                (SortKey::Size, false) => "size",
                (SortKey::Size, true) => "size-desc",
                (SortKey::Time, false) => "time",
                (SortKey::Time, true) => "time-desc",
            },
        }
    }

    /// The `Content-Security-Policy` to send: it allows the page's own style and script, the site's
    /// icon, and what the script of a tail needs.
    pub fn policy(self) -> Option<HeaderValue> {
        match self {
            Self::Html(_, "") => Some(HeaderValue::from_static(POLICY)),
            Self::Html(..) => Some(HeaderValue::from_static(POLICY_WITH_TAIL)),
            Self::Json => None,
        }
    }
}

impl<'m> Listing<'m> {
    /// Lists `directory`: a path below the root with a slash at its end, or empty for the root.
    /// `None` if the site has no such directory.
    pub fn of(manifest: &'m Manifest, directory: &'m [u8]) -> Option<Self> {
        if !(directory.is_empty() || directory.ends_with(b"/")) {
            return None;
        }
        let all = manifest.ordered();
        let start = all.partition_point(|each| *each.path < *directory);
        let is_below = |each: &&Arc<Resource>| each.path.starts_with(directory);
        let mut rest = &all[start..];
        let mut listing = Self {
            directory,
            directories: Vec::new(),
            files: Vec::new(),
            has_icon: manifest.locate(ICON).is_some(),
        };
        while let Some(first) = rest.first().filter(is_below) {
            let name = &first.path[directory.len()..];
            let taken = match name.iter().position(|byte| *byte == b'/') {
                None => {
                    if !is_coding(manifest, first) {
                        listing.files.push(first);
                    }
                    1
                }
                Some(slash) => {
                    // In path order everything below it is contiguous, so it can be skipped.
                    let prefix = &first.path[..=directory.len() + slash];
                    let files = rest.partition_point(|each| each.path.starts_with(prefix));
                    let name = &name[..slash];
                    listing.directories.push(Subdirectory { name, files });
                    files
                }
            };
            rest = &rest[taken..];
        }
        let has_files = start < all.len() && is_below(&&all[start]);
        let has_folders = listing.add_empty_folders(manifest.empty_folders());
        (directory.is_empty() || has_files || has_folders).then_some(listing)
    }

    /// Adds what `empty` has of folders in this directory: all folders of the site without files, in
    /// order. Returns whether the directory is one of them, or has one below it.
    fn add_empty_folders(&mut self, empty: &'m [Box<[u8]>]) -> bool {
        let directory = self.directory;
        let start = empty.partition_point(|each| **each < *directory);
        let below = empty[start..].partition_point(|each| each.starts_with(directory));
        let mut rest = &empty[start..start + below];
        let known = self.directories.len();
        while let Some(first) = rest.first() {
            let name = &first[directory.len()..];
            let slash = name.iter().position(|byte| *byte == b'/');
            // Without one it is the directory itself.
            let end = slash.map_or(directory.len(), |slash| directory.len() + slash + 1);
            let taken = match slash {
                None => 1,
                Some(_) => rest.partition_point(|each| each.starts_with(&first[..end])),
            };
            rest = &rest[taken..];
            if let Some(slash) = slash {
                let (name, files) = (&name[..slash], 0);
                self.directories.push(Subdirectory { name, files });
            }
        }
        if self.directories.len() > known {
            // As in path order, where each name ends with a slash; one with files comes first.
            let key = |each: &Subdirectory<'m>| [each.name, b"/"].concat();
            self.directories.sort_by_cached_key(key);
            self.directories
                .dedup_by(|later, first| later.name == first.name);
        }
        below > 0
    }

    /// The listing as a resource with a tag of its own.
    pub fn resource(&self, form: ListingFormat<'_>) -> Resource {
        let (content_type, body) = match form {
            ListingFormat::Html(sorting, tail) => {
                ("text/html; charset=utf-8", self.html(sorting) + tail)
            }
            ListingFormat::Json => ("application/json", self.json()),
        };
        let fields = Fields::new(HeaderValue::from_static(content_type), REVALIDATE);
        let etag = ETag::new(*blake3::hash(body.as_bytes()).as_bytes());
        let length = body.len() as u64;
        let data = Data::Memory(body.into());
        let identity = Representation::new(Coding::Identity, etag, length, data);
        Resource::new(self.directory.into(), Arc::new(fields), identity)
    }

    /// The listing as an HTML page.
    pub fn html(&self, sorting: Sorting) -> String {
        let title = format!("/{}", Text(self.directory));
        let number = self.total();
        let mut page = String::with_capacity(4096 + 256 * number.min(MAX_ENTRIES));
        let shown = match number {
            0..=MAX_ENTRIES => String::new(),
            _ => format!(", of which the first {MAX_ENTRIES} are shown"),
        };
        let icon = if self.has_icon { "" } else { NO_ICON };
        // Writing to a string never fails; hence `let _` here and below.
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             {icon}<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n\
             <p>{number} {}{shown}</p>\n\
             <table>\n<thead><tr>",
            self.crumbs(),
            if number == 1 { "entry" } else { "entries" },
        );
        for (key, label) in [
            (SortKey::Name, "Name"),
            (SortKey::Size, "Size"),
            (SortKey::Time, "Modified (UTC)"),
        ] {
            let _ = write!(page, "{}", sorting.heading(key, label));
        }
        page.push_str("<th scope=\"col\">Tag</th></tr></thead>\n<tbody>\n");
        if !self.directory.is_empty() {
            page.push_str(
                "<tr><td><a class=\"dir\" href=\"../\" rel=\"up\">../</a></td><td></td><td></td>\
                 <td></td></tr>\n",
            );
        }
        self.write_rows(&mut page, sorting);
        let _ = write!(
            page,
            "</tbody>\n</table>\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
        );
        page
    }

    fn write_rows(&self, page: &mut String, sorting: Sorting) {
        let directories = sorting.directories(&self.directories);
        let room = MAX_ENTRIES.saturating_sub(directories.len());
        for directory in directories.into_iter().take(MAX_ENTRIES) {
            let (link, shown) = (link(directory.name), Text(directory.name));
            let files = directory.files;
            let unit = if files == 1 { "file" } else { "files" };
            let _ = writeln!(
                page,
                "<tr><td><a class=\"dir\" href=\"{link}/\"><bdi>{shown}</bdi>/</a></td>\
                 <td>{files} {unit}</td><td></td><td></td></tr>"
            );
        }
        for file in sorting.files(&self.files).into_iter().take(room) {
            let (link, shown) = (link(self.name(file)), Text(self.name(file)));
            let size = ByteSize::b(file.identity.length).display().iec();
            let tag = digits(file);
            let codings: String = codings(file).map(|coding| format!(" {coding}")).collect();
            let _ = write!(
                page,
                "<tr><td><a href=\"{link}\"><bdi>{shown}</bdi></a></td><td>{size}{codings}</td><td>"
            );
            if let Some(time) = time(file) {
                let (day, clock) = time.split_once('T').unwrap_or((&time, ""));
                let clock = clock.get(..5).unwrap_or_default();
                let _ = write!(page, "<time datetime=\"{time}\">{day} {clock}</time>");
            }
            let _ = writeln!(page, "</td><td><code>{tag}</code></td></tr>");
        }
    }

    /// Number of entries, shown or not.
    fn total(&self) -> usize {
        self.directories.len() + self.files.len()
    }

    /// The listing as JSON: `path` and `entries`, each with `name` and `type` (`directory` or `file`); a
    /// directory with `files`, a file with `size` in bytes, `modified`, `etag` and the `codings` in
    /// which it is sent too. Where there are more than 10,000 entries, `total` says how many.
    pub fn json(&self) -> String {
        let directories = self.directories.iter().map(|each| ListingEntry {
            name: String::from_utf8_lossy(each.name).into_owned(),
            href: link(each.name) + "/",
            r#type: "directory",
            files: Some(each.files),
            ..ListingEntry::default()
        });
        let files = self.files.iter().map(|each| ListingEntry {
            name: String::from_utf8_lossy(self.name(each)).into_owned(),
            href: link(self.name(each)),
            r#type: "file",
            size: Some(each.identity.length),
            modified: time(each),
            etag: Some(each.identity.etag.to_string()),
            codings: codings(each).collect(),
            ..ListingEntry::default()
        });
        let whole = ListingJson {
            path: format!("/{}", encode_path(self.directory)),
            total: Some(self.total()).filter(|total| *total > MAX_ENTRIES),
            entries: directories.chain(files).take(MAX_ENTRIES).collect(),
        };
        // Serialising strings and numbers never fails.
        serde_json::to_string_pretty(&whole).unwrap_or_default() + "\n"
    }

    fn name(&self, file: &'m Resource) -> &'m [u8] {
        &file.path[self.directory.len()..]
    }

    /// The path as breadcrumbs: a link for each directory on it.
    fn crumbs(&self) -> String {
        let steps: Vec<&[u8]> = self
            .directory
            .split(|byte| *byte == b'/')
            .filter(|step| !step.is_empty())
            .collect();
        let mut crumbs = format!("<a href=\"./{}\">/</a>", "../".repeat(steps.len()));
        for (index, step) in steps.iter().enumerate() {
            let up = "../".repeat(steps.len() - 1 - index);
            let _ = write!(crumbs, "<a href=\"./{up}\"><bdi>{}</bdi>/</a>", Text(step));
        }
        crumbs
    }
}

/// Whether Accept names JSON and not HTML (RFC 9110 section 12.5.1). Weights are ignored: browsers
/// name `text/html`, and programs that want JSON do not.
pub fn prefers_json(fields: &impl FieldLines) -> bool {
    let accept = header::ACCEPT;
    let media_ranges = fields
        .lines(&accept)
        .flat_map(|line| line.split(|byte| *byte == b','));
    let mut prefers = false;
    for range in media_ranges {
        let mut parts = range.split(|byte| *byte == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"text/html") {
            return false;
        }
        prefers |= name.eq_ignore_ascii_case(b"application/json");
    }
    prefers
}

#[derive(Serialize)]
struct ListingJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    entries: Vec<ListingEntry>,
}

#[derive(Serialize, Default)]
struct ListingEntry {
    name: String,
    href: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    codings: Vec<&'static str>,
}

/// The content codings in which a file of the site is sent, apart from itself.
fn codings(file: &Resource) -> impl Iterator<Item = &'static str> {
    let (_, encoded) = file.of_files();
    encoded.iter().map(|each| each.coding().token())
}

/// Whether a resource is sent as a content coding of another one: its line in a listing is that of
/// its file.
fn is_coding(manifest: &Manifest, resource: &Resource) -> bool {
    let delta = delta_stem(&resource.path).and_then(|stem| manifest.locate(stem));
    let is_delta = delta.is_some_and(|file| {
        let mut deltas = file.encoded.iter();
        deltas.any(|each| each.etag.hash() == resource.identity.etag.hash())
    });
    is_delta
        || Coding::ALL.into_iter().any(|coding| {
            coding
                .extension()
                .and_then(|extension| resource.path.strip_suffix(extension.as_bytes()))
                .and_then(|rest| manifest.locate(rest.strip_suffix(b".")?))
                .is_some_and(|file| file.of_files().1.iter().any(|each| each.coding() == coding))
        })
}

/// A relative reference to a name in the same directory. It begins with `./`, or the name `a:b`
/// would be a URL with the scheme `a` (RFC 3986 section 4.2).
fn link(name: &[u8]) -> String {
    format!("./{}", encode_path(name))
}

fn digits(file: &Resource) -> String {
    let hash = blake3::Hash::from(*file.identity.etag.hash());
    hash.to_hex().chars().take(TAG_DIGITS).collect()
}

/// The modification date in UTC, in the format of RFC 3339.
fn time(file: &Resource) -> Option<String> {
    let seconds = file.last_modified?.unix();
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

/// The policy of the page, which replaces that of the site.
const POLICY: &str = policy!("", "");
/// The policy of a page with a tail, whose script is the site's own and may connect to it.
const POLICY_WITH_TAIL: &str = policy!(" 'self'", "; worker-src 'self'; connect-src 'self'");
const STYLE: &str = include_str!("style.css");
/// Adds a filter and keyboard navigation; the page is complete without it.
const SCRIPT: &str = include_str!("script.js");

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::manifest::Changes;
    use crate::representation::{Data, Fields, REVALIDATE, Representation};
    use crate::semantics::coding::Coding;
    use crate::semantics::date::HttpDate;
    use crate::semantics::etag::ETag;
    use crate::settings::Settings;

    fn manifest(paths: &[&str]) -> Manifest {
        let content_type = HeaderValue::from_static("text/plain");
        let fields = Arc::new(Fields::new(content_type, REVALIDATE));
        let resource = |path: &&str| {
            let body = bytes::Bytes::from((*path).to_owned());
            let hash = *blake3::hash(&body).as_bytes();
            let length = body.len() as u64;
            let (etag, data) = (ETag::new(hash), Data::Memory(body));
            let identity = Representation::new(Coding::Identity, etag, length, data);
            let mut resource = Resource::new(path.as_bytes().into(), Arc::clone(&fields), identity);
            resource.last_modified = HttpDate::from_unix(1_700_000_000 - length as i64);
            Arc::new(resource)
        };
        Manifest::empty(Settings::default()).with(Changes {
            changed: paths.iter().map(resource).collect(),
            ..Changes::default()
        })
    }

    fn names(listing: &Listing<'_>) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_str(&listing.json()).expect("JSON");
        let entries = json["entries"].as_array().expect("entries").iter();
        entries
            .map(|entry| match entry["files"].as_u64() {
                Some(files) => format!("{}/ {files}", entry["name"].as_str().expect("a name")),
                None => entry["name"].as_str().expect("a name").to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_directory_holds_its_own_and_no_others() {
        let site = manifest(&["a", "a.b/c", "a/b", "a/c/d", "a/c/e", "a0", "b/x", "z"]);
        let listed = |directory: &str| {
            Listing::of(&site, directory.as_bytes()).map(|listing| names(&listing))
        };
        let root = ["a.b/ 1", "a/ 3", "b/ 1", "a", "a0", "z"].map(str::to_owned);
        assert_eq!(listed("").as_deref(), Some(&root[..]));
        assert_eq!(listed("a/"), Some(vec!["c/ 2".to_owned(), "b".to_owned()]));
        assert_eq!(listed("a/c/"), Some(vec!["d".to_owned(), "e".to_owned()]));
        for nowhere in ["a", "c/", "a/b/", "zz/", "0/"] {
            assert_eq!(listed(nowhere), None, "{nowhere}");
        }
        assert_eq!(
            names(&Listing::of(&manifest(&[]), b"").expect("the root")),
            [""; 0]
        );
    }

    #[test]
    fn a_folder_without_files_is_listed_and_lists_nothing() {
        let folders = [
            "a", "a.b", "a/c", "a/c/d", "a/e", "b.c", "b.c/x", "b.c/y", "z",
        ];
        let site = manifest(&["a.b/f", "a/c/f", "a/f", "b"]).with(Changes {
            new_folders: folders.map(|folder| folder.as_bytes().into()).into(),
            ..Changes::default()
        });
        let listed = |directory: &str| {
            let listing = Listing::of(&site, directory.as_bytes())?;
            Some(names(&listing).join(", "))
        };
        for (directory, expected) in [
            ("", Some("a.b/ 1, a/ 2, b.c/ 0, z/ 0, b")),
            ("a/", Some("c/ 1, e/ 0, f")),
            ("a/c/", Some("d/ 0, f")),
            ("a/c/d/", Some("")),
            ("a/e/", Some("")),
            ("b.c/", Some("x/ 0, y/ 0")),
            ("z/", Some("")),
            ("z", None),
            ("y/", None),
            ("b.c/z/", None),
            ("b/", None),
        ] {
            assert_eq!(listed(directory).as_deref(), expected, "{directory}");
        }
        let page = |directory: &'static str| {
            let listing = Listing::of(&site, directory.as_bytes()).expect("there");
            listing.html(Sorting::parse(None))
        };
        assert!(
            page("a/")
                .contains("<a class=\"dir\" href=\"./e/\"><bdi>e</bdi>/</a></td><td>0 files</td>")
        );
        assert!(page("a/e/").contains("<p>0 entries</p>"));
    }

    #[test]
    fn its_policy_allows_its_style_and_its_script_and_nothing_else() {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        use sha2::{Digest, Sha256};
        let page = Listing::of(&manifest(&["a"]), b"")
            .expect("the root")
            .html(Sorting::parse(None));
        for (element, directive) in [("style", "style-src"), ("script", "script-src")] {
            let (_, rest) = page.split_once(&format!("<{element}>")).expect("one");
            let (text, rest) = rest.split_once(&format!("</{element}>")).expect("its end");
            assert!(!rest.contains(&format!("<{element}")), "one {element}");
            let hash = STANDARD.encode(Sha256::digest(text));
            for policy in [POLICY, POLICY_WITH_TAIL] {
                let allowed = format!("{directive} 'sha256-{hash}'");
                assert!(policy.contains(&allowed), "{allowed}");
            }
        }
        for outside in ["src=", "url(", "style=", "@import", "onclick"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn no_name_is_markup_or_another_place() {
        let site = manifest(&[
            "<b>&\"'.txt",
            "javascript:alert(1)",
            "d/\u{202e}gpj.exe",
            "a\nb",
        ]);
        let page = Listing::of(&site, b"")
            .expect("the root")
            .html(Sorting::parse(None));
        let body = page.split("<tbody>").nth(1).expect("a body");
        assert!(body.contains("href=\"./%3Cb%3E&"), "{body}");
        assert!(body.contains("&lt;b&gt;&amp;&quot;&#39;.txt"), "{body}");
        assert!(!body.contains("<b>"), "{body}");
        assert!(body.contains("href=\"./javascript:alert(1)\""), "{body}");
        assert!(
            body.contains("a\u{fffd}b") && body.contains("href=\"./a%0Ab\""),
            "{body}"
        );
        let page = Listing::of(&site, b"d/")
            .expect("a directory")
            .html(Sorting::parse(None));
        assert!(!page.contains('\u{202e}'), "{page}");
    }

    #[test]
    fn the_order_is_what_the_query_asks_for() {
        let site = manifest(&["bb", "A", "ccc", "sub/x"]);
        let order = |query| {
            let page = Listing::of(&site, b"")
                .expect("the root")
                .html(Sorting::parse(query));
            let rows = page.split("<tbody>").nth(1).expect("a body").to_owned();
            let names = rows.split("<bdi>").skip(1);
            let name = |row: &str| row.split('<').next().unwrap_or_default().to_owned();
            names.map(name).collect::<Vec<_>>().join(" ")
        };
        for (query, expected) in [
            (None, "sub A bb ccc"),
            (Some("sort=name&order=desc"), "sub ccc bb A"),
            (Some("sort=size"), "sub A bb ccc"),
            (Some("sort=size&order=desc"), "sub ccc bb A"),
            (Some("sort=time"), "sub ccc bb A"),
            (Some("sort=%00&order=&&=x"), "sub A bb ccc"),
        ] {
            assert_eq!(order(query), expected, "{query:?}");
        }
    }

    #[test]
    fn a_sidecar_is_on_the_line_of_its_file() {
        let site = manifest(&["a.js", "a.js.br", "a.js.gz", "b.js.gz"]);
        let [file, sidecar] = [&b"a.js"[..], b"a.js.br"].map(|path| {
            let resource = site.locate(path).expect("there");
            Resource::clone(resource)
        });
        let (etag, length) = (sidecar.identity.etag, sidecar.identity.length);
        let data = sidecar.identity.data.clone();
        let encoded = [Representation::new(Coding::Brotli, etag, length, data)];
        let file = Resource {
            encoded: encoded.into(),
            ..file
        };
        let site = site.with(Changes {
            changed: vec![Arc::new(file)],
            ..Changes::default()
        });
        let listing = Listing::of(&site, b"").expect("the root");
        // What is not proven is a file of its own.
        assert_eq!(names(&listing), ["a.js", "a.js.gz", "b.js.gz"]);
        let json: serde_json::Value = serde_json::from_str(&listing.json()).expect("JSON");
        assert_eq!(json["entries"][0]["codings"], serde_json::json!(["br"]));
        assert!(json["entries"][1].get("codings").is_none());
        let page = listing.html(Sorting::parse(None));
        assert!(
            page.contains("<p>3 entries</p>") && page.contains("B br</td>"),
            "{page}"
        );
    }

    #[test]
    fn a_large_directory_is_listed_in_part_and_says_so() {
        let paths: Vec<_> = (0..MAX_ENTRIES + 2)
            .map(|number| format!("f{number}"))
            .collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        let (whole, more) = (manifest(&paths[..MAX_ENTRIES]), manifest(&paths));
        let [whole, more] = [&whole, &more].map(|site| Listing::of(site, b"").expect("the root"));
        let rows = |page: &str| page.matches("<tr><td>").count();
        let page = whole.html(Sorting::parse(None));
        assert!(page.contains("<p>10000 entries</p>") && rows(&page) == MAX_ENTRIES);
        let page = more.html(Sorting::parse(Some("order=desc")));
        assert!(page.contains("<p>10002 entries, of which the first 10000 are shown</p>"));
        assert!(
            rows(&page) == MAX_ENTRIES && page.contains("./f10001\"") && !page.contains("./f1\"")
        );
        let json: serde_json::Value = serde_json::from_str(&more.json()).expect("JSON");
        assert_eq!(json["total"], MAX_ENTRIES + 2);
        assert_eq!(json["entries"].as_array().map(Vec::len), Some(MAX_ENTRIES));
        let json: serde_json::Value = serde_json::from_str(&whole.json()).expect("JSON");
        assert!(json.get("total").is_none());
    }

    #[test]
    fn a_page_asks_for_no_icon_that_is_not_there() {
        let page = |paths: &[&str]| {
            let site = manifest(paths);
            Listing::of(&site, b"")
                .expect("the root")
                .html(Sorting::parse(None))
        };
        assert!(page(&["a"]).contains(NO_ICON));
        assert!(!page(&["a", "favicon.ico"]).contains(NO_ICON));
        assert!(POLICY.contains("img-src 'self' data:;"));
    }

    #[test]
    fn programs_get_json_and_browsers_a_page() {
        let prefers = |accept: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(header::ACCEPT, accept.parse().expect("a value"));
            prefers_json(&fields)
        };
        assert!(prefers("application/json") && prefers("Application/JSON;q=0.9, */*"));
        assert!(!prefers(
            "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8"
        ));
        assert!(!prefers("*/*") && !prefers("") && !prefers_json(&HeaderMap::new()));
    }
}
