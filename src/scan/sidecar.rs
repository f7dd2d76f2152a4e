//! The proof of a sidecar: that `x.br`, `x.zst` or `x.gz` decodes to exactly the bytes of `x`; and of
//! a file that is compressed under its own name: that it decodes at all.
//!
//! [`prove`] and [`decoded_text`] read the encoded bytes once and keep none of the decoded ones. They use no more
//! memory than the largest window that HTTP clients accept (16 MiB for brotli, 8 MiB for zstd),
//! stop at the first byte too many, and require the stream to end where the file ends. They also
//! refuse streams that their format allows but clients do not decode: several gzip members
//! (Chromium shows the first and drops the rest, curl fails), brotli's large windows, zstd windows
//! over 8 MiB. [`prove_delta`] does the same for `dcb` and `dcz` (RFC 9842), with the dictionary in
//! memory as well.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use super::text::{TextEvidence, text_kind};
use crate::representation::{GROUP_SIZE, TextKind};
use crate::semantics::coding::Coding;
use crate::semantics::dictionary::DictionaryHash;

/// What a file may decode to, in bytes. A bomb of some kilobytes decodes to terabytes.
const MAX_DECODED: u64 = 2 << 30;

/// Why a sidecar can't be served as a coding of its file.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// It decodes well, to something else.
    #[error("it decodes to other bytes than the file has now")]
    Stale,
    /// It decodes to more than the file has: something else, or a bomb.
    #[error("it decodes to more bytes than the file has now")]
    TooLong,
    /// It decodes to more than any client takes: a bomb.
    #[error("it decodes to more than 2 GiB, which is more than browsers hold")]
    TooLarge,
    /// The stream is not complete.
    #[error("it is cut short")]
    Truncated,
    /// It is not of its coding, at least from some byte on.
    #[error("it is damaged, or no {} at all", .0.token())]
    Corrupt(Coding),
    /// The stream ends before the file does.
    #[error("more bytes follow the end of its stream")]
    Trailing,
    /// A gzip file of several members (RFC 1952 section 2.2).
    #[error("it has several gzip members, of which browsers decode only the first")]
    Members,
    /// RFC 9659 section 3.
    #[error("it needs a window of more than 8 MiB, which browsers refuse (RFC 9659)")]
    Window,
    /// RFC 9842 section 5.
    #[error(
        "it needs a window of more than 8 MiB and 1.25 times its dictionary, which browsers refuse \
         (RFC 9842)"
    )]
    DeltaWindow,
    /// It does not begin with the magic number and the dictionary that its name promises.
    #[error("it is no delta against the dictionary in its name (RFC 9842)")]
    Header,
    /// What it refers to is not there.
    #[error(
        "its dictionary, the file with SHA-256 {0}, is neither in the site nor in \
         .etagd/dictionaries: run etagd compress --against again, or deploy that directory too"
    )]
    NoDictionary(DictionaryHash),
    /// What it refers to is damaged.
    #[error(
        "its dictionary, .etagd/dictionaries/{0}, does not have the SHA-256 that is its name: \
         remove it, and run etagd compress --against again"
    )]
    DamagedDictionary(DictionaryHash),
    /// What it refers to is not reached without a link.
    #[error(
        "its dictionary, .etagd/dictionaries/{0}, is behind a symbolic link, and none is followed \
         there: put the directory itself in its place"
    )]
    LinkedDictionary(DictionaryHash),
    /// It can't be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

impl Unproven {
    /// Whether the bytes are a stream of the coding all the same: then the file is a stale or
    /// unsuitable sidecar. Anything else may be an unrelated file. A truncated stream counts as
    /// that too, because brotli has no magic number and takes much plain text for the beginning of
    /// a long stream.
    pub fn decodes(&self) -> bool {
        match self {
            Self::Stale
            | Self::TooLong
            | Self::TooLarge
            | Self::Trailing
            | Self::Members
            | Self::Window
            | Self::DeltaWindow
            | Self::NoDictionary(_)
            | Self::DamagedDictionary(_)
            | Self::LinkedDictionary(_) => true,
            Self::Truncated | Self::Corrupt(_) | Self::Header | Self::Unreadable(_) => false,
        }
    }

