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

/// The first line of an input, and what is below it.
pub fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, rest) = input.split_at(end.unwrap_or(input.len()));
    (line, rest.get(1..).unwrap_or_default())
}

/// Host, decoded path and query of a request target, as rules are asked about them; `None` where
/// no request would come so far.
pub fn asked(target: &[u8]) -> Option<(Option<String>, Vec<u8>, Option<String>)> {
    let uri = http::Uri::try_from(target).ok()?;
    let target = etagd::semantics::target::Target::parse(&uri).ok()?;
    let path = target.collapsed().unwrap_or_else(|| target.path().to_vec());
    let host = uri.host().map(str::to_owned);
    Some((
        host,
        [b"/", &path[..]].concat(),
        target.query().map(str::to_owned),
    ))
}
