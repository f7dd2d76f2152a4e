//! The files that are tested here.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every page of the manual, by its path in the repository, except the error page.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = vec!["sample-site/index.html".to_owned()];
    let guide = fs::read_dir(top().join("sample-site/guide")).unwrap();
    let mut files: Vec<PathBuf> = guide.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".html") {
            pages.push(format!("sample-site/guide/{name}"));
        }
    }
    pages
}

/// The URL that the navigation has for a page.
pub(crate) fn url(page: &str) -> String {
    let path = page.strip_prefix("sample-site").unwrap();
    let path = path.strip_suffix(".html").unwrap();
    path.strip_suffix("index").unwrap_or(path).to_owned()
}

/// Replaces the part between two comments of a page, or asserts that it is this already.
pub(crate) fn hold(page: &str, begin: &str, end: &str, expected: &str) {
    let text = read(page);
    let (before, rest) = text.split_once(begin).expect("the first comment");
    let (found, after) = rest.split_once(end).expect("the second comment");
    if found == expected {
        return;
    }
    if std::env::var_os("ETAGD_UPDATE").is_some() {
        let text = format!("{before}{begin}{expected}{end}{after}");
        return fs::write(top().join(page), text).unwrap();
    }
    let is_other = |(found, expected): &(&str, &str)| found != expected;
    let difference = found.lines().zip(expected.lines()).find(is_other);
    panic!(
        "{page} is out of date: run ETAGD_UPDATE=1 cargo test --test manual, and look at the \
         difference, which begins with {difference:#?}"
    );
}
