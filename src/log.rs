//! Messages for the operator, on stderr: lines for people, or JSON for machines.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::page::is_unseen;

/// Form of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Lines of text, without the fields of a message.
    #[default]
    Text,
    /// One JSON object a line, with all fields.
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

/// The least grave messages that are printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What may be wrong.
    Warn,
    /// What happens.
    Info,
    /// What helps to find a fault.
    Debug,
}

impl LogLevel {
    /// The value as it is typed after `--log-level`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

/// Sends messages of this level, and graver ones, to stderr from now on. Only the first call of a
/// process has an effect. If they are `kept`, lines of text begin with the time, unless a person or
/// the journal, which has the time already, reads them.
///
/// Only etagd's own: libraries warn mostly of what clients do, and a client could fill the disk
/// with that (h2 logs every PING acknowledgement without a PING). Of the `unwanted` modules, given by
/// their full names, only errors.
pub fn init(format: LogFormat, level: LogLevel, kept: bool, unwanted: &[&str]) {
    // A message that can't be written is lost. To report that would be one more such message.
    let builder = tracing_subscriber::fmt()
        .with_writer(|| Lossy)
        .log_internal_errors(false);
    let unwanted = unwanted.iter().map(|module| (*module, Level::ERROR));
    let ours = Targets::new()
        .with_target(env!("CARGO_PKG_NAME"), Level::from(level))
        .with_targets(unwanted);
    let _ = match format {
        LogFormat::Json => {
            let builder = builder.event_format(JsonLines);
            builder.finish().with(ours).try_init()
        }
        LogFormat::Text => {
            let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let is_terminal = io::stderr().is_terminal();
            let builder = builder.event_format(TextLines {
                colours: is_terminal && !is_plain,
                stamps: kept && !is_terminal && !is_journal(),
            });
            builder.finish().with(ours).try_init()
        }
    };
}

/// Whether standard error is the stream that systemd names in JOURNAL_STREAM (systemd.exec(5)). A
/// child whose output goes elsewhere inherits the variable too, so the file itself is compared.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stream = rustix::fs::fstat(io::stderr());
    stream.is_ok_and(|stream| named == format!("{}:{}", stream.st_dev, stream.st_ino))
}

/// The message, after the time if that is wanted, and its level if that is a warning or worse.
struct TextLines {
    colours: bool,
    stamps: bool,
}

impl<S, N> FormatEvent<S, N> for TextLines
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
        if self.stamps {
            write!(writer, "{} ", format_rfc3339_millis(SystemTime::now()))?;
        }
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

/// One JSON object a line: `time`, `level` and `message` first, as in the access log, then the
/// message's fields.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
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
        let mut fields = JsonFields::default();
        event.record(&mut fields);
        let mut line = Vec::new();
        write_json(&mut line, *event.metadata().level(), &fields).map_err(|_| fmt::Error)?;
        for character in String::from_utf8_lossy(&line).chars() {
            // JSON allows U+007F to U+009F in a string, but a terminal takes U+009B for a command.
            if is_unseen(character) {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            } else {
                writer.write_char(character)?;
            }
        }
        writer.write_char('\n')
    }
}

fn write_json(line: &mut Vec<u8>, level: Level, fields: &JsonFields) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut object = serializer.serialize_map(None)?;
    let time = format_rfc3339_millis(SystemTime::now()).to_string();
    object.serialize_entry("time", &time)?;
    object.serialize_entry("level", level.as_str())?;
    object.serialize_entry("message", &fields.message)?;
    for (name, value) in &fields.others {
        object.serialize_entry(name, value)?;
    }
    object.end()
}

/// The text of a message, and its fields as JSON has them.
#[derive(Default)]
struct JsonFields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Visit for JsonFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.others.push((name, text.into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }
}

/// Text on one line: a file's name may have line feeds and escape sequences of terminals in it, or turn the
/// direction of the rest of the line.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_unseen(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Standard error, to which every write succeeds: messages get lost where nobody reads them.
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
    use std::sync::{Arc, Mutex};

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

    /// A place for lines that a test reads afterwards.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_has_time_level_message_and_fields() {
        let captured = Captured::default();
        let out = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || out.clone())
            .event_format(JsonLines)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no");
            tracing::warn!(files = 2_u64, seconds = 0.5, path = "/a\n\u{9b}", %error, hashed = None::<u64>,
                "2 files: {error}");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let (head, rest) = text.split_once("\"level\"").unwrap();
        assert!(
            head.starts_with("{\"time\":\"2") && head.ends_with("Z\","),
            "{head}"
        );
        assert_eq!(
            rest,
            ":\"WARN\",\"message\":\"2 files: no\",\"files\":2,\"seconds\":0.5,\"path\":\"/a\\n\\u009b\",\"error\":\"no\"}\n"
        );
    }
}
