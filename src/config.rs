//! Flags as typed, and the configuration they mean.
//!
//! [`Cli`] is what stands on the command line or in the environment; each value is parsed once,
//! into a type that cannot be wrong. Flag before environment before default.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::disk;

/// A static file server with precomputed, content-based strong ETags
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    propagate_version = true,
    disable_help_flag = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    pub help: Option<bool>,
    /// Messages as text for people or as JSON for machines
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORM",
        env = "ETAGD_LOG_FORMAT",
        global = true,
        hide_env = true
    )]
    pub log_format: LogFormat,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a directory
    Serve(Box<Serve>),
    /// Print the manifest: path, tag, size and type of everything that would be served
    Manifest(Manifest),
    /// Write .br, .zst and .gz files beside the files of a site
    Compress(Compress),
}

/// `etagd serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every flag is also read from the environment: --max-connections from \
                        ETAGD_MAX_CONNECTIONS, and so on."
)]
pub struct Serve {
    /// Which site, and how its files are looked at.
    #[command(flatten)]
    pub site: SiteFlags,
    /// Where to listen: HOST:PORT, :PORT (all addresses) or unix:PATH; repeatable
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        env = "ETAGD_LISTEN",
        hide_env = true,
        value_delimiter = ','
    )]
    pub listen: Vec<Listen>,
    /// Most memory for content: small files, and proven parts of large ones [default: 1/4 of RAM]
    #[arg(long, value_name = "SIZE", env = "ETAGD_MEMORY", hide_env = true)]
    pub memory: Option<ByteSize>,
    /// Most large files kept open for the next request [default: half of the limit]
    #[arg(long, value_name = "N", env = "ETAGD_OPEN_FILES", hide_env = true, value_parser = at_least_one)]
    pub open_files: Option<usize>,
    /// Threads that answer requests [default: one for each core]
    #[arg(long, value_name = "N", env = "ETAGD_WORKERS", hide_env = true, value_parser = workers)]
    pub workers: Option<usize>,
    /// How changes are noticed.
    #[command(flatten)]
    pub watching: Watching,
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
    /// What clients may use up.
    #[command(flatten)]
    pub limits: Limits,
}

/// How changes of the site are noticed and published.
#[derive(Clone, Debug, Args)]
pub struct Watching {
    /// How long nothing may change before a change is published (2s after the first at most)
    #[arg(long, value_name = "TIME", default_value = "100ms", env = "ETAGD_SETTLE", hide_env = true, value_parser = duration)]
    pub settle: Duration,
    /// How often everything is compared with the disk, for changes that nothing reports
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ETAGD_SWEEP", hide_env = true, value_parser = positive_duration)]
    pub sweep: Duration,
    /// How often every file is read again, whatever its times say [default: never]
    #[arg(long, value_name = "TIME", env = "ETAGD_SCRUB", hide_env = true, value_parser = positive_duration)]
    pub scrub: Option<Duration>,
    /// How long files that a deploy removed are still answered, HTML excepted [default: not]
    #[arg(long, value_name = "TIME", env = "ETAGD_KEEP_OLD", hide_env = true, value_parser = duration)]
    pub keep_old: Option<Duration>,
}

/// Where the certificate for TLS and its key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What decides which files a site has and what its answers say.
#[derive(Debug, Args)]
pub struct SiteFlags {
    /// The site's directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Which symbolic links to follow
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHICH",
        env = "ETAGD_SYMLINKS",
        hide_env = true
    )]
    pub symlinks: Symlinks,
    /// Where Last-Modified comes from
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FROM",
        env = "ETAGD_LAST_MODIFIED",
        hide_env = true
    )]
    pub last_modified: LastModified,
    /// When to send Repr-Digest with a SHA-256 (it slows the scan)
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        env = "ETAGD_REPR_DIGEST",
        hide_env = true
    )]
    pub repr_digest: ReprDigest,
}

impl SiteFlags {
    /// What of this changes answers.
    pub fn settings(&self) -> Settings {
        Settings {
            last_modified: self.last_modified == LastModified::Mtime,
            repr_digest: self.repr_digest,
        }
    }
}

/// What the operator chose that changes answers. Part of the site digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Whether resources have a modification date.
    pub last_modified: bool,
    /// When responses carry a SHA-256.
    pub repr_digest: ReprDigest,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            last_modified: true,
            repr_digest: ReprDigest::Off,
        }
    }
}

/// `etagd manifest`.
#[derive(Debug, Args)]
pub struct Manifest {
    /// Which site, and how its files are looked at.
    #[command(flatten)]
    pub site: SiteFlags,
    /// Form of the output
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORM",
        env = "ETAGD_FORMAT",
        hide_env = true
    )]
    pub format: ManifestFormat,
    /// Print the site digest alone
    #[arg(long, env = "ETAGD_DIGEST", hide_env = true, value_parser = BoolishValueParser::new())]
    pub digest: bool,
}

/// `etagd compress`.
#[derive(Debug, Args)]
#[command(
    after_help = "A file gets a sidecar where its type is not compressed by itself, it has 1 KiB \
                        or more, and 5 % or more are saved. What something else has written is left \
                        alone. Exit code 1 tells that a sidecar is not as it should be."
)]
pub struct Compress {
    /// The site's directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Write nothing: print the sidecars that do not decode to the file beside them
    #[arg(long, conflicts_with = "remove")]
    pub check: bool,
    /// Remove the sidecars that etagd compress wrote and that decode to the file beside them
    #[arg(long)]
    pub remove: bool,
}

