//! HTTP/2 by hand, for what no client does: frames of any kind in any order.

// Each test crate uses its own part of this module.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::support::wire::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub(crate) fn error_code(&self) -> u32 {
        let from = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[from..from + 4].try_into().unwrap())
    }

    /// The status of HEADERS, which comes first (RFC 9113 section 8.3).
    pub(crate) fn status(&self) -> u16 {
        // RFC 7541 section 6.3: the tables may change their size before.
        let is_size = |byte: &&u8| **byte & 0xe0 == 0x20;
        let sizes = self.payload.iter().take_while(is_size).count();
        match &self.payload[sizes..] {
            // Entries 8 to 14 of the static table.
            [byte @ 0x88..=0x8e, ..] => {
                [200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)]
            }
            // A value of its own for entry 8, in three plain digits or in Huffman code.
            [0x48 | 0x08, 3, rest @ ..] => {
                let digits = std::str::from_utf8(&rest[..3]);
                digits.unwrap().parse().unwrap()
            }
            [0x48 | 0x08, length, rest @ ..] if length & 0x80 != 0 => {
                huffman_digits(&rest[..usize::from(length & 0x7f)])
            }
            other => panic!("no status: {other:?}"),
        }
    }
}

/// Three digits in Huffman code (RFC 7541 appendix B): 0, 1 and 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u16> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)))
        .collect();
    let value = |bits: &[u16]| bits.iter().fold(0, |value, bit| value * 2 + bit);
    let (mut number, mut at) = (0, 0);
    for _ in 0..3 {
        let (digit, length) = match value(&bits[at..at + 5]) {
            short @ 0..3 => (short, 5),
            _ => (value(&bits[at..at + 6]) - 0x19 + 3, 6),
        };
        number = number * 10 + digit;
        at += length;
    }
    number
}

/// The bytes of a frame (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = pairs
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A field that enters no table, without Huffman coding (RFC 7541 section 6.2.2).
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(&mut bytes, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The field block of a GET.
pub(crate) fn get(target: &str) -> Vec<u8> {
    // `:method: GET` and `:scheme: http` are entries 2 and 6 of the static table.
    [
        &[0x82, 0x86][..],
        &literal(":authority", "localhost"),
        &literal(":path", target),
    ]
    .concat()
}

/// A whole request in one frame.
pub(crate) fn request(stream: u32, target: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(target))
}

/// A connection whose preface is sent.
pub(crate) struct Http2<S: Read + Write = TcpStream> {
    stream: S,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr, pairs: &[(u16, u32)]) -> Self {
        let mut client = Self::connect_raw(address);
        client.begin(pairs);
        client
    }

    /// A connection on which nothing is sent.
    pub(crate) fn connect_raw(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl<S: Read + Write> Http2<S> {
    /// The same over any stream.
    pub(crate) fn over(stream: S, pairs: &[(u16, u32)]) -> Self {
        let mut client = Self { stream };
        client.begin(pairs);
        client
    }

    /// The stream, with what has not been read of it.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    fn begin(&mut self, pairs: &[(u16, u32)]) {
        self.send(PREFACE).unwrap();
        self.send(settings(pairs)).unwrap();
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// The next frame; none where the connection has ended.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    /// Frames until one fulfils a condition, and it; none where the connection ends before.
    pub(crate) fn wait_for(&mut self, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.receive()?;
            if is_it(&frame) {
                return Some(frame);
            }
        }
    }

    /// Asserts that a request on this stream is answered 200, and reads its answer to the end.
    pub(crate) fn assert_answers(&mut self, stream: u32, target: &str) {
        self.send(request(stream, target)).unwrap();
        let head = self
            .wait_for(|frame| frame.stream == stream && frame.kind == HEADERS)
            .expect("a response, not the end of the connection");
        assert_eq!(head.status(), 200);
        if head.flags & END_STREAM == 0 {
            self.wait_for(|frame| frame.stream == stream && frame.flags & END_STREAM != 0)
                .expect("the end of the response");
        }
    }
}
