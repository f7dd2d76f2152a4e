//! Which file of `src` names an item that which other file defines, and where such names lead in a
//! circle.
//!
//! What counts: at every level, the files and folders inside one folder are compared with each
//! other. `watch/batch.rs` and `watch/schedule.rs` are, and a folder stands for everything in it.
//!
//! What does not count: a `mod.rs` and what lies below it. Such a child is a part of its parent,
//! which declares it and tells it the common words; Rust itself lets a child see all that its
//! parent has. A circle of that kind can't be torn apart by moving a file. A name that a `mod.rs`
//! only passes on (`pub use`) leads to the file that defines it. Calls of methods are not seen: a
//! method belongs to the file of its type.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{Source, declared, is_word, line_before, words};

type Module = Vec<String>;

/// One name that a `use` brings into a file.
struct Import {
    /// It is passed on to others: `pub use`.
    is_public: bool,
    path: Vec<String>,
    /// What it is called in this file.
    name: String,
}

/// One file, and what its names mean.
struct File<'a> {
    path: &'a Path,
    imports: Vec<Import>,
    /// The code without its `use` declarations.
    rest: String,
    items: BTreeSet<&'a str>,
}

/// The circles, each as lines of `from -> to: name`.
pub(crate) fn circles(sources: &[Source]) -> Vec<Vec<String>> {
    let house = House::new(sources);
    let uses = house.uses();
    let mut below: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for (from, to, _) in &uses {
        let (from, to) = siblings(from, to);
        below.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<_, _> = below
        .keys()
        .map(|&start| (start, reachable(start, &below)))
        .collect();
    let leads =
        |from: &[String], to: &[String]| reached.get(from).is_some_and(|all| all.contains(to));
    let mut circles: BTreeMap<Vec<&[String]>, BTreeSet<String>> = BTreeMap::new();
    for (from, to, name) in &uses {
        let (one, other) = siblings(from, to);
        if leads(other, one) {
            // All that leads to this one and back is one circle.
            let members: Vec<_> = below
                .keys()
                .copied()
                .filter(|&each| leads(one, each) && leads(each, one))
                .collect();
            let (from, to) = (house.files[*from].path, house.files[*to].path);
            let line = format!("{} -> {}: {name}", from.display(), to.display());
            circles.entry(members).or_default().insert(line);
        }
    }
    circles
        .into_values()
        .map(|lines| lines.into_iter().collect())
        .collect()
}

/// The two modules in which these part, below the last folder that both are in.
fn siblings<'a>(from: &'a [String], to: &'a [String]) -> (&'a [String], &'a [String]) {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    (&from[..=common], &to[..=common])
}

fn reachable<'a>(
    start: &'a [String],
    below: &BTreeMap<&'a [String], BTreeSet<&'a [String]>>,
) -> BTreeSet<&'a [String]> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(module) = open.pop() {
        for &next in below.get(module).into_iter().flatten() {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

struct House<'a> {
    files: BTreeMap<Module, File<'a>>,
}

impl<'a> House<'a> {
    fn new(sources: &'a [Source]) -> Self {
        let files = sources
            .iter()
            .map(|source| (source.module.clone(), file(source)))
            .collect();
        Self { files }
    }

    /// Which file uses which other one, and one of the names that lead there. A parent and its
    /// children are left out.
    fn uses(&self) -> Vec<(&Module, &Module, String)> {
        let mut uses = Vec::new();
        for (module, file) in &self.files {
            let imported = file.imports.iter().filter(|import| {
                // What is only passed on is not used here.
                !import.is_public || words(&file.rest).any(|word| word == import.name)
            });
            let paths = imported
                .map(|import| import.path.clone())
                .chain(paths(&file.rest));
            let mut seen = BTreeSet::new();
            for path in paths {
                let definer = self
                    .absolute(module, &path)
                    .and_then(|absolute| self.definer(&absolute, 0));
                if let Some(definer) = definer
                    && !definer.starts_with(module)
                    && !module.starts_with(definer)
                    && seen.insert(definer)
                {
                    uses.push((module, definer, path.join("::")));
                }
            }
        }
        uses
    }

    /// A path as seen from the crate's root, `None` where it leads to another crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let kept = module.len().checked_sub(ups)?;
                Some([&module[..kept], &path[ups..]].concat())
            }
            _ => {
                let child = [module, std::slice::from_ref(first)].concat();
                if self.files.contains_key(&child) {
                    return Some([module, path].concat());
                }
                let import = self.files[module]
                    .imports
                    .iter()
                    .find(|import| import.name == *first && import.path[0] != *first)?;
                let absolute = self.absolute(module, &import.path)?;
                Some([&absolute, rest].concat())
            }
        }
    }

    /// The module whose file defines what is at this path; `None` for a module itself.
    fn definer(&self, path: &[String], passed: usize) -> Option<&Module> {
        let (module, file) = (1..path.len())
            .rev()
            .find_map(|length| self.files.get_key_value(&path[..length]))?;
        let (item, rest) = path[module.len()..].split_first()?;
        if self.files.contains_key(path) {
            return None;
        }
        if file.items.contains(item.as_str()) {
            return Some(module);
        }
        match file.imports.iter().find(|import| import.name == *item) {
            // A name may be passed on over a few modules; one that leads to itself ends here.
            Some(import) if passed < 8 => {
                let absolute = self.absolute(module, &import.path)?;
                self.definer(&[&absolute, rest].concat(), passed + 1)
            }
            _ => Some(module),
        }
    }
}

