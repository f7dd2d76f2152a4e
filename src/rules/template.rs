//! Texts in which `:name` stands for what a pattern has captured.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

use super::pattern::{MAX_NAMES, name, placeholder};
use crate::semantics::target::encode_path;

/// A text with captured pieces in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template(Box<[Part]>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(Box<[u8]>),
    /// The number of a name.
    Captured(usize),
}

impl Template {
    /// Reads a text. A name that is not among `names` is text like any other; `literal` says what
    /// becomes of text.
    ///
    /// # Errors
    /// Where too many pieces would be put together.
    pub(super) fn parse(
        text: &[u8],
        names: &[Box<str>],
        literal: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        let push_literal = |text: &[u8], parts: &mut Vec<Part>| {
            if !text.is_empty() {
                parts.push(Part::Literal(literal(text).into()));
            }
        };
        let (mut rest, mut from, mut captured) = (text, 0, 0);
        while let Some(at) = placeholder(rest, from) {
            let Some((number, length)) = known(rest.get(at + 1..).unwrap_or_default(), names)
            else {
                from = at + 1;
                continue;
            };
            push_literal(rest.get(..at).unwrap_or_default(), &mut parts);
            parts.push(Part::Captured(number));
            captured += 1;
            if captured > MAX_NAMES {
                return Err("more than 16 placeholders in the target");
            }
            rest = rest.get(at + 1 + length..).unwrap_or_default();
            from = 0;
        }
        push_literal(rest, &mut parts);
        Ok(Self(parts.into()))
    }

    /// The text, where nothing of it is captured.
    pub(super) fn literal(&self) -> Option<&[u8]> {
        match &*self.0 {
            [] => Some(&[]),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether a name was left in its text, because nothing is known by it.
    pub(super) fn has_unknown_names(&self) -> bool {
        self.0.iter().any(|part| match part {
            Part::Literal(text) => placeholder(text, 0).is_some(),
            Part::Captured(_) => false,
        })
    }

    /// A text that only equal templates share; it goes into the hash of the rules.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.extend_from_slice(literal),
                Part::Captured(number) => text.extend([0, u8::try_from(*number).unwrap_or(0)]),
            }
        }
        text
    }

    /// Appends the text with what `captured` has for each name, as `encode` writes it.
    pub(super) fn fill<'p>(
        &self,
        out: &mut Vec<u8>,
        captured: impl Fn(usize) -> &'p [u8],
        encode: impl Fn(&[u8], &mut Vec<u8>),
    ) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Captured(number) => encode(captured(*number), out),
            }
        }
    }
}

/// The longest known name that `text` begins with: its number and its length.
fn known(text: &[u8], names: &[Box<str>]) -> Option<(usize, usize)> {
    let mut length = name(text, b"-");
    loop {
        let wanted = text.get(..length)?;
        if let Some(number) = names.iter().position(|name| name.as_bytes() == wanted) {
            return Some((number, length));
        }
        length = wanted.iter().rposition(|byte| *byte == b'-')?;
    }
}

/// A piece of a path (RFC 3986 3.3): whatever it is, it ends up in the path.
pub(super) fn in_path(piece: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(encode_path(piece).as_bytes());
}

/// A piece of a query (RFC 3986 3.4).
pub(super) fn in_query(piece: &[u8], out: &mut Vec<u8>) {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    percent_encode(piece, ESCAPED).for_each(|text| out.extend_from_slice(text.as_bytes()));
}

/// Appends the bytes unchanged: the path of a file, not of a URL.
pub(super) fn as_it_is(piece: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(piece);
}

/// What an author wrote for a URI, with what no URI has escaped; escapes stay.
pub(super) fn as_uri(text: &[u8]) -> Vec<u8> {
    const ESCAPED: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'<')
        .add(b'>')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    let mut out = Vec::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        let is_escape = || {
            let digits = text.get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        match byte {
            b'%' if !is_escape() => out.extend_from_slice(b"%25"),
            _ => percent_encode(std::slice::from_ref(byte), ESCAPED)
                .for_each(|text| out.extend_from_slice(text.as_bytes())),
        }
    }
    out
}
