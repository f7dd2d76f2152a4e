//! Which files are immutable: their content never changes, so that a client that has one need never
//! ask again (RFC 8246).

use std::ops::Range;
use std::str::FromStr;

use super::globs::{InvalidGlob, PathGlob};

/// The value that stands for [`ImmutableFiles::Fingerprinted`].
const AUTO: &str = "auto";
/// Lengths that a hash in a name may have: bundlers write 8 characters or more, and 64 are all of a
/// SHA-256.
const MIN_FINGERPRINT: usize = 8;
const MAX_FINGERPRINT: usize = 64;
/// Letters that make a word, in base64, wherever it stands: `Menu`, but not `Rqd`, which has no vowel.
const MIN_WORD: usize = 4;
/// Letters that make a word at either end, and together with others: `Pro`, `Web`.
const MIN_SHORT_WORD: usize = 3;
/// Digits side by side that are a counter or a year: `0001`, `2026`.
const MIN_NUMBER: usize = 4;
/// What follows a number: `2x`, `60fps`.
const UNITS: [&str; 20] = [
    "x", "X", "k", "K", "p", "i", "px", "pt", "em", "G", "D", "kB", "KB", "MB", "GB", "fps", "Hz",
    "dpi", "mm", "ms",
];

/// Files that the operator says are immutable.
#[derive(Clone, Debug)]
pub enum ImmutableFiles {
    /// Those whose names have a hash in them: see [`is_fingerprinted`].
    Fingerprinted,
    /// Those whose paths match.
    Matching(PathGlob),
}

impl ImmutableFiles {
    /// Whether the file at `path` is one of them: raw bytes below the root, without the leading
    /// slash.
    pub fn contain(&self, path: &[u8]) -> bool {
        match self {
            Self::Fingerprinted => is_fingerprinted(path),
            Self::Matching(glob) => glob.matches(path),
        }
    }

    /// As it is typed after `--immutable`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Fingerprinted => AUTO,
            Self::Matching(glob) => glob.pattern(),
        }
    }
}

impl FromStr for ImmutableFiles {
    type Err = InvalidGlob;

    fn from_str(value: &str) -> Result<Self, InvalidGlob> {
        match value {
            // A pattern begins with a slash.
            AUTO => Ok(Self::Fingerprinted),
            pattern => pattern.parse().map(Self::Matching),
        }
    }
}

/// Whether the name of the file at `path` has a hash of its content in it, as bundlers write it: by
/// the name alone, so that all replicas agree.
///
/// The last part before the extension, after a `-` or a `.` that has something in front of it, has 8
/// to 64 characters and is either hex in one case with a digit and a letter, or base64url with a small
/// letter, a capital and a digit. A date, a version, a UUID, words with numbers between them and
/// numbers with a unit are not hashes; pages are never immutable, for nothing links to the next
/// version of a page.
///
/// It errs on the side of asking: what is missed costs a 304, and what is taken for a hash and is
/// none would be kept for a year. Of random parts with 8 characters of base64url that have a digit and
/// letters of both cases, it takes seven in ten.
pub fn is_fingerprinted(path: &[u8]) -> bool {
    let start = path.iter().rposition(|byte| *byte == b'/');
    let start = start.map_or(0, |slash| slash + 1);
    // A name and a separator: files that are called by a number in hex are no build's.
    fingerprint(path).is_some_and(|hash| hash.start > start + 1)
}

/// Where in a path the hash is that makes its file [fingerprinted](is_fingerprinted), also where it is
/// all of the name.
pub(super) fn fingerprint(path: &[u8]) -> Option<Range<usize>> {
    let (start, dot) = stem_of_asset(path)?;
    let stem = &path[start..dot];
    let part = stem.rsplit(is_separator).next().unwrap_or(stem);
    let is_hash = (MIN_FINGERPRINT..=MAX_FINGERPRINT).contains(&part.len())
        && !begins_with_date(part)
        && (is_hex_hash(part) || is_base64_hash(part));
    is_hash.then(|| dot - part.len()..dot)
}

