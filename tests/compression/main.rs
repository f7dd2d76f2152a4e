//! `--compress`: content codings that are made before a file is published, and `--cache`, where they
//! are kept.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod replicas;
mod served;

use std::io::Read;

use support::{Response, noise};

/// Lines of text of about this length in bytes, other ones for each seed.
fn prose(length: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "etag", "of", "the", "content", "replica", "digest", "is", "proven",
    ];
    let words = noise(length / 4, seed);
    let mut text = Vec::with_capacity(length);
    for (at, byte) in words.into_iter().enumerate() {
        if text.len() >= length {
            break;
        }
        text.extend_from_slice(WORDS[usize::from(byte % 8)].as_bytes());
        text.push(if at % 12 == 11 { b'\n' } else { b' ' });
    }
    text.truncate(length);
    text
}

/// Text that hardly gets shorter: three of four bytes stay.
fn dense(length: usize, seed: u64) -> Vec<u8> {
    let alphabet: Vec<u8> = (b'0'..=b'9')
        .chain(b'A'..=b'Z')
        .chain(b'a'..=b'z')
        .collect();
    let bytes = noise(length, seed).into_iter();
    bytes
        .map(|byte| alphabet[usize::from(byte) % alphabet.len()])
        .collect()
}

/// What a response decodes to.
fn decoded(response: &Response) -> Vec<u8> {
    let mut content = Vec::new();
    let body = &response.body[..];
    match response.field("Content-Encoding") {
        None => content.extend_from_slice(body),
        Some("br") => {
            brotli::Decompressor::new(body, 4096)
                .read_to_end(&mut content)
                .unwrap();
        }
        Some("gzip") => {
            flate2::read::GzDecoder::new(body)
                .read_to_end(&mut content)
                .unwrap();
        }
        Some("zstd") => {
            zstd::Decoder::new(body)
                .unwrap()
                .read_to_end(&mut content)
                .unwrap();
        }
        Some(other) => panic!("{other}"),
    }
    content
}
