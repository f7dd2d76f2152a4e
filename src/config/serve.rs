//! `etagd serve`: its flags, and what they mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::clients::ProxyOptions;
use super::compression::CompressionFlags;
use super::follow::FollowFlags;
use super::operator::Operator;
use super::process::{Config, SiteOrigin, cores};
use super::site::SiteOptions;
use super::values::{
    at_least_one, duration, header_size, port, positive_duration, positive_port, size, threads,
};
use super::watch::WatchOptions;
use super::write::WriteOptions;
use crate::settings::{
    FollowOptions, Limits, Listen, RedirectOptions, SettingFlag, Settings, SiteSource, TlsFiles,
};

/// `etagd serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "A flag comes before its environment variable, and that before the default. Lists \
                        in variables have commas between their items."
)]
pub struct ServeFlags {
    /// Directory of the site, or a store of releases: s3://BUCKET/PREFIX or file:///FOLDER
    #[arg(
        value_name = "DIR",
        default_value = ".",
        value_parser = OsStringValueParser::new().try_map(SiteSource::read)
    )]
    pub source: SiteSource,
    /// How its files are looked at.
    #[command(flatten, next_help_heading = "Site")]
    pub handling: SiteOptions,
    /// Which of its releases, where they are in a store.
    #[command(flatten, next_help_heading = "Releases")]
    pub following: FollowFlags,
    /// The flags that change answers and were typed.
    #[arg(skip)]
    pub typed: Vec<SettingFlag>,
    /// What is made of its files.
    #[command(flatten, next_help_heading = "Compression")]
    pub compression: CompressionFlags,
    /// PORT, HOST:PORT, :PORT or unix:PATH; repeatable [default: 127.0.0.1:8080].
    ///
    /// A port alone is on this machine only, :PORT on all of its addresses. Where PORT is set in
    /// the environment, and nothing else says where to listen, that port is used on all addresses.
    #[arg(
        long,
        value_name = "ADDR",
        value_delimiter = ',',
        help_heading = "Listening"
    )]
    pub listen: Vec<Listen>,
    /// Memory limit for cached content [default: 1/4 of RAM].
    ///
    /// Files that do not fit are read from disk for each request. At least 16MiB.
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true, help_heading = "Limits")]
    pub memory: Option<ByteSize>,
    /// Large files to keep open [default: what connections leave of the limit].
    ///
    /// Opening a file again costs time; keeping it open costs a file descriptor.
    #[arg(long, value_name = "N", value_parser = at_least_one, hide_short_help = true, help_heading = "Limits")]
    pub open_files: Option<usize>,
    /// Worker threads [default: one per core].
    ///
    /// Each answers its share of the connections.
    #[arg(long, value_name = "N", value_parser = threads, hide_short_help = true, help_heading = "Limits")]
    pub workers: Option<usize>,
    /// Port on this machine to listen on: short for --listen 127.0.0.1:N
    #[arg(short, long, value_name = "N", value_parser = port, help_heading = "Listening")]
    pub port: Option<u16>,
    /// Where to listen if neither flags nor inherited sockets say so.
    #[arg(skip)]
    pub default_listen: Option<Listen>,
    /// How changes are noticed.
    #[command(flatten, next_help_heading = "Changes")]
    pub watching: WatchOptions,
    /// Serve only the release in this JSON manifest, once all files match it.
    ///
    /// Made with `etagd manifest --format json` where the site is built. Until every file is there
    /// and right, the release before stays.
    #[arg(
        long,
        value_name = "FILE",
        hide_short_help = true,
        help_heading = "Changes"
    )]
    pub manifest: Option<PathBuf>,
    /// Run this shell command after each publication.
    ///
    /// It gets the changed URLs on standard input, one a line, for example to purge a cache.
    #[arg(
        long,
        value_name = "COMMAND",
        hide_short_help = true,
        help_heading = "Changes"
    )]
    pub on_publish: Option<String>,
    /// Save the manifest here, so that a restart need not hash the site again.
    ///
    /// A large site is then ready in moments. Files that changed in the meantime are hashed again.
    #[arg(long, value_name = "FILE", help_heading = "Operating")]
    pub state: Option<PathBuf>,
    /// Certificate chain for TLS, in PEM.
    ///
    /// TCP listeners then speak HTTPS. Read again on SIGHUP, so a renewal needs no restart.
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM.
    ///
    /// Read again on SIGHUP with the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,
    /// Redirect plain HTTP on this address to HTTPS; repeatable.
    ///
    /// Answers 308 to the same host, path and query. Files below /.well-known/acme-challenge/ are
    /// answered from the site, so that certificate tools work with it as their webroot. Needs
    /// --tls-cert.
    #[arg(
        long,
        value_name = "ADDR",
        value_delimiter = ',',
        requires = "tls_cert",
        hide_short_help = true,
        help_heading = "TLS"
    )]
    pub redirect_http: Vec<Listen>,
    /// Port to which --redirect-http leads [default: that of the site's listener].
    ///
    /// Where a balancer or a firewall has another port for it. Needs --redirect-http.
    #[arg(long, value_name = "N", value_parser = positive_port, hide_short_help = true, help_heading = "TLS")]
    pub https_port: Option<u16>,
    /// What clients may change.
    #[command(flatten, next_help_heading = "Writing")]
    pub writing: WriteOptions,
    /// Who asks.
    #[command(flatten)]
    pub clients: ProxyOptions,
    /// The operator's side.
    #[command(flatten, next_help_heading = "Operating")]
    pub operator: Operator,
    /// What clients may use up.
    #[command(flatten, next_help_heading = "Limits")]
    pub limits: LimitFlags,
}

