//! `etagd`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use etagd::cli;
use etagd::config::{Cli, Command};
use etagd::log;
use tracing::Level;

fn main() -> ExitCode {
    // A usage error or `--help` ends the process here: 2, or 0.
    let cli = Cli::parse();
    // `etagd dev` shows everything below a warning in its own form.
    let is_dev = matches!(cli.command, Command::Dev(_));
    log::init(
        cli.log_format,
        if is_dev { Level::WARN } else { Level::INFO },
    );
    match cli::run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
