//! The media type of a file, from its name and from whether its bytes are text.
//!
//! The name decides, where it has an extension that is known; bytes are never searched for a
//! signature, so that a file has the type its author gave it. Two things come from the bytes: whether
//! the charset is named, and whether an extension that belongs to a binary format and to a text
//! format stands for the text (`.ts`, `.mod`, `.dot`, `.pot`, `.pub`, `.key`). The manual has it as a
//! table.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderValue;
use mime_guess::Mime;

use crate::representation::{
    Decoded, Decoding, Fields, IMMUTABLE, NO_STORE, REVALIDATE, TextKind, visible,
};
use crate::semantics::coding::Coding;

/// Hands out one set of field values for each media type.
#[derive(Debug, Default)]
pub(super) struct MediaTypes {
    known: RwLock<HashMap<MediaKey, Arc<Fields>>>,
}

/// All that the fields of a resource follow from.
#[derive(PartialEq, Eq, Hash, Debug)]
struct MediaKey {
    extension: Option<Box<str>>,
    text: TextKind,
    keeping: Keeping,
    /// Where the content decodes, how, and the extension of what comes out.
    decoded: Option<(Decoding, Option<Box<str>>)>,
}

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
    /// The fields of the resource at `path`, whose content is proven to decode in this way, if
    /// that was looked at.
    pub(super) fn fields(
        &self,
        path: &[u8],
        text: TextKind,
        keeping: Keeping,
        decoding: Option<Decoding>,
    ) -> Arc<Fields> {
        // Unknown extensions share one entry, or files with random suffixes would fill the table.
        let known_extension = |name: &[u8]| -> Option<Box<str>> {
            extension(name)
                .filter(|it| known(it).is_some())
                .map(Box::from)
        };
        let name = last_name(path);
        let key = MediaKey {
            extension: known_extension(name),
            text,
            keeping,
            decoded: decoding.map(|it| (it, known_extension(&decoded_name(name, it.coding)))),
        };
        if let Some(fields) = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Arc::clone(fields);
        }
        let content_type = visible(&media_type(key.extension.as_deref(), text));
        let decoded = key.decoded.as_ref().map(|(decoding, extension)| Decoded {
            decoding: *decoding,
            content_type: visible(&media_type(extension.as_deref(), decoding.text)),
        });
        let fields = Arc::new(Fields {
            content_encoding: decoding
                .map(|it| it.coding)
                .filter(|it| own_coding(name) == Some(*it)),
            decoded,
            ..Fields::new(content_type, keeping.cache_control())
        });
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(key).or_insert(fields))
    }
}

/// The media type of the file at `path`.
pub(crate) fn type_of(path: &[u8], text: TextKind) -> String {
    media_type(extension(last_name(path)), text)
}

/// The coding that the very name of a file promises: `.svgz` has no other meaning (SVG 1.1 appendix
/// J.2), whereas `.gz` is often a download.
pub(super) fn own_coding(path: &[u8]) -> Option<Coding> {
    let is_svgz = extension(last_name(path)).is_some_and(|it| it.eq_ignore_ascii_case("svgz"));
    is_svgz.then_some(Coding::Gzip)
}

