//! Content codings (RFC 9110 8.4) and the choice among them by Accept-Encoding (12.5.3).
//!
//! [`prefer`] picks one of a resource's representations. Absent Accept-Encoding means identity:
//! 12.5.3 would allow any coding, but a client that does not ask is mostly a tool that stores what it gets.
//! A field that does not parse is absent. 406 is never the answer: where nothing fits, identity.

use std::cmp::Reverse;

use http::header::ACCEPT_ENCODING;

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
}

impl Coding {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its content-coding token (RFC 9110 8.4.1).
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
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
        }
    }

    /// Reads a token, case-insensitively (RFC 9110 8.4.1); `x-gzip` is gzip (8.4.1.3).
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        if token.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL
            .into_iter()
            .find(|coding| token.eq_ignore_ascii_case(coding.token().as_bytes()))
    }

    /// Its place in a table by coding.
    const fn index(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Brotli => 1,
            Self::Zstd => 2,
            Self::Gzip => 3,
        }
    }
}

/// The index in `available` (each a coding and its length) of the representation to send
/// (RFC 9110 12.5.3): the highest qvalue, then the shortest, then the order of [`Coding`].
/// Where nothing fits, or without Accept-Encoding: identity, and 0 if even that is not there.
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
    listed: [Option<u16>; 4],
    /// `*`, which stands for every coding that is not listed.
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
                Coding::from_token(coding)
                    .and_then(|coding| accepted.listed.get_mut(coding.index()))
            };
            if let Some(place) = place {
                place.get_or_insert(weight);
            }
        }
        Some(accepted)
    }

    /// How much `coding` is wanted, to compare; `None` where it is not acceptable.
    fn preference(&self, coding: Coding) -> Option<u16> {
        let weight = self.listed.get(coding.index()).copied().flatten();
        match (weight.or(self.any), coding) {
            (Some(0), _) => None,
            (Some(weight), _) => Some(weight),
            // 12.5.3: identity needs no mention, but whoever lists a coding wants that more.
            (None, Coding::Identity) => Some(0),
            (None, Coding::Brotli | Coding::Zstd | Coding::Gzip) => None,
        }
    }
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
    use super::Coding::{Brotli, Gzip, Identity, Zstd};
    use super::*;

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
    fn tokens() {
        for (place, coding) in Coding::ALL.into_iter().enumerate() {
            assert_eq!(
                Coding::from_token(coding.token().as_bytes()),
                Some(coding),
                "8.4.1"
            );
            assert_eq!(coding.index(), place, "8.4.1 {coding:?}");
        }
        for token in ["", "*", "deflate", "gz", "br ", "compress", "x-br"] {
            assert_eq!(Coding::from_token(token.as_bytes()), None, "8.4.1 {token}");
        }
        let extensions = Coding::ALL.map(Coding::extension);
        assert_eq!(extensions, [None, Some("br"), Some("zst"), Some("gz")]);
        let long = fields(&format!("accept-encoding: {}gzip", "x,".repeat(8000)));
        assert_eq!(ALL[prefer(&long, ALL)].0, Gzip, "12.5.3 a field full");
    }
}
