//! Whether the bytes of a file are text, and whether its charset may be named.
//!
//! Text is told from binary as in WHATWG MIME Sniffing, section 7.2, but over all bytes of a file
//! instead of its first 1,445. A long file is looked at in pieces, on several threads; what they say
//! together does not depend on where it was cut.

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};

use crate::representation::TextKind;

/// Bytes at the beginning in which browsers look for a `<meta>` (HTML section 13.2.3.2).
const BEGINNING: usize = 1024;
/// Bytes that are looked at together for binary data.
const STRIDE: usize = 4096;

/// What one piece of a file says about the whole.
pub(super) struct TextEvidence {
    utf8: Utf8Edges,
    is_ascii: bool,
    has_binary_data: bool,
    /// Whether it switches to a character set of ISO 2022.
    has_escape: bool,
    /// Whether its first byte could follow an ESC that ends the piece before it, and whether it ends
    /// with one.
    escape_edges: (bool, bool),
    /// Of the first piece alone.
    beginning: Beginning,
}

/// What the first bytes of a file say about the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Utf16Mark,
    Utf8Mark,
    /// It names a charset other than UTF-8.
    OtherCharset,
    Plain,
}

impl TextEvidence {
    /// Of the piece that begins at `offset`.
    pub(super) fn of(bytes: &[u8], offset: u64) -> Self {
        let is_ascii = bytes.is_ascii();
        Self {
            utf8: Utf8Edges::of(bytes),
            is_ascii,
            has_binary_data: has_binary_data(bytes),
            // Its encodings have 7 bits. UTF-8 with such an escape is what a terminal printed.
            has_escape: is_ascii && has_iso_2022_escape(bytes),
            escape_edges: (
                bytes.first().is_some_and(is_designator),
                bytes.last() == Some(&ESC),
            ),
            beginning: match offset {
                0 => Beginning::of(bytes),
                _ => Beginning::Plain,
            },
        }
    }
}

impl Beginning {
    fn of(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..BEGINNING).unwrap_or(bytes);
        match bytes {
            [0xfe, 0xff, ..] | [0xff, 0xfe, ..] => Self::Utf16Mark,
            [0xef, 0xbb, 0xbf, ..] => Self::Utf8Mark,
            _ if names_another_charset(bytes) => Self::OtherCharset,
            _ => Self::Plain,
        }
    }
}

/// What a file is that consists of these pieces.
pub(super) fn text_kind(pieces: &[TextEvidence]) -> TextKind {
    let Some(beginning) = pieces.first().map(|first| first.beginning) else {
        return TextKind::Empty;
    };
    // Browsers take the mark's word against that of any field (Encoding section 6).
    if beginning == Beginning::Utf16Mark {
        return TextKind::OtherCharset;
    }
    let is_utf8 = Utf8Edges::is_utf8(pieces.iter().map(|piece| &piece.utf8));
    let has_binary_data = pieces.iter().any(|piece| piece.has_binary_data);
    let is_ascii = pieces.iter().all(|piece| piece.is_ascii);
    match (has_binary_data, is_utf8) {
        (true, false) if beginning != Beginning::Utf8Mark => TextKind::Binary,
        (true, true) if beginning != Beginning::Utf8Mark => TextKind::BinaryUtf8,
        (_, false) => TextKind::OtherCharset,
        _ if is_ascii && has_escape(pieces) => TextKind::OtherCharset,
        _ if is_ascii && beginning == Beginning::OtherCharset => TextKind::Labelled,
        _ => TextKind::Utf8,
    }
}

/// [`text_kind`] of bytes that lie in one piece.
pub(crate) fn text_kind_of(bytes: &[u8]) -> TextKind {
    match bytes {
        [] => TextKind::Empty,
        _ => text_kind(&[TextEvidence::of(bytes, 0)]),
    }
}

