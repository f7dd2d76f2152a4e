//! A certificate for this machine, made once and kept: browsers ask about it once and no more.

use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use crate::settings::TlsFiles;

/// Browsers take none that is valid for longer.
const VALID: Duration = Duration::from_secs(397 * 24 * 3600);
/// So long before its end it is made anew.
const RENEWED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Nobody says where such files belong.
    #[error("cannot keep a certificate: neither XDG_STATE_HOME nor HOME is set")]
    Homeless,
    /// It can't be kept.
    #[error("cannot keep a certificate in {}: {source}", .path.display())]
    Keep {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// It can't be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The certificate for these names and addresses, and its key: what was kept, or new ones.
///
/// # Errors
/// When they can be neither found nor kept.
pub(super) fn own(names: Vec<String>) -> Result<TlsFiles, CertificateError> {
    let home = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let state = match (home("XDG_STATE_HOME"), home("HOME")) {
        (Some(state), _) => PathBuf::from(state),
        (None, Some(home)) => PathBuf::from(home).join(".local/state"),
        (None, None) => return Err(CertificateError::Homeless),
    };
    own_in(&state.join("etagd"), names, SystemTime::now())
}

fn own_in(
    directory: &Path,
    mut names: Vec<String>,
    now: SystemTime,
) -> Result<TlsFiles, CertificateError> {
    names.sort();
    names.dedup();
    // Other names, another certificate; both are there for whoever comes back.
    let hash = blake3::hash(names.join(" ").as_bytes()).to_hex();
    let file = |what: &str| directory.join(format!("{}-{what}.pem", &hash[..8]));
    let files = TlsFiles {
        certificate: file("certificate"),
        key: file("key"),
    };
    if is_fresh(&files, now) {
        return Ok(files);
    }
    let mut parameters = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "etagd dev on this machine");
    parameters.distinguished_name = subject;
    parameters.not_before = now.into();
    parameters.not_after = (now + VALID).into();
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    let keep = |path: &Path, text: &str| {
        write_privately(path, text).map_err(|source| CertificateError::Keep {
            path: path.to_path_buf(),
            source,
        })
    };
    // The key first: where it stops between the two, the certificate is missing or old, and the
    // next start makes both.
    keep(&files.key, &key.serialize_pem())?;
    keep(&files.certificate, &certificate.pem())?;
    tracing::info!(
        "made a certificate for this machine, {}: browsers ask about it once",
        files.certificate.display()
    );
    Ok(files)
}

/// Whether both are there, the key not newer than its certificate, and good for some time to come.
fn is_fresh(files: &TlsFiles, now: SystemTime) -> bool {
    let made = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let Some((key, certificate)) = made(&files.key).zip(made(&files.certificate)) else {
        return false;
    };
    let age = now.duration_since(certificate);
    key <= certificate && age.is_ok_and(|age| age < VALID - RENEWED)
}

/// Whole or not at all, and for nobody else to read.
fn write_privately(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&beside)?.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_kept_until_it_is_old_or_the_names_are_others() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("deep/etagd");
        let now = SystemTime::now();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let read = |files: &TlsFiles| fs::read(&files.certificate).unwrap();
        let first = own_in(&directory, names(&["localhost", "127.0.0.1"]), now).unwrap();
        let content = read(&first);
        let soon = now + Duration::from_secs(60);
        let mode = fs::metadata(&first.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = own_in(&directory, names(&["127.0.0.1", "localhost"]), soon).unwrap();
        assert_eq!(
            (&again.certificate, read(&again)),
            (&first.certificate, content.clone())
        );
        let other = own_in(&directory, names(&["localhost", "dev.example"]), now).unwrap();
        assert_ne!(other.certificate, first.certificate);
        let later = now + VALID - RENEWED + Duration::from_secs(1);
        let renewed = own_in(&directory, names(&["localhost", "127.0.0.1"]), later).unwrap();
        assert_ne!(read(&renewed), content);
        assert_eq!(
            fs::read_dir(&directory).unwrap().count(),
            4,
            "nothing else is left"
        );
    }
}
