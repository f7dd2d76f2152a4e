//! The command line: flags as typed, and the settings and options they mean.
//!
//! [`Cli`] is what stands on the command line or in the environment; each value is parsed once,
//! into a type that cannot be wrong. Flag before environment before default.

mod check;
mod choices;
mod clients;
mod compression;
mod dev;
mod documents;
mod environment;
mod follow;
mod health;
mod messages;
mod offline;
mod operator;
mod process;
mod push;
mod serve;
mod site;
mod store;
mod values;
mod watch;
mod words;
mod write;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::log::LogLevel;
use crate::settings::{Listen, SiteSource};
use follow::GivenFlags;

pub use check::CheckFlags;
pub use clients::{AccessLogForm, ProxyOptions};
pub use compression::CompressionFlags;
pub use dev::DevFlags;
pub use environment::UnknownVariable;
pub use follow::FollowFlags;
pub use health::HealthFlags;
pub use messages::MessageFlags;
pub use offline::{CompressFlags, LintFlags, LintFormat, ManifestFlags, ManifestFormat};
pub use operator::{Operator, StatusFlags};
pub use process::{Config, SiteOrigin};
pub use push::{InvalidPushTarget, PushFlags, PushTarget, ReleaseFlags, ServerFlags};
pub use serve::{LimitFlags, ServeFlags};
pub use site::{LastModified, SiteFlags, SiteOptions};
pub use store::{ChannelFlags, GcFlags, ReleasesFlags, ReleasesFormat, RollbackFlags, StoreFlags};
pub use values::Compress;
pub use watch::WatchOptions;
pub use write::WriteOptions;

/// A static file server with precomputed, content-based strong ETags
#[derive(Debug, Args)]
#[command(
    version,
    about,
    max_term_width = 100,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "etagd DIR is short for etagd serve DIR."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Which messages there are.
    #[command(flatten)]
    pub messages: MessageFlags,
}

// Not derived: variables are named here, for all flags at once.
impl CommandFactory for Cli {
    fn command() -> clap::Command {
        environment::with_variables(Self::augment_args(clap::Command::new("etagd")))
    }

    fn command_for_update() -> clap::Command {
        Self::command()
    }
}

impl Parser for Cli {}

/// A command line that was understood.
#[derive(Debug)]
pub struct Parsed {
    /// What it says.
    pub cli: Cli,
    /// Variables that no command reads, and that look as if one should.
    pub warnings: Vec<UnknownVariable>,
}