    /// Whether it follows from the bytes of both files alone, so that it holds as long as these do.
    pub fn is_about_bytes(&self) -> bool {
        match self {
            Self::Stale
            | Self::TooLong
            | Self::TooLarge
            | Self::Truncated
            | Self::Corrupt(_)
            | Self::Trailing
            | Self::Members
            | Self::Window
            | Self::DeltaWindow
            | Self::Header => true,
            Self::NoDictionary(_)
            | Self::DamagedDictionary(_)
            | Self::LinkedDictionary(_)
            | Self::Unreadable(_) => false,
        }
    }
}

impl From<Unproven> for io::Error {
    fn from(reason: Unproven) -> Self {
        match reason {
            Unproven::Unreadable(error) => error,
            reason => Self::other(reason.to_string()),
        }
    }
}

/// What is said once of all deltas whose dictionaries are missing, and what can be done about it.
pub fn missing_dictionaries(deltas: usize, dictionaries: usize) -> String {
    let subject = match (deltas, dictionaries) {
        (1, _) => "1 delta is not used: its dictionary is".to_owned(),
        (_, 1) => format!("{deltas} deltas are not used: their dictionary is"),
        (..) => format!("{deltas} deltas are not used: their {dictionaries} dictionaries are"),
    };
    format!(
        "{subject} neither in the site nor in .etagd/dictionaries: deploy that directory with the \
         site, or run etagd compress --against again"
    )
}

/// Proves that `encoded` under `coding` is the content of `length` bytes with this BLAKE3.
///
/// # Errors
/// The reason why it is not, or why that can't be told.
pub fn prove(
    coding: Coding,
    encoded: impl Read,
    identity_hash: &[u8; 32],
    identity_length: u64,
) -> Result<(), Unproven> {
    prove_delta(coding, &[], encoded, identity_hash, identity_length)
}

/// Proves that `encoded` under `coding`, with the bytes of its dictionary, is the content of this
/// length with this BLAKE3.
///
/// # Errors
/// The reason why it is not, or why that can't be told.
pub fn prove_delta(
    coding: Coding,
    dictionary: &[u8],
    encoded: impl Read,
    identity_hash: &[u8; 32],
    identity_length: u64,
) -> Result<(), Unproven> {
    let identity = (identity_hash, identity_length);
    match decode(coding, dictionary, encoded, |decoded| {
        compare(decoded, identity)
    })? {
        true => Ok(()),
        false => Err(Unproven::Stale),
    }
}

/// Proves that `encoded` decodes under `coding`, and returns what the decoded bytes are.
///
/// # Errors
/// The reason why it does not, or why that can't be told.
pub fn decoded_text(coding: Coding, encoded: impl Read) -> Result<TextKind, Unproven> {
    decode(coding, &[], encoded, look_at)
}

/// Decodes a file, has `look` read all that comes out, and checks that nothing follows the stream.
fn decode<T>(
    coding: Coding,
    dictionary: &[u8],
    encoded: impl Read,
    look: impl FnOnce(&mut dyn Read) -> Result<T, ProofFailure>,
) -> Result<T, Unproven> {
    let failure = Cell::new(None);
    let source = BufReader::with_capacity(
        BUFFER_SIZE,
        ErrorCapture {
            inner: encoded,
            failure: &failure,
        },
    );
    decode_stream(coding, dictionary, source, look).map_err(|refused| {
        match (failure.take(), refused) {
            (Some(error), _) => Unproven::Unreadable(error),
            (None, ProofFailure::Because(reason)) => reason,
            (None, ProofFailure::ByDecoder(error)) => explain(coding, &error),
        }
    })
}

