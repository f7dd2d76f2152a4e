//! Every command that README and manual print is run, and prints what they print.
//!
//! The commands of a page run one after the other in one shell, in a network and a file system of
//! their own: ports, addresses and host names are those of the page. `sandbox` says which
//! programs are replaced, and what the replacements check.

use html5gum::{Token, Tokenizer};

use crate::documents::{pages, read};
use crate::sandbox::{Run, Sandbox};

/// A command of a page, and the lines that are printed below it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Example {
    pub(crate) command: String,
    pub(crate) printed: Option<String>,
}

/// What is not run here, with the test that shows it.
const ELSEWHERE: &[(&str, &str)] = &[
    // Needs a writer at the right moment: tests/promises/integrity.rs.
    (
        "integrity.html",
        "curl -o disk.img http://127.0.0.1:8080/disk.img",
    ),
];

/// Servers that a page takes for granted.
const BEFORE: &[(&str, &[&str])] = &[
    (
        "balancers.html",
        &[
            "etagd serve dist --listen 10.0.0.11:80 --admin 10.0.0.11:9090",
            "etagd serve dist --listen 10.0.0.12:80 --admin 10.0.0.12:9090",
        ],
    ),
    ("conditional-requests.html", &["etagd serve sample-site"]),
    ("integrity.html", &["etagd serve sample-site"]),
    (
        "replicas.html",
        &[
            "etagd serve dist --listen 10.0.0.1:80 --admin 10.0.0.1:9900",
            "etagd serve changed --listen 10.0.0.2:80 --admin 10.0.0.2:9900",
            "etagd serve dist --listen 10.0.0.11:80",
            "etagd serve dist --listen 10.0.0.12:80",
        ],
    ),
    ("rules.html", &["etagd serve sample-site"]),
    (
        "troubleshooting.html",
        &["etagd serve public --admin 127.0.0.1:9090"],
    ),
];

