//! `etagd completions` and `etagd man`: what shells and `man` know of the command line, out of its
//! own definition.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Error, print};
use crate::config::Cli;

/// Prints the completions for a shell.
pub(super) fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "etagd", &mut script);
    print(|out| out.write_all(&script))
}

/// Writes etagd.1 and a page for each command.
pub(super) fn man(directory: &Path) -> Result<(), Error> {
    write_pages(directory).map_err(|source| Error::ManPages {
        path: directory.to_path_buf(),
        source,
    })
}

fn write_pages(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
}
