//! `etagd dev`: its flags, and what they mean.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::BoolishValueParser;

use super::clients::{AccessLogForm, ProxyOptions};
use super::operator::{Operator, StatusFlags};
use super::process::{Config, budget, cores};
use super::site::SiteFlags;
use super::values::{duration, size};
use super::watch::WatchOptions;
use crate::settings::{
    Additions, AllowedHost, Certificate, DevOptions, Limits, Settings, Upstream,
};

/// The port to try first, if none is given.
const DEFAULT_PORT: u16 = 8080;

/// `etagd dev`.
#[derive(Debug, Args)]
pub struct DevFlags {
    /// Which site, and how its files are looked at.
    #[command(flatten)]
    pub site: SiteFlags,
    /// The port, or the next one that is free [default: PORT in the environment, or 8080]
    #[arg(long, value_name = "N", env = "ETAGD_PORT", hide_env = true)]
    pub port: Option<u16>,
    /// What other tools use to say the same.
    #[arg(
        long = "port-of-environment",
        value_name = "N",
        env = "PORT",
        hide = true
    )]
    pub usual_port: Option<u16>,
    /// That port or none
    #[arg(long, env = "ETAGD_STRICT_PORT", hide_env = true, value_parser = BoolishValueParser::new())]
    pub strict_port: bool,
    /// Listen on all addresses, for a phone on the same network
    #[arg(long, env = "ETAGD_HOST", hide_env = true, value_parser = BoolishValueParser::new())]
    pub host: bool,
    /// A name that requests may use, such as dev.example or '*.test'; repeatable
    #[arg(
        long,
        value_name = "NAME",
        env = "ETAGD_ALLOW_HOST",
        hide_env = true,
        value_delimiter = ','
    )]
    pub allow_host: Vec<AllowedHost>,
    /// Open the site in the browser
    #[arg(long, env = "ETAGD_OPEN", hide_env = true, value_parser = BoolishValueParser::new())]
    pub open: bool,
    /// Serve the plain files: pages don't reload by themselves
    #[arg(long, env = "ETAGD_NO_RELOAD", hide_env = true, value_parser = BoolishValueParser::new())]
    pub no_reload: bool,
    /// Let pages of all origins read everything
    #[arg(long, env = "ETAGD_CORS", hide_env = true, value_parser = BoolishValueParser::new())]
    pub cors: bool,
    /// Isolate pages from other origins, for threads in wasm (COOP and COEP)
    #[arg(long, env = "ETAGD_CROSS_ORIGIN_ISOLATION", hide_env = true, value_parser = BoolishValueParser::new())]
    pub cross_origin_isolation: bool,
    /// Ask another server for what is below a path: PREFIX=URL, such as
    /// /api=http://localhost:3000; repeatable
    #[arg(
        long,
        value_name = "PREFIX=URL",
        env = "ETAGD_PROXY",
        hide_env = true,
        value_delimiter = ','
    )]
    pub proxy: Vec<Upstream>,
    /// How long such a server may take to begin its response
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2m",
        hide_short_help = true,
        env = "ETAGD_PROXY_TIMEOUT",
        hide_env = true,
        value_parser = duration
    )]
    pub proxy_timeout: Duration,
    /// Speak TLS, with a certificate that etagd has made: self
    #[arg(long, value_name = "WHOSE", env = "ETAGD_TLS", hide_env = true)]
    pub tls: Option<Certificate>,
    /// Budget for content [default: a quarter of RAM]
    #[arg(
        long,
        value_name = "SIZE",
        hide_short_help = true,
        env = "ETAGD_MEMORY",
        hide_env = true,
        value_parser = size
    )]
    pub memory: Option<ByteSize>,
    /// Show only what goes wrong
    #[arg(short, long, env = "ETAGD_QUIET", hide_env = true, value_parser = BoolishValueParser::new())]
    pub quiet: bool,
}

impl DevFlags {
    /// What they mean. `tail` is added to documents, if they are to reload.
    pub fn config(self, tail: &'static str) -> Config {
        let settings = Settings {
            additions: Additions {
                listing: true,
                tail: (!self.no_reload).then_some(tail),
            },
            ..self.site.handling.settings()
        };
        Config {
            directory: self.site.directory,
            symlinks: self.site.handling.symlinks,
            settings: Arc::new(settings),
            listen: Vec::new(),
            open_files: None,
            memory: budget(self.memory),
            workers: cores().min(4),
            watching: WatchOptions {
                settle: Duration::from_millis(20),
                sweep: Duration::from_secs(60),
                scrub: None,
                // A build may be about to write it again.
                keep_old: Some(Duration::from_secs(1)),
            },
            manifest: None,
            on_publish: None,
            state: None,
            tls: None,
            writing: None,
            operator: Operator {
                admin: Vec::new(),
                allow_host: Vec::new(),
                expect: None,
                expect_always: false,
                disclosure: StatusFlags::default(),
                drain: None,
                reuse_port: false,
            },
            clients: ProxyOptions {
                access_log: AccessLogForm::Off,
                trusted_proxy: Vec::new(),
                proxy_protocol: false,
            },
            limits: Limits {
                grace: Duration::from_secs(1),
                max_connections: 10_000,
                header_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                write_timeout: Duration::from_secs(60),
                // Cookies of all that ever ran on localhost.
                max_header_size: ByteSize::kib(64),
            },
            dev: Some(DevOptions {
                port: self.port.or(self.usual_port).unwrap_or(DEFAULT_PORT),
                is_strict: self.strict_port,
                all_addresses: self.host,
                allowed: self.allow_host,
                opens: self.open,
                reloads: !self.no_reload,
                quiet: self.quiet,
                cors: self.cors,
                is_isolated: self.cross_origin_isolation,
                upstreams: self.proxy,
                upstream_timeout: self.proxy_timeout,
                tls: self.tls,
            }),
        }
    }
}