/// Where the name of a file without its extension begins and ends, if it has an extension and is no
/// page.
pub(super) fn stem_of_asset(path: &[u8]) -> Option<(usize, usize)> {
    let start = path.iter().rposition(|byte| *byte == b'/');
    let start = start.map_or(0, |slash| slash + 1);
    let dot = start + path[start..].iter().rposition(|byte| *byte == b'.')?;
    let extension = &path[dot + 1..];
    let is_page = [&b"html"[..], b"htm", b"xhtml"]
        .iter()
        .any(|page| extension.eq_ignore_ascii_case(page));
    let is_asset = !extension.is_empty() && !is_page && !ends_in_uuid(&path[start..dot]);
    is_asset.then_some((start, dot))
}

/// What is between the hash and the rest of a name.
pub(super) fn is_separator(byte: &u8) -> bool {
    matches!(byte, b'-' | b'.')
}

fn is_hex_hash(part: &[u8]) -> bool {
    let is_hex = |letters: fn(&u8) -> bool| {
        part.iter()
            .all(|byte| byte.is_ascii_digit() || letters(byte))
            && part.iter().any(u8::is_ascii_digit)
            && part.iter().any(letters)
    };
    let is_one_case =
        is_hex(|byte| matches!(byte, b'a'..=b'f')) || is_hex(|byte| matches!(byte, b'A'..=b'F'));
    is_one_case && !is_letters_and_number(part)
}

/// Such as `cafe2026` or `0001234a`: letters and then digits, or the other way round.
fn is_letters_and_number(part: &[u8]) -> bool {
    let changes = part
        .windows(2)
        .filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit());
    changes.count() == 1
}

fn is_base64_hash(part: &[u8]) -> bool {
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    part.iter().all(is_base64url)
        && part.iter().any(u8::is_ascii_lowercase)
        && part.iter().any(u8::is_ascii_uppercase)
        && part.iter().any(u8::is_ascii_digit)
        && !are_fields_of_text(part)
        && !is_text(&pieces(part))
}

/// Whether what is between underscores was named by somebody: one field is a version, such as `V1`, or
/// each is an abbreviation or a word, perhaps with a number behind it, as in `x86_SSE2` and `H264_mp4`.
fn are_fields_of_text(part: &[u8]) -> bool {
    let fields: Vec<_> = part
        .split(|byte| *byte == b'_')
        .filter(|field| !field.is_empty())
        .collect();
    fields.len() > 1
        && (fields.iter().any(|field| is_version(field))
            || fields.iter().all(|field| is_name_with_number(field)))
}

/// Such as `x86`, `SSE2`, `Mp4`, `web` and `64`.
fn is_name_with_number(field: &[u8]) -> bool {
    let letters = field.iter().take_while(|byte| byte.is_ascii_alphabetic());
    let (letters, number) = field.split_at(letters.count());
    let after_first = letters.get(1..).unwrap_or_default();
    let is_one_case = after_first.iter().all(u8::is_ascii_lowercase)
        || letters.iter().all(u8::is_ascii_uppercase);
    is_one_case && number.iter().all(u8::is_ascii_digit)
}