impl Cli {
    /// Reads the command line of this process, and what its environment says in addition.
    ///
    /// # Errors
    /// When one of them cannot be meant, or help is asked for.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, clap::Error> {
        let mut command = Self::command();
        let words: Vec<_> = words.into_iter().collect();
        let words = words::with_command(words, &command, Path::is_dir);
        let with_lists =
            environment::with_pattern_lists(&words, &command, |name| env::var_os(name));
        let parsed = command
            .try_get_matches_from_mut(with_lists)
            .and_then(|matches| Self::understand(&matches, env::var_os("PORT")));
        let cli = parsed.map_err(|mut error| {
            let is_set = |name: &OsStr| env::var_os(name).is_some();
            environment::name_variables(&mut error, &command, &words, is_set);
            words::shorten_value(&mut error);
            if error.kind() == ErrorKind::UnknownArgument {
                words::suggest_equals(&mut error, &words);
            }
            if error.kind() == ErrorKind::InvalidSubcommand {
                words::suggest_command(&mut error, &command, &words);
            }
            error.with_cmd(&command)
        })?;
        let warnings = match &cli.command {
            Command::Serve(_) | Command::Dev(_) => {
                environment::unknown_variables(&command, env::vars_os())
            }
            _ => Vec::new(),
        };
        Ok(Parsed { cli, warnings })
    }

    /// The script that completes command lines in this shell.
    pub fn completions(shell: Shell) -> Vec<u8> {
        documents::completions(Self::command(), shell)
    }

    /// Writes a man page for each command into a directory.
    ///
    /// # Errors
    /// When the directory can't be written to.
    pub fn write_man_pages(directory: &Path) -> io::Result<()> {
        documents::write_man_pages(Self::command(), directory)
    }

    fn understand(matches: &ArgMatches, port: Option<OsString>) -> Result<Self, clap::Error> {
        let mut cli = Self::from_arg_matches(matches)?;
        if let Some((_, matches)) = matches.subcommand() {
            check_cache(&cli.command, &GivenFlags(matches))?;
        }
        let usual_port = || {
            environment::usual_port(port)
                .map_err(|error| clap::Error::raw(ErrorKind::InvalidValue, format!("{error}\n")))
        };
        let is_quiet = cli
            .messages
            .level()
            .is_some_and(|level| level <= LogLevel::Warn);
        match &mut cli.command {
            Command::Serve(flags) => {
                if let Some(serve) = matches.subcommand_matches("serve") {
                    let given = GivenFlags(serve);
                    let prefetch = flags.following.prefetch;
                    if let Some(message) = given.check(&flags.source, prefetch) {
                        return Err(conflict(message));
                    }
                    flags.typed = given.of_settings(&flags.settings());
                }
                let given = matches
                    .subcommand_matches("serve")
                    .and_then(|serve| serve.value_source("listen"));
                if flags.port.is_some() && given == Some(ValueSource::CommandLine) {
                    return Err(conflict("--port is short for a --listen: give one of them"));
                }
                match flags.port {
                    // A flag comes before ETAGD_LISTEN.
                    Some(port) => flags.listen = vec![Listen::this_machine(port)],
                    None if flags.listen.is_empty() => {
                        // Who sets PORT forwards what comes from outside.
                        flags.default_listen = usual_port()?.map(Listen::all_addresses);
                    }
                    None => {}
                }
            }
            Command::Dev(flags) => {
                flags.quiet = is_quiet;
                if flags.port.is_none() {
                    flags.port = usual_port()?;
                }
            }
            Command::Push(flags) => {
                if let Some(push) = matches.subcommand_matches("push") {
                    flags.note_typed(push);
                }
            }
            _ => {}
        }
        Ok(cli)
    }
}

fn conflict(message: impl std::fmt::Display) -> clap::Error {
    clap::Error::raw(ErrorKind::ArgumentConflict, format!("{message}\n"))
}

/// Refuses a cache that nothing would be put into.
fn check_cache(command: &Command, given: &GivenFlags<'_>) -> Result<(), clap::Error> {
    let flag = ["cache", "cache-size"]
        .into_iter()
        .find(|flag| given.has(flag));
    let needs = match command {
        Command::Serve(flags) if matches!(flags.source, SiteSource::Store(_)) => {
            return match given.has("cache-size") && !given.has("cache") {
                true => Err(clap::Error::raw(
                    ErrorKind::MissingRequiredArgument,
                    "--cache-size needs --cache\n",
                )),
                false => Ok(()),
            };
        }
        Command::Serve(_) => "--compress, or a store of releases to serve",
        _ => "--compress",
    };
    match flag {
        Some(flag) if !given.has("compress") => {
            let message = format!("--{flag} needs {needs}\n");
            Err(clap::Error::raw(
                ErrorKind::MissingRequiredArgument,
                message,
            ))
        }
        _ => Ok(()),
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a directory
    Serve(Box<ServeFlags>),
    /// Serve a directory while you work on it: pages reload when something changes
    Dev(Box<DevFlags>),
    /// Print the manifest: path, tag, size and type of everything that would be served
    Manifest(ManifestFlags),
    /// Compare replicas: do they serve the same site?
    Check(Box<CheckFlags>),
    /// Upload a directory to a server that runs with --writable, or to a store as a release
    Push(Box<PushFlags>),
    /// List the releases of a store
    Releases(ReleasesFlags),
    /// Bring an earlier release of a store back
    Rollback(RollbackFlags),
    /// Delete what no release of a store needs
    Gc(GcFlags),
    /// Write .br, .zst and .gz files next to the files of a site
    Compress(CompressFlags),
    /// Report problems of a site: bad rules, broken links, stale sidecars, look-alike names
    Lint(LintFlags),
    /// Ask a server whether it is ready, and exit with 0 or 1
    Health(HealthFlags),
    /// Print a script that completes command lines
    Completions {
        /// For this shell
        shell: Shell,
    },
    /// Write the man pages to a directory
    Man {
        /// An existing directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
