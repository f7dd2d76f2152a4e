//! What a browser makes of a delta (RFC 9842).

use std::io::{ErrorKind, Read};

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressCustomIoCustomDict, IoReaderWrapper, IoWriterWrapper};
use sha2::{Digest, Sha256};

/// The content of a delta under `dcb` or `dcz`, for a client that has this dictionary.
pub(crate) fn decode(delta: &[u8], coding: &str, dictionary: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let length = match coding {
        "dcb" => 36,
        "dcz" => 40,
        other => panic!("{other} is no delta"),
    };
    let (header, stream) = delta.split_at(length);
    assert!(header.ends_with(&Sha256::digest(dictionary)));
    match coding {
        "dcb" => {
            BrotliDecompressCustomIoCustomDict(
                &mut IoReaderWrapper(&mut &*stream),
                &mut IoWriterWrapper(&mut decoded),
                &mut [0; 4096],
                &mut [0; 4096],
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
                dictionary.to_vec().into(),
                ErrorKind::UnexpectedEof.into(),
            )
            .unwrap();
        }
        _ => {
            let mut decoder = zstd::Decoder::with_ref_prefix(stream, dictionary).unwrap();
            decoder.read_to_end(&mut decoded).unwrap();
        }
    }
    decoded
}