/// Such as `v2` or `V10`.
fn is_version(field: &[u8]) -> bool {
    let number = field.strip_prefix(b"v").or(field.strip_prefix(b"V"));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// The words, abbreviations and numbers that a part consists of: `get`, `User`, `V` and `2`.
fn pieces(part: &[u8]) -> Vec<&[u8]> {
    part.chunk_by(|a, b| {
        let is_number = a.is_ascii_digit() && b.is_ascii_digit();
        let is_word = a.is_ascii_alphabetic() && b.is_ascii_lowercase();
        let is_abbreviation = a.is_ascii_uppercase() && b.is_ascii_uppercase();
        is_number || is_word || is_abbreviation
    })
    .filter(|piece| *piece != b"_")
    .collect()
}

/// Whether pieces were put together by somebody who meant them to be read: few for their length, with
/// words or long numbers among them, or a version or a unit.
fn is_text(pieces: &[&[u8]]) -> bool {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let is_word = |piece: &&[u8]| word_length(piece) >= MIN_SHORT_WORD;
    let in_words: usize = pieces
        .iter()
        .map(|piece| match word_length(piece) {
            short if short < MIN_SHORT_WORD => 0,
            length => length,
        })
        .sum();
    let ends = [pieces.first(), pieces.last()];
    pieces.len() * 2 < length
        || pieces.iter().any(|piece| word_length(piece) >= MIN_WORD)
        || ends.into_iter().flatten().any(is_word)
        || in_words * 2 >= length
        || pieces
            .iter()
            .any(|piece| piece[0].is_ascii_digit() && piece.len() >= MIN_NUMBER)
        || has_version_or_unit(pieces)
}

/// Letters of the word in a piece: what is left of `MPro` without capitals in front of it. A word has a
/// vowel and, after its first letter, small letters alone.
fn word_length(piece: &[u8]) -> usize {
    let capitals = piece.iter().take_while(|byte| byte.is_ascii_uppercase());
    let word = &piece[capitals.count().saturating_sub(1)..];
    let has_vowel = word.iter().any(|byte| {
        matches!(
            byte.to_ascii_lowercase(),
            b'a' | b'e' | b'i' | b'o' | b'u' | b'y'
        )
    });
    let is_word = has_vowel && word[1..].iter().all(u8::is_ascii_lowercase);
    if is_word { word.len() } else { 0 }
}

/// Whether there is a number with a unit, such as `60fps`, or one with a single letter at the end: `60p`;
/// or at the end a version, such as `V2`, or a size, such as `60x60`.
fn has_version_or_unit(pieces: &[&[u8]]) -> bool {
    let is_number = |piece: &[u8]| piece[0].is_ascii_digit();
    let is_unit = |piece: &[u8]| UNITS.iter().any(|unit| unit.as_bytes() == piece);
    let has_unit = pieces
        .windows(2)
        .any(|pair| is_number(pair[0]) && pair[1].len() > 1 && is_unit(pair[1]));
    if has_unit {
        return true;
    }
    match pieces {
        [.., width, [b'x' | b'X'], height] if is_number(width) && is_number(height) => true,
        [.., [b'v' | b'V' | b'r' | b'R'], number] if is_number(number) => true,
        [.., number, unit] if is_number(number) => is_unit(unit),
        _ => false,
    }
}

/// Such as `20261128`, whatever follows.
fn begins_with_date(part: &[u8]) -> bool {
    let number = |digits: &[u8]| {
        std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?
            .parse::<u32>()
            .ok()
    };
    let Some(date) = part.get(..8) else {
        return false;
    };
    let (year, month, day) = (number(&date[..4]), number(&date[4..6]), number(&date[6..]));
    year.is_some_and(|year| (1900..2100).contains(&year))
        && month.is_some_and(|month| (1..=12).contains(&month))
        && day.is_some_and(|day| (1..=31).contains(&day))
}

/// A UUID names a thing, not its content (RFC 9562 section 4): 8, 4, 4, 4 and 12 digits.
fn ends_in_uuid(stem: &[u8]) -> bool {
    const LENGTHS: [usize; 5] = [12, 4, 4, 4, 8];
    let mut parts = stem.rsplit(|byte| *byte == b'-');
    LENGTHS.into_iter().enumerate().all(|(place, length)| {
        parts.next().is_some_and(|part| {
            // Its first part may follow another name: `photo.550e8400`.
            let start = match place + 1 == LENGTHS.len() {
                true => part.len().saturating_sub(length),
                false => 0,
            };
            let digits = &part[start..];
            digits.len() == length && digits.iter().all(u8::is_ascii_hexdigit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_in_names_are_told_from_dates_versions_and_words() {
        for (path, want) in [
            // As bundlers write them.
            ("assets/index-BfX3a91Z.js", true),
            ("assets/index-C7dBx_9a.css", true),
            ("main.8d3f2a1c.css", true),
            ("static/js/2.6f3a9d0e.chunk.js", false),
            ("8d3f2a1c9b7e6f50.woff2", false),
            ("app-0123456789abcdef0123456789abcdef.js", true),
            ("app.01A3456789ABCDEF.js", true),
            ("a/b.c/logo.5eadbee5.svg", true),
            ("runtime-deadbeef1.js", false),
            ("runtime-dead1beef.js", true),
            // Words.
            ("bootstrap-responsive.css", false),
            ("runtime-deadbeef.js", false),
            ("jquery-deadbeef", false),
            ("menu-cafe2026.pdf", false),
            ("menu-2026cafe.pdf", false),
            ("notes-Release2026.pdf", false),
            ("setup-Windows11_Setup.exe", false),
            ("IMG_20261128.jpg", false),
            ("README-CONTRIBUTORS.md", false),
            ("font-SourceCodePro.woff2", false),
            // Dates and versions.
            ("report-2026-11-28.pdf", false),
            ("report-20261128.pdf", false),
            ("report-20261128a.pdf", false),
            ("report-20261128T1015Zab.pdf", false),
            ("jquery-3.7.1.min.js", false),
            ("app-12345678.js", false),
            ("tool-1.0.0-x86_64.tar.gz", false),
            // Things, not contents.
            ("photo-550e8400-e29b-41d4-a716-446655440000.jpg", false),
            ("550e8400-e29b-41d4-a716-44665544000a.jpg", false),
            // Too short, too long, mixed, no extension, no name, a page.
            ("app-8d3f2a1.js", false),
            ("app-8d3F2a1c.js", true),
            ("app-8d3fza1c.js", false),
            ("app-8d3f2a1c", false),
            ("app-8d3f2a1c.", false),
            (".8d3f2a1c", false),
            ("8d3f2a1c/app.js", false),
            ("about-8d3f2a1c.html", false),
            ("about-8d3f2a1c.HTM", false),
            ("", false),
            (".", false),
            ("-.-", false),
        ] {
            assert_eq!(is_fingerprinted(path.as_bytes()), want, "{path}");
        }
        let hash = "0a".repeat(32);
        assert!(is_fingerprinted(format!("app-{hash}.js").as_bytes()));
        assert!(!is_fingerprinted(format!("app-{hash}b.js").as_bytes()));
        assert!(!is_fingerprinted(b"app-8d3f2a1\xff.js"));
    }

    #[test]
    fn names_of_bundlers_are_told_from_names_of_people() {
        #[rustfmt::skip]
        let hashed = [
            // Vite and Rollup.
            "index-BfX3a9_Q.js", "index-C4k2PdX1.css", "index-BfX3a91Z.js", "index-C7dBx_9a.css",
            "vendor-DGNQ1oZ8.js", "chunk-BRqd0mVU.js", "logo-B2k9fX0c.svg", "a.b-D3xZk81q.js",
            "_plugin-vue-Dl7Gm2Xs.js", "font-Cz4w8TqB.woff2", "app-8d3F2a1c.js",
            "m58-Dnwz_5qU.js", "m53-DN3i4vRv.js", "m47-8z1ncBMM.js", "p54-bUdQZ9hf.svg",
            // webpack, with the hash after a dot or a dash.
            "main.8d3f2a1c.css", "main.0f3e9a7b2c4d6e81.js", "runtime~main.4c7d19ab.js",
            "vendors-node_modules_react.1b9f02ce.js", "photo.a0b1c2d3e4f5061728394a5b6c7d8e9f.png",
            "app-0123456789abcdef0123456789abcdef.js", "app.01A3456789ABCDEF.js",
            "2.6f3a9d0e.js", "polyfills-c67a75d1.js", "framework-2c79e2a64abdb08b.js",
            "index.3af1c9d0.mjs", "worker.9c1e4b7a.js",
            // Parcel, Hugo, Sprockets, Django.
            "index.9f1a6e7c.css", "styles.7be54c0f.css", "base.55e7cbb9ba48.css",
            "main.min.d9f1c0a7e5b34628fd1a7c90e36b2d48a5c1f0e97b83d62440acde15938f7b26.css",
            "application-1f3870be274f6c49b3e31a0c6728957f.js", "hero.5eadbee5.svg",
            "logo-b1946ac92492d2347c6235b4d2611184.png", "entry-3f9ac01d.css",
            // Next.js and webpack 5 with [contenthash].
            "main.3b6a95688d1e25977818.js", "layout-e387bf83a41924f7.js",
            "4bd1b696-c023c6e3521b1417.js", "main-app-b8eb1140b44a62f9.js",
        ];
        #[rustfmt::skip]
        let plain = [
            "myPhoto1.jpg", "H264Video.mp4", "AppIcon60x60.png", "getUserV2.js", "heroImage2x.jpg",
            "DSC_0001a.jpg", "photo-iPhone15.jpg", "logo-RGB300dpi.png", "Inter-BoldItalic2x.woff2",
            "a-myPhoto1.jpg", "a-H264Video.mp4", "a.AppIcon60x60.png", "a-getUserV2.js",
            "a.heroImage2x.jpg", "a-DSC_0001a.jpg", "clip-UHD4k60p.mp4", "show-S01E02v3.mp4",
            "icon-Web3DApp2.svg", "shot-iPadPro11M2.png", "shot-MacBookPro16M1.png",
            "guide-A11yMenu2.html.txt", "lib-i18nData2.js", "mp4-Mp4ToGif.js", "doc-e2eTest1.js",
            "chip-i7vsM1Pro.png", "movie-1080p60HDR10.mp4", "spec-OAuth2Login.pdf",
            "setup-Windows11_Setup.exe", "notes-Release2026Q3.pdf", "scan-0001234a.png",
            "ticket-b1234567.pdf", "cut-4K60fpsHDR.mp4", "tool-SHA256Sum.txt", "chunk-7XJ2KLMQ.js",
            "report-20261128T1015Zab.pdf", "8d3f2a1c9b7e6f50.woff2", "-8d3f2a1c.js", ".BfX3a91Z.js",
            "lib-x86_SSE2.js", "kernel-x86_AVX2.wasm", "clip-H264_mp4.zip", "fw-V1_2_3rc1.bin",
            "sdk-K8s_V1_2.js", "lib-arm64_NEON.so", "codec-Av1_VP9.js", "fw-v2_RC1b3.bin",
        ];
        assert!(hashed.len() >= 30 && plain.len() >= 30);
        for name in hashed {
            assert!(is_fingerprinted(format!("a/{name}").as_bytes()), "{name}");
        }
        for name in plain {
            assert!(!is_fingerprinted(format!("a/{name}").as_bytes()), "{name}");
        }
    }

    #[test]
    fn auto_is_a_value_and_all_else_is_a_pattern() {
        let auto: ImmutableFiles = "auto".parse().expect("auto");
        assert!(auto.contain(b"a/app-8d3f2a1c.js") && !auto.contain(b"auto"));
        let glob: ImmutableFiles = "/auto".parse().expect("a pattern");
        assert!(glob.contain(b"auto") && !glob.contain(b"app-8d3f2a1c.js"));
        assert_eq!([auto.as_str(), glob.as_str()], ["auto", "/auto"]);
        assert!("automatic".parse::<ImmutableFiles>().is_err());
    }
}
