//! `etagd dev`: its flags, and what they mean.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::BoolishValueParser;

use super::clients::{AccessLogForm, ProxyOptions};
use super::operator::{Operator, StatusFlags};
use super::process::{Config, SiteOrigin, cores};
use super::site::SiteFlags;
use super::values::{duration, port, size};
use super::watch::WatchOptions;
use crate::semantics::base_path::BasePath;
use crate::settings::{
    Additions, AllowedHost, Certificate, DevOptions, Limits, Listen, RedirectOptions, Settings,
    Upstream,
};

/// The port to try first, if none is given.
const DEFAULT_PORT: u16 = 8080;

/// `etagd dev`.
#[derive(Debug, Args)]
pub struct DevFlags {
    /// Which site, and how its files are looked at.
    #[command(flatten)]
    pub site: SiteFlags,
    /// Port, or the next one that is free [default: PORT in the environment, or 8080]
    #[arg(short, long, value_name = "N", value_parser = port, help_heading = "Listening")]
    pub port: Option<u16>,
    /// Fail if the port is taken.
    ///
    /// Otherwise the next port that is free is used.
    #[arg(long, value_parser = BoolishValueParser::new(), hide_short_help = true, help_heading = "Listening")]
    pub strict_port: bool,
    /// Listen on all addresses, for a phone in the same network.
    ///
    /// Prints the address in the network, and a QR code of it.
    #[arg(long, value_parser = BoolishValueParser::new(), help_heading = "Listening")]
    pub host: bool,
    /// Accept requests for this host name, such as dev.example or '*.test'; repeatable.
    ///
    /// Names other than this machine's are refused, so that no web page elsewhere can read the site
    /// by DNS rebinding.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Listening"
    )]
    pub allow_host: Vec<AllowedHost>,
    /// Open the site in the browser.
    ///
    /// That is the desktop's default browser.
    #[arg(long, value_parser = BoolishValueParser::new(), help_heading = "Listening")]
    pub open: bool,
    /// Serve plain files: pages do not reload by themselves.
    ///
    /// Nothing is added to pages then.
    #[arg(long, value_parser = BoolishValueParser::new(), help_heading = "Pages")]
    pub no_reload: bool,
    /// Let pages of every origin read everything.
    ///
    /// For example fonts and data that pages of another local server load.
    #[arg(long, value_parser = BoolishValueParser::new(), help_heading = "Pages")]
    pub cors: bool,
    /// Isolate pages from other origins (COOP and COEP).
    ///
    /// Browsers ask for it before they allow SharedArrayBuffer, and so threads in WebAssembly.
    #[arg(long, value_parser = BoolishValueParser::new(), help_heading = "Pages")]
    pub cross_origin_isolation: bool,
    /// Proxy requests under PREFIX to URL; repeatable.
    ///
    /// For example /api=http://localhost:3000, so that pages and their API have one origin, as
    /// behind a balancer.
    #[arg(
        long,
        value_name = "PREFIX=URL",
        value_delimiter = ',',
        help_heading = "Pages"
    )]
    pub proxy: Vec<Upstream>,
    /// Time for such a server to begin its response.
    ///
    /// Then the browser gets a 504.
    #[arg(long, value_name = "TIME", default_value = "2m", hide_short_help = true, value_parser = duration, help_heading = "Pages")]
    pub proxy_timeout: Duration,
    /// Speak HTTPS with a certificate that etagd makes: self.
    ///
    /// Browsers warn of it once.
    #[arg(long, value_name = "CERTIFICATE", help_heading = "TLS")]
    pub tls: Option<Certificate>,
    /// Memory limit for cached content [default: 1/4 of RAM].
    ///
    /// Files that do not fit are read from disk for each request. At least 16MiB.
    #[arg(long,
        value_name = "SIZE",
        value_parser = size, hide_short_help = true, help_heading = "Limits")]
    pub memory: Option<ByteSize>,
    /// Whether to print warnings and errors only.
    #[arg(skip)]
    pub quiet: bool,
}

impl DevFlags {
    /// What they mean. What `tail` makes is added to documents, if they are to reload.
    pub fn config(self, tail: impl Fn(&BasePath) -> String) -> Config {
        let settings = self.site.handling.settings();
        let settings = Settings {
            additions: Additions {
                listing: true,
                tail: (!self.no_reload).then(|| tail(&settings.base_path).into()),
                without_deltas: true,
            },
            ..settings
        };
        Config {
            origin: SiteOrigin::Directory(self.site.directory),
            symlinks: self.site.handling.symlinks,
            settings: Arc::new(settings),
            // Nothing is compressed: a developer waits for each change.
            cache: None,
            cache_size: 0,
            listen: Vec::new(),
            has_port: false,
            default_listen: Listen::default(),
            open_files: None,
            memory: self.memory.map(|size| size.as_u64()),
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
            redirect: RedirectOptions::default(),
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
                port: self.port.unwrap_or(DEFAULT_PORT),
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