#[test]
fn the_readme_prints_what_its_commands_print() {
    let wrong = check("README.md", &fenced(&read("README.md")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn the_manual_prints_what_its_commands_print() {
    let wrong: Vec<_> = pages()
        .iter()
        .flat_map(|page| check(page, &preformatted(&read(page))))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What of a document is not so.
fn check(document: &str, examples: &[Example]) -> Vec<String> {
    let is_here = |example: &&Example| {
        !ELSEWHERE
            .iter()
            .any(|(page, command)| document.ends_with(page) && example.command == *command)
    };
    let examples: Vec<_> = examples.iter().filter(is_here).collect();
    if examples.is_empty() {
        return Vec::new();
    }
    let before = BEFORE.iter().find(|(page, _)| document.ends_with(page));
    let before = before.map_or(&[][..], |(_, servers)| servers);
    let commands: Vec<_> = examples.iter().map(|each| each.command.as_str()).collect();
    let Some(runs) = Sandbox::run(before, &commands) else {
        return Vec::new();
    };
    let pairs = examples.iter().zip(&runs);
    pairs
        .filter_map(|(example, run)| {
            let (command, said) = (&example.command, &run.output);
            let difference = compare(example, run)?;
            Some(format!(
                "{document}\n$ {command}\n{difference}\nit said:\n{said}"
            ))
        })
        .collect()
}

/// What is wrong with a run, if something is.
fn compare(example: &Example, run: &Run) -> Option<String> {
    let Some(printed) = &example.printed else {
        // A server runs until it is stopped.
        let is_good = run.is_server || run.status == Some(0);
        return (!is_good).then(|| format!("ended with {:?}", run.status));
    };
    // The summary of a scan goes to standard error, for whoever looks; a page may leave it out.
    let is_shown =
        |line: &&str| !line.contains(", site digest ") || printed.contains("site digest");
    let said: Vec<_> = run
        .output
        .trim_end()
        .lines()
        .map(without_time)
        .filter(is_shown)
        .collect();
    let mut said = said.into_iter();
    for line in printed.lines() {
        if line.trim() == "…" {
            // As many lines as there are until the next one matches.
            continue;
        }
        // A server says more than what a page shows of it, and so may the lines that `…` stands for.
        let is_loose = run.is_server || printed.contains("…\n");
        let found = if is_loose {
            said.any(|other| matches(line, other))
        } else {
            said.next().is_some_and(|other| matches(line, other))
        };
        if !found {
            return Some(format!("the page prints {line:?}"));
        }
    }
    let is_all = run.is_server || printed.contains("…\n") || said.next().is_none();
    (!is_all).then(|| "it says more than the page prints".to_owned())
}

/// Whether a printed line is what a command said, apart from what differs from one time to another.
fn matches(printed: &str, said: &str) -> bool {
    // Its date is another every time.
    for field in ["date: ", "last-modified: "] {
        if printed.starts_with(field) {
            return said.starts_with(field);
        }
    }
    // `…` is whatever stands there.
    let mut rest = said.trim_end();
    let mut parts = printed.trim_end().split('…');
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else {
        return false;
    };
    rest = after;
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// A message as a terminal shows it: without the time that a pipe gets before it.
fn without_time(line: &str) -> &str {
    match line.split_once("Z ") {
        Some((time, message)) if time.len() == "2026-01-01T00:00:00.000".len() => message,
        _ => line,
    }
}

#[test]
fn lines_match() {
    for (printed, said, expected) in [
        ("200", "200", true),
        ("200", "2000", false),
        ("200", "", false),
        ("date: Wed, 04 Feb", "date: Thu, 05 Feb", true),
        ("date: Wed, 04 Feb", "etag: 1", false),
        ("etagd …", "etagd 0.1.0", true),
        ("etagd …", "nginx 0.1.0", false),
        ("… sent, … s", "5 KiB sent, 0.1 s", true),
        ("… sent, … s", "5 KiB got, 0.1 s", false),
        ("a…b…c", "a1b2c", true),
        ("a…b…c", "a1c", false),
    ] {
        assert_eq!(matches(printed, said), expected, "{printed:?}, {said:?}");
    }
}

/// The examples of Markdown: blocks that say `console`.
fn fenced(markdown: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let blocks = markdown.split("```console\n").skip(1);
    for block in blocks.filter_map(|rest| rest.split("\n```").next()) {
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                examples.push(Example {
                    command: command.to_owned(),
                    printed: None,
                });
            } else {
                let example = examples.last_mut().expect("a command before its output");
                let printed = example.printed.get_or_insert_default();
                *printed += line;
                printed.push('\n');
            }
        }
    }
    examples
}

/// The examples of a page: `<kbd>` and `<samp>` in `<pre>`.
fn preformatted(html: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let (mut is_pre, mut is_command, mut is_output) = (false, false, false);
    for token in Tokenizer::new(html) {
        match token.unwrap() {
            Token::StartTag(tag) => match &tag.name[..] {
                b"pre" => is_pre = true,
                b"kbd" if is_pre => {
                    is_command = true;
                    examples.push(Example::default());
                }
                b"samp" if is_pre => is_output = true,
                _ => {}
            },
            Token::EndTag(tag) => match &tag.name[..] {
                b"pre" => is_pre = false,
                b"kbd" => is_command = false,
                b"samp" => is_output = false,
                _ => {}
            },
            Token::String(text) if is_command => {
                let example = examples.last_mut().unwrap();
                example.command += str::from_utf8(&text).unwrap();
            }
            // A block without a command shows a file, or what a terminal looks like.
            Token::String(text) if is_output => {
                if let Some(example) = examples.last_mut() {
                    let printed = example.printed.get_or_insert_default();
                    *printed += str::from_utf8(&text).unwrap();
                }
            }
            _ => {}
        }
        if !is_pre && !is_command && !is_output {
            // The next block's output is not this command's.
            if examples.last().is_some_and(|last| !last.command.is_empty()) {
                examples.push(Example::default());
            }
        }
    }
    examples.retain(|example| !example.command.is_empty());
    examples
}

#[test]
fn examples_are_found() {
    let example = |command: &str, printed: Option<&str>| Example {
        command: command.to_owned(),
        printed: printed.map(str::to_owned),
    };
    let markdown = "a\n```console\n$ one\n1\n2\n$ two\n```\n```sh\n$ no\n```\n";
    let expected = [example("one", Some("1\n2\n")), example("two", None)];
    assert_eq!(fenced(markdown), expected);
    let html = "<p><kbd>no</kbd><pre><kbd>a &amp;&amp; b</kbd>\n<samp>1\n<b>2</b></samp>\n\
                <kbd>c</kbd></pre><pre><samp>a file</samp></pre>";
    let expected = [example("a && b", Some("1\n2")), example("c", None)];
    assert_eq!(preformatted(html), expected);
}
