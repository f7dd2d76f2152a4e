//! Field values that many resources share, and what they follow from.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::semantics::coding::Coding;

/// `Cache-Control` of what may be stored but must be revalidated before each use. Without `public`: it
/// says something of responses to requests with Authorization alone, and `must-revalidate` says the
/// same of them (RFC 9111 section 3.5).
pub const REVALIDATE: HeaderValue = HeaderValue::from_static("max-age=0, must-revalidate");
/// `Cache-Control` of what never changes: fresh for a year, and not revalidated on reload
/// (RFC 8246).
pub const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");
/// `Cache-Control` of what nobody may store. `no-store` alone says it (RFC 9111 section 5.2.2.5); the
/// other directives are for caches that ignore it. Of Cache-Control only `s-maxage`, `max-age` and
/// `private` influence Fastly's, which keeps a 404 for two minutes by default.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store, max-age=0");

/// What the bytes of some content say of its media type: whether they are text, and whether its
/// charset may be named.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TextKind {
    /// There are no bytes.
    Empty,
    /// Text in UTF-8.
    Utf8,
    /// Text in ASCII that says of itself, as HTML, CSS and XML can, that its charset is another.
    Labelled,
    /// Text in another charset, or in one that can't be told.
    OtherCharset,
    /// UTF-8 in which some bytes are no text.
    BinaryUtf8,
    /// Neither text nor UTF-8.
    Binary,
}

impl TextKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Utf8,
        Self::Labelled,
        Self::OtherCharset,
        Self::BinaryUtf8,
        Self::Binary,
    ];

    /// Whether there is content, and all of it is text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Utf8 | Self::Labelled | Self::OtherCharset)
    }
}

/// Field values that many resources share.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Fields {
    /// `Content-Type`.
    pub content_type: HeaderValue,
    /// `Cache-Control` of 200, 206 and 304.
    pub cache_control: HeaderValue,
    /// `Content-Encoding` of content that is compressed under its own name (`.svgz`, or a rule).
    pub content_encoding: Option<Coding>,
    /// What the content decodes to, where its name or a rule has had the scan prove that.
    pub decoded: Option<Decoded>,
    /// What the rules of the site change of them, if anything.
    pub ruled: Option<Box<Ruled>>,
}

/// What content is proven to decode to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Decoded {
    /// How it decodes.
    pub decoding: Decoding,
    /// The media type of what comes out.
    pub content_type: HeaderValue,
}

/// How content decodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Decoding {
    /// Its content coding.
    pub coding: Coding,
    /// What the decoded bytes are.
    pub text: TextKind,
}

/// The changes that the rules of a site make to the fields of some resources.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ruled {
    /// The fields without rules.
    pub built_in: Arc<Fields>,
    /// Fields that the rules add, and those that replace built-in ones, in their order.
    pub lines: Box<[(HeaderName, HeaderValue)]>,
    /// Built-in fields that are not sent.
    pub removed: Box<[HeaderName]>,
    /// What `Vary` names in addition to the fields that etagd itself chooses by.
    pub vary: Option<HeaderValue>,
    /// The suffix of the tag (P1), if fields that a 304 can't update differ from the built-in ones.
    pub suffix: Option<[u8; 4]>,
}

impl Fields {
    /// Fields that no rule has touched.
    pub fn new(content_type: HeaderValue, cache_control: HeaderValue) -> Self {
        Self {
            content_type,
            cache_control,
            content_encoding: None,
            decoded: None,
            ruled: None,
        }
    }

    /// How the content decodes, as far as that was looked at.
    pub fn decoding(&self) -> Option<Decoding> {
        let built_in = self.ruled.as_ref().map_or(self, |ruled| &ruled.built_in);
        built_in.decoded.as_ref().map(|decoded| decoded.decoding)
    }

    /// The fields without rules.
    pub fn built_in(self: &Arc<Self>) -> &Arc<Self> {
        self.ruled.as_ref().map_or(self, |ruled| &ruled.built_in)
    }

    /// The suffix that they give to the tag.
    pub fn suffix(&self) -> Option<[u8; 4]> {
        self.ruled.as_ref().and_then(|ruled| ruled.suffix)
    }

    /// Whether a rule gives `Cache-Control`.
    pub fn has_ruled_cache_control(&self) -> bool {
        self.ruled
            .as_ref()
            .is_some_and(|ruled| ruled.built_in.cache_control != self.cache_control)
    }
}
