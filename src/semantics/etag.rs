//! Entity tags (RFC 9110 8.8.3): the strong tag we issue, the tags a client sends, their
//! comparison.
//!
//! [`ETag`] is ours, 32 hash bytes and sometimes 4 more; [`EntityTag`] borrows a client's.
//! [`EntityTags`] is the value of If-Match and If-None-Match. There is no `==` between the two
//! kinds, nor among client's tags: only [`strong_eq`] and [`weak_eq`], so that each place says
//! which it means. Nothing here allocates.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use http::header::{HeaderMap, HeaderName};

use super::head::FieldLines;
use super::trim_ows;

/// The strong tag of a representation (RFC 9110 8.8.3): the BLAKE3 of its bytes, and where fields
/// that a 304 cannot renew differ from the built-in ones, 4 bytes of the hash of those.
///
/// Displays as it stands in the field, quotes included: `"<64 hex>"` or `"<64 hex>-<8 hex>"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ETag {
    hash: [u8; 32],
    fields: Option<[u8; 4]>,
}

impl ETag {
    /// The tag of the bytes that hash to `hash`.
    #[must_use]
    pub const fn new(hash: [u8; 32]) -> Self {
        Self { hash, fields: None }
    }

    /// The same tag with the suffix for fields that differ from the built-in ones.
    #[must_use]
    pub const fn with_fields(self, fields: [u8; 4]) -> Self {
        Self {
            hash: self.hash,
            fields: Some(fields),
        }
    }

    /// The hash of the representation's bytes.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The suffix for fields, if this tag has one.
    #[must_use]
    pub const fn fields(&self) -> Option<[u8; 4]> {
        self.fields
    }

    /// The opaque-tag as text (RFC 9110 8.8.3), on the stack.
    #[must_use]
    pub fn opaque(&self) -> Opaque {
        let mut text = [b'"'; QUOTED_LONG];
        let (_, after) = text.split_at_mut(1);
        let after = write_hex(after, &self.hash);
        let Some(fields) = self.fields else {
            return Opaque {
                text,
                length: QUOTED_SHORT,
            };
        };
        if let Some((dash, after)) = after.split_first_mut() {
            *dash = b'-';
            write_hex(after, &fields);
        }
        Opaque {
            text,
            length: QUOTED_LONG,
        }
    }

    /// Reads back what `Display` writes, and nothing else: quotes, lower-case hex, no `W/`.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [b'"', opaque @ .., b'"'] = value else {
            return None;
        };
        let (hash, rest) = opaque.split_at_checked(64)?;
        let tag = Self::new(read_hex(hash)?);
        match rest {
            [] => Some(tag),
            [b'-', fields @ ..] => Some(tag.with_fields(read_hex(fields)?)),
            _ => None,
        }
    }

    /// Whether `opaque` is this tag's opaque-tag, octet by octet (RFC 9110 8.8.3.2). Most tags
    /// that differ do so in the first pair, so nothing is rendered.
    fn is(&self, opaque: &[u8]) -> bool {
        let Some((hash, rest)) = opaque.split_at_checked(64) else {
            return false;
        };
        equals_hex(hash, &self.hash)
            && match (rest, &self.fields) {
                ([], None) => true,
                ([b'-', rest @ ..], Some(fields)) => rest.len() == 8 && equals_hex(rest, fields),
                _ => false,
            }
    }
}

/// The quoted form (RFC 9110 8.8.3).
impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(self.opaque().quoted()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for ETag {
    type Err = BadETag;

    fn from_str(text: &str) -> Result<Self, BadETag> {
        Self::parse(text.as_bytes()).ok_or(BadETag)
    }
}

/// The text is not a tag that etagd writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadETag;

impl fmt::Display for BadETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a tag of etagd: expected \"<64 hex>\" or \"<64 hex>-<8 hex>\", quoted")
    }
}

impl std::error::Error for BadETag {}

/// An [`ETag`]'s opaque-tag as text, on the stack (RFC 9110 8.8.3). Derefs to it without quotes.
#[derive(Clone, Copy, Debug)]
pub struct Opaque {
    /// Quotes included, so that the field value needs no second copy.
    text: [u8; QUOTED_LONG],
    length: usize,
}

impl Opaque {
    /// Without quotes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self.quoted() {
            [_, opaque @ .., _] => opaque,
            _ => &[],
        }
    }

    /// With quotes: the value of the ETag field.
    #[must_use]
    pub fn quoted(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }
}

impl Deref for Opaque {
    type Target = str;

