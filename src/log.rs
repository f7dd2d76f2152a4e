//! Messages for the operator, on stderr: lines for people, or JSON for machines.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Form of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Lines of text
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl LogFormat {
    /// The value as it is typed after `--log-format`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Sends messages of this level, and graver ones, to stderr from now on. Only the first call of a process has an effect.
///
/// Only our own: what libraries warn of is mostly what clients do, and a client could fill the
/// disk with it (h2 has a line for every PING acknowledgement that nobody asked for).
pub fn init(format: LogFormat, level: Level) {
    // A message that can't be written is lost; that must not end who had something to say.
    let builder = tracing_subscriber::fmt()
        .with_writer(|| Lossy)
        .log_internal_errors(false);
    let ours = Targets::new().with_target(env!("CARGO_PKG_NAME"), level);
    let _ = match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            builder.finish().with(ours).try_init()
        }
        LogFormat::Text => {
            let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colours = io::stderr().is_terminal() && !is_plain;
            let builder = builder.event_format(Lines { colours });
            builder.finish().with(ours).try_init()
        }
    };
}

/// The message alone; a level only where it is not good news.
struct Lines {
    colours: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (colour, label) = match *event.metadata().level() {
            Level::ERROR => ("31", "error: "),
            Level::WARN => ("33", "warning: "),
            _ => ("", ""),
        };
        if self.colours && !label.is_empty() {
            write!(writer, "\x1b[1;{colour}m{label}\x1b[0m")?;
        } else {
            writer.write_str(label)?;
        }
        let mut message = MessageText::default();
        event.record(&mut message);
        writeln!(writer, "{}", Printable(&message.0))
    }
}

/// The text of a message without its fields: they say the same once more, for machines.
#[derive(Default)]
struct MessageText(String);

impl Visit for MessageText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// Text on one line: a file's name may hold line feeds and a terminal's commands.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Standard error, for whom all is written.
struct Lossy;

impl io::Write for Lossy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line_and_commands_no_terminal() {
        let message = "cannot read a\nerror: forged\r\u{1b}[31mb\u{9b}c é".to_owned();
        let printed = Printable(&message).to_string();
        assert_eq!(
            printed,
            "cannot read a\\nerror: forged\\r\\u{1b}[31mb\\u{9b}c é"
        );
    }
}
