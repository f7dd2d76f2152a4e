//! The certificate authorities that a client trusts: the system's, or those of a file (`--ca`).

use std::fs;
use std::io;
use std::path::PathBuf;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// The certificate authorities to trust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// None: no URL uses TLS.
    Nobody,
    /// Those of the system.
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

/// Why the certificate authorities cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The PEM file can't be read.
    #[error("cannot read --ca {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The file has no certificate in it.
    #[error("--ca {} holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// The system has no certificate authorities.
    #[error("this system has no certificate authorities ({0}): name a file of them with --ca")]
    NoSystemRoots(String),
}

/// What `--ca` says, or leaves unsaid.
impl From<Option<PathBuf>> for Trust {
    fn from(file: Option<PathBuf>) -> Self {
        file.map_or(Self::System, Self::File)
    }
}

impl Trust {
    /// The certificates of those authorities.
    ///
    /// # Errors
    /// When there are none, or the file can't be read.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TrustError> {
        match self {
            Self::Nobody => Ok(Vec::new()),
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    let mut reasons: Vec<_> =
                        found.errors.iter().map(ToString::to_string).collect();
                    if reasons.is_empty() {
                        reasons.push("none is installed".to_owned());
                    }
                    return Err(TrustError::NoSystemRoots(reasons.join(", ")));
                }
                Ok(found.certs)
            }
            Self::File(path) => {
                let pem = fs::read(path).map_err(|source| TrustError::Read {
                    path: path.clone(),
                    source,
                })?;
                let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
                    .map_while(Result::ok)
                    .collect();
                match certificates.is_empty() {
                    true => Err(TrustError::NoCertificate(path.clone())),
                    false => Ok(certificates),
                }
            }
        }
    }
}
