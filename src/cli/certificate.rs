//! A self-signed certificate for this machine, made once and kept: a browser asks about each new
//! one.

use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use crate::settings::TlsFiles;

/// How long a certificate is valid: Apple's systems refuse more than 397 days.
const MAX_VALIDITY: Duration = Duration::from_secs(397 * 24 * 3600);
/// A new one is made this long before the old one expires.
const MIN_REMAINING_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The environment does not say where such files belong.
    #[error("cannot keep a certificate: neither XDG_STATE_HOME nor HOME is set")]
    NoStateDirectory,
    /// It can't be written to its directory.
    #[error("cannot keep a certificate in {}: {source}", .path.display())]
    Write {
        /// The directory, or the file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be generated.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The certificate for these names and addresses, and its key: what was kept, or new ones.
///
/// # Errors
/// When they can be neither found nor kept.
pub(super) fn for_names(names: Vec<String>) -> Result<TlsFiles, CertificateError> {
    let home = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let state = match (home("XDG_STATE_HOME"), home("HOME")) {
        (Some(state), _) => PathBuf::from(state),
        (None, Some(home)) => PathBuf::from(home).join(".local/state"),
        (None, None) => return Err(CertificateError::NoStateDirectory),
    };
    for_names_in(&state.join("etagd"), names, SystemTime::now())
}

fn for_names_in(
    directory: &Path,
    mut names: Vec<String>,
    now: SystemTime,
) -> Result<TlsFiles, CertificateError> {
    names.sort();
    names.dedup();
    // Each set of names has files of its own, so that switching back and forth renews nothing.
    let hash = blake3::hash(names.join(" ").as_bytes()).to_hex();
    let files = TlsFiles {
        certificate: directory.join(format!("{}-certificate.pem", &hash[..8])),
        key: directory.join(format!("{}-key.pem", &hash[..8])),
    };
    if is_fresh(&files, now) {
        return Ok(files);
    }
    let mut parameters = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "etagd dev on this machine");
    parameters.distinguished_name = subject;
    parameters.not_before = now.into();
    parameters.not_after = (now + MAX_VALIDITY).into();
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    let keep = |path: &Path, text: &str| {
        write_privately(path, text).map_err(|source| CertificateError::Write {
            path: path.to_path_buf(),
            source,
        })
    };
    // The key first: if the process ends between the two, the certificate is missing or older than
    // its key, and the next start makes both again.
    keep(&files.key, &key.serialize_pem())?;
    keep(&files.certificate, &certificate.pem())?;
    let path = files.certificate.display();
    tracing::info!(%path, "made a certificate for this machine, {path}: browsers ask about it once");
    Ok(files)
}

/// Whether both files exist, the key is not newer than its certificate, and renewal is not due.
fn is_fresh(files: &TlsFiles, now: SystemTime) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let Some((key, certificate)) = modified(&files.key).zip(modified(&files.certificate)) else {
        return false;
    };
    let age = now.duration_since(certificate);
    key <= certificate && age.is_ok_and(|age| age < MAX_VALIDITY - MIN_REMAINING_VALIDITY)
}

/// Writes the whole file or nothing, readable by its owner alone.
fn write_privately(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?
        .write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_kept_until_it_is_old_or_the_names_differ() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("deep/etagd");
        let now = SystemTime::now();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let read = |files: &TlsFiles| fs::read(&files.certificate).unwrap();
        let first = for_names_in(&directory, names(&["localhost", "127.0.0.1"]), now).unwrap();
        let content = read(&first);
        let soon = now + Duration::from_secs(60);
        let mode = fs::metadata(&first.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = for_names_in(&directory, names(&["127.0.0.1", "localhost"]), soon).unwrap();
        assert_eq!(
            (&again.certificate, read(&again)),
            (&first.certificate, content.clone())
        );
        let other = for_names_in(&directory, names(&["localhost", "dev.example"]), now).unwrap();
        assert_ne!(other.certificate, first.certificate);
        let later = now + MAX_VALIDITY - MIN_REMAINING_VALIDITY + Duration::from_secs(1);
        let renewed = for_names_in(&directory, names(&["localhost", "127.0.0.1"]), later).unwrap();
        assert_ne!(read(&renewed), content);
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            4,
            "nothing else is left"
        );
    }
}
