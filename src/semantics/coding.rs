//! Content codings (RFC 9110 8.4) and the choice among them by Accept-Encoding (12.5.3).
//!
//! [`prefer`] picks one of a resource's representations. Absent Accept-Encoding means identity:
//! 12.5.3 would allow any coding, but a client that does not ask is mostly a tool that stores what it gets.
//! A field that does not parse is absent. 406 is never the answer: where nothing fits, identity.

use std::cmp::Reverse;

use http::header::ACCEPT_ENCODING;

use super::dictionary::DictionaryHash;
use super::head::FieldLines;
use super::{members, read_qvalue, trim_ows};

/// How a representation is encoded (RFC 9110 8.4.1). The order is the one that breaks ties:
/// first what costs the client least to decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// Not at all (RFC 9110 12.5.3).
    Identity,
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
    /// gzip (RFC 9110 8.4.1.3).
    Gzip,
    /// Brotli with a dictionary (RFC 9842 4).
    DictionaryBrotli(DictionaryHash),
    /// Zstandard with a dictionary (RFC 9842 5).
    DictionaryZstd(DictionaryHash),
}

/// A coding without its dictionary, if it has one: what there are millions of keeps that elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodingKind(u8);

impl CodingKind {
    /// Whether a coding of this kind has a dictionary.
    #[must_use]
    pub const fn has_dictionary(self) -> bool {
        self.0 as usize >= Coding::ALL.len()
    }

    /// The coding of this kind with this dictionary, or of the same encoding without one.
    #[must_use]
    pub fn with(self, dictionary: Option<&DictionaryHash>) -> Coding {
        match (self.0, dictionary) {
            (1, _) | (4, None) => Coding::Brotli,
            (2, _) | (5, None) => Coding::Zstd,
            (3, _) => Coding::Gzip,
            (4, Some(dictionary)) => Coding::DictionaryBrotli(*dictionary),
            (5, Some(dictionary)) => Coding::DictionaryZstd(*dictionary),
            _ => Coding::Identity,
        }
    }
}

impl Coding {
    /// It without its dictionary.
    #[must_use]
    pub const fn kind(self) -> CodingKind {
        CodingKind(self.index() as u8)
    }

    /// Those without a dictionary, in order.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its content-coding token (RFC 9110 8.4.1).
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::DictionaryBrotli(_) => "dcb",
            Self::DictionaryZstd(_) => "dcz",
        }
    }

    /// The extension of its sidecar files, without the dot.
    #[must_use]
    pub const fn extension(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zst"),
            Self::Gzip => Some("gz"),
            Self::DictionaryBrotli(_) => Some("dcb"),
            Self::DictionaryZstd(_) => Some("dcz"),
        }
    }

    /// The dictionary that a client needs to decode it.
    #[must_use]
    pub const fn dictionary(self) -> Option<DictionaryHash> {
        match self {
            Self::Identity | Self::Brotli | Self::Zstd | Self::Gzip => None,
            Self::DictionaryBrotli(dictionary) | Self::DictionaryZstd(dictionary) => {
                Some(dictionary)
            }
        }
    }

    /// Both codings with this dictionary, in order.
    #[must_use]
    pub const fn with_dictionary(dictionary: DictionaryHash) -> [Self; 2] {
        [
            Self::DictionaryBrotli(dictionary),
            Self::DictionaryZstd(dictionary),
        ]
    }

    /// Reads the token of a coding without a dictionary, case-insensitively (RFC 9110 8.4.1);
    /// `x-gzip` is gzip (8.4.1.3).
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL
            .into_iter()
            .find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
    }

    /// What a stream with a dictionary begins with, the dictionary's hash included (RFC 9842 4 and 5).
    #[must_use]
    pub fn header(self) -> Option<Vec<u8>> {
        let magic: &[u8] = match self {
            Self::Identity | Self::Brotli | Self::Zstd | Self::Gzip => return None,
            Self::DictionaryBrotli(_) => BROTLI_MAGIC,
            Self::DictionaryZstd(_) => ZSTD_MAGIC,
        };
        Some([magic, self.dictionary()?.as_bytes()].concat())
    }

    /// The coding that [`Self::header`] begins a stream of.
    #[must_use]
    pub fn of_header(stream: &[u8]) -> Option<Self> {
        let read = |magic, coding: fn(DictionaryHash) -> Self| {
            let hash = stream.strip_prefix(magic)?.first_chunk()?;
            Some(coding(DictionaryHash::new(*hash)))
        };
        read(BROTLI_MAGIC, Self::DictionaryBrotli)
            .or_else(|| read(ZSTD_MAGIC, Self::DictionaryZstd))
    }

    /// The extension of a delta, without the first dot: `0123456789abcdef.dcb`, where the digits begin
    /// the hash of the dictionary.
    #[must_use]
    pub fn delta_extension(self) -> Option<String> {
        let digits = self.dictionary()?.to_string();
        Some(format!(
            "{}.{}",
            digits.get(..DELTA_DIGITS)?,
            self.extension()?
        ))
    }

    /// Its place in a table by coding.
    const fn index(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Brotli => 1,
            Self::Zstd => 2,
            Self::Gzip => 3,
            Self::DictionaryBrotli(_) => 4,
            Self::DictionaryZstd(_) => 5,
        }
    }
}

