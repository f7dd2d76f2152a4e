//! How a delta is encoded (RFC 9842): pure. Equal input gives equal output on any machine, as long as
//! the encoders are the same version.

use std::io::{self, Write};

use brotli::enc::{BrotliEncoderParams, StandardAlloc};

use super::SidecarError;
use crate::scan::MAX_DICTIONARY_LENGTH;
use crate::scan::sidecar::{MAX_DELTA_WINDOW_LOG, Unproven, delta_window, prove_delta};
use crate::semantics::coding::Coding;

/// The most bytes that dictionary and content may have together in brotli. Its encoder has both in
/// one window of 2^24 bytes, less 16 (RFC 7932 section 9.1); of what is longer it would take the
/// end alone, and mean other distances than the decoder.
pub(super) const MAX_BROTLI_LENGTH: u64 = (1 << 24) - 16;
const BUFFER_SIZE: usize = 64 << 10;

/// Whether content of this length can be encoded with a dictionary of that one.
pub(super) fn is_possible(coding: Coding, dictionary_length: u64, length: u64) -> bool {
    match coding {
        Coding::DictionaryBrotli(_) => {
            dictionary_length.saturating_add(length) <= MAX_BROTLI_LENGTH
        }
        Coding::DictionaryZstd(_) => dictionary_length <= MAX_DICTIONARY_LENGTH,
        Coding::Identity | Coding::Brotli | Coding::Zstd | Coding::Gzip => false,
    }
}

/// How brotli's encoder looks for what the content has in common with its dictionary.
#[derive(Clone, Copy)]
enum Search {
    /// The shortest path through all matches. With a dictionary, some of its streams do not decode,
    /// where many short pieces differ.
    Optimal,
    /// The best match at each place, which is its level 9.5: up to a tenth longer, at times shorter.
    Greedy,
}

/// The first one whose stream is proven is taken.
const SEARCHES: [Search; 2] = [Search::Optimal, Search::Greedy];

/// Encodes `bytes` with a dictionary, at the highest level whose stream is proven.
///
/// # Errors
/// When an encoder runs out of memory, or what it writes does not decode.
pub(super) fn encode(
    coding: Coding,
    dictionary: &[u8],
    bytes: &[u8],
) -> Result<Vec<u8>, SidecarError> {
    let header = coding.header().unwrap_or_default();
    let hash = *blake3::hash(bytes).as_bytes();
    let prove =
        |encoded: &[u8]| prove_delta(coding, dictionary, encoded, &hash, bytes.len() as u64);
    match coding {
        Coding::DictionaryZstd(_) => {
            let encoded = zstd(header, dictionary, bytes)?;
            prove(&encoded).map_err(SidecarError::Encoder)?;
            Ok(encoded)
        }
        _ => proven_brotli(&header, dictionary, bytes, prove),
    }
}

fn proven_brotli(
    header: &[u8],
    dictionary: &[u8],
    bytes: &[u8],
    prove: impl Fn(&[u8]) -> Result<(), Unproven>,
) -> Result<Vec<u8>, SidecarError> {
    for search in SEARCHES {
        let encoded = brotli(search, header.to_vec(), dictionary, bytes)?;
        if prove(&encoded).is_ok() {
            return Ok(encoded);
        }
    }
    Err(SidecarError::BrotliEncoder)
}

