//! The media type of a file, from its name and from whether its bytes are UTF-8.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderValue;
use mime_guess::Mime;

use crate::representation::{Fields, IMMUTABLE, NO_STORE, REVALIDATE, visible};

/// Hands out one set of field values for each media type.
#[derive(Debug, Default)]
pub(super) struct MediaTypes {
    known: RwLock<HashMap<MediaKey, Arc<Fields>>>,
}

/// The extension, and whether the content is UTF-8.
type MediaKey = (Option<Box<str>>, bool, Keeping);

/// How long clients may cache a resource.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Keeping {
    /// Not at all: the file was still changing when it was read.
    Never,
    /// As long as they revalidate before each use.
    UntilAsked,
    /// Forever: the operator has declared the path immutable.
    Ever,
}

impl Keeping {
    fn cache_control(self) -> HeaderValue {
        match self {
            Self::Never => NO_STORE,
            Self::UntilAsked => REVALIDATE,
            Self::Ever => IMMUTABLE,
        }
    }
}

impl MediaTypes {
    /// The fields of the resource at `path`.
    pub(super) fn fields(&self, path: &[u8], utf8: bool, keeping: Keeping) -> Arc<Fields> {
        // Unknown extensions share one entry, or files with random suffixes would fill the table.
        let extension =
            extension(last_name(path)).filter(|name| *name == "ts" || known(name).is_some());
        let key = (extension.map(Box::from), utf8, keeping);
        if let Some(fields) = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Arc::clone(fields);
        }
        let content_type = visible(&media_type(extension, utf8));
        let fields = Arc::new(Fields::new(content_type, keeping.cache_control()));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(key).or_insert(fields))
    }
}

/// The media type of the file at `path`.
pub(crate) fn of(path: &[u8], utf8: bool) -> String {
    media_type(extension(last_name(path)), utf8)
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// What follows the last dot. The one well-known name without a dot is JSON (Apple: "Supporting
/// associated domains").
fn extension(name: &[u8]) -> Option<&str> {
    if name == b"apple-app-site-association" {
        return Some("json");
    }
    // A name that only begins with a dot has no extension.
    let dot = name
        .iter()
        .rposition(|byte| *byte == b'.')
        .filter(|dot| *dot > 0)?;
    std::str::from_utf8(name.get(dot + 1..)?).ok()
}

/// Types that `mime_guess` lacks, or knows by a name that IANA or browsers no longer use.
const TYPES: &[(&str, &str)] = &[
    ("bat", "text/plain"),
    ("cjs", "text/javascript"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("map", "application/json"),
    ("otf", "font/otf"),
    ("rpm", "application/x-rpm"),
    ("tgz", "application/gzip"),
    ("toml", "application/toml"),
    ("ttf", "font/ttf"),
    ("woff", "font/woff"),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

fn known(extension: &str) -> Option<Mime> {
    let extension = extension.to_ascii_lowercase();
    if let Some((_, name)) = TYPES.iter().find(|(known, _)| *known == extension) {
        return name.parse().ok();
    }
    let guess = mime_guess::from_ext(&extension).first()?;
    match guess.essence_str() {
        // RFC 9239 section 6: the registered name, whatever the extension.
        "application/javascript" => Some(mime_guess::mime::TEXT_JAVASCRIPT),
        // On a web site far more often TypeScript than an MPEG transport stream: decided by
        // whether it is text, in `media_type`.
        "video/vnd.dlna.mpeg-tts" => None,
        _ => Some(guess),
    }
}

fn media_type(extension: Option<&str>, utf8: bool) -> String {
    let Some(media_type) = extension.and_then(known) else {
        return match (extension, utf8) {
            (_, true) => "text/plain; charset=utf-8",
            (Some("ts"), false) => "video/mp2t",
            (_, false) => "application/octet-stream",
        }
        .to_owned();
    };
    // RFC 7303 section 3.2 recommends a charset for XML; for other `application` types it has no
    // meaning (RFC 8259 section 11 for JSON).
    let is_text = media_type.type_() == mime_guess::mime::TEXT
        || media_type.essence_str() == "application/xml";
    if is_text && utf8 && media_type.get_param("charset").is_none() {
        format!("{media_type}; charset=utf-8")
    } else {
        media_type.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_extension_and_content() {
        let cases = [
            ("index.html", true, "text/html; charset=utf-8"),
            ("latin1.html", false, "text/html"),
            ("a/style.css", true, "text/css; charset=utf-8"),
            ("app.js", true, "text/javascript; charset=utf-8"),
            ("app.mjs", true, "text/javascript; charset=utf-8"),
            ("data.json", true, "application/json"),
            ("module.wasm", false, "application/wasm"),
            ("font.woff2", false, "font/woff2"),
            ("logo.svg", true, "image/svg+xml"),
            ("photo.AVIF", false, "image/avif"),
            ("site.webmanifest", true, "application/manifest+json"),
            ("LICENSE", true, "text/plain; charset=utf-8"),
            ("a.dir/blob", false, "application/octet-stream"),
            ("what.ever-unknown", true, "text/plain; charset=utf-8"),
            ("what.ever-unknown", false, "application/octet-stream"),
            ("main.ts", true, "text/plain; charset=utf-8"),
            ("film.ts", false, "video/mp2t"),
            ("app.js.map", true, "application/json"),
            ("data.xml", true, "application/xml; charset=utf-8"),
            ("a.yaml", true, "application/yaml"),
            ("a.tar.gz", false, "application/gzip"),
            ("A.OTF", false, "font/otf"),
            (".htaccess", true, "text/plain; charset=utf-8"),
            (
                ".well-known/apple-app-site-association",
                true,
                "application/json",
            ),
        ];
        let media = MediaTypes::default();
        for (path, utf8, want) in cases {
            assert_eq!(
                media
                    .fields(path.as_bytes(), utf8, Keeping::UntilAsked)
                    .content_type,
                want,
                "{path}"
            );
        }
    }

    #[test]
    fn a_name_need_not_be_utf8() {
        let fields = MediaTypes::default().fields(b"caf\xe9.html", true, Keeping::UntilAsked);
        assert_eq!(fields.content_type, "text/html; charset=utf-8");
    }

    #[test]
    fn resources_of_one_type_share_their_fields() {
        let media = MediaTypes::default();
        assert!(Arc::ptr_eq(
            &media.fields(b"a.css", true, Keeping::UntilAsked),
            &media.fields(b"b/c.css", true, Keeping::UntilAsked)
        ));
    }
}