fn file(source: &Source) -> File<'_> {
    let mut imports = Vec::new();
    let mut rest = source.code.clone();
    for (start, _) in source.code.match_indices("use ") {
        if source.code[..start].ends_with(is_word) {
            continue;
        }
        let length = source.code[start..].find(';').expect("a use that ends");
        let tree = &source.code[start + "use ".len()..start + length];
        let is_public = line_before(&source.code, start)
            .trim_start()
            .starts_with("pub");
        expand(tree, &[], is_public, &mut imports);
        rest.replace_range(start..start + length, &" ".repeat(length));
    }
    File {
        path: &source.path,
        imports,
        rest,
        items: items(&source.code),
    }
}

/// What a file defines for others: its declarations that are not indented.
fn items(code: &str) -> BTreeSet<&str> {
    const KEYWORDS: &[&str] = &[
        "struct",
        "enum",
        "union",
        "trait",
        "type",
        "fn",
        "const",
        "static",
        "macro_rules!",
    ];
    declared(code, KEYWORDS)
        .into_iter()
        .filter(|(start, _)| !line_before(code, *start).starts_with(' '))
        .map(|(_, name)| name)
        .collect()
}

/// The names of a tree such as `super::{a::B, c as d}`.
fn expand(tree: &str, prefix: &[String], is_public: bool, imports: &mut Vec<Import>) {
    let segments = |path: &str| -> Vec<String> {
        let names = path
            .split("::")
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        prefix.iter().cloned().chain(names).collect()
    };
    if let Some((head, branches)) = tree.split_once('{') {
        let head = segments(head);
        let (mut depth, mut branch) = (0, String::new());
        for c in branches.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth < 0 || depth == 0 && c == ',' {
                expand(&std::mem::take(&mut branch), &head, is_public, imports);
            } else {
                branch.push(c);
            }
        }
        return;
    }
    let (path, name) = match tree.split_once(" as ") {
        Some((path, name)) => (path, Some(name.trim().to_owned())),
        None => (tree, None),
    };
    let mut path = segments(path);
    if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
        path.pop();
    }
    if let Some(last) = path.last() {
        let name = name.unwrap_or_else(|| last.clone());
        imports.push(Import {
            is_public,
            path,
            name,
        });
    }
}

/// Paths of at least two names that stand in code, such as `batch::Batch::new`.
fn paths(code: &str) -> impl Iterator<Item = Vec<String>> {
    code.split(|c: char| !is_word(c) && c != ':')
        .map(|path| path.split("::").map(str::to_owned).collect())
        .filter(|path: &Vec<_>| path.len() > 1 && path.iter().all(|name| !name.is_empty()))
}

#[cfg(test)]
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let sources: Vec<_> = files
        .iter()
        .map(|(path, text)| Source::new(path.into(), text))
        .collect();
    circles(&sources)
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let found = circles_of(&[
        (
            "src/a/mod.rs",
            "mod b;\nmod c;\nmod d;\npub use c::{C, D as E};",
        ),
        (
            "src/a/b.rs",
            "use super::{E, d};\nstruct B(E);\nfn b() { d::d() }",
        ),
        (
            "src/a/c.rs",
            "use crate::a::d::d as e;\npub struct C;\npub struct D;",
        ),
        ("src/a/d.rs", "pub fn d() -> super::b::B { todo!() }"),
    ]);
    let lines = [
        "src/a/b.rs -> src/a/c.rs: super::E",
        "src/a/b.rs -> src/a/d.rs: d::d",
        "src/a/c.rs -> src/a/d.rs: crate::a::d::d",
        "src/a/d.rs -> src/a/b.rs: super::b::B",
    ];
    assert_eq!(found, [lines]);
}

#[test]
fn a_folder_stands_for_what_is_in_it() {
    let found = circles_of(&[
        ("src/a/mod.rs", "mod b;\nmod c;"),
        ("src/a/b/mod.rs", "mod e;\npub fn b() { e::e() }"),
        ("src/a/b/e.rs", "use crate::a::c::C;\npub fn e() { C }"),
        ("src/a/c.rs", "pub struct C;\nfn c() { super::b::b() }"),
    ]);
    let lines = [
        "src/a/b/e.rs -> src/a/c.rs: crate::a::c::C",
        "src/a/c.rs -> src/a/b/mod.rs: super::b::b",
    ];
    assert_eq!(found, [lines]);
}

#[test]
fn a_parent_its_children_and_tests_make_no_circle() {
    let found = circles_of(&[
        (
            "src/a/mod.rs",
            "mod b;\nmod c;\nuse b::b;\npub struct A;\nfn a() { b() }",
        ),
        ("src/a/b.rs", "use super::A;\npub fn b() { A }"),
        (
            "src/a/c.rs",
            "use super::b::b;\nuse std::fs::A;\nfn c() { b() }",
        ),
        (
            "src/d.rs",
            "use crate::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::e::E;\n}",
        ),
        ("src/e.rs", "use crate::d::D;\npub struct E(D);"),
    ]);
    assert_eq!(found, Vec::<Vec<String>>::new());
}