/// Whether there is a binary data byte (MIME Sniffing section 3).
fn has_binary_data(bytes: &[u8]) -> bool {
    let is_binary_data = |byte: u8| matches!(byte, 0x00..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    // Without a branch for each byte the compiler looks at many at once.
    bytes.chunks(STRIDE).any(|chunk| {
        let found = chunk.iter().map(|byte| is_binary_data(*byte));
        found.fold(false, |one, other| one | other)
    })
}

const ESC: u8 = 0x1b;

/// What follows ESC in a switch to another character set.
fn is_designator(byte: &u8) -> bool {
    matches!(byte, b'$' | b'(')
}

/// Whether these bytes switch to a character set of ISO 2022: ESC and then `$` or `(`. ISO-2022-JP is
/// ASCII to whoever does not know it, and a charset in the field would beat what the page says.
fn has_iso_2022_escape(bytes: &[u8]) -> bool {
    memchr::memchr_iter(ESC, bytes).any(|place| bytes.get(place + 1).is_some_and(is_designator))
}

/// Whether a file switches to a character set of ISO 2022, judged by its pieces, one of which may end
/// between the two bytes of [`has_iso_2022_escape`].
fn has_escape(pieces: &[TextEvidence]) -> bool {
    let is_cut = |pair: &[TextEvidence]| match pair {
        [one, next] => one.escape_edges.1 && next.escape_edges.0,
        _ => false,
    };
    pieces.iter().any(|piece| piece.has_escape) || pieces.windows(2).any(is_cut)
}

/// Whether a page, a style sheet or an XML document says that its charset is another than UTF-8. In
/// ASCII alone that still decides how what it loads is read: scripts of a page (HTML section
/// 8.1.4.2), what a style sheet imports (CSS Syntax section 3.2).
fn names_another_charset(beginning: &[u8]) -> bool {
    let label = match beginning {
        [b'@', ..] => style_sheet_label(beginning).map(<[u8]>::to_vec),
        _ => xml_label(beginning)
            .map(<[u8]>::to_vec)
            .or_else(|| meta_label(beginning)),
    };
    label.is_some_and(|label| {
        let label = label.trim_ascii().to_ascii_lowercase();
        !label.is_empty() && !LABELS_OF_UTF8.contains(&label.as_slice())
    })
}

/// What means UTF-8 where ASCII can be read: its labels (Encoding section 4.2), and those of UTF-16,
/// which can't be right there (HTML section 13.2.3.2).
const LABELS_OF_UTF8: [&[u8]; 9] = [
    b"utf-8",
    b"utf8",
    b"unicode-1-1-utf-8",
    b"unicode11utf8",
    b"unicode20utf8",
    b"x-unicode20utf8",
    b"utf-16",
    b"utf-16be",
    b"utf-16le",
];

/// `@charset "label";` as the very first bytes (CSS Syntax section 3.2).
fn style_sheet_label(beginning: &[u8]) -> Option<&[u8]> {
    let rest = beginning.strip_prefix(b"@charset \"")?;
    let end = memchr::memmem::find(rest, b"\";")?;
    rest.get(..end)
}

/// The encoding of an XML declaration (XML section 2.8), which HTML heeds as well.
fn xml_label(beginning: &[u8]) -> Option<&[u8]> {
    let rest = beginning.strip_prefix(b"<?xml")?;
    let declaration = rest.get(..memchr::memmem::find(rest, b"?>")?)?;
    let place = memchr::memmem::find(declaration, b"encoding")?;
    quoted_value(declaration.get(place + b"encoding".len()..)?)
}

/// What follows `=`, without its quotes; up to white space or `;` where it has none.
fn quoted_value(text: &[u8]) -> Option<&[u8]> {
    let value = text.trim_ascii_start().strip_prefix(b"=")?;
    match value.trim_ascii_start() {
        [quote @ (b'"' | b'\''), rest @ ..] => rest.split(|byte| byte == quote).next(),
        value => value
            .split(|byte| byte.is_ascii_whitespace() || *byte == b';')
            .next(),
    }
}

/// The charset that the first `<meta>` with one names (HTML section 13.2.3.2).
fn meta_label(beginning: &[u8]) -> Option<Vec<u8>> {
    // Most files have none, and need not be tokenized.
    let mut tags = memchr::memchr_iter(b'<', beginning);
    tags.find(|place| {
        let name = beginning.get(place + 1..place + 5);
        name.is_some_and(|name| name.eq_ignore_ascii_case(b"meta"))
    })?;
    let tokenizer = Tokenizer::new_with_emitter(beginning, DefaultEmitter::default());
    tokenizer.flatten().find_map(|token| match token {
        Token::StartTag(tag) if **tag.name == *b"meta" => label_of(&tag),
        _ => None,
    })
}

fn label_of(meta: &StartTag<()>) -> Option<Vec<u8>> {
    let attribute = |wanted: &[u8]| {
        let mut all = meta.attributes.iter();
        all.find_map(|(name, value)| (***name == *wanted).then(|| value.to_vec()))
    };
    if let Some(label) = attribute(b"charset") {
        return Some(label);
    }
    let is_type = attribute(b"http-equiv")?.eq_ignore_ascii_case(b"content-type");
    let content = attribute(b"content")
        .filter(|_| is_type)?
        .to_ascii_lowercase();
    memchr::memmem::find_iter(&content, b"charset")
        .find_map(|place| quoted_value(content.get(place + b"charset".len()..)?))
        .map(<[u8]>::to_vec)
}

/// Whether one group of a longer text is UTF-8 inside, and the bytes at its ends, where a
/// character may continue in the neighbouring group.
struct Utf8Edges {
    valid: bool,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Utf8Edges {
    fn of(bytes: &[u8]) -> Self {
        // A character has at most three continuation bytes, 0b10xxxxxx (RFC 3629 section 3).
        let head = bytes
            .iter()
            .take(3)
            .take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000)
            .count();
        let (head, rest) = bytes.split_at(head);
        let (valid, tail) = match std::str::from_utf8(rest) {
            Ok(_) => (true, &[][..]),
            // No error length means that the bytes end in the middle of a character.
            Err(error) => (error.error_len().is_none(), &rest[error.valid_up_to()..]),
        };
        Self {
            valid,
            head: head.to_vec(),
            tail: if valid { tail.to_vec() } else { Vec::new() },
        }
    }

    fn is_utf8<'a>(groups: impl Iterator<Item = &'a Self>) -> bool {
        let mut pending = Vec::new();
        for group in groups {
            pending.extend_from_slice(&group.head);
            if !group.valid || std::str::from_utf8(&pending).is_err() {
                return false;
            }
            pending.clone_from(&group.tail);
        }
        pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TextKind::{Binary, BinaryUtf8, Empty, Labelled, OtherCharset, Utf8};

    #[test]
    fn text_is_told_from_binary() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8], TextKind)] = &[
            ("nothing", b"", Empty),
            ("ASCII", b"a\tb\r\n\x0c", Utf8),
            ("UTF-8", "caf\u{e9} \u{20ac}".as_bytes(), Utf8),
            ("MIME Sniffing 7.2 a mark of UTF-8", b"\xef\xbb\xbfa", Utf8),
            ("MIME Sniffing 7.2 a mark of UTF-8, and a NUL", b"\xef\xbb\xbf\0", Utf8),
            ("MIME Sniffing 7.2 a mark of UTF-8, and no UTF-8", b"\xef\xbb\xbf\0\xe9", OtherCharset),
            ("MIME Sniffing 7.2 UTF-16BE", b"\xfe\xff\0a", OtherCharset),
            ("MIME Sniffing 7.2 UTF-16LE", b"\xff\xfea\0", OtherCharset),
            ("MIME Sniffing 7.2 Latin-1", b"caf\xe9", OtherCharset),
            ("MIME Sniffing 7.2 windows-1251", b"alert('\xcf\xf0\xe8\xe2\xe5\xf2')", OtherCharset),
            ("UTF-16 without a mark", b"a\0b\0", BinaryUtf8),
            ("ELF", b"\x7fELF\x02\x01\x01\0", BinaryUtf8),
            ("PNG", b"\x89PNG\r\n\x1a\n\0", Binary),
            ("valid UTF-8 with control characters", b"\0\x01\x02bin", BinaryUtf8),
            ("the end of a file in DOS", b"text\r\n\x1a", BinaryUtf8),
            ("ISO-2022-JP", b"\x1b$B$3$s\x1b(B", OtherCharset),
            ("ISO-2022-KR", b"\x1b$)C\n", OtherCharset),
            ("colours of a terminal", b"\x1b[31mred\x1b[0m", Utf8),
            ("a terminal's reset among UTF-8", "\u{e9}\x1b(B\x1b[m".as_bytes(), Utf8),
            ("ESC at the end", b"a\x1b", Utf8),
        ];
        for (name, bytes, want) in cases {
            assert_eq!(text_kind_of(bytes), *want, "{name}");
        }
        for byte in 0..=255_u8 {
            // MIME Sniffing section 3, in its own order.
            let is_binary = byte <= 0x08
                || byte == 0x0b
                || (0x0e..=0x1a).contains(&byte)
                || (0x1c..=0x1f).contains(&byte);
            let kind = text_kind_of(&[b'a', byte]);
            assert_eq!(kind.is_text(), !is_binary, "{byte:#04x}");
        }
    }

    #[test]
    fn another_charset_is_named_in_ascii() {
        #[rustfmt::skip]
        let cases: &[(&str, TextKind)] = &[
            ("<!doctype html><META charset = 'windows-1251'>", Labelled),
            ("<meta http-equiv=Content-Type content=\"text/html; charset=Shift_JIS\">", Labelled),
            ("<meta content=\"text/html;charset = 'euc-kr'\" http-equiv=content-type />", Labelled),
            ("<meta charset=UTF-8><meta charset=koi8-r>", Utf8),
            ("<meta charset=utf-16>", Utf8),
            ("<meta name=description content='charset=koi8-r'>", Utf8),
            ("<meta name=charset content=koi8-r>", Utf8),
            ("<meta http-equiv=content-type content='text/html; charset'>", Utf8),
            ("<!-- <meta charset=koi8-r> --><title>a</title>", Utf8),
            ("<meta charset=koi8-r>\u{e9}", Utf8),
            ("<meta charset><meta charset=>", Utf8),
            ("<metadata charset=koi8-r>", Utf8),
            ("@charset \"windows-1252\"; a {}", Labelled),
            ("@charset \"utf-8\"; a {}", Utf8),
            ("@charset 'windows-1252'; a {}", Utf8),
            ("<?xml version='1.0' encoding='koi8-r'?><a/>", Labelled),
            ("<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>", Utf8),
            ("<?xml version=\"1.0\"?><a encoding='koi8-r'/>", Utf8),
        ];
        for (text, want) in cases {
            assert_eq!(text_kind_of(text.as_bytes()), *want, "{text}");
        }
        let meta = b"<meta charset=koi8-r>";
        for (place, want) in [(BEGINNING - meta.len(), Labelled), (BEGINNING, Utf8)] {
            let page = [&b" ".repeat(place)[..], meta].concat();
            assert_eq!(text_kind_of(&page), want, "at {place}");
        }
    }

    #[test]
    fn pieces_say_what_the_whole_says() {
        let wholes: [&[u8]; 8] = [
            "caf\u{e9} \u{20ac}\u{1f600}".as_bytes(),
            b"caf\xe9 au lait",
            b"text and \0",
            b"and \0 \xff",
            b"plain",
            b"in \x1b$B$3$s\x1b(B Japanese",
            "a reset \x1b(B, and \u{e9}".as_bytes(),
            b"\xff\xfea\0",
        ];
        for whole in wholes {
            // What a file begins with lies in its first piece, which is longer than that.
            for cut in 3..whole.len() {
                let (one, other) = whole.split_at(cut);
                let pieces = [
                    TextEvidence::of(one, 0),
                    TextEvidence::of(other, cut as u64),
                ];
                assert_eq!(
                    text_kind(&pieces),
                    text_kind_of(whole),
                    "{whole:?} at {cut}"
                );
            }
        }
    }
}