/// Limits on what clients may use up (promise P10).
#[derive(Clone, Debug, Args)]
pub struct LimitFlags {
    /// Grace period for in-flight requests at shutdown.
    ///
    /// It begins after --drain, when no new connection is accepted any more.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration, hide_short_help = true)]
    pub grace: Duration,
    /// Connections at a time; more are answered 503.
    ///
    /// Each takes some memory and a file descriptor. Over TLS, those beyond it are closed without an
    /// answer.
    #[arg(long,
        value_name = "N",
        default_value_t = 10_000,
        value_parser = at_least_one, hide_short_help = true)]
    pub max_connections: usize,
    /// Time for a request's header section to arrive.
    ///
    /// Ends connections that send a request byte by byte to occupy a place.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_duration, hide_short_help = true)]
    pub header_timeout: Duration,
    /// Time that a connection may stay open between requests.
    ///
    /// Behind a balancer, it should be longer than the balancer's own, so that the balancer is the
    /// one that closes.
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = positive_duration, hide_short_help = true)]
    pub idle_timeout: Duration,
    /// Time in which a client must take 32 KiB of a response that waits, or send a byte of an upload.
    ///
    /// A slow client that takes more is not cut off.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = positive_duration, hide_short_help = true)]
    pub write_timeout: Duration,
    /// Largest header section of a request.
    ///
    /// From 8KiB to 1MiB; a larger one is refused with 431. Raise it for clients with very many
    /// cookies.
    #[arg(long,
        value_name = "SIZE",
        default_value = "16KiB",
        value_parser = header_size, hide_short_help = true)]
    pub max_header_size: ByteSize,
}

impl From<LimitFlags> for Limits {
    fn from(flags: LimitFlags) -> Self {
        Self {
            grace: flags.grace,
            max_connections: flags.max_connections,
            header_timeout: flags.header_timeout,
            idle_timeout: flags.idle_timeout,
            write_timeout: flags.write_timeout,
            max_header_size: flags.max_header_size,
        }
    }
}

impl ServeFlags {
    /// What of this changes answers.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            compress: self.compression.policy(),
            ..self.handling.settings()
        }
    }

    /// Where the site is, and what follows it there.
    fn origin(&self) -> SiteOrigin {
        let store = match &self.source {
            SiteSource::Directory(directory) => return SiteOrigin::Directory(directory.clone()),
            SiteSource::Store(store) => store.clone(),
        };
        SiteOrigin::Store(Box::new(FollowOptions {
            store,
            trust: self.following.ca.clone().into(),
            channel: self.following.channel.clone().unwrap_or_default(),
            poll: self.following.poll(),
            sweep: self.watching.sweep,
            prefetch: self.following.prefetch.unwrap_or_default(),
            is_store_required: self.following.require_store,
            cache: self.compression.cache.clone(),
            cache_size: self.compression.cache_size.as_u64(),
            keep_old: self.watching.keep_old,
            typed: self.typed.clone(),
        }))
    }
}

impl From<ServeFlags> for Config {
    fn from(flags: ServeFlags) -> Self {
        let settings = flags.settings();
        Self {
            origin: flags.origin(),
            symlinks: flags.handling.symlinks,
            settings: Arc::new(settings),
            cache: flags.compression.cache,
            cache_size: flags.compression.cache_size.as_u64(),
            listen: flags.listen,
            has_port: flags.port.is_some(),
            default_listen: flags.default_listen.unwrap_or_default(),
            open_files: flags.open_files,
            memory: flags.memory.map(|size| size.as_u64()),
            workers: flags.workers.unwrap_or_else(cores),
            watching: flags.watching,
            manifest: flags.manifest,
            on_publish: flags.on_publish,
            state: flags.state,
            tls: (flags.tls_cert.zip(flags.tls_key))
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            redirect: RedirectOptions {
                listen: flags.redirect_http,
                https_port: flags.https_port,
            },
            writing: flags.writing.writable.then_some(flags.writing),
            clients: flags.clients,
            operator: flags.operator,
            limits: flags.limits.into(),
            dev: None,
        }
    }
}
