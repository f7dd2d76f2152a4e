//! Environment variables that stand for flags: their names, made in one place, and those that
//! nobody reads.

use std::ffi::{OsStr, OsString};
use std::fmt;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

/// Flags whose values are patterns. clap would split their variables at every comma, and patterns have
/// commas of their own.
const PATTERN_FLAGS: [&str; 3] = ["immutable", "exclude", "dictionary"];
/// What all names begin with.
const PREFIX: &str = "ETAGD_";
/// The commands that run as services, and so are configured by their environment. One-shot
/// commands are not: a hook that runs one would pass on the variables of its server.
const SERVICES: [&str; 2] = ["serve", "dev"];
/// Flags without a variable: `-p` has `PORT` and --listen, `-q` and `-v` have --log-level.
const WITHOUT_VARIABLE: [&str; 5] = ["help", "version", "port", "quiet", "verbose"];
/// Variables that stand for no flag: the token of `push`, and what the hook of --on-publish gets.
const NOT_FLAGS: [&str; 3] = ["ETAGD_WRITE_TOKEN", "ETAGD_OLD_DIGEST", "ETAGD_NEW_DIGEST"];
/// Names that Kubernetes makes in every pod beside a Service that is called etagd.
const SERVICE_LINKS: [&str; 2] = ["ETAGD_PORT_", "ETAGD_SERVICE_"];
/// What Kubernetes makes too, and people may mean by it what PORT means.
const PORT: &str = "ETAGD_PORT";
/// Flags without a variable that people may look for, and what to set instead.
const INSTEAD: [(&str, &str); 3] = [
    (PORT, "PORT or ETAGD_LISTEN"),
    ("ETAGD_QUIET", "ETAGD_LOG_LEVEL=warn"),
    ("ETAGD_VERBOSE", "ETAGD_LOG_LEVEL=debug"),
];
/// From this similarity on a known name is suggested.
const MIN_SIMILARITY: f64 = 0.85;

/// Gives each flag of a service its variable. A one-shot command has none, but for the address that
/// `health` asks, which is its server's.
pub(super) fn with_variables(cli: Command) -> Command {
    let shared: Vec<Arg> = cli
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .cloned()
        .collect();
    // Not `mut_subcommand` and `mut_arg`: they move what they change to the end of help.
    cli.mut_subcommands(|command| match command.get_name() {
        name if SERVICES.contains(&name) => command.args(&shared).mut_args(with_variable),
        "health" => command.mut_args(|arg| match arg.get_id() == "admin" {
            true => with_variable(arg),
            false => arg,
        }),
        _ => command,
    })
}

fn with_variable(arg: Arg) -> Arg {
    match arg.get_long().map(str::to_owned) {
        // Help is the same in every environment, and shows nobody's.
        Some(long) if !WITHOUT_VARIABLE.contains(&long.as_str()) => {
            arg.env(variable(&long)).hide_env_values(true)
        }
        _ => arg,
    }
}

/// `ETAGD_MAX_UPLOAD` for `max-upload`.
fn variable(long: &str) -> String {
    format!("{PREFIX}{}", long.to_ascii_uppercase().replace('-', "_"))
}

/// The command line with a flag for each pattern in a variable that holds several of them, unless the
/// flag itself is typed.
pub(super) fn with_pattern_lists(
    words: &[OsString],
    cli: &Command,
    value_of: impl Fn(&str) -> Option<OsString>,
) -> Vec<OsString> {
    let mut with_lists = words.to_vec();
    let command = words
        .iter()
        .position(|word| cli.find_subcommand(word).is_some());
    let Some(at) = command.filter(|at| SERVICES.iter().any(|name| words[*at] == *name)) else {
        return with_lists;
    };
    for long in PATTERN_FLAGS {
        if is_typed(words, long) {
            continue;
        }
        let value = value_of(&variable(long)).and_then(|value| value.into_string().ok());
        let patterns = value.as_deref().map(split_patterns).unwrap_or_default();
        // One that is all of it is clap's to read.
        let is_alone = matches!(patterns[..], [only] if Some(only) == value.as_deref());
        if !is_alone {
            for (index, pattern) in patterns.iter().enumerate() {
                let flag = format!("--{long}={pattern}");
                with_lists.insert(at + 1 + index, flag.into());
            }
        }
    }
    with_lists
}

/// The patterns in a list: commas separate them, but for those in braces or brackets and those after a
/// backslash.
fn split_patterns(list: &str) -> Vec<&str> {
    let (mut braces, mut in_brackets, mut is_escaped) = (0_usize, false, false);
    let is_separator = |character: char| {
        let was_escaped = is_escaped;
        is_escaped = character == '\\' && !was_escaped;
        match character {
            _ if was_escaped => {}
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '{' if !in_brackets => braces += 1,
            '}' if !in_brackets => braces = braces.saturating_sub(1),
            ',' => return braces == 0 && !in_brackets,
            _ => {}
        }
        false
    };
    list.split(is_separator)
        .map(str::trim)
        .filter(|pattern| !pattern.is_empty())
        .collect()
}

