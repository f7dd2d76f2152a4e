//! `etagd`: parse, run, exit code.

use std::env;
use std::process::ExitCode;

use etagd::cli;
use etagd::config::{Cli, Command, Parsed};
use etagd::log::{self, LogLevel};
use etagd::{resolver, scan};

fn main() -> ExitCode {
    // Flags may name hosts.
    resolver::use_built_in_sources();
    let Parsed { cli, warnings } = match Cli::read(env::args_os()) {
        Ok(parsed) => parsed,
        // A usage error or `--help` ends the process here: 2, or 0.
        Err(error) => error.exit(),
    };
    // `etagd dev` shows everything below a warning in its own form.
    let default_level = match cli.command {
        Command::Dev(_) => LogLevel::Warn,
        _ => LogLevel::Info,
    };
    // What the scan complains of is the result of `etagd lint`, on standard output.
    let unwanted: &[&str] = match cli.command {
        Command::Lint(_) => scan::COMPLAINTS,
        _ => &[],
    };
    log::init(
        cli.messages.log_format,
        cli.messages.level().unwrap_or(default_level),
        // Other commands are read by who started them.
        matches!(cli.command, Command::Serve(_)),
        unwanted,
    );
    for warning in warnings {
        let (variable, similar) = (&warning.name, &warning.similar);
        tracing::warn!(variable, similar, "{warning}");
    }
    match cli::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(%error, "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
