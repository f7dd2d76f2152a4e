//! `etagd`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use etagd::{cli, config::Cli, log};

fn main() -> ExitCode {
    // A usage error or `--help` ends the process here: 2, or 0.
    let cli = Cli::parse();
    log::init(cli.log_format);
    match cli::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