fn brotli(search: Search, header: Vec<u8>, dictionary: &[u8], bytes: &[u8]) -> io::Result<Vec<u8>> {
    let total = dictionary.len() + bytes.len();
    let window = (16..24).find(|log| total <= (1 << log) - 16).unwrap_or(24);
    let parameters = BrotliEncoderParams {
        quality: 11,
        q9_5: matches!(search, Search::Greedy),
        lgwin: window,
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut encoded = header;
    brotli::BrotliCompressCustomIoCustomDict(
        &mut brotli::IoReaderWrapper(&mut &*bytes),
        &mut brotli::IoWriterWrapper(&mut encoded),
        &mut [0; BUFFER_SIZE],
        &mut [0; BUFFER_SIZE],
        &parameters,
        StandardAlloc::default(),
        &mut |_, _, _, _| (),
        dictionary,
        io::ErrorKind::UnexpectedEof.into(),
    )?;
    Ok(encoded)
}

fn zstd(header: Vec<u8>, dictionary: &[u8], bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::with_ref_prefix(header, 19, dictionary)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    // Without it, what an old bundle has far from its place in the new one is not found.
    encoder.long_distance_matching(true)?;
    encoder.window_log(window_log(dictionary.len() as u64, bytes.len() as u64))?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The binary logarithm of the window: one for all of the dictionary and the content, for a decoder
/// needs no more than the content of that. Where the content itself is longer than a window may be
/// (RFC 9842 section 5), the largest one that may be.
fn window_log(dictionary_length: u64, length: u64) -> u32 {
    let limit = delta_window(dictionary_length);
    let log = match length <= limit {
        true => (dictionary_length + length).next_power_of_two().ilog2(),
        false => limit.ilog2(),
    };
    log.clamp(10, MAX_DELTA_WINDOW_LOG)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::compress::{SidecarProblem, SidecarWork};
    use crate::semantics::dictionary::DictionaryHash;

    fn text(lines: usize, seed: usize) -> Vec<u8> {
        let line = |n| {
            format!(
                "export const v{n}=f({},{:x});\n",
                n % 97,
                n * 40_503 % 65_521
            )
        };
        let lines = (0..lines).map(|n| match n % 50 {
            7 => line(n + seed),
            _ => line(n),
        });
        lines.flat_map(String::into_bytes).collect()
    }

    fn codings(dictionary: &[u8]) -> [Coding; 2] {
        Coding::with_dictionary(DictionaryHash::new(Sha256::digest(dictionary).into()))
    }

    fn prove(
        coding: Coding,
        dictionary: &[u8],
        encoded: &[u8],
        bytes: &[u8],
    ) -> Result<(), Unproven> {
        let hash = *blake3::hash(bytes).as_bytes();
        prove_delta(coding, dictionary, encoded, &hash, bytes.len() as u64)
    }

    #[test]
    fn what_is_encoded_is_proven_with_its_dictionary_alone() {
        let cases = [
            (2000, 2000),
            (0, 300),
            (300, 0),
            (1, 1),
            (1500, 1200),
            (40, 1500),
        ];
        for (old, new) in cases {
            let (old, new) = (text(old, 0), text(new, 1));
            for coding in codings(&old) {
                let encoded = encode(coding, &old, &new).expect("encoded");
                let proof = prove(coding, &old, &encoded, &new);
                assert!(proof.is_ok(), "{} <- {}: {proof:?}", new.len(), old.len());
                assert_eq!(encoded, encode(coding, &old, &new).expect("encoded again"));
                let mut other = old.clone();
                if let Some(byte) = other.last_mut() {
                    *byte ^= 1;
                    let proof = prove(coding, &other, &encoded, &new);
                    assert!(matches!(proof, Err(Unproven::NoDictionary(_))), "{proof:?}");
                    let other = codings(&other)[0];
                    let proof = prove(other, &old, &encoded, &new);
                    assert!(matches!(proof, Err(Unproven::Header)), "{proof:?}");
                }
            }
        }
    }

    /// A number in each line, all of which are greater by `step` in the next release.
    fn numbers(lines: usize, step: usize) -> Vec<u8> {
        let lines = (0..lines).map(|n| format!("let v{n} = {};\n", n * 7919 + step));
        lines.flat_map(String::into_bytes).collect()
    }

    #[test]
    fn what_the_best_search_gets_wrong_is_encoded_with_another() {
        let cases = [(300, 1), (400, 1), (500, 1), (800, 1), (800, 7), (1500, 1)];
        for (lines, step) in cases {
            let (old, new) = (numbers(lines, 0), numbers(lines, step));
            let [coding, _] = codings(&old);
            let encoded = encode(coding, &old, &new).expect("encoded");
            let proof = prove(coding, &old, &encoded, &new);
            assert!(proof.is_ok(), "{lines} lines by {step}: {proof:?}");
            assert!(encoded.len() < 4096, "{} bytes", encoded.len());
            assert_eq!(encoded, encode(coding, &old, &new).expect("encoded again"));
        }
    }

    /// Where no search has a stream that is proven, there is no delta in brotli, and nothing has failed.
    #[test]
    fn a_stream_that_is_not_proven_is_no_failure() {
        let (old, new) = (text(40, 0), text(40, 1));
        let refuse = |_: &[u8]| Err(Unproven::Stale);
        let error = proven_brotli(b"", &old, &new, refuse).expect_err("not proven");
        assert!(matches!(error, SidecarError::BrotliEncoder), "{error}");
        assert!(error.is_note());
        let path = "app.js".into();
        assert!(!SidecarProblem { path, error }.is_failure(SidecarWork::Write));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let (old, new) = (text(150, 0), text(150, 1));
        for coding in codings(&old) {
            let encoded = encode(coding, &old, &new).expect("encoded");
            assert!(encoded.len() < 600, "{coding:?}: {} bytes", encoded.len());
            for at in 0..encoded.len() {
                let mut damaged = encoded.clone();
                damaged[at] ^= 1 << (at % 8);
                if damaged == encoded {
                    continue;
                }
                // A bit that means nothing to the format may decode to the same bytes.
                if prove(coding, &old, &damaged, &new).is_ok() {
                    assert!(at >= coding.header().expect("a header").len(), "{at}");
                }
                let cut = prove(coding, &old, &encoded[..at], &new);
                assert!(cut.is_err(), "{coding:?} cut at {at}");
            }
            let longer = [&encoded[..], b"x"].concat();
            assert!(prove(coding, &old, &longer, &new).is_err());
            assert!(matches!(
                prove(coding, &old, &encoded, &old),
                Err(Unproven::Stale | Unproven::TooLong)
            ));
        }
    }

    #[test]
    fn windows_are_those_that_clients_decode() {
        const MIB: u64 = 1 << 20;
        for (dictionary, length, want) in [
            (0, 0, 10),
            (MIB, MIB, 21),
            (MIB, 8 * MIB, 24),
            (MIB, 9 * MIB, 23),
            (20 * MIB, 25 * MIB, 26),
            (20 * MIB, 26 * MIB, 24),
            (96 * MIB, 120 * MIB, 27),
            (96 * MIB, 121 * MIB, 26),
        ] {
            assert_eq!(
                window_log(dictionary, length),
                want,
                "{dictionary} {length}"
            );
        }
        let [brotli, zstd] = codings(b"");
        assert!(is_possible(brotli, 8 * MIB, 8 * MIB - 16));
        assert!(!is_possible(brotli, 8 * MIB, 8 * MIB - 15));
        assert!(!is_possible(brotli, u64::MAX, u64::MAX));
        assert!(is_possible(zstd, 8 * MIB, 8 * MIB));
        assert!(!is_possible(zstd, 97 * MIB, 1));
        assert!(!is_possible(Coding::Brotli, 1, 1));
    }

    /// The bytes of a release: another version of an encoder changes them, and then the tags of
    /// deltas. Where that is meant, the changelog says so.
    #[test]
    fn equal_bytes_give_these_bytes() {
        let (old, new) = (text(2000, 0), text(2000, 1));
        let found = codings(&old).map(|coding| {
            let encoded = encode(coding, &old, &new).expect("encoded");
            let hash = blake3::hash(&encoded).to_hex();
            format!("{} {} {}", coding.token(), encoded.len(), &hash[..16])
        });
        assert_eq!(found, GOLDEN);
    }

    const GOLDEN: [&str; 2] = ["dcb 148 3dca62fbe2bbbda9", "dcz 183 5bc122f93c062a00"];
}
