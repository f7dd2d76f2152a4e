//! The head of a request as everything here reads it, whoever has parsed it.
//!
//! hyper hands over a [`Parts`] with a map of its fields; a parser that copies nothing has slices
//! of the bytes that came. The rules of RFC 9110 are the same for both, so they ask a [`RequestHead`].

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

/// The field lines of a request (RFC 9110 5.2).
pub trait FieldLines {
    /// The values of all lines with this name, in the order sent.
    fn lines(&self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &[u8]>;

    /// The value of the one line with this name; `None` where there is none, or another.
    fn only_line(&self, name: &HeaderName) -> Option<&[u8]> {
        let mut lines = self.lines(name);
        match (lines.next(), lines.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    }

    /// Whether there is a line with this name.
    fn has(&self, name: &HeaderName) -> bool {
        self.lines(name).next().is_some()
    }
}

impl FieldLines for HeaderMap {
    fn lines(&self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.contains_key(name)
    }
}

/// The head of a request (RFC 9110 6.2).
pub trait RequestHead {
    /// How its fields are kept.
    type Fields: FieldLines;

    /// The method.
    fn method(&self) -> &Method;

    /// The version of HTTP.
    fn version(&self) -> Version;

    /// The target as the client wrote it; of HTTP/2's pseudo-fields, the path.
    fn target(&self) -> Cow<'_, str>;

    /// The authority in the target, or in the pseudo-field of HTTP/2.
    fn authority(&self) -> Option<&str>;

    /// The path in the target, as sent.
    fn path(&self) -> &str;

    /// The query in the target, as sent, without `?`.
    fn query(&self) -> Option<&str>;

    /// The fields.
    fn fields(&self) -> &Self::Fields;
}

impl RequestHead for Parts {
    type Fields = HeaderMap;

    fn method(&self) -> &Method {
        &self.method
    }

    fn version(&self) -> Version {
        self.version
    }

    fn target(&self) -> Cow<'_, str> {
        let uri = &self.uri;
        match uri.path_and_query() {
            Some(path) if self.version == Version::HTTP_2 || uri.scheme().is_none() => {
                path.as_str().into()
            }
            _ => uri.to_string().into(),
        }
    }

    fn authority(&self) -> Option<&str> {
        self.uri.authority().map(http::uri::Authority::as_str)
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    fn fields(&self) -> &HeaderMap {
        &self.headers
    }
}