impl Compress {
    /// What is to be done.
    pub fn work(&self) -> SidecarWork {
        match (self.check, self.remove) {
            (true, _) => SidecarWork::Check,
            (false, true) => SidecarWork::Remove,
            (false, false) => SidecarWork::Write,
        }
    }
}

/// What `etagd compress` does with sidecars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SidecarWork {
    /// Write what is missing or stale.
    Write,
    /// Look only.
    Check,
    /// Take away what is proven.
    Remove,
}

/// Limits on what clients may use up (promise P10).
#[derive(Clone, Debug, Args)]
pub struct Limits {
    /// Time to finish requests in flight after SIGTERM or SIGINT
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
    #[arg(long, value_name = "TIME", default_value = "10s", env = "ETAGD_HEADER_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub header_timeout: Duration,
    /// Time a connection may be open between requests
    #[arg(long, value_name = "TIME", default_value = "75s", env = "ETAGD_IDLE_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub idle_timeout: Duration,
    /// Time a client may take no byte of a response
    #[arg(long, value_name = "TIME", default_value = "60s", env = "ETAGD_WRITE_TIMEOUT", hide_env = true, value_parser = positive_duration)]
    pub write_timeout: Duration,
    /// Most bytes of a request's header section, 8KiB at least
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "16KiB",
        env = "ETAGD_MAX_HEADER_SIZE",
        hide_env = true,
        value_parser = header_size
    )]
    pub max_header_size: ByteSize,
}

/// `10s`, `1m 30s`, `100ms`; so long that no clock overflows, and longer than anybody waits.
fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST {
        return Err("ten years are the most".to_owned());
    }
    Ok(duration)
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("more than 0 is needed".to_owned()),
        duration => Ok(duration),
    }
}

fn workers(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number if number > 1024 => Err("1024 are the most".to_owned()),
        number => Ok(number),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("a whole number is expected".to_owned()),
    }
}

fn header_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if (8 << 10..=1 << 20).contains(&size.as_u64()) {
        Ok(size)
    } else {
        Err("from 8KiB to 1MiB is accepted".to_owned())
    }
}

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// The addresses that a host name stands for.
    Tcp(Vec<SocketAddr>),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("a path is expected after unix:".to_owned());
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix(':') {
            let port = port
                .parse()
                .map_err(|_| format!("{port:?} is no port (0 to 65535)"))?;
            return Ok(Self::Tcp(vec![
                (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            ]));
        }
        let expected = "expected HOST:PORT, :PORT or unix:PATH";
        match text.to_socket_addrs() {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.collect();
                if addresses.is_empty() {
                    Err(expected.to_owned())
                } else {
                    Ok(Self::Tcp(addresses))
                }
            }
            Err(error) => Err(format!("{expected} ({error})")),
        }
    }
}

/// Which symbolic links are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Symlinks {
    /// Those whose target is inside the site
    #[default]
    Inside,
    /// All
    All,
    /// None: links are left out
    None,
}

impl Symlinks {
    /// Whether a link may lead to the real path `target`, seen from the real path `root`.
    pub fn allow(self, root: &Path, target: &Path) -> bool {
        match self {
            Self::All => true,
            Self::Inside => target.starts_with(root),
            Self::None => false,
        }
    }
}

/// Where `Last-Modified` comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LastModified {
    /// The file's modification time
    #[default]
    Mtime,
    /// Nowhere: the field is not sent, dates match nothing
    Off,
}

/// When `Repr-Digest` is sent (RFC 9530).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ReprDigest {
    /// Never
    #[default]
    Off,
    /// To requests with Want-Repr-Digest
    Wanted,
    /// Always
    Always,
}

/// Form of `etagd manifest`'s output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ManifestFormat {
    /// Tab-separated lines
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// Form of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// `etagd serve`'s flags as meant.
#[derive(Debug)]
pub struct Config {
    /// The site's directory.
    pub directory: PathBuf,
    /// Which links the scan follows.
    pub symlinks: Symlinks,
    /// What changes answers.
    pub settings: Settings,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Most files kept open; `None` for half of what the system allows.
    pub open_files: Option<usize>,
    /// Budget for content, in bytes.
    pub memory: u64,
    /// Number of threads that answer requests.
    pub workers: usize,
    /// How changes are noticed.
    pub watching: Watching,
    /// With these, TCP listeners speak TLS.
    pub tls: Option<TlsFiles>,
    /// What clients may use up.
    pub limits: Limits,
}

impl From<Serve> for Config {
    fn from(flags: Serve) -> Self {
        let settings = flags.site.settings();
        let SiteFlags {
            directory,
            symlinks,
            ..
        } = flags.site;
        let memory = flags
            .memory
            .map_or_else(|| disk::memory_size() / 4, |size| size.as_u64());
        Self {
            directory,
            symlinks,
            settings,
            listen: flags.listen,
            open_files: flags.open_files,
            memory,
            workers: flags.workers.unwrap_or_else(cores),
            watching: flags.watching,
            tls: (flags.tls_cert.zip(flags.tls_key))
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            limits: flags.limits,
        }
    }
}

/// The cores this process may run on; 1 where the system does not say.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let tcp = |text: &str| Ok(Listen::Tcp(vec![text.parse().expect("an address")]));
        assert_eq!("127.0.0.1:0".parse(), tcp("127.0.0.1:0"));
        assert_eq!("[::1]:8080".parse(), tcp("[::1]:8080"));
        assert_eq!(":80".parse(), tcp("[::]:80"));
        assert_eq!("unix:/run/x".parse(), Ok(Listen::Unix("/run/x".into())));
        for bad in [
            "",
            "unix:",
            ":",
            ":99999",
            "127.0.0.1",
            "127.0.0.1:x",
            "8080",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
