//! `etagd serve`: its flags, and what they mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::clients::ProxyOptions;
use super::operator::Operator;
use super::process::{Config, budget, cores};
use super::site::SiteFlags;
use super::values::{at_least_one, duration, header_size, positive_duration, size, threads};
use super::watch::WatchOptions;
use super::write::WriteOptions;
use crate::settings::{Limits, Listen, TlsFiles};

/// `etagd serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every flag is also read from the environment: --open-files from ETAGD_OPEN_FILES."
)]
pub struct ServeFlags {
    /// Which site, and how its files are looked at.
    #[command(flatten)]
    pub site: SiteFlags,
    /// HOST:PORT, :PORT or unix:PATH; repeatable [default: 127.0.0.1:8080]
    #[arg(
        long,
        value_name = "ADDR",
        env = "ETAGD_LISTEN",
        hide_env = true,
        value_delimiter = ','
    )]
    pub listen: Vec<Listen>,
    /// Most memory for content [default: 1/4 of RAM]
    #[arg(long, value_name = "SIZE", env = "ETAGD_MEMORY", hide_env = true, value_parser = size)]
    pub memory: Option<ByteSize>,
    /// Most large files kept open [default: what connections leave of the limit]
    #[arg(long, value_name = "N", hide_short_help = true, env = "ETAGD_OPEN_FILES", hide_env = true, value_parser = at_least_one)]
    pub open_files: Option<usize>,
    /// Threads that answer requests [default: one for each core]
    #[arg(long, value_name = "N", env = "ETAGD_WORKERS", hide_env = true, value_parser = threads)]
    pub workers: Option<usize>,
    /// How changes are noticed.
    #[command(flatten)]
    pub watching: WatchOptions,
    /// Serve what this manifest lists, once the files prove it
    #[arg(long, value_name = "FILE", env = "ETAGD_MANIFEST", hide_env = true)]
    pub manifest: Option<PathBuf>,
    /// Run this after each publication, with the changed URLs
    #[arg(
        long,
        value_name = "COMMAND",
        env = "ETAGD_ON_PUBLISH",
        hide_env = true
    )]
    pub on_publish: Option<String>,
    /// Where to save the manifest, so that a restart need not hash
    #[arg(long, value_name = "FILE", env = "ETAGD_STATE", hide_env = true)]
    pub state: Option<PathBuf>,
    /// The certificate chain for TLS, in PEM form; read again on SIGHUP
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        env = "ETAGD_TLS_CERT",
        hide_env = true
    )]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM form
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        env = "ETAGD_TLS_KEY",
        hide_env = true
    )]
    pub tls_key: Option<PathBuf>,
    /// What clients may change.
    #[command(flatten)]
    pub writing: WriteOptions,
    /// Who asks.
    #[command(flatten)]
    pub clients: ProxyOptions,
    /// The operator's side.
    #[command(flatten)]
    pub operator: Operator,
    /// What clients may use up.
    #[command(flatten)]
    pub limits: LimitFlags,
}

/// Limits on what clients may use up (promise P10).
#[derive(Clone, Debug, Args)]
pub struct LimitFlags {
    /// Time to finish what is in flight at the end
    #[arg(long, value_name = "TIME", default_value = "20s", env = "ETAGD_GRACE", hide_env = true, value_parser = duration)]
    pub grace: Duration,
    /// Connections at once; more are answered 503
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        env = "ETAGD_MAX_CONNECTIONS",
        hide_env = true,
        value_parser = at_least_one
    )]
    pub max_connections: usize,
    /// Time for a request's header section to arrive
    #[arg(long, value_name = "TIME", default_value = "10s", hide_short_help = true, env = "ETAGD_HEADER_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub header_timeout: Duration,
    /// Time a connection may be open between requests
    #[arg(long, value_name = "TIME", default_value = "75s", hide_short_help = true, env = "ETAGD_IDLE_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub idle_timeout: Duration,
    /// Time a client may take no byte of a response, or send none of an upload
    #[arg(long, value_name = "TIME", default_value = "60s", hide_short_help = true, env = "ETAGD_WRITE_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub write_timeout: Duration,
    /// Most bytes of a request's header section
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "16KiB",
        hide_short_help = true, env = "ETAGD_MAX_HEADER_SIZE",
        hide_env = true,
        value_parser = header_size
    )]
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

impl From<ServeFlags> for Config {
    fn from(flags: ServeFlags) -> Self {
        let SiteFlags {
            directory,
            handling,
        } = flags.site;
        Self {
            directory,
            symlinks: handling.symlinks,
            settings: Arc::new(handling.settings()),
            listen: flags.listen,
            open_files: flags.open_files,
            memory: budget(flags.memory),
            workers: flags.workers.unwrap_or_else(cores),
            watching: flags.watching,
            manifest: flags.manifest,
            on_publish: flags.on_publish,
            state: flags.state,
            tls: (flags.tls_cert.zip(flags.tls_key))
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            writing: flags.writing.writable.then_some(flags.writing),
            clients: flags.clients,
            operator: flags.operator,
            limits: flags.limits.into(),
            dev: None,
        }
    }
}
