//! TLS: the certificate and its key, read from PEM files, and read again without dropping a
//! connection.
//!
//! TLS 1.2 and 1.3 as rustls has them, X25519MLKEM768 before other groups, h2 before http/1.1 by
//! ALPN, sessions resumed by tickets whose keys never leave the process. No early data: a request in it
//! can be replayed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::{
    Ticketer, default_provider, sign::any_supported_type,
};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject, SectionKind};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ProducesTickets;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::settings::TlsFiles;

/// Why the files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("cannot read {flag} {}: {source}", .path.display())]
    Read {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{flag} {} {found}; {expected} in PEM form is expected", .path.display())]
    Content {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What should be in it.
        expected: &'static str,
    },
    /// Each file is valid, but they do not belong together.
    #[error(
        "the key in {} is not the key of the first certificate in {}; \
         --tls-cert expects the server's own certificate first, then those that signed it",
        .0.key.display(), .0.certificate.display()
    )]
    Mismatch(TlsFiles),
    /// rustls refuses.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// The server's side of TLS.
pub struct Tls {
    files: TlsFiles,
    /// Outlives a reload, so that sessions do.
    tickets: Arc<dyn ProducesTickets>,
    /// A handshake takes the present one; a connection keeps the one it began with.
    config: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they are not a certificate chain and its key.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let tickets = Ticketer::new()?;
        let config = ArcSwap::from_pointee(server_config(&files, &tickets)?);
        Ok(Self {
            files,
            tickets,
            config,
        })
    }

    /// Reads the files again, for the handshakes from now on.
    ///
    /// # Errors
    /// When they can't be used. What was read before stays in use then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = server_config(&self.files, &self.tickets)?;
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// [`Tls::reload`] on a thread that may block on the disk; logs the result.
    pub async fn reload_aside(self: &Arc<Self>) {
        let tls = Arc::clone(self);
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(())) => {
                let path = self.files.certificate.display();
                tracing::info!(%path, "reloaded the certificate");
            }
            Ok(Err(error)) => tracing::error!(%error, "keeping the current certificate: {error}"),
            Err(stopped) => {
                tracing::error!(error = %stopped, "keeping the current certificate: {stopped}")
            }
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

fn server_config(
    files: &TlsFiles,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, TlsError> {
    let certified = certified_key(files)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Arc::clone(tickets);
    Ok(config)
}

fn certified_key(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let certificate = Pem::read("--tls-cert", "a certificate", &files.certificate)?;
    let chain: Vec<_> = certificate
        .sections_of(is_certificate)
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    if chain.is_empty() {
        let is_key = certificate.sections_of(is_key).next().is_some();
        return Err(certificate.wrong(match is_key {
            true => "holds a private key and no certificate",
            false => "holds no certificate",
        }));
    }
    let key = Pem::read("--tls-key", "an unencrypted private key", &files.key)?;
    let der = key.sections.iter().find_map(|(kind, der)| {
        let der = der.clone();
        match kind {
            SectionKind::PrivateKey => Some(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::RsaPrivateKey => Some(PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::EcPrivateKey => Some(PrivateKeyDer::Sec1(der.into())),
            _ => None,
        }
    });
    let Some(der) = der else {
        let found = if key.is_encrypted {
            "holds an encrypted private key"
        } else if key.sections_of(is_certificate).next().is_some() {
            "holds a certificate and no private key"
        } else {
            "holds no private key"
        };
        return Err(key.wrong(found));
    };
    let signing = any_supported_type(&der)
        .map_err(|_| key.wrong("holds a private key that is neither RSA, ECDSA nor Ed25519"))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch(files.clone())),
        Err(_) => Err(certificate.wrong("holds a certificate that can't be read")),
    }
}

fn is_certificate(kind: SectionKind) -> bool {
    kind == SectionKind::Certificate
}

fn is_key(kind: SectionKind) -> bool {
    use SectionKind::{EcPrivateKey, PrivateKey, RsaPrivateKey};
    matches!(kind, PrivateKey | RsaPrivateKey | EcPrivateKey)
}

/// A PEM file, and what it is meant to be.
struct Pem<'a> {
    flag: &'static str,
    expected: &'static str,
    path: &'a Path,
    sections: Vec<(SectionKind, Vec<u8>)>,
    /// What is encrypted is nothing that the parser knows.
    is_encrypted: bool,
}

impl<'a> Pem<'a> {
    fn read(flag: &'static str, expected: &'static str, path: &'a Path) -> Result<Self, TlsError> {
        let bytes = std::fs::read(path).map_err(|source| TlsError::Read {
            flag,
            path: path.to_path_buf(),
            source,
        })?;
        // PKCS #8 has it in the label, the older forms in a `Proc-Type` line.
        const ENCRYPTED: &[u8] = b"ENCRYPTED";
        let mut pem = Self {
            flag,
            expected,
            path,
            sections: Vec::new(),
            is_encrypted: bytes.windows(ENCRYPTED.len()).any(|word| word == ENCRYPTED),
        };
        let sections: Result<_, pem::Error> =
            <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes).collect();
        match sections {
            Ok(sections) => pem.sections = sections,
            Err(_) if pem.is_encrypted => {}
            Err(_) => return Err(pem.wrong("is damaged")),
        }
        if bytes.is_empty() {
            return Err(pem.wrong("is empty"));
        }
        Ok(pem)
    }

    fn sections_of(&self, is_wanted: impl Fn(SectionKind) -> bool) -> impl Iterator<Item = &[u8]> {
        self.sections
            .iter()
            .filter(move |(kind, _)| is_wanted(*kind))
            .map(|(_, der)| der.as_slice())
    }

    fn wrong(&self, found: &str) -> TlsError {
        TlsError::Content {
            flag: self.flag,
            path: self.path.to_path_buf(),
            found: found.to_owned(),
            expected: self.expected,
        }
    }
}
