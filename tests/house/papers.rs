//! What the documents say about the code is so: flags, modules, promises and paths that they name.

use std::collections::BTreeSet;
use std::fs;

use clap::CommandFactory;
use etagd::config::Cli;

use super::source::{sources, top, words};

const DOCUMENTS: &[&str] = &[
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/ARCHITECTURE.md",
    "tests/support/mod.rs",
];

/// What a path in a document begins with.
const FOLDERS: &[&str] = &[
    ".ci/",
    "benches/",
    "deploy/",
    "docs/",
    "fuzz/",
    "sample-site/",
    "src/",
    "tests/",
];

#[test]
fn every_flag_of_a_server_has_its_module() {
    let mut command = Cli::command();
    command.build();
    let flags: BTreeSet<_> = ["serve", "dev"]
        .into_iter()
        .flat_map(|name| {
            command
                .find_subcommand(name)
                .expect("a subcommand")
                .get_arguments()
        })
        .filter(|flag| !flag.is_hide_set())
        .filter_map(|flag| flag.get_long())
        .filter(|name| !["help", "version"].contains(name))
        .map(|name| format!("--{name}"))
        .collect();
    let named: BTreeSet<_> = flag_rows()
        .iter()
        .flat_map(|(flags, _)| quoted(flags).map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| name.starts_with("--"))
        .collect();
    assert_eq!(flags, named, "flags, and those with a row in the document");
}

#[test]
fn every_flag_leads_to_a_module() {
    let modules: BTreeSet<_> = sources()
        .iter()
        .map(|source| source.module[0].as_str())
        .collect();
    for (flags, named) in flag_rows() {
        let unknown: Vec<_> = quoted(&named)
            .filter(|name| !name.starts_with("--") && !is_file_of(&named, name))
            .filter(|name| !modules.contains(name))
            .collect();
        assert!(unknown.is_empty(), "{flags}: no module {unknown:?}");
    }
}

#[test]
fn every_promise_that_is_cited_is_written_down() {
    let document = read("docs/ARCHITECTURE.md");
    let is_promise = |word: &str| {
        word.strip_prefix('P')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let given: BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("**")?.split(',').next())
        .filter(|word| is_promise(word))
        .collect();
    assert_eq!(given.len(), 11, "{given:?}");
    for source in sources() {
        let text = read(&source.path.to_string_lossy());
        let unknown: Vec<_> = words(&text)
            .filter(|word| is_promise(word) && !given.contains(word))
            .collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", source.path.display());
    }
}

#[test]
fn every_path_in_a_document_is_there() {
    let missing: Vec<_> = DOCUMENTS
        .iter()
        .flat_map(|document| {
            let text = read(document);
            quoted(&text)
                .filter(|name| FOLDERS.iter().any(|folder| name.starts_with(folder)))
                .filter_map(|name| name.split_whitespace().next())
                .filter(|path| !top().join(path).exists())
                .map(|path| format!("{document}: {path}"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).expect("a file of the repository")
}

/// The rows of the tables that lead from a flag or subcommand to modules, both cells as written.
fn flag_rows() -> Vec<(String, String)> {
    let document = read("docs/ARCHITECTURE.md");
    let (_, rest) = document
        .split_once("## Flags and where they lead")
        .expect("the tables of flags");
    let rows = rest
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            Some((format!("`{}", cells.next()?), cells.next()?.to_owned()))
        })
        .collect::<Vec<_>>();
    assert!(!rows.is_empty(), "the tables of flags are empty");
    rows
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    // Fenced blocks are no names; between two of their fences nothing is left.
    text.split("```")
        .step_by(2)
        .flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

/// Whether a row names a file of the module before it: `` `server` (`tls`) ``.
fn is_file_of(cell: &str, name: &str) -> bool {
    cell.contains(&format!("(`{name}`)"))
}
