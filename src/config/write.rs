//! `etagd serve --writable`: what clients may change.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::BoolishValueParser;

use super::values::{size, uploads};

/// What clients may change.
#[derive(Clone, Debug, Args)]
pub struct WriteOptions {
    /// Let clients change files by PUT and DELETE, under If-Match or If-None-Match
    #[arg(long, conflicts_with = "manifest", env = "ETAGD_WRITABLE", hide_env = true, value_parser = BoolishValueParser::new())]
    pub writable: bool,
    /// Who may write: a file of lines NAME TOKEN; read again on SIGHUP
    #[arg(
        long,
        value_name = "FILE",
        requires = "writable",
        hide_short_help = true,
        env = "ETAGD_WRITE_TOKEN_FILE",
        hide_env = true
    )]
    pub write_token_file: Option<PathBuf>,
    /// Take tokens without TLS from other machines: something else encrypts
    #[arg(
        long,
        requires_ifs = ["true", "t", "yes", "y", "on", "1"].map(|on| (on, "writable")),
        hide_short_help = true, env = "ETAGD_WRITE_INSECURE",
        hide_env = true,
        value_parser = BoolishValueParser::new()
    )]
    pub write_insecure: bool,
    /// Let clients change _headers and _redirects as well
    #[arg(
        long,
        requires_ifs = ["true", "t", "yes", "y", "on", "1"].map(|on| (on, "writable")),
        hide_short_help = true, env = "ETAGD_WRITE_RULES",
        hide_env = true,
        value_parser = BoolishValueParser::new()
    )]
    pub write_rules: bool,
    /// Most bytes of an upload
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "256MiB",
        hide_short_help = true,
        env = "ETAGD_MAX_UPLOAD",
        hide_env = true,
        value_parser = size
    )]
    pub max_upload: ByteSize,
    /// Uploads at once; more are answered 503
    #[arg(
        long,
        value_name = "N",
        default_value_t = 32,
        hide_short_help = true, env = "ETAGD_MAX_UPLOADS",
        hide_env = true,
        value_parser = uploads
    )]
    pub max_uploads: usize,
}
