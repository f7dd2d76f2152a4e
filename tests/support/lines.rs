//! Lines of an access log, as they come.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads lines in a thread of its own.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    pub(crate) fn of(out: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        Self(lines)
    }

    pub(crate) fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("a line")
    }

    pub(crate) fn next_json(&self) -> Value {
        let line = self.next();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// All that come before the end.
    pub(crate) fn rest(self) -> Vec<String> {
        self.0.iter().collect()
    }
}
