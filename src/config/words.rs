//! `etagd DIR`: a command line without a command means `serve`.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;
use clap::error::{ContextKind, ContextValue};

use super::values::compress;
use crate::log::Printable;

/// The most characters of a value in an error.
const MAX_SHOWN: usize = 80;

/// Inserts `serve` where no command stands, and what stands there is a directory or a flag that
/// only a command has. A word with a slash can only be a path, so that a wrong one is reported as
/// such.
pub(super) fn with_command(
    mut words: Vec<OsString>,
    cli: &Command,
    is_directory: impl Fn(&Path) -> bool,
) -> Vec<OsString> {
    let Some(at) = first_own_word(&words) else {
        return words;
    };
    let is_command = |word: &OsString| word == "help" || cli.find_subcommand(word).is_some();
    let word = words[at].to_string_lossy();
    let is_meant = match word.as_ref() {
        "-h" | "--help" | "-V" | "--version" => false,
        flag if flag.starts_with('-') => !words[at..].iter().any(is_command),
        path => !is_command(&words[at]) && (path.contains('/') || is_directory(Path::new(path))),
    };
    if is_meant {
        words.insert(at, "serve".into());
    }
    words
}

/// Where the first word stands that is no flag of all commands, such as `--log-level`.
fn first_own_word(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += match words.get(at)?.to_str() {
            Some("-q" | "--quiet" | "-v" | "--verbose") => 1,
            Some("--log-format" | "--log-level") => 2,
            Some(word) if word.starts_with("--log-format=") || word.starts_with("--log-level=") => {
                1
            }
            _ => return Some(at),
        };
    }
}

/// Makes an error about a word that is no command suggest the one that was probably meant. clap's own
/// suggestion shares letters only: it takes `my-site` for `completions`.
pub(super) fn suggest_command(error: &mut clap::Error, cli: &Command, words: &[OsString]) {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    let nearest = nearest_command(word, cli);
    let is_own = first_own_word(words).is_some_and(|at| words[at].to_str() == Some(word));
    error.remove(ContextKind::SuggestedSubcommand);
    if let Some(nearest) = nearest {
        let nearest = ContextValue::Strings(vec![nearest]);
        error.insert(ContextKind::SuggestedSubcommand, nearest);
    }
    // Below `help` no directory can be meant.
    if is_own {
        let hint = "a directory with this name does not exist either".into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
}

/// Makes an error about a word too many say that the codings of `--compress` follow an equals sign: in
/// `--compress DIR` it is the directory that follows.
pub(super) fn suggest_equals(error: &mut clap::Error, words: &[OsString]) {
    let codings = words
        .windows(2)
        .filter(|pair| pair[0] == "--compress")
        .find_map(|pair| pair[1].to_str().filter(|word| compress(word).is_ok()));
    if let Some(codings) = codings {
        let tip = format!("codings follow an equals sign: --compress={codings}");
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![tip.into()]),
        );
    }
}

/// Makes an error about a value show it in one line that a terminal does not obey: who forwards a text of
/// somebody else's, such as a commit's message, knows it.
pub(super) fn shorten_value(error: &mut clap::Error) {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let shown = shown(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    }
}

fn shown(value: &str) -> String {
    let (value, end) = match value.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => (&value[..end], "..."),
        None => (value, ""),
    };
    format!("{}{end}", Printable(value))
}

/// The command that a word is with one letter wrong, and one more in each four.
fn nearest_command(word: &str, cli: &Command) -> Option<String> {
    let max_distance = 1 + word.chars().count() / 4;
    cli.get_subcommands()
        .map(Command::get_name)
        .chain(["help"])
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= max_distance && *distance < name.len() - 1)
        .filter(|_| !word.starts_with('-'))
        .min()
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_served() {
        let cli = Command::new("etagd")
            .subcommand(Command::new("serve"))
            .subcommand(Command::new("dev"));
        for (typed, meant) in [
            ("", ""),
            ("public", "serve public"),
            ("public --listen :80", "serve public --listen :80"),
            ("./missing", "serve ./missing"),
            ("-p 3000 public", "serve -p 3000 public"),
            ("-q public", "-q serve public"),
            ("--log-level debug public", "--log-level debug serve public"),
            ("--log-level", "--log-level"),
            ("missing", "missing"),
            ("dev", "dev"),
            ("dev public", "dev public"),
            ("help", "help"),
            ("--help", "--help"),
            ("-V", "-V"),
            ("--listen :80 dev", "--listen :80 dev"),
        ] {
            let words = |text: &str| {
                std::iter::once("etagd")
                    .chain(text.split_whitespace())
                    .map(OsString::from)
                    .collect::<Vec<_>>()
            };
            let is_directory =
                |path: &Path| [Path::new("public"), Path::new("dev")].contains(&path);
            assert_eq!(
                with_command(words(typed), &cli, is_directory),
                words(meant),
                "{typed:?}"
            );
        }
    }

    #[test]
    fn a_value_is_shown_in_one_line() {
        for (value, expected) in [
            ("x", "x"),
            ("a\nb\u{7}", "a\\nb\\u{7}"),
            ("\u{202e}x", "\\u{202e}x"),
        ] {
            assert_eq!(shown(value), expected);
        }
        assert_eq!(shown(&"ä".repeat(5000)), format!("{}...", "ä".repeat(80)));
    }

    #[test]
    fn the_command_that_was_meant() {
        let names = ["serve", "dev", "manifest", "check", "completions", "man"];
        let cli = Command::new("etagd").subcommands(names.map(Command::new));
        for (typed, meant) in [
            ("servve", Some("serve")),
            ("server", Some("serve")),
            ("hlep", Some("help")),
            ("mainfest", Some("manifest")),
            ("dve", Some("dev")),
            ("completion", Some("completions")),
            ("my-site", None),
            ("sample-sit", None),
            ("public", None),
            ("-h", None),
            ("--help", None),
            ("x", None),
            ("", None),
        ] {
            let nearest = nearest_command(typed, &cli);
            assert_eq!(nearest.as_deref(), meant, "{typed:?}");
        }
    }
}