fn decode_stream<T>(
    coding: Coding,
    dictionary: &[u8],
    mut source: impl BufRead,
    look: impl FnOnce(&mut dyn Read) -> Result<T, ProofFailure>,
) -> Result<T, ProofFailure> {
    match coding {
        Coding::Identity => look(&mut { source }),
        Coding::Brotli => {
            let mut decoder = Brotli::new(source);
            let seen = look(&mut decoder)?;
            end(decoder.source)?;
            Ok(seen)
        }
        Coding::DictionaryBrotli(_) => {
            skip_header(coding, dictionary, &mut source)?;
            let mut decoder = Brotli::new(source);
            decoder.attach(dictionary)?;
            let seen = look(&mut decoder)?;
            end(decoder.source)?;
            Ok(seen)
        }
        Coding::DictionaryZstd(_) => {
            skip_header(coding, dictionary, &mut source)?;
            let limit = delta_window(dictionary.len() as u64);
            if zstd_window(source.fill_buf()?).is_some_and(|window| window > limit) {
                return Err(ProofFailure::Because(Unproven::DeltaWindow));
            }
            let mut decoder = zstd::Decoder::with_ref_prefix(source, dictionary)?;
            // Of a frame that follows another one, nobody has seen the window.
            decoder.window_log_max(limit.next_power_of_two().ilog2())?;
            look(&mut decoder)
        }
        Coding::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(source)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            // Several frames are one content (RFC 8878 section 3.1), for browsers and curl too. The
            // decoder reads to the end of the file or fails, so there is no end to check.
            look(&mut decoder)
        }
        Coding::Gzip => {
            let mut decoder = GzDecoder::new(source);
            let seen = look(&mut decoder)?;
            end(decoder.into_inner())?;
            Ok(seen)
        }
    }
}

/// Reads what a delta begins with, and checks that it is about this dictionary.
fn skip_header(
    coding: Coding,
    dictionary: &[u8],
    source: &mut impl BufRead,
) -> Result<(), ProofFailure> {
    let expected = coding.header().unwrap_or_default();
    let mut header = Vec::new();
    Read::take(&mut *source, expected.len() as u64).read_to_end(&mut header)?;
    if header != expected {
        return Err(ProofFailure::Because(Unproven::Header));
    }
    match coding.dictionary() {
        Some(hash) if *hash.as_bytes() != *Sha256::digest(dictionary) => {
            Err(ProofFailure::Because(Unproven::NoDictionary(hash)))
        }
        _ => Ok(()),
    }
}

/// The largest window of `dcz` with a dictionary of this length (RFC 9842 section 5).
pub(crate) fn delta_window(dictionary_length: u64) -> u64 {
    let by_dictionary = dictionary_length.saturating_add(dictionary_length / 4);
    by_dictionary.clamp(1 << MAX_ZSTD_WINDOW_LOG, 1 << MAX_DELTA_WINDOW_LOG)
}

/// The window that a zstd frame asks for: in its window descriptor, or all of its content (RFC 8878
/// section 3.1.1.1). `None` where it can't be told; the decoder limits it in any case.
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let [_, _, _, _, descriptor, rest @ ..] = frame else {
        return None;
    };
    let is_single_segment = descriptor & 0b0010_0000 != 0;
    if !is_single_segment {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 0b111));
    }
    let id_length = [0, 1, 2, 4][usize::from(descriptor & 0b11)];
    let size = rest.get(id_length..)?;
    let number = |length: usize| {
        let bytes = size.get(..length)?;
        Some((bytes.iter().rev()).fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => number(2).map(|size| size + 256),
        2 => number(4),
        _ => number(8),
    }
}

/// BLAKE3 and length of the file that a sidecar has to decode to.
type Identity<'a> = (&'a [u8; 32], u64);

/// What stopped a proof: a reason of ours, or an error of the decoder.
enum ProofFailure {
    Because(Unproven),
    ByDecoder(io::Error),
}

