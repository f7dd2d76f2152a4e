//! Which files are compressed, and how; pure functions. Equal input gives equal output on any
//! machine and with any number of threads, as long as the encoders are the same version.

use std::io::{self, Read, Write};

use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, GzBuilder};

use super::media;
use crate::representation::TextKind;
use crate::semantics::coding::Coding;

/// Shorter files fit into one packet anyway, and are not compressed.
pub(crate) const MIN_LENGTH: u64 = 1 << 10;
/// How many bytes gzip gets at once. Other numbers give other bytes.
const GZIP_STEP: usize = 1 << 20;
/// The maximum length of what is encoded, as a percentage of the file.
const MAX_PERCENT: u64 = 95;

/// How much time an encoder takes for how few bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effort {
    /// The fewest bytes that every HTTP client can decode: sidecars are made once, in a build.
    Sidecar,
    /// A twentieth of a second for each megabyte: a server is not ready before all is made. These
    /// levels are the policy `etagd-1`; other ones need another name.
    Scan,
}

impl Effort {
    fn levels(self) -> Levels {
        match self {
            // RFC 9659 section 3 limits zstd's window to 8 MiB; levels above 19 have larger ones.
            Self::Sidecar => Levels {
                brotli: 11,
                zstd: 19,
                gzip: 9,
            },
            Self::Scan => Levels {
                brotli: 5,
                zstd: 12,
                gzip: 6,
            },
        }
    }
}

/// The level of each encoder.
struct Levels {
    brotli: i32,
    zstd: i32,
    gzip: u32,
}

/// Encodes `bytes`. Calls `step` now and then: the longest file that a scan encodes may take half a
/// minute on a busy machine.
///
/// # Errors
/// When an encoder runs out of memory.
pub(crate) fn encode(
    coding: Coding,
    effort: Effort,
    bytes: &[u8],
    step: &dyn Fn(),
) -> io::Result<Vec<u8>> {
    let levels = effort.levels();
    step();
    match coding {
        Coding::Identity => Ok(bytes.to_vec()),
        Coding::Brotli => brotli(bytes, levels.brotli, effort, step),
        // In one piece. It is the fastest of them by far.
        Coding::Zstd => zstd::bulk::compress(bytes, levels.zstd),
        Coding::Gzip => gzip(bytes, levels.gzip, effort, step),
        Coding::DictionaryBrotli(_) | Coding::DictionaryZstd(_) => {
            Err(io::Error::other("a delta needs its dictionary"))
        }
    }
}

/// Whether a client gains by getting `encoded` bytes instead of the `length` bytes of a file.
pub(crate) fn is_worth_it(encoded: &[u8], length: u64) -> bool {
    encoded.len() as u64 * 100 <= length * MAX_PERCENT
}

/// Bytes with a call before each time that some are read.
struct EncoderInput<'a> {
    bytes: &'a [u8],
    step: &'a dyn Fn(),
}

impl Read for EncoderInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.step)();
        self.bytes.read(buffer)
    }
}