/// Whether a flag is on the command line.
fn is_typed(words: &[OsString], long: &str) -> bool {
    words.iter().filter_map(|word| word.to_str()).any(|word| {
        word.strip_prefix("--")
            .is_some_and(|word| word.split('=').next() == Some(long))
    })
}

/// A warning for each variable that looks like one of etagd's and is read by no command.
pub(super) fn unknown_variables(
    cli: &Command,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<UnknownVariable> {
    let known: Vec<&str> = cli
        .get_subcommands()
        .flat_map(Command::get_arguments)
        .filter_map(|arg| arg.get_env()?.to_str())
        .chain(NOT_FLAGS)
        .collect();
    let mut warnings: Vec<_> = environment
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.to_str()?;
            is_mistaken(name, &value, &known).then(|| UnknownVariable::new(name, &known))
        })
        .collect();
    warnings.sort_by(|a, b| a.name.cmp(&b.name));
    warnings
}

fn is_mistaken(name: &str, value: &OsStr, known: &[&str]) -> bool {
    let is_service_link = SERVICE_LINKS.iter().any(|link| name.starts_with(link))
        || name == PORT && value.to_string_lossy().contains("://");
    name.starts_with(PREFIX) && !known.contains(&name) && !is_service_link
}

/// A variable that looks like one of etagd's, and that no command reads.
#[derive(Debug)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable that was probably meant.
    pub similar: Option<String>,
}

impl UnknownVariable {
    fn new(name: &str, known: &[&str]) -> Self {
        // What all begin with would make all of them alike.
        let own = |name: &'_ str| name.trim_start_matches(PREFIX).to_owned();
        let similar = known
            .iter()
            .map(|known| (strsim::jaro_winkler(&own(name), &own(known)), known))
            .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            name: name.to_owned(),
            similar: similar.map(|(_, known)| (*known).to_owned()),
        }
    }
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let instead = INSTEAD.iter().find(|(unread, _)| unread == name);
        match (instead, &self.similar) {
            (Some((_, instead)), _) => write!(f, "{name} is not read: set {instead}"),
            (_, Some(known)) => write!(f, "unknown variable {name}: did you mean {known}?"),
            _ => write!(f, "unknown variable {name}: no flag has this name"),
        }
    }
}

/// Makes an error about a flag that was not typed name the variable that its value came from.
pub(super) fn name_variables(
    error: &mut clap::Error,
    cli: &Command,
    words: &[OsString],
    is_set: impl Fn(&OsStr) -> bool,
) {
    let Some(command) = words
        .iter()
        .find_map(|word| cli.find_subcommand(word.to_str()?))
    else {
        return;
    };
    let from_variable = |shown: &str| {
        let long = shown.strip_prefix("--")?;
        let long = long.split([' ', '=', '<', '[']).next()?;
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(long))?;
        let name = arg.get_env()?;
        (!is_typed(words, long) && is_set(name))
            .then(|| format!("{} ({shown})", name.to_string_lossy()))
    };
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let renamed = match error.get(kind) {
            Some(ContextValue::String(shown)) => from_variable(shown).map(ContextValue::String),
            Some(ContextValue::Strings(all)) => Some(ContextValue::Strings(
                all.iter()
                    .map(|shown| from_variable(shown).unwrap_or_else(|| shown.clone()))
                    .collect(),
            )),
            _ => None,
        };
        if let Some(renamed) = renamed {
            error.insert(kind, renamed);
        }
    }
}

/// The variable `PORT` names no port.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {0:?} for the variable PORT: expected a port, 0 to 65535")]
pub(super) struct InvalidPort(OsString);