impl From<io::Error> for ProofFailure {
    fn from(error: io::Error) -> Self {
        Self::ByDecoder(error)
    }
}

/// Whether `decoded` yields exactly the identity. Stops as soon as it is too long.
fn compare(decoded: &mut dyn Read, (hash, length): Identity<'_>) -> Result<bool, ProofFailure> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let read = match decoded.read(&mut buffer) {
            Ok(0) => return Ok(hasher.count() == length && hasher.finalize() == *hash),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        hasher.update(&buffer[..read]);
        if hasher.count() > length {
            return Err(ProofFailure::Because(Unproven::TooLong));
        }
    }
}

/// What the decoded bytes are. Stops when there are too many of them.
fn look_at(decoded: &mut dyn Read) -> Result<TextKind, ProofFailure> {
    let mut pieces = Vec::new();
    let (mut buffer, mut length) = (Vec::new(), 0);
    loop {
        buffer.clear();
        // As long as a group of a file: the first piece has to hold what its file begins with.
        let read = Read::take(&mut *decoded, GROUP_SIZE).read_to_end(&mut buffer)? as u64;
        if read == 0 {
            return Ok(text_kind(&pieces));
        }
        pieces.push(TextEvidence::of(&buffer, length));
        length += read;
        if length > MAX_DECODED {
            return Err(ProofFailure::Because(Unproven::TooLarge));
        }
    }
}

/// Checks that the file ends where the stream has ended.
fn end(mut source: impl BufRead) -> Result<(), ProofFailure> {
    const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
    match source.fill_buf()? {
        [] => Ok(()),
        rest if rest.starts_with(GZIP_MAGIC) => Err(ProofFailure::Because(Unproven::Members)),
        _ => Err(ProofFailure::Because(Unproven::Trailing)),
    }
}

fn explain(coding: Coding, error: &io::Error) -> Unproven {
    // zstd has an error code for this, but its crate exposes only the text; a test pins it.
    let is_window = || error.to_string().contains("requires too much memory");
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Unproven::Truncated,
        _ if coding == Coding::Zstd && is_window() => Unproven::Window,
        _ if matches!(coding, Coding::DictionaryZstd(_)) && is_window() => Unproven::DeltaWindow,
        _ => Unproven::Corrupt(coding),
    }
}

/// A decoder of one brotli stream. The crate's own reader accepts large windows and silently
/// ignores what follows the end of the stream.
struct Brotli<R> {
    source: R,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
}

impl<R: BufRead> Brotli<R> {
    fn new(source: R) -> Self {
        let allocator = StandardAlloc::default;
        Self {
            source,
            state: BrotliState::new_strict(allocator(), allocator(), allocator()),
        }
    }

    /// Has the stream refer to a dictionary.
    fn attach(&mut self, dictionary: &[u8]) -> Result<(), ProofFailure> {
        let is_attached = self.state.attach_dictionary(dictionary.to_vec().into());
        match is_attached {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
    }
}

impl<R: BufRead> Read for Brotli<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut room, mut written, mut total) = (buffer.len(), 0, 0);
        loop {
            let input = self.source.fill_buf()?;
            let (mut available, mut taken) = (input.len(), 0);
            let is_at_end = input.is_empty();
            let result = BrotliDecompressStream(
                &mut available,
                &mut taken,
                input,
                &mut room,
                &mut written,
                buffer,
                &mut total,
                &mut self.state,
            );
            self.source.consume(taken);
            match result {
                BrotliResult::ResultSuccess | BrotliResult::NeedsMoreOutput => return Ok(written),
                BrotliResult::NeedsMoreInput if written > 0 => return Ok(written),
                BrotliResult::NeedsMoreInput if is_at_end => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                BrotliResult::NeedsMoreInput => {}
                BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// Keeps the error of the file, because decoders report it as a broken stream.
struct ErrorCapture<'a, R> {
    inner: R,
    failure: &'a Cell<Option<io::Error>>,
}

impl<R: Read> Read for ErrorCapture<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut result = self.inner.read(buffer);
        for _ in 0..MAX_INTERRUPTIONS {
            match &result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    result = self.inner.read(buffer);
                }
                _ => break,
            }
        }
        result.map_err(|error| {
            self.failure.set(Some(error));
            // Never `Interrupted`: flate2's decoder, asked again after that in the middle of a
            // header, takes a good stream for a broken one.
            io::ErrorKind::Other.into()
        })
    }
}

