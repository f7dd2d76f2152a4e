//! Flags about clients: the access log and the proxies in front.

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::client::TrustedProxy;

/// The access log and the proxies in front.
#[derive(Clone, Debug, Args)]
pub struct ProxyOptions {
    /// A line for each request: off, combined or json
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORM",
        env = "ETAGD_ACCESS_LOG",
        hide_env = true
    )]
    pub access_log: AccessLogForm,
    /// Proxies believed about the client: a network or unix; repeatable
    #[arg(
        long,
        value_name = "NET",
        hide_short_help = true,
        env = "ETAGD_TRUSTED_PROXY",
        hide_env = true,
        value_delimiter = ','
    )]
    pub trusted_proxy: Vec<TrustedProxy>,
    /// Those proxies begin each connection with a PROXY header
    #[arg(
        long,
        requires_ifs = ["true", "t", "yes", "y", "on", "1"].map(|on| (on, "trusted_proxy")),
        hide_short_help = true, env = "ETAGD_PROXY_PROTOCOL",
        hide_env = true,
        value_parser = BoolishValueParser::new()
    )]
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
