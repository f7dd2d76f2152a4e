//! `etagd DIR`: a command line without a command means `serve`.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;

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
}
