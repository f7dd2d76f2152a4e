//! `etagd serve --writable`: what clients may change.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::{TRUE_WORDS, size, uploads};

/// What clients may change.
#[derive(Clone, Debug, Args)]
pub struct WriteOptions {
    /// Let clients change files with PUT and DELETE.
    ///
    /// Every write needs If-Match or If-None-Match, so that nobody overwrites what they have not
    /// seen.
    #[arg(long, conflicts_with = "manifest", value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub writable: bool,
    /// File of lines NAME TOKEN: who may write.
    ///
    /// Read again on SIGHUP. Clients send the token in Authorization: Bearer.
    #[arg(
        long,
        value_name = "FILE",
        requires = "writable",
        hide_short_help = true
    )]
    pub write_token_file: Option<PathBuf>,
    /// Accept tokens over plain HTTP; use only behind a TLS proxy.
    ///
    /// Otherwise etagd refuses to start where tokens would travel unencrypted between machines.
    #[arg(long,
        requires_ifs = TRUE_WORDS.map(|word| (word, "writable")),
        value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub write_insecure: bool,
    /// Let clients change _headers and _redirects too.
    ///
    /// These files decide the answers of the whole site, so they are protected by default.
    #[arg(long,
        requires_ifs = TRUE_WORDS.map(|word| (word, "writable")),
        value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub write_rules: bool,
    /// Largest upload.
    ///
    /// A larger one is refused with 413.
    #[arg(long,
        value_name = "SIZE",
        default_value = "256MiB",
        value_parser = size, hide_short_help = true)]
    pub max_upload: ByteSize,
    /// Uploads at a time; more are answered 503.
    ///
    /// Each may take as much disk as --max-upload allows while it is being received.
    #[arg(long,
        value_name = "N",
        default_value_t = 32,
        value_parser = uploads, hide_short_help = true)]
    pub max_uploads: usize,
}
