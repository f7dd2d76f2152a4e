//! Which files are compressed, and how; pure functions. Equal input gives equal output on any
//! machine and with any number of threads, as long as the encoders are the same version.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, GzBuilder};

use crate::representation::TextKind;
use crate::scan::media;
use crate::semantics::coding::Coding;

/// Encodes `bytes` at the highest level that every HTTP client can decode.
///
/// # Errors
/// When an encoder runs out of memory.
pub(super) fn encode(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Identity => Ok(bytes.to_vec()),
        Coding::Brotli => brotli(bytes),
        // RFC 9659 section 3 limits the window to 8 MiB; higher levels have larger ones.
        Coding::Zstd => zstd::bulk::compress(bytes, 19),
        Coding::Gzip => gzip(bytes),
        Coding::DictionaryBrotli(_) | Coding::DictionaryZstd(_) => {
            Err(io::Error::other("a delta needs its dictionary"))
        }
    }
}

fn brotli(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let parameters = BrotliEncoderParams {
        quality: 11,
        lgwin: brotli_window(bytes.len()),
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut encoded = Vec::new();
    brotli::BrotliCompress(&mut &*bytes, &mut encoded, &parameters)?;
    Ok(encoded)
}

/// The binary logarithm of the smallest window for `length` bytes. A window holds 16 bytes less
/// than its power of two (RFC 7932 section 9.1).
fn brotli_window(length: usize) -> i32 {
    (10..24).find(|log| length <= (1 << log) - 16).unwrap_or(24)
}

/// The first bytes of etagd's gzip sidecars (RFC 1952 section 2.3): no name, no time, the best
/// compression, an unknown system, and a comment that marks them as etagd's.
pub(super) const GZIP_HEADER: [u8; 16] = *b"\x1f\x8b\x08\x10\0\0\0\0\x02\xffetagd\0";

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .comment("etagd")
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Whether the media type of `path` is not compressed already. `text` says whether its
/// content is text, for names that do not tell.
pub(super) fn is_compressible(path: &[u8], text: TextKind) -> bool {
    // The type of .svgz is that of .svg, but it is gzip.
    if path.to_ascii_lowercase().ends_with(b".svgz") {
        return false;
    }
    let media_type = media::type_of(path, text);
    let essence = media_type.split(';').next().unwrap_or(&media_type);
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || COMPRESSIBLE.contains(&essence)
}

/// Compressible types in addition to `text/*`, `*+json` and `*+xml`.
const COMPRESSIBLE: &[&str] = &[
    "application/font-sfnt",
    "application/javascript",
    "application/json",
    "application/json5",
    "application/rtf",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ms-manifest",
    "application/sql",
    "application/x-ndjson",
    "application/x-sh",
    "application/x-sql",
    "application/x-subrip",
    "application/xml",
    "audio/x-mpegurl",
    "font/collection",
    "font/otf",
    "font/sfnt",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "model/mtl",
    "model/obj",
    "model/stl",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::CODINGS;
    use crate::scan::sidecar::prove;

    #[test]
    fn what_is_compressible() {
        let cases = [
            ("index.html", true, true),
            ("a/b.CSS", true, true),
            ("app.mjs", true, true),
            ("app.js.map", true, true),
            ("data.json", true, true),
            ("data.jsonld", true, true),
            ("feed.atom", true, true),
            ("sitemap.xml", true, true),
            ("logo.svg", true, true),
            ("logo.svgz", false, false),
            ("site.webmanifest", true, true),
            ("code.wasm", false, true),
            ("font.ttf", false, true),
            ("font.otf", false, true),
            ("font.eot", false, true),
            ("font.woff", false, false),
            ("font.woff2", false, false),
            ("favicon.ico", false, true),
            ("picture.bmp", false, true),
            ("picture.png", false, false),
            ("picture.jpg", false, false),
            ("film.mp4", false, false),
            ("book.pdf", false, false),
            ("book.docx", false, false),
            ("all.zip", false, false),
            ("all.tar", false, false),
            ("LICENSE", true, true),
            ("blob", false, false),
            ("what.ever-unknown", true, true),
            ("what.ever-unknown", false, false),
            ("index.html.br", false, false),
            ("index.html.zst", false, false),
            ("index.html.gz", false, false),
        ];
        for (path, is_text, want) in cases {
            let text = match is_text {
                true => TextKind::Utf8,
                false => TextKind::Binary,
            };
            assert_eq!(is_compressible(path.as_bytes(), text), want, "{path}");
        }
    }

    #[test]
    fn what_is_encoded_is_proven() {
        let bytes: Vec<u8> = (0..5000_u32).flat_map(|i| (i * i).to_be_bytes()).collect();
        for length in [0, 1, 1008, 1009, 4000, bytes.len()] {
            let bytes = &bytes[..length];
            let hash = *blake3::hash(bytes).as_bytes();
            for coding in CODINGS {
                let encoded = encode(coding, bytes).expect("encoded");
                let proof = prove(coding, encoded.as_slice(), &hash, length as u64);
                assert!(proof.is_ok(), "{coding:?}, {length} bytes: {proof:?}");
            }
        }
    }

    #[test]
    fn the_window_fits_the_file() {
        let cases = [
            (0, 10),
            (1008, 10),
            (1009, 11),
            ((1 << 22) - 16, 22),
            ((1 << 22) - 15, 23),
            ((1 << 24) - 16, 24),
            (usize::MAX, 24),
        ];
        for (length, want) in cases {
            assert_eq!(brotli_window(length), want, "{length}");
        }
    }

    /// The bytes of a release: another version of an encoder changes them, and then every
    /// sidecar's tag. Where that is meant, the changelog says so.
    #[test]
    fn equal_bytes_give_these_bytes() {
        let text: Vec<u8> = (0..2000)
            .flat_map(|line| {
                format!("<p>{line}, {} and more</p>\n", line * line % 577).into_bytes()
            })
            .collect();
        let cases = [
            (Coding::Brotli, "4987 86d9c78983281795"),
            (Coding::Zstd, "6482 195531134fc3a1c1"),
            (Coding::Gzip, "8843 6665a4835d8e6422"),
        ];
        for (coding, want) in cases {
            let encoded = encode(coding, &text).expect("encoded");
            let is = format!(
                "{} {}",
                encoded.len(),
                &blake3::hash(&encoded).to_hex()[..16]
            );
            assert_eq!(is, want, "{coding:?}");
        }
        let gzip = encode(Coding::Gzip, &text).expect("encoded");
        assert_eq!(gzip[..16], GZIP_HEADER, "RFC 1952 2.3: no name, no time");
    }
}