    fn deref(&self) -> &str {
        // Never the default: hex, a dash and quotes are ASCII.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Opaque {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A client's tag (RFC 9110 8.8.3). It has no `==`: see [`strong_eq`] and [`weak_eq`].
#[derive(Clone, Copy, Debug)]
pub struct EntityTag<'a> {
    /// Whether it was marked `W/`.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads a value that is one entity-tag and nothing more but OWS around it (RFC 9110 8.8.3).
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        match Self::read(trim_ows(value))? {
            (tag, []) => Some(tag),
            _ => None,
        }
    }

    /// The tag at the beginning of `bytes`, and what follows it.
    ///
    /// ```abnf
    /// entity-tag = [ weak ] opaque-tag
    /// weak       = %s"W/"
    /// opaque-tag = DQUOTE *etagc DQUOTE
    /// etagc      = %x21 / %x23-7E / obs-text
    /// ```
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, rest) = match bytes.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let rest = rest.strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| !is_etagc(*byte))?;
        let (opaque, rest) = rest.split_at_checked(end)?;
        Some((Self { weak, opaque }, rest.strip_prefix(b"\"")?))
    }
}

/// Strong comparison (RFC 9110 8.8.3.2): ours is strong, so theirs must be too.
#[must_use]
pub fn strong_eq(ours: &ETag, theirs: EntityTag<'_>) -> bool {
    !theirs.weak && ours.is(theirs.opaque)
}

/// Weak comparison (RFC 9110 8.8.3.2): the opaque-tags alone count.
#[must_use]
pub fn weak_eq(ours: &ETag, theirs: EntityTag<'_>) -> bool {
    ours.is(theirs.opaque)
}

/// The value of If-Match or If-None-Match (RFC 9110 13.1.1, 13.1.2), all of its lines.
#[derive(Debug)]
pub enum EntityTags<'a, F = HeaderMap> {
    /// `*`: any current representation.
    Any,
    /// One tag in one line, as nearly every client sends it.
    One(EntityTag<'a>),
    /// Any other list, the empty one included.
    Listed(Listed<'a, F>),
}

impl<'a, F: FieldLines> EntityTags<'a, F> {
    /// The value of the field `name`; `None` where it is absent or does not parse.
    ///
    /// ```abnf
    /// If-Match = "*" / #entity-tag
    /// ```
    #[must_use]
    pub fn parse(fields: &'a F, name: &HeaderName) -> Option<Self> {
        let mut values = fields.lines(name);
        let first = values.next()?;
        let alone = values.next().is_none();
        if trim_ows(first) == b"*" {
            return alone.then_some(Self::Any);
        }
        if let Some(tag) = EntityTag::parse(first).filter(|_| alone) {
            return Some(Self::One(tag));
        }
        let all_parse = fields
            .lines(name)
            .flat_map(|rest| Members { rest })
            .all(|member| member.is_some());
        all_parse.then(|| {
            Self::Listed(Listed {
                fields,
                name: name.clone(),
            })
        })
    }
}

/// Tags of a field that has been found to parse.
#[derive(Debug)]
pub struct Listed<'a, F> {
    fields: &'a F,
    name: HeaderName,
}

impl<'a, F: FieldLines> Listed<'a, F> {
    /// The tags in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = EntityTag<'a>> {
        let lines = self.fields.lines(&self.name);
        lines.flat_map(|rest| Members { rest }.flatten())
    }
}

/// The members of one line; `None` for one that is no entity-tag, after which it ends.
///
/// ```abnf
/// #entity-tag = [ entity-tag ] *( OWS "," OWS [ entity-tag ] )
/// ```
struct Members<'a> {
    /// At the beginning, or at the comma after a member.
    rest: &'a [u8],
}

impl<'a> Iterator for Members<'a> {
    type Item = Option<EntityTag<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let member = EntityTag::read(self.rest).and_then(|(tag, rest)| {
            let rest = trim_ows(rest);
            matches!(rest, [] | [b',', ..]).then_some((tag, rest))
        });
        self.rest = member.map_or(&[], |(_, rest)| rest);
        Some(member.map(|(tag, _)| tag))
    }
}

const fn is_etagc(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff)
}

/// Writes `bytes` as lower-case hex and returns the room that is left.
fn write_hex<'a>(room: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let mut pairs = room.chunks_exact_mut(2);
    for (byte, pair) in bytes.iter().zip(&mut pairs) {
        pair.copy_from_slice(&hex(*byte));
    }
    let written = bytes.len().saturating_mul(2);
    room.get_mut(written..).unwrap_or_default()
}

fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N.checked_mul(2)? {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = (digit(high)? << 4) | digit(low)?;
    }
    Some(bytes)
}

fn equals_hex(text: &[u8], bytes: &[u8]) -> bool {
    let mut pairs = text.chunks_exact(2).zip(bytes);
    pairs.all(|(pair, byte)| pair == hex(*byte))
}

const fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// Lower case only: one tag has one spelling.
const fn digit(text: u8) -> Option<u8> {
    match text {
        b'0'..=b'9' => Some(text & 15),
        b'a'..=b'f' => Some((text & 15).saturating_add(9)),
        _ => None,
    }
}

/// Quotes and 64 digits.
const QUOTED_SHORT: usize = 66;
/// Quotes, 64 digits, a dash and 8 digits.
const QUOTED_LONG: usize = 75;

#[cfg(test)]
mod tests {
    use http::header::IF_NONE_MATCH;

    use super::super::fields;
    use super::*;

    #[test]
    fn lists() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, Option<&[&str]>)] = &[
            // name, lines, tags (`*` alone for any)
            ("13.1.2 absent", "", None),
            ("13.1.2 any", "if-none-match: *", Some(&["*"])),
            ("13.1.2 any, OWS", "if-none-match: \t * \t", Some(&["*"])),
            ("13.1.2 any and an empty member", "if-none-match: *,", None),
            ("13.1.2 any and a tag", r#"if-none-match: *, "x""#, None),
            ("13.1.2 a tag and any", r#"if-none-match: "x", *"#, None),
            ("13.1.2 any twice", "if-none-match: *, *", None),
            ("13.1.2 any in two lines", "if-none-match: * | if-none-match: *", None),
            ("13.1.2 any, then a tag's line", r#"if-none-match: * | if-none-match: "x""#, None),
            ("13.1.2 a tag, then any's line", r#"if-none-match: "x" | if-none-match: *"#, None),
            ("13.1.2 any, then an empty line", "if-none-match: * | if-none-match: ", None),
            ("13.1.2 weak star", "if-none-match: W/*", None),
            ("8.8.3 one", r#"if-none-match: "x""#, Some(&[r#""x""#])),
            ("8.8.3 weak", r#"if-none-match: W/"x""#, Some(&[r#"W/"x""#])),
            ("8.8.3 empty opaque-tag", r#"if-none-match: """#, Some(&[r#""""#])),
            ("8.8.3 weak empty opaque-tag", r#"if-none-match: W/"""#, Some(&[r#"W/"""#])),
            ("8.8.3 quoted star", r#"if-none-match: "*""#, Some(&[r#""*""#])),
            ("8.8.3 quoted W/", r#"if-none-match: "W/""#, Some(&[r#""W/""#])),
            ("8.8.3 comma inside", r#"if-none-match: "a,b""#, Some(&[r#""a,b""#])),
            ("8.8.3 backslash is a character", r#"if-none-match: "a\""#, Some(&[r#""a\""#])),
            ("8.8.3 backslash escapes nothing", r#"if-none-match: "a\"b""#, None),
            ("8.8.3 obs-text", r#"if-none-match: "é""#, Some(&[r#""é""#])),
            ("8.8.3 exclamation mark and tilde", r#"if-none-match: "!~""#, Some(&[r#""!~""#])),
            ("8.8.3 space inside", r#"if-none-match: "a b""#, None),
            ("8.8.3 tab inside", "if-none-match: \"a\tb\"", None),
            ("8.8.3 lower-case w", r#"if-none-match: w/"x""#, None),
            ("8.8.3 W without slash", r#"if-none-match: W"x""#, None),
            ("8.8.3 space after W/", r#"if-none-match: W/ "x""#, None),
            ("8.8.3 W/ twice", r#"if-none-match: W/W/"x""#, None),
            ("8.8.3 W/ alone", "if-none-match: W/", None),
            ("8.8.3 W alone", "if-none-match: W", None),
            ("8.8.3 unquoted", "if-none-match: x", None),
            ("8.8.3 single quotes", "if-none-match: 'x'", None),
            ("8.8.3 not closed", r#"if-none-match: "x"#, None),
            ("8.8.3 not opened", r#"if-none-match: x""#, None),
            ("8.8.3 one quote", r#"if-none-match: ""#, None),
            ("8.8.3 three quotes", r#"if-none-match: """""#, None),
            ("8.8.3 text after", r#"if-none-match: "x"y"#, None),
            ("8.8.3 text before", r#"if-none-match: y"x""#, None),
            ("8.8.3 semicolon after", r#"if-none-match: "x";q=1"#, None),
            ("8.8.3 suffix after", r#"if-none-match: "x"-gzip"#, None),
            ("5.6.1 two", r#"if-none-match: "x", W/"y""#, Some(&[r#""x""#, r#"W/"y""#])),
            ("5.6.1 two, tight", r#"if-none-match: "x",W/"y""#, Some(&[r#""x""#, r#"W/"y""#])),
            ("5.6.1 two, wide", "if-none-match: \"x\" \t ,\t \"y\"", Some(&[r#""x""#, r#""y""#])),
            ("5.6.1 same twice", r#"if-none-match: "x", "x""#, Some(&[r#""x""#, r#""x""#])),
            ("5.6.1 no comma", r#"if-none-match: "x" "y""#, None),
            ("5.6.1 no comma, no space", r#"if-none-match: "x""y""#, None),
            ("5.6.1 semicolon for comma", r#"if-none-match: "x"; "y""#, None),
            ("5.6.1 empty list", "if-none-match: ", Some(&[])),
            ("5.6.1 only commas", "if-none-match: , ,,", Some(&[])),
            ("5.6.1 empty member first", r#"if-none-match: , "x""#, Some(&[r#""x""#])),
            ("5.6.1 empty member last", r#"if-none-match: "x","#, Some(&[r#""x""#])),
            ("5.6.1 empty member between", r#"if-none-match: "x",, "y""#, Some(&[r#""x""#, r#""y""#])),
            ("5.6.1 garbage first", r#"if-none-match: x, "y""#, None),
            ("5.6.1 garbage last", r#"if-none-match: "y", x"#, None),
            ("5.6.1 garbage between", r#"if-none-match: "y", x, "z""#, None),
            ("5.3 two lines", r#"if-none-match: "x" | if-none-match: "y""#, Some(&[r#""x""#, r#""y""#])),
            ("5.3 an empty line first", r#"if-none-match: | if-none-match: "y""#, Some(&[r#""y""#])),
            ("5.3 garbage in a line", r#"if-none-match: "x" | if-none-match: y"#, None),
            ("5.3 tag across lines", r#"if-none-match: "x | if-none-match: y""#, None),
            ("5.3 other fields do not count", r#"if-match: "x""#, None),
        ];
        for (name, lines, want) in cases {
            let fields = fields(lines);
            let print = |tag: EntityTag<'_>| {
                let mark = if tag.weak { "W/" } else { "" };
                format!("{mark}\"{}\"", str::from_utf8(tag.opaque).unwrap())
            };
            let got = EntityTags::parse(&fields, &IF_NONE_MATCH).map(|tags| match tags {
                EntityTags::Any => vec!["*".to_owned()],
                EntityTags::One(tag) => vec![print(tag)],
                EntityTags::Listed(tags) => tags.iter().map(print).collect(),
            });
            let want = want.map(|tags| tags.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn every_octet() {
        for byte in 0..=255_u8 {
            let value = [b'"', byte, b'"'];
            let allowed = byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80;
            assert_eq!(
                EntityTag::parse(&value).is_some(),
                allowed,
                "8.8.3 etagc {byte:#04x}"
            );
        }
    }

    #[test]
    fn comparison() {
        let ours = ETag::new([0xa5; 32]);
        let suffixed = ours.with_fields([1, 2, 0xfe, 0xff]);
        let hex = "a5".repeat(32);
        #[rustfmt::skip]
        let cases = [
            // name, ours, theirs, strong, weak
            ("8.8.3.2 same", ours, format!("\"{hex}\""), true, true),
            ("8.8.3.2 weak", ours, format!("W/\"{hex}\""), false, true),
            ("8.8.3.2 empty", ours, "\"\"".to_owned(), false, false),
            ("8.8.3.2 shorter", ours, format!("\"{}\"", &hex[1..]), false, false),
            ("8.8.3.2 shorter by a pair", ours, format!("\"{}\"", &hex[2..]), false, false),
            ("8.8.3.2 longer", ours, format!("\"{hex}a\""), false, false),
            ("8.8.3.2 longer by a pair", ours, format!("\"{hex}a5\""), false, false),
            ("8.8.3.2 upper case", ours, format!("\"{}\"", hex.to_uppercase()), false, false),
            ("8.8.3.2 last digit", ours, format!("\"{}4\"", &hex[..63]), false, false),
            ("8.8.3.2 first digit", ours, format!("\"b{}\"", &hex[1..]), false, false),
            ("8.8.3.2 suffix against none", ours, format!("\"{hex}-0102feff\""), false, false),
            ("8.8.3.2 dash only", ours, format!("\"{hex}-\""), false, false),
            ("8.8.3.2 intermediary's suffix", ours, format!("\"{hex}-gzip\""), false, false),
            ("8.8.3.2 none against suffix", suffixed, format!("\"{hex}\""), false, false),
            ("8.8.3.2 same suffix", suffixed, format!("\"{hex}-0102feff\""), true, true),
            ("8.8.3.2 same suffix, weak", suffixed, format!("W/\"{hex}-0102feff\""), false, true),
            ("8.8.3.2 other suffix", suffixed, format!("\"{hex}-0102fefe\""), false, false),
            ("8.8.3.2 suffix cut", suffixed, format!("\"{hex}-0102fe\""), false, false),
            ("8.8.3.2 suffix cut to nothing", suffixed, format!("\"{hex}-\""), false, false),
            ("8.8.3.2 suffix and more", suffixed, format!("\"{hex}-0102feff00\""), false, false),
            ("8.8.3.2 suffix after no dash", suffixed, format!("\"{hex}_0102feff\""), false, false),
            ("8.8.3.2 suffix in upper case", suffixed, format!("\"{hex}-0102FEFF\""), false, false),
        ];
        for (name, ours, theirs, strong, weak) in cases {
            let theirs = EntityTag::parse(theirs.as_bytes()).unwrap();
            assert_eq!(strong_eq(&ours, theirs), strong, "{name}, strongly");
            assert_eq!(weak_eq(&ours, theirs), weak, "{name}, weakly");
        }
    }

    #[test]
    fn display_and_back() {
        let mut hash = [0; 32];
        for (byte, value) in hash.iter_mut().zip(0..) {
            *byte = value * 8 + 7;
        }
        let plain = ETag::new(hash);
        let suffixed = plain.with_fields([0, 0x0f, 0xf0, 0xff]);
        let hex = "070f171f272f373f474f575f676f777f878f979fa7afb7bfc7cfd7dfe7eff7ff";
        assert_eq!(plain.to_string(), format!("\"{hex}\""), "8.8.3");
        assert_eq!(suffixed.to_string(), format!("\"{hex}-000ff0ff\""), "8.8.3");
        assert_eq!(&*plain.opaque(), hex);
        assert_eq!(&*suffixed.opaque(), format!("{hex}-000ff0ff"));
        assert_eq!((plain.hash(), plain.fields()), (&hash, None));
        assert_eq!(suffixed.fields(), Some([0, 0x0f, 0xf0, 0xff]));
        for tag in [plain, suffixed, ETag::new([0; 32]), ETag::new([0xff; 32])] {
            assert_eq!(tag.to_string().parse(), Ok(tag), "8.8.3 {tag}");
            let theirs = tag.to_string();
            let theirs = EntityTag::parse(theirs.as_bytes()).unwrap();
            assert!(strong_eq(&tag, theirs), "8.8.3.2 {tag}");
        }
    }

    #[test]
    fn ours_is_read_strictly() {
        let hex = "a5".repeat(32);
        #[rustfmt::skip]
        let cases = [
            ("8.8.3 unquoted", hex.clone()),
            ("8.8.3 weak", format!("W/\"{hex}\"")),
            ("8.8.3 empty", String::new()),
            ("8.8.3 one quote", "\"".to_owned()),
            ("8.8.3 two quotes", "\"\"".to_owned()),
            ("8.8.3 short", format!("\"{}\"", &hex[2..])),
            ("8.8.3 long", format!("\"{hex}a5\"")),
            ("8.8.3 upper case", format!("\"{}\"", hex.to_uppercase())),
            ("8.8.3 no digit", format!("\"{}g\"", &hex[1..])),
            ("8.8.3 short suffix", format!("\"{hex}-0102fe\"")),
            ("8.8.3 long suffix", format!("\"{hex}-0102feff0\"")),
            ("8.8.3 empty suffix", format!("\"{hex}-\"")),
            ("8.8.3 suffix in upper case", format!("\"{hex}-0102FEFF\"")),
            ("8.8.3 two suffixes", format!("\"{hex}-0102feff-0102feff\"")),
            ("8.8.3 space around", format!(" \"{hex}\" ")),
            ("8.8.3 not ASCII", format!("\"{}é\"", &hex[2..])),
        ];
        for (name, text) in cases {
            assert_eq!(text.parse::<ETag>(), Err(BadETag), "{name}");
        }
    }
}
