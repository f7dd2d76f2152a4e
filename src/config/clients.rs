//! Flags about clients: the access log and the proxies in front.

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::values::TRUE_WORDS;
use crate::client::TrustedProxy;

/// The access log and the proxies in front.
#[derive(Clone, Debug, Args)]
pub struct ProxyOptions {
    /// Log a line for each request: off, combined or json.
    ///
    /// On standard output. `combined` is Apache's format; `json` is one object a line, with the
    /// field names of --log-format json.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORMAT",
        help_heading = "Operating"
    )]
    pub access_log: AccessLogForm,
    /// Proxies to believe about the client and the request: a network, or unix; repeatable.
    ///
    /// Name the proxies in front of etagd, such as 10.0.0.0/8, and the log has the address of the
    /// client instead of theirs, and the id that they gave the request. Others could make both up, so
    /// they are not believed.
    #[arg(
        long,
        value_name = "NET",
        value_delimiter = ',',
        hide_short_help = true,
        help_heading = "Operating"
    )]
    pub trusted_proxy: Vec<TrustedProxy>,
    /// Trusted proxies must send a PROXY protocol header.
    ///
    /// For TCP balancers that pass connections on as they are, such as HAProxy with send-proxy.
    #[arg(long,
        requires_ifs = TRUE_WORDS.map(|word| (word, "trusted_proxy")),
        value_parser = BoolishValueParser::new(), hide_short_help = true, help_heading = "Listening")]
    pub proxy_protocol: bool,
}

/// Form of the access log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum AccessLogForm {
    /// No access log
    #[default]
    Off,
    /// Apache's combined format, in UTC
    Combined,
    /// One JSON object a line
    Json,
}