/// The name of what a file decodes to: `app.wasm` for `app.wasm.gz`. A name that does not tell of the
/// coding is that of the content.
fn decoded_name(name: &[u8], coding: Coding) -> Vec<u8> {
    if coding == Coding::Gzip
        && let Some(archive) = name.strip_suffix(b".tgz")
    {
        return [archive, b".tar"].concat();
    }
    let extension = coding.extension().unwrap_or_default().as_bytes();
    name.strip_suffix(extension)
        .and_then(|name| name.strip_suffix(b"."))
        .unwrap_or(name)
        .to_vec()
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

/// Types that `mime_guess` lacks, or knows by a name that IANA or browsers do not use.
const TYPES: &[(&str, &str)] = &[
    ("3mf", "model/3mf"),
    ("age", "application/vnd.age"),
    ("amr", "audio/amr"),
    ("arrow", "application/vnd.apache.arrow.file"),
    ("bat", "text/plain"),
    ("cjs", "text/javascript"),
    ("cwl", "application/cwl"),
    ("dcm", "application/dicom"),
    ("deb", "application/vnd.debian.binary-package"),
    ("dif", "video/dv"),
    ("docm", "application/vnd.ms-word.document.macroenabled.12"),
    ("dv", "video/dv"),
    ("dwf", "model/vnd.dwf"),
    ("dwg", "image/vnd.dwg"),
    ("dxf", "image/vnd.dxf"),
    ("emf", "image/emf"),
    ("exr", "image/aces"),
    ("fdf", "application/fdf"),
    ("fits", "image/fits"),
    ("gsm", "audio/gsm"),
    ("importmap", "application/importmap+json"),
    ("jls", "image/jls"),
    ("jsonl", "application/x-ndjson"),
    ("jxr", "image/jxr"),
    ("jxs", "image/jxs"),
    ("key", "application/vnd.apple.keynote"),
    ("ktx2", "image/ktx2"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4b", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("man", "text/troff"),
    ("map", "application/json"),
    ("me", "text/troff"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    ("mk3d", "video/matroska"),
    ("mka", "audio/matroska"),
    ("mkd", "text/markdown"),
    ("mks", "video/matroska"),
    ("mkv", "video/matroska"),
    ("ms", "text/troff"),
    ("mtl", "model/mtl"),
    ("mvt", "application/vnd.mapbox-vector-tile"),
    ("ndjson", "application/x-ndjson"),
    ("numbers", "application/vnd.apple.numbers"),
    ("obj", "model/obj"),
    ("otf", "font/otf"),
    ("owl", "application/rdf+xml"),
    ("p12", "application/pkcs12"),
    ("pages", "application/vnd.apple.pages"),
    ("pfx", "application/pkcs12"),
    ("pmtiles", "application/vnd.pmtiles"),
    ("rar", "application/vnd.rar"),
    ("rmi", "audio/midi"),
    ("roff", "text/troff"),
    ("rpm", "application/x-rpm"),
    ("spdx", "text/spdx"),
    ("sql", "application/sql"),
    ("sqlite", "application/vnd.sqlite3"),
    ("sqlite3", "application/vnd.sqlite3"),
    ("step", "model/step"),
    ("stl", "model/stl"),
    ("stp", "model/step"),
    ("tgz", "application/gzip"),
    ("toml", "application/toml"),
    ("tr", "text/troff"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("ttml", "application/ttml+xml"),
    ("u3d", "model/u3d"),
    ("udeb", "application/vnd.debian.binary-package"),
    ("usda", "model/vnd.usda"),
    ("usdz", "model/vnd.usdz+zip"),
    ("vcf", "text/vcard"),
    ("vsdx", "application/vnd.visio"),
    ("wgsl", "text/wgsl"),
    ("wmf", "image/wmf"),
    ("woff", "font/woff"),
    ("wrl", "model/vrml"),
    ("xfdf", "application/xfdf"),
    ("xlf", "application/xliff+xml"),
    (
        "xlsb",
        "application/vnd.ms-excel.sheet.binary.macroenabled.12",
    ),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

/// Whether a type stands for a format that is not text: audio, video, images and office documents,
/// apart from those formats among them that are written in text.
fn is_binary_format(media_type: &Mime) -> bool {
    let essence = media_type.essence_str();
    let is_among = |beginnings: &[&str]| beginnings.iter().any(|each| essence.starts_with(each));
    is_among(BINARY_FORMATS)
        && !is_among(WRITTEN_IN_TEXT)
        && !essence.ends_with("xml")
        && !essence.ends_with("+json")
}

/// How the types of audio, video, images and office documents begin.
const BINARY_FORMATS: &[&str] = &[
    "application/msword",
    "application/onenote",
    "application/vnd.apple.keynote",
    "application/vnd.apple.numbers",
    "application/vnd.apple.pages",
    "application/vnd.kde.",
    "application/vnd.lotus-",
    "application/vnd.ms-excel",
    "application/vnd.ms-outlook",
    "application/vnd.ms-powerpoint",
    "application/vnd.ms-project",
    "application/vnd.ms-publisher",
    "application/vnd.ms-word",
    "application/vnd.ms-works",
    "application/vnd.oasis.opendocument",
    "application/vnd.openxmlformats-officedocument",
    "application/vnd.palm",
    "application/vnd.stardivision",
    "application/vnd.sun.xml",
    "application/vnd.visio",
    "application/vnd.wordperfect",
    "application/x-msaccess",
    "application/x-msbinder",
    "application/x-mscardfile",
    "application/x-msclip",
    "application/x-msmediaview",
    "application/x-msmoney",
    "application/x-mspublisher",
    "application/x-msschedule",
    "application/x-msterminal",
    "application/x-mswrite",
    "audio/",
    "image/",
    "video/",
];

/// Playlists and pictures that are text.
const WRITTEN_IN_TEXT: &[&str] = &[
    "audio/mpegurl",
    "audio/scpls",
    "audio/x-mpegurl",
    "audio/x-ms-wax",
    "audio/x-pn-realaudio",
    "audio/x-scpls",
    "image/cgm",
    "image/vnd.dxf",
    "image/x-portable-",
    "image/x-xbitmap",
    "image/x-xpixmap",
    "video/vnd.mpegurl",
    "video/x-ms-asf",
    "video/x-ms-wvx",
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
        _ => Some(guess),
    }
}

fn media_type(extension: Option<&str>, text: TextKind) -> String {
    // TypeScript, modules of Go, graphs of Graphviz, translations, keys: text under such a name is
    // more often another format than a damaged one.
    let known = extension
        .and_then(known)
        .filter(|known| !(text.is_text() && is_binary_format(known)));
    let Some(media_type) = known else {
        return match text {
            TextKind::Empty | TextKind::Utf8 | TextKind::Labelled => "text/plain; charset=utf-8",
            TextKind::OtherCharset => "text/plain",
            TextKind::BinaryUtf8 | TextKind::Binary => "application/octet-stream",
        }
        .to_owned();
    };
    let essence = media_type.essence_str();
    let is_utf8 = match text {
        TextKind::Empty | TextKind::Utf8 | TextKind::BinaryUtf8 => true,
        TextKind::Labelled => !LABELLING.contains(&essence),
        TextKind::OtherCharset | TextKind::Binary => false,
    };
    // RFC 7303 section 3.2 recommends a charset for XML; for other `application` types it has no
    // meaning (RFC 8259 section 11 for JSON).
    let is_text = media_type.type_() == mime_guess::mime::TEXT || essence == "application/xml";
    if is_text && is_utf8 && media_type.get_param("charset").is_none() {
        format!("{media_type}; charset=utf-8")
    } else {
        media_type.to_string()
    }
}

/// Types whose content can name its charset. The field would win over that.
const LABELLING: &[&str] = &["application/xml", "text/css", "text/html", "text/xml"];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use TextKind::{Binary, BinaryUtf8, Empty, Labelled, OtherCharset, Utf8};

    #[test]
    fn types_by_extension_and_content() {
        let cases = [
            ("index.html", Utf8, "text/html; charset=utf-8"),
            ("latin1.html", Binary, "text/html"),
            ("a/style.css", Utf8, "text/css; charset=utf-8"),
            ("app.js", Utf8, "text/javascript; charset=utf-8"),
            ("app.mjs", Utf8, "text/javascript; charset=utf-8"),
            ("data.json", Utf8, "application/json"),
            ("module.wasm", Binary, "application/wasm"),
            ("font.woff2", Binary, "font/woff2"),
            ("logo.svg", Utf8, "image/svg+xml"),
            ("photo.AVIF", Binary, "image/avif"),
            ("site.webmanifest", Utf8, "application/manifest+json"),
            ("LICENSE", Utf8, "text/plain; charset=utf-8"),
            ("a.dir/blob", Binary, "application/octet-stream"),
            ("what.ever-unknown", Utf8, "text/plain; charset=utf-8"),
            ("what.ever-unknown", Binary, "application/octet-stream"),
            ("main.ts", Utf8, "text/plain; charset=utf-8"),
            ("film.ts", Binary, "video/mp2t"),
            ("app.js.map", Utf8, "application/json"),
            ("data.xml", Utf8, "application/xml; charset=utf-8"),
            ("a.yaml", Utf8, "application/yaml"),
            ("a.tar.gz", Binary, "application/gzip"),
            ("A.OTF", Binary, "font/otf"),
            (".htaccess", Utf8, "text/plain; charset=utf-8"),
            (
                ".well-known/apple-app-site-association",
                Utf8,
                "application/json",
            ),
            // Text under the extension of a binary format, and the format itself.
            ("go.mod", Utf8, "text/plain; charset=utf-8"),
            ("song.mod", Binary, "video/mpeg"),
            ("graph.dot", Utf8, "text/plain; charset=utf-8"),
            ("letter.dot", Binary, "application/msword"),
            ("de.pot", Utf8, "text/plain; charset=utf-8"),
            ("slides.pot", Binary, "application/vnd.ms-powerpoint"),
            ("id_ed25519.pub", Utf8, "text/plain; charset=utf-8"),
            ("flyer.pub", Binary, "application/x-mspublisher"),
            ("latin1.pub", OtherCharset, "text/plain"),
            ("empty.png", Empty, "image/png"),
            ("empty.mod", Empty, "video/mpeg"),
            ("utf16.ts", OtherCharset, "text/plain"),
            ("seg.ts", BinaryUtf8, "video/mp2t"),
            ("drawing.svg", OtherCharset, "image/svg+xml"),
            ("radio.wax", Utf8, "audio/x-ms-wax"),
            ("table.xls", Utf8, "text/plain; charset=utf-8"),
            ("list.m3u", Utf8, "audio/x-mpegurl"),
            ("list.m3u8", Utf8, "application/vnd.apple.mpegurl"),
            ("icon.xbm", Utf8, "image/x-xbitmap"),
            ("part.dxf", Utf8, "image/vnd.dxf"),
            (
                "slides.pptx",
                Binary,
                "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            ),
            // What no charset may be said of.
            ("iso-2022.html", OtherCharset, "text/html"),
            ("koi8-r.html", Labelled, "text/html"),
            ("imports.css", Labelled, "text/css"),
            ("koi8-r.xml", Labelled, "application/xml"),
            ("about-meta.txt", Labelled, "text/plain; charset=utf-8"),
            ("about-meta", Labelled, "text/plain; charset=utf-8"),
            ("about-meta.js", Labelled, "text/javascript; charset=utf-8"),
            ("windows-1251.js", OtherCharset, "text/javascript"),
            ("dos.txt", BinaryUtf8, "text/plain; charset=utf-8"),
            ("elf", BinaryUtf8, "application/octet-stream"),
            ("tile.pbf", BinaryUtf8, "application/octet-stream"),
            ("song.mod", BinaryUtf8, "video/mpeg"),
            ("latin1.txt", OtherCharset, "text/plain"),
            ("README", OtherCharset, "text/plain"),
            ("empty", Empty, "text/plain; charset=utf-8"),
            ("empty.html", Empty, "text/html; charset=utf-8"),
            // Types that mime_guess lacks or has by other names.
            ("tile.pbf", Binary, "application/octet-stream"),
            ("a.deb", Binary, "application/vnd.debian.binary-package"),
            ("a.sqlite", Binary, "application/vnd.sqlite3"),
            ("room.usdz", Binary, "model/vnd.usdz+zip"),
            ("1.m4s", Binary, "video/iso.segment"),
            ("log.jsonl", Utf8, "application/x-ndjson"),
            ("log.ndjson", Utf8, "application/x-ndjson"),
            ("imports.importmap", Utf8, "application/importmap+json"),
            ("shader.wgsl", Utf8, "text/wgsl; charset=utf-8"),
            ("map.pmtiles", Binary, "application/vnd.pmtiles"),
            ("card.vcf", Utf8, "text/vcard; charset=utf-8"),
            ("tune.mid", Binary, "audio/midi"),
            ("part.stl", Binary, "model/stl"),
            ("part.stl", Utf8, "model/stl"),
            ("part.obj", Utf8, "model/obj"),
        ];
        let media = MediaTypes::default();
        for (path, text, want) in cases {
            assert_eq!(
                media
                    .fields(path.as_bytes(), text, Keeping::UntilAsked, None)
                    .content_type,
                want,
                "{path}"
            );
        }
    }

    #[test]
    fn types_by_name_and_bytes() {
        const OCTETS: &str = "application/octet-stream";
        const PLAIN: &str = "text/plain; charset=utf-8";
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], &str)] = &[
            // Binary that happens to be valid UTF-8.
            ("program", b"\x7fELF\x02\x01\x01\0\0\0\0\0", OCTETS),
            ("tile.pbf", b"\0\x01\x02bin", OCTETS),
            ("what.ever-unknown", b"\x1a\x04text", OCTETS),
            ("notes.txt", b"\0\x01\x02bin", PLAIN),
            ("page.html", "caf\u{e9}\x1a".as_bytes(), "text/html; charset=utf-8"),
            // What names a charset, or needs one that nobody names.
            ("jis.html", b"<p>\x1b$B$3$s\x1b(B", "text/html"),
            ("jis.txt", b"\x1b$B$3$s\x1b(B", "text/plain"),
            ("page.html", b"<meta charset=windows-1251><script src=a.js>", "text/html"),
            ("a.js", b"'\xcf\xf0\xe8\xe2\xe5\xf2'", "text/javascript"),
            ("page.html", b"<meta charset=utf-8>", "text/html; charset=utf-8"),
            ("page.html", "<meta charset=koi8-r>\u{434}".as_bytes(), "text/html; charset=utf-8"),
            ("a.js", b"'<meta charset=koi8-r>'", "text/javascript; charset=utf-8"),
            ("a.css", b"@charset \"koi8-r\";", "text/css"),
            ("a.xml", b"<?xml version='1.0' encoding='koi8-r'?><a/>", "application/xml"),
            ("utf16.txt", b"\xff\xfea\0", "text/plain"),
            ("utf16", b"\xfe\xff\0a", "text/plain"),
            ("utf16.html", b"\xff\xfe<\0", "text/html"),
            ("capture.log", "\u{e9}\x1b(B\x1b[m".as_bytes(), PLAIN),
            // Text under names of binary formats, and the formats.
            ("go.mod", b"module example.com/a\n", PLAIN),
            ("song.mod", b"a song\0\0\0\0\0M.K.", "video/mpeg"),
            ("graph.dot", b"digraph { a -> b }", PLAIN),
            ("letter.dot", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "application/msword"),
            ("de.pot", b"msgid \"\"\n", PLAIN),
            ("latin1.pot", b"msgid \"\xe9\"\n", "text/plain"),
            ("id_ed25519.pub", b"ssh-ed25519 AAAA me\n", PLAIN),
            ("server.key", b"-----BEGIN PRIVATE KEY-----\n", PLAIN),
            ("talk.key", b"PK\x03\x04\0", "application/vnd.apple.keynote"),
            ("Pose.msg", b"float64 x\n", PLAIN),
            ("mail.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "application/vnd.ms-outlook"),
            ("1abc.pdb", b"HEADER    OXYGEN TRANSPORT\n", PLAIN),
            ("tune.scd", b"{ SinOsc.ar }.play\n", PLAIN),
            ("main.ts", b"export const a: number = 1;\n", PLAIN),
            ("film.ts", b"G@\0\x10\0\0\xb0\x0d", "video/mp2t"),
            ("image.svg", b"<svg/>", "image/svg+xml"),
            ("list.m3u8", b"#EXTM3U\n", "application/vnd.apple.mpegurl"),
            ("picture.png", b"", "image/png"),
            ("go.mod", b"", "video/mpeg"),
            ("empty", b"", PLAIN),
            ("empty.json", b"", "application/json"),
        ];
        for (path, bytes, want) in cases {
            let text = super::super::text::text_kind_of(bytes);
            assert_eq!(type_of(path.as_bytes(), text), *want, "{path}: {text:?}");
        }
    }

    #[test]
    fn what_decodes_has_the_type_of_what_comes_out() {
        use Coding::{Brotli, Gzip, Zstd};
        #[rustfmt::skip]
        let cases = [
            ("app.wasm.gz", Gzip, Binary, "application/gzip", "application/wasm"),
            ("app.js.br", Brotli, Utf8, "application/octet-stream", "text/javascript; charset=utf-8"),
            ("app.js.br", Brotli, OtherCharset, "application/octet-stream", "text/javascript"),
            ("data.json.zst", Zstd, Utf8, "application/zstd", "application/json"),
            ("go.mod.gz", Gzip, Utf8, "application/gzip", "text/plain; charset=utf-8"),
            ("game.data.gz", Gzip, Binary, "application/gzip", "application/octet-stream"),
            ("game.data.unityweb", Brotli, Binary, "application/vnd.unity", "application/vnd.unity"),
            ("app.js", Gzip, Utf8, "text/javascript", "text/javascript; charset=utf-8"),
            ("a.gz", Brotli, Binary, "application/gzip", "application/gzip"),
            ("a.tgz", Gzip, Binary, "application/gzip", "application/x-tar"),
            ("a.tar.gz", Gzip, Binary, "application/gzip", "application/x-tar"),
        ];
        let media = MediaTypes::default();
        for (path, coding, text, outer, inner) in cases {
            let decoding = Some(Decoding { coding, text });
            let fields = media.fields(path.as_bytes(), Binary, Keeping::UntilAsked, decoding);
            let decoded = fields.decoded.as_ref().expect("decoded");
            assert_eq!(fields.content_type, outer, "{path}");
            assert_eq!(decoded.content_type, inner, "{path}");
            assert_eq!(fields.content_encoding, None, "{path}");
        }
        for (path, coding, want) in [
            ("a.svgz", Gzip, Some(Gzip)),
            ("A.SVGZ", Gzip, Some(Gzip)),
            ("a.svgz", Brotli, None),
            ("a.svg", Gzip, None),
        ] {
            let decoding = Some(Decoding { coding, text: Utf8 });
            let fields = media.fields(path.as_bytes(), Binary, Keeping::UntilAsked, decoding);
            assert_eq!(fields.content_encoding, want, "{path}");
            assert_eq!(fields.content_type, "image/svg+xml", "{path}");
        }
    }

    #[test]
    fn a_name_need_not_be_utf8() {
        let fields = MediaTypes::default().fields(b"caf\xe9.html", Utf8, Keeping::UntilAsked, None);
        assert_eq!(fields.content_type, "text/html; charset=utf-8");
    }

    #[test]
    fn resources_of_one_type_share_their_fields() {
        let media = MediaTypes::default();
        assert!(Arc::ptr_eq(
            &media.fields(b"a.css", Utf8, Keeping::UntilAsked, None),
            &media.fields(b"b/c.css", Utf8, Keeping::UntilAsked, None)
        ));
    }

    /// Types of our table that IANA does not have, and why they are used.
    const UNREGISTERED: [(&str, &str); 5] = [
        (
            "application/importmap+json",
            "HTML has it, for what no registry lists",
        ),
        (
            "application/vnd.pmtiles",
            "what the format's specification registers it as",
        ),
        (
            "application/x-ndjson",
            "what its specification says; browsers and tools know no other",
        ),
        ("application/x-rpm", "what package managers know"),
        ("audio/midi", "what browsers and players know"),
    ];

    #[test]
    fn types_are_those_that_iana_has() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/iana-media-types.txt"
        );
        let names = std::fs::read_to_string(path).expect("the list of names");
        let registered: HashSet<&str> = names.lines().collect();
        assert!(registered.len() > 2000, "{} names", registered.len());
        for (extension, name) in TYPES {
            let is_excused = UNREGISTERED.iter().any(|(known, _)| known == name);
            assert_eq!(
                registered.contains(name),
                !is_excused,
                "{extension}: {name}"
            );
        }
        assert!(TYPES.is_sorted(), "the table is in order");
        // Whatever mime_guess calls x- although it has been registered since.
        for extension in mime_guess::get_mime_extensions_str("*/*").unwrap_or_default() {
            let Some(name) = known(extension) else {
                continue;
            };
            let without = name.essence_str().replace("/x-", "/");
            let is_old = without != name.essence_str() && registered.contains(&*without);
            assert!(!is_old, "{extension} is {without} by now, not {name}");
        }
    }
}
