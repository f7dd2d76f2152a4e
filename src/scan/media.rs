//! The media type of a file, from its name and from whether its bytes are UTF-8.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderValue;

use crate::representation::{Fields, visible};

const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store, max-age=0");
const REVALIDATE: HeaderValue = HeaderValue::from_static("public, max-age=0, must-revalidate");

/// Hands out one set of field values for each media type.
#[derive(Debug, Default)]
pub(super) struct MediaTypes {
    known: RwLock<HashMap<Key, Arc<Fields>>>,
}

/// The extension, whether the content is UTF-8, whether it is settled.
type Key = (Option<Box<str>>, bool, bool);

impl MediaTypes {
    /// The fields of the resource at `path`. What is not settled may not be stored.
    pub(super) fn fields(&self, path: &[u8], utf8: bool, settled: bool) -> Arc<Fields> {
        let extension = extension(last_name(path));
        let key = (extension.map(Box::from), utf8, settled);
        if let Some(fields) = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Arc::clone(fields);
        }
        let fields = Arc::new(Fields {
            content_type: visible(&media_type(extension, utf8)),
            cache_control: if settled { REVALIDATE } else { NO_STORE },
        });
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

/// What stands behind the last dot; for the one well-known name that has none, its type's.
fn extension(name: &[u8]) -> Option<&str> {
    if name == b"apple-app-site-association" {
        return Some("json");
    }
    let name = Path::new(std::str::from_utf8(name).ok()?);
    name.extension()?.to_str()
}

fn media_type(extension: Option<&str>, utf8: bool) -> String {
    let Some(extension) = extension else {
        let unknown = if utf8 {
            "text/plain; charset=utf-8"
        } else {
            "application/octet-stream"
        };
        return unknown.to_owned();
    };
    let guess = mime_guess::from_ext(extension).first_or_octet_stream();
    let media_type = match guess.essence_str() {
        // RFC 9239 section 6: the registered name, whatever the extension.
        "application/javascript" => mime_guess::mime::TEXT_JAVASCRIPT,
        _ => guess,
    };
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
            ("what.ever-unknown", true, "application/octet-stream"),
            (
                ".well-known/apple-app-site-association",
                true,
                "application/json",
            ),
        ];
        let media = MediaTypes::default();
        for (path, utf8, want) in cases {
            assert_eq!(
                media.fields(path.as_bytes(), utf8, true).content_type,
                want,
                "{path}"
            );
        }
    }

    #[test]
    fn resources_of_one_type_share_their_fields() {
        let media = MediaTypes::default();
        assert!(Arc::ptr_eq(
            &media.fields(b"a.css", true, true),
            &media.fields(b"b/c.css", true, true)
        ));
    }
}