/// Hex digits of the dictionary's hash in the name of a delta.
const DELTA_DIGITS: usize = 16;

/// The file that a path would be a delta of: its name without the dictionary's digits and the
/// extension of a coding with a dictionary.
#[must_use]
pub fn delta_stem(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_suffix(b".dcb").or(path.strip_suffix(b".dcz"))?;
    let (stem, digits) = rest.split_last_chunk::<DELTA_DIGITS>()?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let stem = stem.strip_suffix(b".")?;
    let is_name = !stem.is_empty() && !stem.ends_with(b"/");
    (is_name && digits.iter().all(is_digit)).then_some(stem)
}

/// RFC 9842 4: the magic number of `dcb`.
const BROTLI_MAGIC: &[u8] = b"\xffDCB";
/// RFC 9842 5: the magic number of `dcz`, a skippable frame of zstd that holds the hash.
const ZSTD_MAGIC: &[u8] = b"\x5e\x2a\x4d\x18\x20\0\0\0";
/// The longest of [`Coding::header`].
pub const MAX_HEADER_LENGTH: usize = 40;

/// The index in `available` (each a coding and its length) of the representation to send
/// (RFC 9110 12.5.3): the highest qvalue, then the shortest, then the order of [`Coding`].
/// Where nothing fits, or without Accept-Encoding: identity, and 0 if even that is not there.
/// Codings with a dictionary may be among them only if the client has that dictionary.
#[must_use]
pub fn prefer(fields: &impl FieldLines, available: &[(Coding, u64)]) -> usize {
    if available.len() < 2 {
        return 0;
    }
    let identity = || {
        let place = available
            .iter()
            .position(|(coding, _)| *coding == Coding::Identity);
        place.unwrap_or(0)
    };
    let Some(accepted) = AcceptEncoding::parse(fields) else {
        return identity();
    };
    available
        .iter()
        .enumerate()
        .filter_map(|(index, (coding, length))| {
            let preference = accepted.preference(*coding)?;
            Some((Reverse(preference), *length, *coding, index))
        })
        .min()
        .map_or_else(identity, |(.., index)| index)
}

/// What Accept-Encoding says of the codings we know; weights are thousandths.
#[derive(Default)]
struct AcceptEncoding {
    /// By [`Coding::index`]. Where a coding is listed twice the first counts: the RFC does not
    /// say, and what a proxy appends must not undo what the client put first.
    listed: [Option<u16>; 6],
    /// `*`, which stands for every coding without a dictionary that is not listed.
    any: Option<u16>,
}

impl AcceptEncoding {
    /// `None` where the field is absent or any member of any line does not parse.
    ///
    /// ```abnf
    /// Accept-Encoding = #( codings [ weight ] )
    /// codings         = content-coding / "identity" / "*"
    /// ```
    fn parse(fields: &impl FieldLines) -> Option<Self> {
        if !fields.has(&ACCEPT_ENCODING) {
            return None;
        }
        let mut accepted = Self::default();
        for member in fields.lines(&ACCEPT_ENCODING).flat_map(members) {
            let (coding, weight) = read_member(member)?;
            let place = if coding == b"*" {
                Some(&mut accepted.any)
            } else {
                place_of_token(coding).and_then(|place| accepted.listed.get_mut(place))
            };
            if let Some(place) = place {
                place.get_or_insert(weight);
            }
        }
        Some(accepted)
    }

