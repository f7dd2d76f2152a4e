//! The files of `src` as text, and as much of Rust's grammar as the rules of the house ask for.
//!
//! This is no parser: it finds comments, literals, braces and words. A crate that parses Rust would
//! know more, and would double the time that this test takes to build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// One file of `src`.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// Where it stands in the crate: `["scan", "walk"]` for `src/scan/walk.rs`, `["scan"]` for
    /// `src/scan/mod.rs`.
    pub(crate) module: Vec<String>,
    /// Without comments, tests and literals included.
    pub(crate) text: String,
    /// Without comments, tests and literals, so that every brace and every word is code.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: PathBuf, text: &str) -> Self {
        let inside = path.strip_prefix("src").expect("in src").with_extension("");
        let mut module: Vec<_> = inside
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        if module.last().is_some_and(|name| name == "mod") {
            module.pop();
        }
        Self {
            path,
            module,
            text: blank(text, false),
            code: without_tests(blank(text, true)),
        }
    }
}

pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of `src`, without `lib.rs`, which names everything.
pub(crate) fn sources() -> &'static [Source] {
    // Each test of the house reads all of them.
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_all);
    &SOURCES
}

fn read_all() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(top().join(&folder)).expect("a folder of src");
        for entry in entries {
            let entry = entry.expect("an entry of src");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("its type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path != Path::new("src/lib.rs")
            {
                let text = fs::read_to_string(top().join(&path)).expect("a source");
                sources.push(Source::new(path, &text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// The line that has its name, from 1.
    pub(crate) line: usize,
    /// Lines from that one to its closing brace.
    pub(crate) lines: usize,
}

pub(crate) fn functions(code: &str) -> Vec<Function<'_>> {
    let mut functions = Vec::new();
    for (start, name) in declared(code, &["fn"]) {
        let Some(open) = body(&code[start..]) else {
            continue;
        };
        let end = block_end(code, start + open);
        functions.push(Function {
            name,
            line: code[..start].matches('\n').count() + 1,
            lines: code[start..end].matches('\n').count() + 1,
        });
    }
    functions
}

/// The types, traits and aliases that are declared here. Associated types are indented; they are
/// not types of the house.
pub(crate) fn type_names(code: &str) -> Vec<&str> {
    let aliases = declared(code, &["type"])
        .into_iter()
        .filter(|(start, _)| !line_before(code, *start).starts_with(' '));
    declared(code, &["struct", "enum", "union", "trait"])
        .into_iter()
        .chain(aliases)
        .map(|(_, name)| name)
        .filter(|name| name.starts_with(char::is_uppercase))
        .collect()
}

/// The names that stand behind one of these keywords, each with the keyword's offset.
pub(crate) fn declared<'a>(code: &'a str, keywords: &[&str]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for keyword in keywords {
        for (start, _) in code.match_indices(keyword) {
            let after = &code[start + keyword.len()..];
            let is_whole = !code[..start].ends_with(is_word) && after.starts_with(' ');
            let name = after.trim_start();
            let length = name.find(|c| !is_word(c)).unwrap_or(name.len());
            if is_whole && length > 0 {
                found.push((start, &name[..length]));
            }
        }
    }
    found
}

/// What stands on the line before this offset.
pub(crate) fn line_before(code: &str, offset: usize) -> &str {
    let start = code[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    &code[start..offset]
}

pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !is_word(c))
        .filter(|word| !word.is_empty())
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where a declaration's body opens, `None` when it ends with a semicolon. The one in `[u8; 4]` is
/// not that.
fn body(declaration: &str) -> Option<usize> {
    let mut depth = 0;
    for (offset, byte) in declaration.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(offset),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The offset behind the brace that closes the one at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return offset + 1;
        }
    }
    code.len()
}

