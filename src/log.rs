//! Messages for the operator, on stderr: lines for people, or JSON for machines.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// Sends messages to stderr from now on. Only the first call of a process has an effect.
///
/// Only our own: what libraries warn of is mostly what clients do, and a client could fill the
/// disk with it (h2 has a line for every PING acknowledgement that nobody asked for).
pub fn init(format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_writer(io::stderr);
    let ours = Targets::new().with_target(env!("CARGO_PKG_NAME"), Level::INFO);
    let _ = match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            builder.finish().with(ours).try_init()
        }
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
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
        context: &FmtContext<'_, S, N>,
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
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
