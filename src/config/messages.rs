//! Flags about messages, which all commands have.

use clap::{ArgAction, Args};

use crate::log::{LogFormat, LogLevel};

/// Which messages there are, and in which form.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Operating")]
pub struct MessageFlags {
    /// Format of messages: text or json.
    ///
    /// On standard error. `json` is one object a line, beginning with time, level and message.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORMAT",
        global = true,
        hide_short_help = true
    )]
    pub log_format: LogFormat,
    /// Messages to print: error, warn, info or debug [default: info, and warn in dev].
    ///
    /// Each level includes the ones before it.
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "LEVEL",
        global = true,
        hide_short_help = true
    )]
    pub log_level: Option<LogLevel>,
    /// Only print warnings and errors
    #[arg(short, long, global = true, action = ArgAction::SetTrue, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Also print what helps to find a fault (--log-level debug)
    #[arg(short, long, global = true, action = ArgAction::SetTrue, hide_short_help = true)]
    pub verbose: bool,
}

impl MessageFlags {
    /// The level that was asked for, if any. A flag comes before a variable, and -q and -v have
    /// none.
    pub fn level(&self) -> Option<LogLevel> {
        match (self.quiet, self.verbose) {
            (true, _) => Some(LogLevel::Warn),
            (_, true) => Some(LogLevel::Debug),
            _ => self.log_level,
        }
    }
}
