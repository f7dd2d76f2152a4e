//! What the fuzz targets share. Inputs are lines of text wherever a field is text, so that seeds
//! and findings can be read and typed.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A field of these lines; `None` where one is no field value, which no server would hand on.
pub fn append<'a>(
    fields: &mut HeaderMap,
    name: &HeaderName,
    lines: impl IntoIterator<Item = &'a [u8]>,
) -> Option<()> {
    for line in lines {
        fields.append(name, HeaderValue::from_bytes(line).ok()?);
    }
    Some(())
}

/// The lines of an input.
pub fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == b'\n')
}

/// RFC 9110 5.6.3.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
