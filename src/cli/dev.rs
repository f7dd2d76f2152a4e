//! What a developer sees of `etagd dev`: where it is, and what happens.

use std::convert::Infallible;
use std::fs::File;
use std::future::pending;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use indicatif::HumanBytes;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::certificate::{self, CertificateError};
use super::scan::files;
use crate::access::{AccessLog, LineFormat};
use crate::dev::{Changed, Dev, Feed, line};
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::semantics::target::encode_path;
use crate::server::listener::{self, Bound, ListenError};
use crate::settings::{AllowedHost, Certificate, DevOptions, Listen, TlsFiles};
use crate::site::Site;

/// So many ports are tried.
const PORTS: u16 = 100;
/// So many changed paths are shown.
const SHOWN: usize = 3;

/// Binds the port that is asked for, or the next one that is free.
pub(super) fn bind(developing: &DevOptions) -> Result<Vec<Bound>, ListenError> {
    let last = match developing.is_strict {
        true => developing.port,
        false => developing.port.saturating_add(PORTS),
    };
    let mut port = developing.port;
    loop {
        match bind_port(port, developing.all_addresses) {
            Err(error) if error.is_taken() && port < last => port += 1,
            bound => return bound,
        }
    }
}

fn bind_port(port: u16, all_addresses: bool) -> Result<Vec<Bound>, ListenError> {
    let bind = |address: IpAddr, port| {
        let address = SocketAddr::from((address, port));
        listener::bind(&[Listen::Tcp(vec![address])], false)
    };
    if all_addresses {
        return bind(Ipv6Addr::UNSPECIFIED.into(), port);
    }
    let mut bound = bind(Ipv4Addr::LOCALHOST.into(), port)?;
    // Browsers may take `localhost` for either: nobody else must be found there.
    let port = bound.iter().find_map(Bound::port).unwrap_or(port);
    match bind(Ipv6Addr::LOCALHOST.into(), port) {
        Ok(more) => bound.extend(more),
        Err(error) if error.is_taken() => return Err(error),
        // A machine without IPv6.
        Err(_) => {}
    }
    Ok(bound)
}

/// What there is beside a server, for a developer.
pub(super) struct Developer {
    flags: DevOptions,
    feed: Option<Arc<Feed>>,
    pub(super) dev: Arc<Dev>,
    pub(super) screen: Screen,
}

impl Developer {
    pub(super) fn new(flags: DevOptions, site: &Arc<Site>) -> Self {
        let feed = flags.reloads.then(|| Arc::new(Feed::new(Arc::clone(site))));
        Self {
            dev: Arc::new(Dev::new(feed.clone(), &flags)),
            screen: Screen::new(flags.quiet),
            feed,
            flags,
        }
    }

    /// Says where the site is, and opens it.
    pub(super) fn greet(&self, port: u16, site: &Manifest, took: Duration) {
        self.screen.greet(&self.flags, port, site, took);
        let url = url(&self.flags, port);
        if self.flags.opens
            && let Err(error) = open::that_detached(&url)
        {
            tracing::warn!("cannot open {url} in a browser: {error}");
        }
    }

    /// Tells pages and the developer of changes. Never ends.
    pub(super) async fn follow(developer: Option<&Self>) -> Infallible {
        let feed =
            developer.and_then(|developer| Some((developer.screen, developer.feed.as_ref()?)));
        match feed {
            Some((screen, feed)) => feed.follow(|changed| screen.tell(changed)).await,
            None => pending().await,
        }
    }
}

/// The terminal, or where standard output goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    is_terminal: bool,
    colours: bool,
    quiet: bool,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_terminal = io::stdout().is_terminal();
        Self {
            is_terminal,
            colours: is_terminal && !is_plain,
            quiet,
        }
    }

    /// A line for each request.
    pub(super) fn log(self, metrics: &Arc<Metrics>) -> io::Result<Arc<AccessLog>> {
        let form: LineFormat = match (self.colours, self.quiet) {
            (false, false) => line::<false, false>,
            (false, true) => line::<false, true>,
            (true, false) => line::<true, false>,
            (true, true) => line::<true, true>,
        };
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let log = AccessLog::start(form, Vec::new().into(), out, Arc::clone(metrics))?;
        Ok(Arc::new(log))
    }

    /// Where the site is found, and which one it is.
    fn greet(self, developing: &DevOptions, port: u16, site: &Manifest, took: Duration) {
        let mut text = format!("\n  {}  {}\n", self.bold("Local  "), url(developing, port));
        let networks = match developing.all_addresses {
            true => addresses(),
            false => Vec::new(),
        };
        for address in &networks {
            let url = format!("{}://{address}:{port}/", scheme(developing));
            text += &format!("  {}  {url}\n", self.bold("Network"));
        }
        let (files, size) = (files(site), HumanBytes(site.bytes()));
        let milliseconds = took.as_millis();
        text += &format!(
            "  {}  {files}, {size}, ready in {milliseconds} ms\n  {}  {}\n\n",
            self.bold("Site   "),
            self.bold("Digest "),
            site.digest()
        );
        if let Some(address) = networks.first().filter(|_| self.is_terminal)
            && let Ok(code) = QrCode::new(format!("{}://{address}:{port}/", scheme(developing)))
        {
            // Light on dark, as most terminals are; readers take it either way.
            let code = code
                .render::<Dense1x2>()
                .dark_color(Dense1x2::Light)
                .light_color(Dense1x2::Dark)
                .build();
            text.extend(code.lines().map(|line| format!("  {line}\n")));
            text.push('\n');
        }
        print(&text);
    }

    /// What pages were told of.
    fn tell(self, changed: &Changed) {
        if self.quiet {
            return;
        }
        let files = &changed.files;
        let shown = files
            .iter()
            .take(SHOWN)
            .map(|path| format!("/{}", encode_path(path)));
        let shown = match files.is_empty() {
            true => "the rules of the site".to_owned(),
            false => shown.collect::<Vec<_>>().join(", "),
        };
        let more = match files.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (start, end) = if self.colours {
            ("\x1b[35m", "\x1b[0m")
        } else {
            ("", "")
        };
        print(&format!("{start}changed{end}  {shown}{more}\n"));
    }

    fn bold(self, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[1m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

fn scheme(developing: &DevOptions) -> &'static str {
    match developing.tls {
        None => "http",
        Some(Certificate::OwnMade) => "https",
    }
}

fn url(developing: &DevOptions, port: u16) -> String {
    format!("{}://localhost:{port}/", scheme(developing))
}

/// The certificate and its key, where TLS is to be spoken.
pub(super) fn certificate(developing: &DevOptions) -> Result<Option<TlsFiles>, CertificateError> {
    let Some(Certificate::OwnMade) = developing.tls else {
        return Ok(None);
    };
    let mut names = vec!["localhost", "*.localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    names.extend(developing.allowed.iter().map(AllowedHost::to_string));
    if developing.all_addresses {
        names.extend(addresses().iter().map(Ipv4Addr::to_string));
    }
    certificate::own(names).map(Some)
}

/// This machine's addresses in its networks.
fn addresses() -> Vec<Ipv4Addr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let outward = interfaces.iter().filter(|each| !each.is_loopback());
    let v4 = outward.filter_map(|each| match each.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    v4.collect()
}

/// Who has closed standard output does not want to know.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
