//! `--redirect-http`: the sockets that redirect to HTTPS, and where that is.

use crate::server::listener::{self, BoundSocket, ListenError, Listener};
use crate::settings::RedirectOptions;

/// Why plain HTTP can't be redirected to HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// An address can't be had.
    #[error("--redirect-http: {0}")]
    Listen(#[from] ListenError),
    /// A socket was passed for it, and there is no HTTPS.
    #[error(
        "the inherited socket {0} is named redirect-http, and there is no HTTPS to lead to: give \
         --tls-cert and --tls-key"
    )]
    NoTls(String),
    /// No listener of the site has a port.
    #[error(
        "--redirect-http has no port to lead to, because only TCP listeners speak TLS: add one with \
         --listen, or name the port with --https-port"
    )]
    NoPort,
    /// A flag that means nothing alone.
    #[error("--https-port says where --redirect-http leads: give that, too")]
    NothingToLead,
    /// Two listeners on one address: each would get some of the connections.
    #[error(
        "--redirect-http {0}: another --redirect-http or --listen has this address already; give it \
         one of its own"
    )]
    SameAddress(String),
}

impl RedirectError {
    /// Whether other flags would make it good, whatever the machine is like.
    pub(super) fn is_usage(&self) -> bool {
        !matches!(self, Self::Listen(_))
    }
}

/// The sockets that redirect to HTTPS; they do not listen yet.
pub(super) struct Redirect {
    bound: Vec<BoundSocket>,
    /// The port to lead to.
    pub(super) https_port: u16,
}

impl Redirect {
    /// Takes the addresses of `options`, in addition to the sockets that were inherited. `None`
    /// without any.
    ///
    /// # Errors
    /// When one can't be had, or there is nothing to lead to.
    pub(super) fn bind(
        options: &RedirectOptions,
        inherited: Vec<BoundSocket>,
        site: &[BoundSocket],
        can_share: bool,
        is_secure: bool,
    ) -> Result<Option<Self>, RedirectError> {
        if let (Some(socket), false) = (inherited.first(), is_secure) {
            return Err(RedirectError::NoTls(socket.to_string()));
        }
        let mut bound = inherited;
        bound.extend(listener::bind(&options.listen, can_share)?);
        if bound.is_empty() {
            return match options.https_port {
                None => Ok(None),
                Some(_) => Err(RedirectError::NothingToLead),
            };
        }
        for (index, socket) in bound.iter().enumerate() {
            let mut others = bound.iter().take(index).chain(site);
            // The kernel lets both bind (SO_REUSEADDR, socket(7)), and with --reuse-port both listen.
            if others.any(|other| other.is_at(socket)) {
                return Err(RedirectError::SameAddress(socket.to_string()));
            }
        }
        let of_site = || site.iter().find_map(BoundSocket::port);
        let https_port = options.https_port.or_else(of_site);
        Ok(Some(Self {
            bound,
            https_port: https_port.ok_or(RedirectError::NoPort)?,
        }))
    }

    /// How many sockets there are.
    pub(super) fn len(&self) -> usize {
        self.bound.len()
    }

    /// Listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When another process has taken an address meanwhile.
    pub(super) fn listen(self) -> Result<Vec<Listener>, RedirectError> {
        let listeners: Result<Vec<_>, _> =
            self.bound.into_iter().map(BoundSocket::listen).collect();
        Ok(listeners?)
    }
}
