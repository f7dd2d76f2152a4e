//! The house as `src/lib.rs` draws it: its table of floors is read here and held against the
//! sources, so that the map cannot drift from the place.

#![allow(clippy::expect_used, reason = "all of it is a test")]

mod circles;
mod papers;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Source, functions, sources, top, types_declared_twice, words};

/// More lines than this are not read as one thought.
const MAX_FUNCTION_LINES: usize = 90;

/// The files that may be `unsafe`, each with its argument written above it.
const UNSAFE: &[&str] = &[
    "src/heap.rs",
    "src/lease.rs",
    "src/resolver.rs",
    "src/server/socket.rs",
    "src/server/time_slice.rs",
    MAPPED,
    SEALED,
];

/// The one file that maps another: what etagd alone writes, and no client is sent.
const MAPPED: &str = "src/state/map.rs";

/// The one file that has the kernel send bytes without a copy: of private memory that was made read-only
/// before it was hashed.
const SEALED: &str = "src/sealed.rs";

/// What would let bytes leave that were never hashed, or end the process when a file shrinks:
/// every body goes through private memory (promise P2).
const UNPROVEN: &[&str] = &[
    "MSG_ZEROCOPY",
    "Mmap",
    "copy_file_range",
    "memmap",
    "memmap2",
    "mmap",
    "sendfile",
    "splice",
    "tee",
    "vmsplice",
];

/// Names that say nothing of what is inside.
const NAMELESS: &[&str] = &[
    "common", "helper", "helpers", "misc", "shared", "util", "utils",
];

#[test]
fn every_module_stands_in_the_table_of_floors() {
    let declared: BTreeSet<_> = lib()
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|name| name.trim_end_matches([';', ' ', '{']).to_owned())
        .collect();
    let drawn: BTreeSet<_> = floors().into_keys().collect();
    assert_eq!(declared, drawn, "modules of lib.rs, and rows of its table");
}

#[test]
fn a_module_imports_only_from_floors_below_its_own() {
    let floors = floors();
    let mut violations = BTreeSet::new();
    for source in sources() {
        let Some(floor) = floors.get(&source.module[0]) else {
            // `main.rs` stands above them all.
            continue;
        };
        for import in imports(&source.text) {
            match floors.get(&import) {
                _ if import == source.module[0] => {}
                Some(below) if below < floor => {}
                Some(above) => {
                    let path = source.path.display();
                    violations.insert(format!("{path} (floor {floor}): {import} (floor {above})"));
                }
                // A macro or an item of lib.rs itself, which imports every floor.
                None => {
                    let path = source.path.display();
                    violations.insert(format!("{path}: crate::{import}, on no floor"));
                }
            }
        }
        // `super::` must not be another word for `crate::`. Only at the top level of a file: in
        // the test module inside it, one more leads no further.
        for line in source
            .text
            .lines()
            .filter(|line| line.contains("use super::"))
        {
            let up = line.matches("super::").count();
            if !line.starts_with(' ') && up >= source.module.len() {
                violations.insert(format!("{}: {line}", source.path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn no_file_is_used_by_what_it_uses() {
    let circles = circles::circles(sources());
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn no_function_is_long() {
    let long: Vec<_> = sources()
        .iter()
        .flat_map(|source| {
            functions(&source.code)
                .into_iter()
                .filter(|function| function.lines > MAX_FUNCTION_LINES)
                .map(|function| (&source.path, function))
        })
        .collect();
    assert!(
        long.is_empty(),
        "more than {MAX_FUNCTION_LINES} lines: {long:#?}"
    );
}

#[test]
fn a_type_has_a_name_of_its_own() {
    let twice = types_declared_twice(sources());
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn nothing_else_is_unsafe() {
    let violations = mentions(&["unsafe", "unsafe_code"], |source| {
        !UNSAFE.iter().any(|path| source.path == Path::new(path))
    });
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn only_the_command_line_knows_of_clap() {
    let violations = mentions(&["clap"], |source| {
        !["config", "main"].contains(&source.module[0].as_str())
    });
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn no_byte_leaves_but_from_private_memory() {
    let is = |path: &'static str| move |source: &Source| source.path == Path::new(path);
    let (is_mapped, is_sealed) = (is(MAPPED), is(SEALED));
    let mut violations = mentions(UNPROVEN, |source| !is_mapped(source) && !is_sealed(source));
    // Neither may do what the other may.
    let sending = ["copy_file_range", "sendfile", "splice", "tee", "vmsplice"];
    violations.extend(mentions(&sending, is_mapped));
    let of_files = [
        "MmapOptions",
        "copy_file_range",
        "map_copy",
        "map_mut",
        "sendfile",
        "tee",
    ];
    violations.extend(mentions(&of_files, is_sealed));
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_module_has_a_name() {
    let violations: Vec<_> = sources()
        .iter()
        .filter(|source| {
            let mut parts = source
                .path
                .iter()
                .filter_map(|part| Path::new(part).file_stem());
            parts.any(|stem| NAMELESS.iter().any(|name| *name == stem))
        })
        .map(|source| source.path.clone())
        .collect();
    assert!(violations.is_empty(), "{violations:#?}");
}

fn lib() -> String {
    fs::read_to_string(top().join("src/lib.rs")).expect("src/lib.rs")
}

/// Rows such as ``//! | 3 | [`answer`] | the heart |``.
fn floors() -> BTreeMap<String, u32> {
    let lib = lib();
    let rows = lib.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("//! |")?.split('|').map(str::trim);
        let floor = cells.next()?.parse().ok()?;
        let module = cells.next()?.strip_prefix("[`")?.strip_suffix("`]")?;
        Some((module.to_owned(), floor))
    });
    let floors: BTreeMap<_, _> = rows.collect();
    assert!(!floors.is_empty(), "lib.rs has no table of floors");
    floors
}

/// The names after `crate::`, those in braces included.
fn imports(code: &str) -> BTreeSet<String> {
    let mut imports = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => imports.extend(words(after).next().map(str::to_owned)),
            Some(braces) => {
                let (mut depth, mut name) = (1, String::new());
                for c in braces.chars() {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    match (depth, c) {
                        (0, _) | (1, ',') => {
                            imports.extend(words(&name).next().map(str::to_owned));
                            name.clear();
                        }
                        _ => name.push(c),
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    imports
}

/// Lines of these sources that have one of `forbidden` as a word.
fn mentions(forbidden: &[&str], wanted: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| wanted(source)) {
        for (number, line) in source.text.lines().enumerate() {
            if words(line).any(|word| forbidden.contains(&word)) {
                let (path, number) = (source.path.display(), number + 1);
                found.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    found
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = "use crate::a::B;\nuse crate::{\n    b,\n    c::{d, E},\n    f::G,\n};\nlet x = crate::h(1);";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["a", "b", "c", "f", "h"]);
}
