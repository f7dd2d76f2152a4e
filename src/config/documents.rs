//! What shells and `man` know of the command line, out of its own definition.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// The script that completes command lines in this shell.
pub(super) fn completions(mut cli: Command, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli, "etagd", &mut script);
    script
}

/// Writes etagd.1 and a page for each command into a directory.
pub(super) fn write_man_pages(cli: Command, directory: &Path) -> io::Result<()> {
    // What -h leaves out has no text in a page either, unless it has two.
    let with_all_texts = |command: Command| command.mut_args(|arg| arg.hide_short_help(false));
    let cli = with_all_texts(cli).mut_subcommands(with_all_texts);
    clap_mangen::generate_to(cli.disable_help_subcommand(true), directory)
}