    /// How much `coding` is wanted, to compare; `None` where it is not acceptable.
    fn preference(&self, coding: Coding) -> Option<u16> {
        let listed = self.listed.get(coding.index()).copied().flatten();
        // A client that has a dictionary lists what it can decode with it (RFC 9842 6.1): `*` comes
        // from programs that take anything and decode nothing.
        let any = self.any.filter(|_| coding.dictionary().is_none());
        match (listed.or(any), coding) {
            (Some(0), _) => None,
            (Some(weight), _) => Some(weight),
            // 12.5.3: identity needs no mention, but whoever lists a coding wants that more.
            (None, Coding::Identity) => Some(0),
            (None, _) => None,
        }
    }
}

/// The place of a coding in [`AcceptEncoding::listed`].
fn place_of_token(token: &[u8]) -> Option<usize> {
    const ANY: DictionaryHash = DictionaryHash::new([0; 32]);
    Coding::from_token(token)
        .or_else(|| {
            Coding::with_dictionary(ANY)
                .into_iter()
                .find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
        })
        .map(Coding::index)
}

/// One member: its coding and weight, 1000 where there is none (RFC 9110 12.4.2).
///
/// ```abnf
/// weight = OWS ";" OWS "q=" qvalue
/// ```
fn read_member(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.splitn(2, |byte| *byte == b';').map(trim_ows);
    let coding = parts.next()?;
    if coding.is_empty() || !coding.iter().all(|byte| is_tchar(*byte)) {
        return None;
    }
    let weight = match parts.next() {
        None => 1000,
        Some([b'q' | b'Q', b'=', qvalue @ ..]) => read_qvalue(qvalue)?,
        Some(_) => return None,
    };
    Some((coding, weight))
}