/// RFC 9659 section 3: 8 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// RFC 9842 section 5: 128 MiB.
pub(crate) const MAX_DELTA_WINDOW_LOG: u32 = 27;

/// How often in a row a read is repeated that a signal has interrupted.
const MAX_INTERRUPTIONS: usize = 16;

/// Large enough for BLAKE3 to hash 16 chunks at once with AVX-512.
const BUFFER_SIZE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use Coding::{Brotli, Gzip, Zstd};

    const CODINGS: [Coding; 3] = [Brotli, Zstd, Gzip];

    fn encode(coding: Coding, identity: impl Read) -> Vec<u8> {
        let mut identity = identity;
        match coding {
            Brotli => {
                let mut encoded = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
                io::copy(&mut identity, &mut encoded).expect("encoded");
                encoded.into_inner()
            }
            Zstd => zstd::encode_all(identity, 3).expect("encoded"),
            Gzip => {
                let level = flate2::Compression::default();
                let mut encoded = flate2::write::GzEncoder::new(Vec::new(), level);
                io::copy(&mut identity, &mut encoded).expect("encoded");
                encoded.finish().expect("encoded")
            }
            _ => unreachable!("not a sidecar's"),
        }
    }

    fn prove_for(coding: Coding, encoded: &[u8], identity: &[u8]) -> Result<(), Unproven> {
        let hash = *blake3::hash(identity).as_bytes();
        prove(coding, encoded, &hash, identity.len() as u64)
    }

    fn text(lines: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for line in 0..lines {
            writeln!(text, "line {line} of a text, {}", line * line % 977).expect("written");
        }
        text
    }

    #[test]
    fn what_decodes_to_the_file_is_proven() {
        let texts = [text(0), text(1), text(40), text(50_000), vec![0; 1 << 20]];
        for coding in CODINGS {
            for identity in &texts {
                let encoded = encode(coding, &identity[..]);
                let proof = prove_for(coding, &encoded, identity);
                assert!(proof.is_ok(), "{coding:?} {}: {proof:?}", identity.len());
            }
        }
    }

    #[test]
    fn what_does_not_is_refused_for_its_reason() {
        let identity = &text(400)[..];
        let two = |coding, end: usize| {
            let (first, second) = identity.split_at(identity.len() / 2);
            [
                encode(coding, first),
                encode(coding, &second[..second.len() - end]),
            ]
            .concat()
        };
        let plus = |coding, rest: &[u8]| [&encode(coding, identity), rest].concat();
        let wide = {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
            encoder.window_log(24).expect("a window log");
            encoder.write_all(identity).expect("written");
            encoder.finish().expect("encoded")
        };
        let mut large_window = Vec::new();
        let parameters = brotli::enc::BrotliEncoderParams {
            large_window: true,
            lgwin: 28,
            ..Default::default()
        };
        brotli::BrotliCompress(&mut &identity[..], &mut large_window, &parameters)
            .expect("encoded");
        #[rustfmt::skip]
        let cases: Vec<(&str, Coding, Vec<u8>, &str)> = vec![
            ("empty", Brotli, vec![], "Truncated"),
            ("empty", Zstd, vec![], "Truncated"),
            ("empty", Gzip, vec![], "Truncated"),
            ("older text", Brotli, encode(Brotli, &text(399)[..]), "Stale"),
            ("older text", Zstd, encode(Zstd, &text(399)[..]), "Stale"),
            ("older text", Gzip, encode(Gzip, &text(399)[..]), "Stale"),
            ("longer text", Brotli, encode(Brotli, &text(401)[..]), "TooLong"),
            ("longer text", Zstd, encode(Zstd, &text(401)[..]), "TooLong"),
            ("longer text", Gzip, encode(Gzip, &text(401)[..]), "TooLong"),
            ("nothing encoded", Brotli, encode(Brotli, &[][..]), "Stale"),
            ("nothing encoded", Zstd, encode(Zstd, &[][..]), "Stale"),
            ("nothing encoded", Gzip, encode(Gzip, &[][..]), "Stale"),
            ("the file itself", Brotli, identity.to_vec(), "Truncated"),
            ("the file itself", Zstd, identity.to_vec(), "Corrupt(Zstd)"),
            ("the file itself", Gzip, identity.to_vec(), "Corrupt(Gzip)"),
            ("gzip named br", Brotli, encode(Gzip, identity), "Corrupt(Brotli)"),
            ("brotli named zst", Zstd, encode(Brotli, identity), "Corrupt(Zstd)"),
            ("zstd named gz", Gzip, encode(Zstd, identity), "Corrupt(Gzip)"),
            ("a byte more", Brotli, plus(Brotli, b"\0"), "Trailing"),
            ("a byte more", Zstd, plus(Zstd, b"\0"), "Corrupt(Zstd)"),
            ("a byte more", Gzip, plus(Gzip, b"\0"), "Trailing"),
            ("a line more", Brotli, plus(Brotli, b"a line more\n"), "Trailing"),
            ("a line more", Zstd, plus(Zstd, b"a line more\n"), "Corrupt(Zstd)"),
            ("a line more", Gzip, plus(Gzip, b"a line more\n"), "Trailing"),
            ("a buffer more", Brotli, plus(Brotli, &[7; 3 * BUFFER_SIZE]), "Trailing"),
            ("a buffer more", Gzip, plus(Gzip, &[7; 3 * BUFFER_SIZE]), "Trailing"),
            ("two streams", Brotli, two(Brotli, 0), "Trailing"),
            ("RFC 1952 2.2 two members", Gzip, two(Gzip, 0), "Members"),
            ("RFC 1952 2.2 a second, empty member", Gzip, plus(Gzip, &encode(Gzip, &[][..])), "Members"),
            ("RFC 8878 3.1 two frames", Zstd, two(Zstd, 0), "proven"),
            ("RFC 8878 3.1 two frames, the second stale", Zstd, two(Zstd, 1), "Stale"),
            ("RFC 8878 3.1.2 a skippable frame", Zstd, plus(Zstd, b"\x50\x2a\x4d\x18\x02\0\0\0ab"), "proven"),
            ("RFC 9659 3 a window of 16 MiB", Zstd, wide, "Window"),
            ("RFC 7932 9.1 a large window", Brotli, large_window, "Corrupt(Brotli)"),
        ];
        for (name, coding, encoded, want) in cases {
            let is = match prove_for(coding, &encoded, identity) {
                Ok(()) => "proven".to_owned(),
                Err(reason) => format!("{reason:?}"),
            };
            assert_eq!(is, want, "{name}, {coding:?}");
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_refused() {
        let identity = text(30);
        for coding in CODINGS {
            let encoded = encode(coding, &identity[..]);
            for length in 0..encoded.len() {
                let reason = prove_for(coding, &encoded[..length], &identity);
                let reason = reason.expect_err("refused");
                assert!(
                    matches!(reason, Unproven::Truncated),
                    "{coding:?} at {length} of {}: {reason:?}",
                    encoded.len()
                );
            }
        }
    }

    #[test]
    fn a_changed_byte_is_proven_only_where_it_changes_nothing() {
        let identity = text(30);
        for coding in CODINGS {
            let encoded = encode(coding, &identity[..]);
            for place in 0..encoded.len() {
                for flip in [0x01, 0x10, 0x80, 0xff] {
                    let mut changed = encoded.clone();
                    changed[place] ^= flip;
                    if prove_for(coding, &changed, &identity).is_ok() {
                        assert_eq!(decode(coding, &changed), identity, "{coding:?} {place}");
                    }
                }
            }
        }
    }

    fn decode(coding: Coding, encoded: &[u8]) -> Vec<u8> {
        let mut identity = Vec::new();
        let decoded = match coding {
            Brotli => brotli::Decompressor::new(encoded, 4096).read_to_end(&mut identity),
            Zstd => {
                zstd::Decoder::new(encoded).and_then(|mut zstd| zstd.read_to_end(&mut identity))
            }
            Gzip => GzDecoder::new(encoded).read_to_end(&mut identity),
            _ => unreachable!("not a sidecar's"),
        };
        decoded.expect("decoded");
        identity
    }

    /// What decodes to 4 GiB of zeros: a stream's beginning, then the same mebibyte over and over.
    fn bomb(coding: Coding) -> Vec<u8> {
        let zeros = vec![0; 1 << 20];
        let (mut beginning, again) = match coding {
            Brotli => {
                let encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 16);
                flushed_twice(encoder, &zeros, |encoder| encoder.get_ref())
            }
            Gzip => {
                let level = flate2::Compression::default();
                let encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                flushed_twice(encoder, &zeros, |encoder| encoder.get_ref())
            }
            _ => (Vec::new(), encode(coding, &zeros[..])),
        };
        beginning.extend(again.repeat(1 << 12));
        beginning
    }

    /// The encoded form of `bytes`, and of the same bytes once more in that stream.
    fn flushed_twice<W: Write>(
        mut encoder: W,
        bytes: &[u8],
        encoded: impl Fn(&W) -> &Vec<u8>,
    ) -> (Vec<u8>, Vec<u8>) {
        encoder.write_all(bytes).expect("written");
        encoder.flush().expect("flushed");
        let first = encoded(&encoder).clone();
        encoder.write_all(bytes).expect("written");
        encoder.flush().expect("flushed");
        let second = encoded(&encoder)[first.len()..].to_vec();
        (first, second)
    }

    /// Counts what is read of it.
    struct CountingReader<'a>(&'a [u8], &'a Cell<usize>);

    impl Read for CountingReader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(buffer)?;
            self.1.set(self.1.get() + read);
            Ok(read)
        }
    }

    #[test]
    fn a_bomb_is_left_after_the_first_byte_too_many() {
        let identity = vec![0; 100_000];
        let hash = *blake3::hash(&identity).as_bytes();
        for coding in CODINGS {
            let bomb = bomb(coding);
            assert!(
                bomb.len() > 3 * BUFFER_SIZE,
                "{coding:?}: {} bytes",
                bomb.len()
            );
            let read = Cell::new(0);
            let reason = prove(
                coding,
                CountingReader(&bomb, &read),
                &hash,
                identity.len() as u64,
            );
            let reason = reason.expect_err("refused");
            assert!(matches!(reason, Unproven::TooLong), "{coding:?} {reason:?}");
            assert!(
                read.get() <= BUFFER_SIZE,
                "{coding:?}: {} bytes",
                read.get()
            );
        }
    }

    #[test]
    fn an_error_of_the_file_is_not_taken_for_a_broken_stream() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let identity = text(30_000);
        let hash = *blake3::hash(&identity).as_bytes();
        for coding in CODINGS {
            let encoded = encode(coding, &identity[..]);
            let torn = encoded[..encoded.len() / 2].chain(Failing);
            let reason = prove(coding, torn, &hash, identity.len() as u64).expect_err("refused");
            assert_eq!(reason.to_string(), "it cannot be read: the disk is gone");
        }
    }
}
