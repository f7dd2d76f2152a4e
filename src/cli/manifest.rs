//! `etagd manifest`.

use std::io::{self, BufWriter, Write};

use super::scan::scan;
use super::{Error, open};
use crate::config::{self, ManifestFormat};
use crate::scan::{Progress, Scanner};

/// Prints the manifest of a directory.
pub(super) fn manifest(flags: &config::Manifest) -> Result<(), Error> {
    let settings = flags.site.settings();
    let root = open(&flags.site.directory)?;
    // Nothing is served, so nothing has to be kept.
    let scanner = Scanner::new(flags.site.symlinks, settings, None);
    let manifest = scan(&scanner, &root, &Progress::default(), None, || ())?.manifest;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match (flags.digest, flags.format) {
        (true, _) => writeln!(out, "{}", manifest.digest()),
        (false, ManifestFormat::Text) => manifest.write_text(&mut out),
        (false, ManifestFormat::Json) => manifest.write_json(&mut out),
    };
    match written.and_then(|()| out.flush()) {
        // The reader has seen enough: `etagd manifest | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Output),
    }
}