/// Blanks for each item marked `#[cfg(test)]`.
fn without_tests(mut code: String) -> String {
    const MARK: &str = "#[cfg(test)]";
    while let Some(start) = code.find(MARK) {
        let item = start + MARK.len();
        let end = match body(&code[item..]) {
            Some(open) => block_end(&code, item + open),
            None => code[item..]
                .find(';')
                .map_or(code.len(), |end| item + end + 1),
        };
        let blanks: String = code[start..end].chars().map(blank_for).collect();
        code.replace_range(start..end, &blanks);
    }
    code
}

/// The text with blanks for comments and, if asked, for literals. Its lines stay lines.
fn blank(text: &str, literals: bool) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let comment = comment(rest);
        let literal = if comment == 0 {
            literal(rest, blanked.ends_with(is_word))
        } else {
            0
        };
        let length = comment + literal;
        if length == 0 {
            blanked.push(c);
            rest = &rest[c.len_utf8()..];
        } else if comment > 0 || literals {
            blanked.extend(rest[..length].chars().map(blank_for));
            rest = &rest[length..];
        } else {
            blanked.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    blanked
}

fn blank_for(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// The length of the comment that begins here, or 0. Comments of Rust nest.
fn comment(code: &str) -> usize {
    if code.starts_with("//") {
        return code.find('\n').unwrap_or(code.len());
    }
    if !code.starts_with("/*") {
        return 0;
    }
    let (mut depth, mut at) = (0, 0);
    while at < code.len() {
        let here = &code.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// The length of the string or character that begins here, or 0. A quote that closes nothing
/// begins a lifetime.
fn literal(code: &str, follows_word: bool) -> usize {
    if let Some(raw) = code.strip_prefix('r')
        && !follows_word
    {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = 1 + hashes + 1;
            let length = code[inside..].find(&close).expect("a raw string that ends");
            return inside + length + close.len();
        }
    }
    let mut chars = code.char_indices();
    match chars.next() {
        Some((_, '"')) => {
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => drop(chars.next()),
                    '"' => return at + 1,
                    _ => {}
                }
            }
            code.len()
        }
        Some((_, '\'')) => match (chars.next(), chars.next()) {
            (Some((_, '\\')), _) => {
                let close = code[3..].find('\'').expect("a character that ends");
                3 + close + 1
            }
            (_, Some((at, '\''))) => at + 1,
            _ => 0,
        },
        _ => 0,
    }
}

/// Which files declare each type, where more than one does.
pub(crate) fn types_declared_twice(sources: &[Source]) -> BTreeMap<&str, Vec<&Path>> {
    let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for source in sources {
        for name in type_names(&source.code) {
            files.entry(name).or_default().push(source.path.as_path());
        }
    }
    files.retain(|_, files| files.len() > 1);
    files
}

#[test]
fn what_is_not_code_is_blank() {
    let text = r##"let a = "{ // \" }"; // {
/* { /* { */ */ let b = '{'; fn c<'a>(d: &'a str) { r#"{"# } let e = ('\'', b'"', '\u{7b}');"##;
    let code = blank(text, true);
    assert_eq!(code.len(), text.len());
    let rest: Vec<_> = code.split_whitespace().collect();
    assert_eq!(
        rest.join(" "),
        "let a = ; let b = ; fn c<'a>(d: &'a str) { } let e = ( , b , );"
    );
    assert!(blank(text, false).contains(r#""{ // \" }";"#));
}

#[test]
fn functions_are_measured_without_tests() {
    let code = "fn a(b: [u8; 4]) -> u8\nwhere\n    C: D,\n{\n    fn e() {}\n}\ntrait F {\n    fn g();\n}\n#[cfg(test)]\nmod tests {\n    fn h() {}\n}\n";
    let code = without_tests(code.to_owned());
    let found: Vec<_> = functions(&code)
        .iter()
        .map(|function| (function.name, function.line, function.lines))
        .collect();
    assert_eq!(found, [("a", 1, 6), ("e", 5, 1)]);
}

#[test]
fn types_are_found() {
    let code = "pub struct A;\nenum B {}\nimpl C for D {\n    type E = F;\n}\ntype G = H;\nfn union(I: J) {}";
    assert_eq!(type_names(code), ["A", "B", "G"]);
}