fn brotli(bytes: &[u8], quality: i32, effort: Effort, step: &dyn Fn()) -> io::Result<Vec<u8>> {
    let smallest = brotli_window(bytes.len());
    let parameters = BrotliEncoderParams {
        quality,
        // For windows below 2^17, and qualities from 5 to 9, the crate lacks the encoder's own hash
        // table and takes one of 32 MiB (`BrotliMakeHasher`): a short file took five times as long.
        lgwin: match effort {
            Effort::Sidecar => smallest,
            Effort::Scan => smallest.max(17),
        },
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut encoded = Vec::new();
    let mut bytes = EncoderInput { bytes, step };
    // It reads 4 KiB at a time.
    brotli::BrotliCompress(&mut bytes, &mut encoded, &parameters)?;
    Ok(encoded)
}

/// The binary logarithm of the smallest window for `length` bytes. A window holds 16 bytes less
/// than its power of two (RFC 7932 section 9.1).
fn brotli_window(length: usize) -> i32 {
    (10..24).find(|log| length <= (1 << log) - 16).unwrap_or(24)
}

/// The first bytes of etagd's gzip sidecars (RFC 1952 section 2.3): no name, no time, the best
/// compression, an unknown system, and a comment that marks them as etagd's.
pub(crate) const GZIP_HEADER: [u8; 16] = *b"\x1f\x8b\x08\x10\0\0\0\0\x02\xffetagd\0";

/// Only sidecars are marked: `etagd compress` has to know its own files again.
fn gzip(bytes: &[u8], level: u32, effort: Effort, step: &dyn Fn()) -> io::Result<Vec<u8>> {
    let builder = GzBuilder::new().mtime(0).operating_system(255);
    // What comes out depends on how much comes in at once.
    let (builder, at_once) = match effort {
        Effort::Sidecar => (builder.comment("etagd"), bytes.len().max(1)),
        Effort::Scan => (builder, GZIP_STEP),
    };
    let mut encoder = builder.write(Vec::new(), Compression::new(level));
    for part in bytes.chunks(at_once) {
        step();
        encoder.write_all(part)?;
    }
    encoder.finish()
}

/// Whether the media type of `path` is not compressed already. `text` says whether its
/// content is text, for names that do not tell.
pub(crate) fn is_compressible(path: &[u8], text: TextKind) -> bool {
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
    use crate::scan::sidecar::prove;

    const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];
    const EFFORTS: [Effort; 2] = [Effort::Sidecar, Effort::Scan];

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
            for (coding, effort) in CODINGS
                .iter()
                .flat_map(|each| EFFORTS.map(|it| (*each, it)))
            {
                let encoded = encode(coding, effort, bytes, &|| ()).expect("encoded");
                let proof = prove(coding, encoded.as_slice(), &hash, length as u64);
                assert!(proof.is_ok(), "{coding:?}, {length} bytes: {proof:?}");
            }
        }
    }

    #[test]
    fn what_takes_long_is_stepped_through() {
        let bytes = vec![b'x'; 3 << 20];
        for coding in [Coding::Brotli, Coding::Gzip] {
            let steps = std::cell::Cell::new(0);
            let step = || steps.set(steps.get() + 1);
            encode(coding, Effort::Scan, &bytes, &step).expect("encoded");
            assert!(steps.get() > 3, "{coding:?}: {} steps", steps.get());
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

    /// Content of some kinds and lengths that sites have, the same on any machine.
    fn contents() -> Vec<(&'static str, Vec<u8>)> {
        fn lines(number: u32, line: impl Fn(u32) -> String) -> Vec<u8> {
            (0..number).flat_map(|n| line(n).into_bytes()).collect()
        }
        let page = |n: u32| format!("<p>{n}, {} and more</p>\n", n * n % 577);
        let script = |n: u32| format!("export const v{n}=f({},{:x});", n % 97, n * 40_503 % 65_521);
        let table = |n: u32| {
            format!(
                "{{\"id\":{n},\"at\":[{},{}]}},",
                n * 31 % 1000,
                n * 17 % 977
            )
        };
        let mut state = 1_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Half of the bits are noise, so that the encoders find something.
            (state >> 24) as u8 & 0x5a
        });
        vec![
            ("page", lines(2000, page)),
            ("short page", lines(40, page)),
            ("script", lines(600, script)),
            ("table", lines(20_000, table)),
            ("noise", noise.take(70_000).collect()),
            ("zeros", vec![0; 300_000]),
            // Gzip is fed in several steps, and brotli looks for matches in another way beyond 4 MiB.
            ("long page", lines(60_000, page)),
            ("long table", lines(170_000, table)),
        ]
    }

    /// What equal bytes are encoded to: another version of an encoder changes these, and with them
    /// the tags of a site. Of sidecars the changelog then says so. Of what the scan makes, the
    /// policy needs another name, so that replicas of both versions do not claim to agree.
    #[test]
    fn equal_bytes_give_these_bytes() {
        let mut found = String::new();
        for (name, content) in contents() {
            for coding in CODINGS {
                for effort in EFFORTS {
                    // The best brotli takes seconds for what is long.
                    if effort == Effort::Sidecar && content.len() > 60_000 {
                        continue;
                    }
                    let encoded = encode(coding, effort, &content, &|| ()).expect("encoded");
                    let hash = &blake3::hash(&encoded).to_hex()[..12];
                    let line = format!("{name} {coding:?} {effort:?} {} {hash}", encoded.len());
                    found += &(line + "\n");
                }
            }
        }
        assert_eq!(found.trim_end(), GOLDEN.trim());
        let gzip = encode(Coding::Gzip, Effort::Sidecar, b"text", &|| ()).expect("encoded");
        assert_eq!(gzip[..16], GZIP_HEADER, "RFC 1952 2.3: no name, no time");
        let gzip = encode(Coding::Gzip, Effort::Scan, b"text", &|| ()).expect("encoded");
        assert_eq!(gzip[..10], *b"\x1f\x8b\x08\0\0\0\0\0\0\xff");
    }

    const GOLDEN: &str = "
page Brotli Sidecar 4987 86d9c7898328
page Brotli Scan 7676 9c6f85b3107e
page Zstd Sidecar 6482 195531134fc3
page Zstd Scan 7893 d57f4e1ea41b
page Gzip Sidecar 8843 6665a4835d8e
page Gzip Scan 9233 8e1f1cb5f900
short page Brotli Sidecar 165 aa87d83fa798
short page Brotli Scan 201 8a9e59e432d0
short page Zstd Sidecar 193 59485bda9596
short page Zstd Scan 197 6e5ded176bfe
short page Gzip Sidecar 240 a22065bf3ce8
short page Gzip Scan 228 1e0d49c46ee2
script Brotli Sidecar 2471 4eec1c310a4f
script Brotli Scan 2946 fffc790321b1
script Zstd Sidecar 3050 ff73b8d7eb6d
script Zstd Scan 3336 867aa207e423
script Gzip Sidecar 4194 3cd4b3c88909
script Gzip Scan 4077 711359364b98
table Brotli Scan 41623 b07c151e7a91
table Zstd Scan 61265 e1051045630a
table Gzip Scan 95591 b92796066af3
noise Brotli Scan 37863 a1755cbb561a
noise Zstd Scan 38326 96eed864560c
noise Gzip Scan 37915 0a5ea72ce346
zeros Brotli Scan 13 e0221295d665
zeros Zstd Scan 29 81b69934f5ea
zeros Gzip Scan 325 75b62213d401
long page Brotli Scan 203140 0445dda33489
long page Zstd Scan 231744 4a8c1548e52b
long page Gzip Scan 264311 f94d8a1d26d3
long table Brotli Scan 261183 0e3ea14faa7b
long table Zstd Scan 294511 d01e72d66a5b
long table Gzip Scan 782658 34a8a82b401a
";
}
