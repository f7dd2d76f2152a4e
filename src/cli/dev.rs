//! `etagd dev` at a terminal: the address of the site, and a line for each change.

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
use super::counted;
use crate::access::{AccessLog, LineFormat};
use crate::dev::{Changed, Dev, Feed, line};
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::semantics::target::encode_path;
use crate::server::listener::{self, BoundSocket, ListenError};
use crate::settings::{AllowedHost, Certificate, DevOptions, Listen, TlsFiles};
use crate::site::Site;

/// Ports after the first that are tried.
const MAX_RETRIES: u16 = 100;
/// Changed paths that are shown in one line.
const MAX_SHOWN: usize = 3;

/// Binds the port that is asked for, or the next one that is free.
pub(super) fn bind(options: &DevOptions) -> Result<Vec<BoundSocket>, ListenError> {
    let last = match options.is_strict {
        true => options.port,
        false => options.port.saturating_add(MAX_RETRIES),
    };
    let mut port = options.port;
    loop {
        match bind_port(port, options.all_addresses) {
            Err(error) if error.is_address_in_use() && port < last => port += 1,
            Ok(bound) => {
                if port != options.port {
                    let wanted = options.port;
                    tracing::warn!(wanted, port, "port {wanted} is in use, using {port}");
                }
                return Ok(bound);
            }
            Err(error) => return Err(error),
        }
    }
}

fn bind_port(port: u16, all_addresses: bool) -> Result<Vec<BoundSocket>, ListenError> {
    let bind = |address: IpAddr, port| {
        let address = SocketAddr::from((address, port));
        listener::bind(&[Listen::Tcp(vec![address])], false)
    };
    if all_addresses {
        return bind(Ipv6Addr::UNSPECIFIED.into(), port);
    }
    let mut bound = bind(Ipv4Addr::LOCALHOST.into(), port)?;
    // Browsers try both addresses of `localhost`. With another program on the second one, the
    // developer would see that program's pages at random.
    let port = bound.iter().find_map(BoundSocket::port).unwrap_or(port);
    match bind(Ipv6Addr::LOCALHOST.into(), port) {
        Ok(more) => bound.extend(more),
        Err(error) if error.is_address_in_use() => return Err(error),
        // The machine has no IPv6.
        Err(_) => {}
    }
    Ok(bound)
}

/// What a developer gets in addition to the server.
pub(super) struct Developer {
    flags: DevOptions,
    feed: Option<Arc<Feed>>,
    pub(super) dev: Arc<Dev>,
    pub(super) screen: Screen,
}

impl Developer {
    pub(super) fn new(flags: DevOptions, site: &Arc<Site>) -> Self {
        let base_path = site.current().settings().base_path.clone();
        let feed = flags.reloads.then(|| Arc::new(Feed::new(Arc::clone(site))));
        Self {
            dev: Arc::new(Dev::new(feed.clone(), &flags, &base_path)),
            screen: Screen::new(flags.quiet),
            feed,
            flags,
        }
    }

    /// Shows where the site is, and opens it in a browser if that is wanted.
    pub(super) fn greet(&self, port: u16, site: &Manifest, took: Duration) {
        self.screen.greet(&self.flags, port, site, took);
        let url = url(&self.flags, "localhost", port, site);
        if self.flags.opens
            && let Err(error) = open::that_detached(&url)
        {
            tracing::warn!(url, %error, "cannot open {url} in a browser: {error}");
        }
    }

    /// Reports changes to open pages and at the terminal. Never ends.
    pub(super) async fn follow(developer: Option<&Self>) -> Infallible {
        let Some(developer) = developer else {
            return pending().await;
        };
        match &developer.feed {
            Some(feed) => {
                feed.follow(|changed| developer.screen.show_change(changed))
                    .await
            }
            None => pending().await,
        }
    }
}

/// Standard output, as a developer sees it.
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

    /// The access log: one readable line for each request.
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

    /// The addresses of the site, what it has and its digest.
    fn greet(self, options: &DevOptions, port: u16, site: &Manifest, took: Duration) {
        let local = url(options, "localhost", port, site);
        let mut text = format!("\n  {}  {local}\n", self.bold("Local  "));
        let networks = match options.all_addresses {
            true => listener::ipv4_addresses(),
            false => Vec::new(),
        };
        for address in &networks {
            let url = url(options, &address.to_string(), port, site);
            text += &format!("  {}  {url}\n", self.bold("Network"));
        }
        let (files, size) = (counted(site.len(), "file"), HumanBytes(site.bytes()));
        let milliseconds = took.as_millis();
        text += &format!(
            "  {}  {files}, {size}, ready in {milliseconds} ms\n  {}  {}\n\n",
            self.bold("Site   "),
            self.bold("Digest "),
            site.digest()
        );
        if let Some(address) = networks.first().filter(|_| self.is_terminal)
            && let Ok(code) = QrCode::new(url(options, &address.to_string(), port, site))
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

    /// One line for a change that pages were told about.
    fn show_change(self, changed: &Changed) {
        if self.quiet {
            return;
        }
        let files = &changed.files;
        let shown = files
            .iter()
            .take(MAX_SHOWN)
            .map(|path| format!("/{}", encode_path(path)));
        let shown = match files.is_empty() {
            true => "the rules of the site".to_owned(),
            false => shown.collect::<Vec<_>>().join(", "),
        };
        let more = match files.len().saturating_sub(MAX_SHOWN) {
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

fn scheme(options: &DevOptions) -> &'static str {
    match options.tls {
        None => "http",
        Some(Certificate::OwnMade) => "https",
    }
}

fn url(options: &DevOptions, host: &str, port: u16, site: &Manifest) -> String {
    let home = site.settings().base_path.home();
    format!("{}://{host}:{port}{home}", scheme(options))
}

/// The certificate for `--tls self` and its key, if TLS is wanted.
pub(super) fn certificate(options: &DevOptions) -> Result<Option<TlsFiles>, CertificateError> {
    let Some(Certificate::OwnMade) = options.tls else {
        return Ok(None);
    };
    let mut names = vec!["localhost", "*.localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    names.extend(options.allowed.iter().map(AllowedHost::to_string));
    if options.all_addresses {
        names.extend(listener::ipv4_addresses().iter().map(Ipv4Addr::to_string));
    }
    certificate::for_names(names).map(Some)
}

/// Prints to standard output. One that is closed is no error: nobody reads it.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