/// RFC 9110 5.6.2: what a token is made of.
const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::Coding::{Brotli, DictionaryBrotli, DictionaryZstd, Gzip, Identity, Zstd};
    use super::*;

    const DICTIONARY: DictionaryHash = DictionaryHash::new([7; 32]);
    const DCB: Coding = DictionaryBrotli(DICTIONARY);
    const DCZ: Coding = DictionaryZstd(DICTIONARY);

    type Available = &'static [(Coding, u64)];

    /// Shortest last, so that neither order nor place decides by accident.
    const ALL: Available = &[(Identity, 100), (Gzip, 40), (Zstd, 35), (Brotli, 30)];

    #[test]
    fn among_all() {
        #[rustfmt::skip]
        let cases = [
            ("12.5.3 absent", "", Identity),
            ("12.5.3 empty", "accept-encoding: ", Identity),
            ("12.5.3 only commas", "accept-encoding: , ,", Identity),
            ("12.5.3 gzip", "accept-encoding: gzip", Gzip),
            ("12.5.3 br", "accept-encoding: br", Brotli),
            ("12.5.3 zstd", "accept-encoding: zstd", Zstd),
            ("12.5.3 identity", "accept-encoding: identity", Identity),
            ("12.5.3 curl", "accept-encoding: deflate, gzip, br, zstd", Brotli),
            ("12.5.3 Chrome", "accept-encoding: gzip, deflate, br, zstd", Brotli),
            ("12.5.3 Go", "accept-encoding: gzip", Gzip),
            ("12.5.3 unknown only", "accept-encoding: deflate", Identity),
            ("12.5.3 unknown with qvalue", "accept-encoding: deflate;q=1, gzip;q=0.1", Gzip),
            ("12.5.3 unknown tokens", "accept-encoding: x!#$%&'*+-.^_`|~9, gzip", Gzip),
            ("12.5.3 any", "accept-encoding: *", Brotli),
            ("12.5.3 any, weighted", "accept-encoding: *;q=0.1", Brotli),
            ("12.5.3 any but br", "accept-encoding: *, br;q=0", Zstd),
            ("12.5.3 any, br less", "accept-encoding: *, br;q=0.5", Zstd),
            ("12.5.3 any but the compressed", "accept-encoding: *, br;q=0, zstd;q=0, gzip;q=0", Identity),
            ("12.5.3 any stands for identity", "accept-encoding: br;q=0.5, gzip;q=0, zstd;q=0, *", Identity),
            ("12.5.3 any less than gzip", "accept-encoding: gzip, *;q=0.5", Gzip),
            ("12.5.3 any excluded", "accept-encoding: *;q=0", Identity),
            ("12.5.3 any excluded but gzip", "accept-encoding: gzip, *;q=0", Gzip),
            ("12.5.3 any excluded but identity", "accept-encoding: identity, *;q=0", Identity),
            ("12.5.3 identity excluded", "accept-encoding: gzip, identity;q=0", Gzip),
            ("12.5.3 identity excluded, nothing else", "accept-encoding: identity;q=0", Identity),
            ("12.5.3 identity excluded, unknown", "accept-encoding: deflate, identity;q=0", Identity),
            ("12.5.3 everything excluded", "accept-encoding: gzip;q=0, identity;q=0, *;q=0", Identity),
            ("12.5.3 identity excluded, any", "accept-encoding: identity;q=0, *", Brotli),
            ("12.5.3 unlisted identity comes last", "accept-encoding: gzip;q=0.001", Gzip),
            ("12.5.3 listed identity counts", "accept-encoding: gzip;q=0.5, identity;q=0.6", Identity),
            ("12.5.3 listed identity, less", "accept-encoding: gzip;q=0.5, identity;q=0.4", Gzip),
            ("12.5.3 listed identity, equal", "accept-encoding: gzip;q=0.5, identity;q=0.5", Gzip),
            ("12.5.3 unlisted after excluded", "accept-encoding: gzip;q=0", Identity),
            ("12.5.3 not listed, not sent", "accept-encoding: zstd, gzip", Zstd),

            ("12.4.2 qvalue before size", "accept-encoding: br;q=0.5, gzip;q=0.8", Gzip),
            ("12.4.2 default is 1", "accept-encoding: br;q=0.999, gzip", Gzip),
            ("12.4.2 third digit counts", "accept-encoding: br;q=0.001, gzip;q=0.002", Gzip),
            ("12.4.2 place of digits", "accept-encoding: br;q=0.09, gzip;q=0.1", Gzip),
            ("12.4.2 equal in two spellings", "accept-encoding: br;q=0.5, gzip;q=0.500", Brotli),
            ("12.4.2 one in two spellings", "accept-encoding: br;q=1.000, gzip;q=1", Brotli),
            ("12.4.2 0.", "accept-encoding: br;q=0., gzip", Gzip),
            ("12.4.2 1.", "accept-encoding: br;q=1., gzip;q=0.9", Brotli),
            ("12.4.2 0.000", "accept-encoding: br;q=0.000, gzip", Gzip),
            ("12.4.2 capital Q", "accept-encoding: br;Q=0.5, gzip", Gzip),
            ("12.4.2 OWS around the semicolon", "accept-encoding: br \t;\t q=0.5 , gzip", Gzip),
            ("12.4.2 OWS, zero", "accept-encoding: gzip ; q=0 , zstd", Zstd),

            ("12.4.2 above one", "accept-encoding: gzip;q=1.001", Identity),
            ("12.4.2 two", "accept-encoding: gzip;q=2", Identity),
            ("12.4.2 four digits", "accept-encoding: gzip;q=0.1234", Identity),
            ("12.4.2 four zeros", "accept-encoding: gzip;q=1.0000", Identity),
            ("12.4.2 no leading zero", "accept-encoding: gzip;q=.5", Identity),
            ("12.4.2 two leading zeros", "accept-encoding: gzip;q=00.5", Identity),
            ("12.4.2 comma for the point", "accept-encoding: gzip;q=0,5", Identity),
            ("12.4.2 minus", "accept-encoding: gzip;q=-1", Identity),
            ("12.4.2 plus", "accept-encoding: gzip;q=+1", Identity),
            ("12.4.2 exponent", "accept-encoding: gzip;q=1e0", Identity),
            ("12.4.2 letters", "accept-encoding: gzip;q=high", Identity),
            ("12.4.2 letters after the point", "accept-encoding: gzip;q=0.x", Identity),
            ("12.4.2 empty", "accept-encoding: gzip;q=", Identity),
            ("12.4.2 quoted", "accept-encoding: gzip;q=\"1\"", Identity),
            ("12.4.2 space before =", "accept-encoding: gzip;q =1", Identity),
            ("12.4.2 space after =", "accept-encoding: gzip;q= 1", Identity),
            ("12.4.2 two weights", "accept-encoding: gzip;q=1;q=1", Identity),
            ("12.4.2 other parameter", "accept-encoding: gzip;level=9", Identity),
            ("12.4.2 parameter after the weight", "accept-encoding: gzip;q=1;level=9", Identity),
            ("12.4.2 empty parameter", "accept-encoding: gzip;", Identity),
            ("12.4.2 weight alone", "accept-encoding: ;q=1", Identity),
            ("12.4.2 no semicolon", "accept-encoding: gzip q=1", Identity),

            ("12.5.3 two words", "accept-encoding: gzip br", Identity),
            ("12.5.3 quoted", "accept-encoding: \"gzip\"", Identity),
            ("12.5.3 slash", "accept-encoding: gzip/1", Identity),
            ("12.5.3 not ASCII", "accept-encoding: gzïp, br", Identity),
            ("12.5.3 garbage after good", "accept-encoding: gzip, br/", Identity),
            ("12.5.3 garbage before good", "accept-encoding: (), gzip", Identity),
            ("12.5.3 garbage in another line", "accept-encoding: gzip | accept-encoding: ()", Identity),

            ("8.4.1 capitals", "accept-encoding: GZIP", Gzip),
            ("8.4.1 both cases", "accept-encoding: Br;q=0.2, zStD", Zstd),
            ("8.4.1 capital identity", "accept-encoding: IDENTITY, gzip;q=0.9", Identity),
            ("8.4.1.3 x-gzip", "accept-encoding: x-gzip", Gzip),
            ("8.4.1.3 X-GZIP", "accept-encoding: X-GZIP;q=0.5", Gzip),
            ("8.4.1 longer token", "accept-encoding: gzipped", Identity),
            ("8.4.1 extension for token", "accept-encoding: gz, zst, brotli", Identity),

            ("5.6.1 empty members", "accept-encoding: ,gzip,,", Gzip),
            ("5.3 two lines", "accept-encoding: gzip | accept-encoding: br", Brotli),
            ("5.3 weight in the second line", "accept-encoding: br;q=0.1 | accept-encoding: gzip", Gzip),
            ("5.3 an empty line", "accept-encoding: | accept-encoding: gzip", Gzip),
            ("12.5.3 twice, the first counts", "accept-encoding: br, br;q=0, gzip", Brotli),
            ("12.5.3 twice, the first excludes", "accept-encoding: br;q=0, br, gzip", Gzip),
            ("12.5.3 twice, as x-gzip", "accept-encoding: gzip;q=0, x-gzip", Identity),
            ("12.5.3 star twice", "accept-encoding: *;q=0, *", Identity),
        ];
        for (name, lines, want) in cases {
            let fields = fields(lines);
            assert_eq!(ALL[prefer(&fields, ALL)].0, want, "{name}");
            let mut turned = ALL.to_vec();
            turned.reverse();
            assert_eq!(
                turned[prefer(&fields, &turned)].0,
                want,
                "{name}, other order"
            );
        }
    }

    #[test]
    fn among_some() {
        #[rustfmt::skip]
        let cases: &[(&str, &str, Available, usize)] = &[
            ("12.5.3 nothing there", "accept-encoding: gzip", &[], 0),
            ("12.5.3 identity alone", "accept-encoding: gzip", &[(Identity, 9)], 0),
            ("12.5.3 identity alone, excluded", "accept-encoding: identity;q=0", &[(Identity, 9)], 0),
            ("12.5.3 not there", "accept-encoding: br", &[(Identity, 9), (Gzip, 5)], 0),
            ("12.5.3 best not there", "accept-encoding: br, gzip;q=0.1", &[(Identity, 9), (Gzip, 5)], 1),
            ("12.5.3 shorter", "accept-encoding: br, gzip", &[(Identity, 9), (Brotli, 6), (Gzip, 5)], 2),
            ("12.5.3 equal size", "accept-encoding: gzip, br", &[(Identity, 9), (Gzip, 5), (Brotli, 5)], 2),
            ("12.5.3 equal size, zstd before gzip", "accept-encoding: *", &[(Identity, 9), (Gzip, 5), (Zstd, 5)], 2),
            ("12.5.3 equal size, listed identity", "accept-encoding: gzip, identity", &[(Gzip, 5), (Identity, 5)], 1),
            ("12.5.3 identity shorter, unlisted", "accept-encoding: gzip", &[(Identity, 1), (Gzip, 20)], 1),
            ("12.5.3 identity shorter, listed", "accept-encoding: gzip, identity", &[(Gzip, 20), (Identity, 1)], 1),
            ("12.5.3 identity shorter, any", "accept-encoding: *", &[(Gzip, 20), (Identity, 1)], 1),
            ("12.5.3 identity not first", "", &[(Gzip, 20), (Identity, 1)], 1),
            ("12.5.3 no identity", "", &[(Gzip, 20), (Brotli, 1)], 0),
            ("12.5.3 lengths at the limit", "accept-encoding: *", &[(Identity, u64::MAX), (Gzip, u64::MAX)], 0),
        ];
        for (name, lines, available, want) in cases {
            assert_eq!(prefer(&fields(lines), available), *want, "{name}");
        }
    }

    #[test]
    fn among_those_with_a_dictionary() {
        const ALL: Available = &[
            (Identity, 100),
            (Zstd, 35),
            (Brotli, 30),
            (DCZ, 6),
            (DCB, 5),
        ];
        #[rustfmt::skip]
        let cases: &[(&str, &str, Available, Coding)] = &[
            ("9842 6.1 Chrome", "accept-encoding: gzip, deflate, br, zstd, dcb, dcz", ALL, DCB),
            ("9842 6.1 dcz alone", "accept-encoding: gzip, br, dcz", ALL, DCZ),
            ("9842 6.1 dcb alone", "accept-encoding: dcb", ALL, DCB),
            ("9842 6.1 not listed", "accept-encoding: gzip, br, zstd", ALL, Brotli),
            ("9842 6.1 nothing listed", "", ALL, Identity),
            ("9842 6.1 any is none with a dictionary", "accept-encoding: *", ALL, Brotli),
            ("9842 6.1 capitals", "accept-encoding: br, DCB", ALL, DCB),
            ("12.4.2 excluded", "accept-encoding: br, dcb;q=0, dcz;q=0", ALL, Brotli),
            ("12.4.2 one excluded", "accept-encoding: br, dcb;q=0, dcz", ALL, DCZ),
            ("12.4.2 less wanted", "accept-encoding: br, dcb;q=0.5", ALL, Brotli),
            ("12.4.2 more wanted", "accept-encoding: br;q=0.5, dcb", ALL, DCB),
            ("12.5.3 the shortest", "accept-encoding: br, dcb, dcz", &[(Identity, 9), (Brotli, 3), (DCB, 5), (DCZ, 4)], Brotli),
            ("12.5.3 equal lengths", "accept-encoding: dcz, dcb", &[(Identity, 9), (DCZ, 4), (DCB, 4)], DCB),
        ];
        for (name, lines, available, want) in cases {
            let is = available[prefer(&fields(lines), available)].0;
            assert_eq!(is, *want, "{name}");
        }
    }

    #[test]
    fn headers_of_streams_with_a_dictionary() {
        for (coding, length) in [(DCB, 36), (DCZ, MAX_HEADER_LENGTH)] {
            let header = coding.header().expect("one with a dictionary");
            assert_eq!(header.len(), length, "9842 4, 5");
            assert_eq!(Coding::of_header(&header), Some(coding), "9842 4, 5");
            let more = [&header[..], b"and more"].concat();
            assert_eq!(Coding::of_header(&more), Some(coding), "9842 4, 5");
            for cut in 0..length {
                assert_eq!(Coding::of_header(&header[..cut]), None, "{coding:?} {cut}");
            }
        }
        assert!(
            Coding::ALL
                .into_iter()
                .all(|coding| coding.header().is_none())
        );
        assert_eq!(
            DCB.delta_extension().as_deref(),
            Some("0707070707070707.dcb")
        );
        for (path, stem) in [
            ("a/b.js.0123456789abcdef.dcb", Some("a/b.js")),
            ("b.0123456789abcdef.dcz", Some("b")),
            ("a/.0123456789abcdef.dcz", None),
            (".0123456789abcdef.dcz", None),
            ("0123456789abcdef.dcz", None),
            ("b.0123456789ABCDEF.dcb", None),
            ("b.0123456789abcde.dcb", None),
            ("b.0123456789abcdef.br", None),
            ("b.dcb", None),
            ("", None),
        ] {
            let is = delta_stem(path.as_bytes());
            assert_eq!(is, stem.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn tokens() {
        for (place, coding) in Coding::ALL.into_iter().enumerate() {
            assert_eq!(
                Coding::from_token(coding.token().as_bytes()),
                Some(coding),
                "8.4.1"
            );
            assert_eq!(coding.index(), place, "8.4.1 {coding:?}");
        }
        for token in ["", "*", "deflate", "gz", "br ", "compress", "x-br", "dcb"] {
            assert_eq!(Coding::from_token(token.as_bytes()), None, "8.4.1 {token}");
        }
        let extensions = Coding::ALL.map(Coding::extension);
        assert_eq!(extensions, [None, Some("br"), Some("zst"), Some("gz")]);
        let long = fields(&format!("accept-encoding: {}gzip", "x,".repeat(8000)));
        assert_eq!(ALL[prefer(&long, ALL)].0, Gzip, "12.5.3 a field full");
    }
}