/// The port of `PORT`, which platforms set for what they start. An empty one is none.
///
/// # Errors
/// When it is no port.
pub(super) fn usual_port(value: Option<OsString>) -> Result<Option<u16>, InvalidPort> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let port = value.to_str().and_then(|value| value.parse().ok());
    match port {
        Some(port) => Ok(Some(port)),
        None => Err(InvalidPort(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli() -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name);
        with_variables(
            Command::new("etagd")
                .arg(flag("log-level").global(true))
                .subcommand(Command::new("serve").args([
                    flag("listen"),
                    flag("max-upload"),
                    flag("port"),
                ]))
                .subcommand(Command::new("dev"))
                .subcommand(Command::new("push").arg(flag("symlinks")))
                .subcommand(Command::new("health").args([flag("admin"), flag("timeout")])),
        )
    }

    #[test]
    fn services_have_variables_and_one_shot_commands_have_none() {
        let cli = cli();
        for (command, flag, variable) in [
            ("serve", "listen", Some("ETAGD_LISTEN")),
            ("serve", "max-upload", Some("ETAGD_MAX_UPLOAD")),
            ("serve", "log-level", Some("ETAGD_LOG_LEVEL")),
            ("serve", "port", None),
            ("dev", "log-level", Some("ETAGD_LOG_LEVEL")),
            ("push", "symlinks", None),
            ("health", "admin", Some("ETAGD_ADMIN")),
            ("health", "timeout", None),
        ] {
            let command_found = cli.find_subcommand(command).expect("a command");
            let arg = command_found
                .get_arguments()
                .find(|arg| arg.get_id() == flag)
                .expect("a flag");
            let named = arg.get_env().and_then(OsStr::to_str);
            assert_eq!(named, variable, "{command} --{flag}");
        }
    }

    #[test]
    fn variables_with_patterns_are_lists() {
        let split: &[(&str, &[&str])] = &[
            ("", &[]),
            ("a.txt", &["a.txt"]),
            ("a.txt,b.txt", &["a.txt", "b.txt"]),
            (" a.txt, b c ,", &["a.txt", "b c"]),
            ("auto,/{js,css}/**,/x", &["auto", "/{js,css}/**", "/x"]),
            ("/{a,{b,c}}/*,/d", &["/{a,{b,c}}/*", "/d"]),
            ("[a,b].js,c", &["[a,b].js", "c"]),
            ("a\\,b,c\\\\,d", &["a\\,b", "c\\\\", "d"]),
            ("a},b", &["a}", "b"]),
            ("[{],b", &["[{]", "b"]),
        ];
        for (list, patterns) in split {
            assert_eq!(split_patterns(list), *patterns, "{list}");
        }
        let value_of = |name: &str| (name == "ETAGD_EXCLUDE").then(|| "a,b".into());
        for (typed, read) in [
            ("etagd serve .", "etagd serve --exclude=a --exclude=b ."),
            ("etagd push serve", "etagd push serve"),
            ("etagd serve --exclude c .", "etagd serve --exclude c ."),
            ("etagd", "etagd"),
        ] {
            let words: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
            let read: Vec<OsString> = read.split(' ').map(OsString::from).collect();
            assert_eq!(with_pattern_lists(&words, &cli(), value_of), read);
        }
        for (value, flags) in [("drafts,", &["--exclude=drafts"][..]), ("drafts", &[])] {
            let value_of = |name: &str| (name == "ETAGD_EXCLUDE").then(|| value.into());
            let words = ["etagd", "serve"].map(OsString::from);
            let read = with_pattern_lists(&words, &cli(), value_of);
            assert_eq!(read[2..], *flags, "{value}");
        }
    }

    #[test]
    fn variables_that_nobody_reads() {
        for (name, value, says) in [
            ("ETAGD_LISTEN", ":80", None),
            ("ETAGD_WRITE_TOKEN", "secret", None),
            ("ETAGD_LISTN", ":80", Some("did you mean ETAGD_LISTEN?")),
            ("ETAGD_ADMN", ":90", Some("did you mean ETAGD_ADMIN?")),
            ("ETAGD_COLOUR", "red", Some("no flag has this name")),
            ("ETAGD_FOO", "1", Some("no flag has this name")),
            ("ETAGD_QUIET", "1", Some("set ETAGD_LOG_LEVEL=warn")),
            ("ETAGD_VERBOSE", "1", Some("set ETAGD_LOG_LEVEL=debug")),
            ("ETAGD_PORT", "tcp://10.0.0.1:80", None),
            ("ETAGD_PORT", "3000", Some("set PORT or ETAGD_LISTEN")),
            ("ETAGD_PORT_80_TCP_ADDR", "10.0.0.1", None),
            ("ETAGD_SERVICE_HOST", "10.0.0.1", None),
            ("ETAGDX", "", None),
            ("HOME", "/", None),
        ] {
            let warnings = unknown_variables(&cli(), [(name.into(), value.into())]);
            assert_eq!(warnings.len(), usize::from(says.is_some()), "{name}");
            if let Some(says) = says {
                let warning = warnings[0].to_string();
                assert!(
                    warning.contains(says) && warning.contains(name),
                    "{warning}"
                );
            }
        }
    }

    #[test]
    fn ports_of_platforms() {
        assert_eq!(usual_port(None), Ok(None));
        assert_eq!(usual_port(Some("".into())), Ok(None));
        assert_eq!(usual_port(Some("3000".into())), Ok(Some(3000)));
        for bad in ["tcp://10.0.0.1:80", "70000", "-1", "http"] {
            let error = usual_port(Some(bad.into())).expect_err(bad).to_string();
            assert!(error.contains("PORT") && error.contains(bad), "{error}");
        }
    }
}
