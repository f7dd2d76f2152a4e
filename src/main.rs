//! `etagd`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use etagd::cli;
use etagd::config::{Cli, Command};
use etagd::{log, scan};
use tracing::Level;

fn main() -> ExitCode {
    // A usage error or `--help` ends the process here: 2, or 0.
    let cli = Cli::parse();
    // `etagd dev` shows everything below a warning in its own form.
    let is_dev = matches!(cli.command, Command::Dev(_));
    let level = if is_dev { Level::WARN } else { Level::INFO };
    // What the scan complains of is the result of `etagd lint`, on standard output.
    let unwanted: &[&str] = match cli.command {
        Command::Lint(_) => scan::COMPLAINTS,
        _ => &[],
    };
    log::init(cli.log_format, level, unwanted);
    match cli::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
