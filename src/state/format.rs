//! The bytes of a saved manifest: written and read, without opening a file.
//!
//! All numbers are little-endian. In this order: magic bytes, version (`u32`), the BLAKE3 of the
//! settings, the root's file system (`u64`), the length of its real path (`u32`) and the path, the files
//! in any order, and the BLAKE3 of everything before. A file is:
//!
//! | Bytes | What |
//! |---|---|
//! | 1 | which of the optional parts there are, and whether it is trusted |
//! | 1 | which codings were proven |
//! | 1 | whether it is text, as the place in `TextKind::ALL` |
//! | 1 | how it decodes: 0, or the place among all codings and kinds of text, from 1 |
//! | 4 + n | its path |
//! | 8 each | inode, size, mtime and ctime in nanoseconds |
//! | 32 | BLAKE3 of its content |
//! | 32 | SHA-256 of its content, optional |
//! | 8 each | Last-Modified and the newest date, each optional |
//! | 4 + n | where it is, optional |
//! | 32 each | the chaining values of its groups; as many as the size asks for |

use std::ffi::OsStr;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::disk::Stamp;
use crate::representation::{Decoding, GROUP_SIZE, MAX_WHOLE, TextKind};
use crate::scan::SavedFile;
use crate::semantics::coding::Coding;
use crate::semantics::date::HttpDate;

/// Version of these bytes, and of what a scan finds out about a file: what proves a sidecar, what is
/// text, the length of a group. To be increased with a change of any of them.
pub(super) const VERSION: u32 = 3;
/// What a saved manifest begins with. A file that begins differently was written by another program.
pub(super) const MAGIC: &[u8; 16] = b"etagd manifest\r\n";
/// Large enough for BLAKE3 to hash 16 chunks of 1 KiB at once with AVX-512.
const BUFFER_SIZE: usize = 256 << 10;
/// Length of the BLAKE3 at the end.
const SEAL_LENGTH: usize = 32;

const TRUSTED: u8 = 1;
const SHA256: u8 = 1 << 1;
const LAST_MODIFIED: u8 = 1 << 2;
const NEWEST_DATE: u8 = 1 << 3;
const LOCATION: u8 = 1 << 4;

const CODINGS: [(Coding, u8); 3] = [
    (Coding::Brotli, 1),
    (Coding::Zstd, 1 << 1),
    (Coding::Gzip, 1 << 2),
];

/// The site that a saved manifest is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin<'a> {
    /// The hash of the settings that decide what is known of a file, and how requests are answered.
    pub choices: blake3::Hash,
    /// Identifies the file system of the site. On another one, change times in whole seconds are not
    /// trusted: they may have been set when an image was built, to the same values as in the next image.
    pub file_system: u64,
    /// The real path of the site.
    pub root: &'a Path,
}

/// Why a saved manifest can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unusable {
    /// Another program has written it.
    #[error("it is not a saved manifest")]
    Foreign,
    /// Another version of etagd wrote it.
    #[error("format version {0} is not supported (expected {VERSION})")]
    Version(u32),
    /// Its hash is wrong.
    #[error("it is damaged")]
    Damaged,
    /// It was saved with other settings.
    #[error("it was saved with other flags")]
    Choices,
    /// It is about another directory.
    #[error("it was saved for {}", .0.display())]
    Root(PathBuf),
}

/// Writes what is known of `known` files of the site `origin`.
///
/// # Errors
/// Those of `out`; also when a path is longer than 4 GiB.
pub fn write<'a>(
    out: impl Write,
    origin: Origin<'_>,
    known: impl Iterator<Item = SavedFile<'a>>,
) -> io::Result<()> {
    let sealing = Sealing {
        out,
        hasher: blake3::Hasher::new(),
    };
    let mut out = BufWriter::with_capacity(BUFFER_SIZE, sealing);
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(origin.choices.as_bytes())?;
    out.write_all(&origin.file_system.to_le_bytes())?;
    write_bytes(&mut out, origin.root.as_os_str().as_bytes())?;
    for known in known {
        write_known(&mut out, &known)?;
    }
    let Sealing { mut out, hasher } = out.into_inner()?;
    out.write_all(hasher.finalize().as_bytes())
}

fn write_known(out: &mut impl Write, known: &SavedFile<'_>) -> io::Result<()> {
    let flags = [
        (known.is_trusted, TRUSTED),
        (known.sha256.is_some(), SHA256),
        (known.last_modified.is_some(), LAST_MODIFIED),
        (known.newest_date.is_some(), NEWEST_DATE),
        (known.location.is_some(), LOCATION),
    ]
    .iter()
    .filter(|(is_set, _)| *is_set)
    .fold(0, |flags, (_, flag)| flags | flag);
    let codings = CODINGS
        .iter()
        .filter(|(coding, _)| known.codings.contains(coding))
        .fold(0, |codings, (_, bit)| codings | bit);
    let text = (0..)
        .zip(TextKind::ALL)
        .find_map(|(place, text)| (text == known.text).then_some(place))
        .unwrap_or_default();
    let decoding = (1..)
        .zip(decodings())
        .find_map(|(place, it)| (Some(it) == known.decoding).then_some(place))
        .unwrap_or_default();
    out.write_all(&[flags, codings, text, decoding])?;
    write_bytes(out, known.path)?;
    let Stamp {
        inode,
        size,
        mtime_ns,
        ctime_ns,
        device: _,
    } = known.stamp;
    for number in [inode, size] {
        out.write_all(&number.to_le_bytes())?;
    }
    for time in [mtime_ns, ctime_ns] {
        out.write_all(&time.to_le_bytes())?;
    }
    out.write_all(&known.hash)?;
    if let Some(sha256) = &known.sha256 {
        out.write_all(sha256)?;
    }
    let dates = [known.last_modified, known.newest_date];
    for date in dates.into_iter().flatten() {
        out.write_all(&date.unix().to_le_bytes())?;
    }
    if let Some(location) = known.location {
        write_bytes(out, location.as_os_str().as_bytes())?;
    }
    out.write_all(known.groups.as_flattened())
}

/// Every way to decode, in the order of their numbers.
fn decodings() -> impl Iterator<Item = Decoding> {
    CODINGS.into_iter().flat_map(|(coding, _)| {
        let all = TextKind::ALL.into_iter();
        all.map(move |text| Decoding { coding, text })
    })
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// A writer that hashes what it writes.
struct Sealing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether a file that begins with these bytes is etagd's: they may be cut short, or damaged, but the
/// first bytes of no other format are half of these.
pub(super) fn is_own(beginning: &[u8]) -> bool {
    let pairs = beginning.iter().zip(MAGIC);
    let equal = pairs.filter(|(found, written)| found == written).count();
    MAGIC.starts_with(beginning) || equal * 2 >= MAGIC.len()
}

/// Reads what was written for `origin`.
///
/// # Errors
/// Why it can't be used.
pub fn read<'a>(bytes: &'a [u8], origin: Origin<'_>) -> Result<Files<'a>, Unusable> {
    let mut rest = match bytes.strip_prefix(MAGIC) {
        Some(rest) => Reader(rest),
        None if is_own(bytes) => return Err(Unusable::Damaged),
        None => return Err(Unusable::Foreign),
    };
    match rest.u32() {
        Some(VERSION) => {}
        Some(version) => return Err(Unusable::Version(version)),
        None => return Err(Unusable::Damaged),
    }
    let (rest, seal) = rest
        .0
        .split_last_chunk::<SEAL_LENGTH>()
        .ok_or(Unusable::Damaged)?;
    let content = bytes.strip_suffix(seal).unwrap_or_default();
    if blake3::hash(content) != *seal {
        return Err(Unusable::Damaged);
    }
    let mut rest = Reader(rest);
    let written = rest.origin().ok_or(Unusable::Damaged)?;
    if written.choices != origin.choices {
        return Err(Unusable::Choices);
    }
    if written.root != origin.root {
        return Err(Unusable::Root(written.root.to_path_buf()));
    }
    let files = Files {
        rest,
        is_same_system: written.file_system == origin.file_system,
    };
    while !rest.0.is_empty() {
        rest.file().ok_or(Unusable::Damaged)?;
    }
    Ok(files)
}

/// The files of a saved manifest, each of which is known to be there.
#[derive(Clone, Debug)]
pub struct Files<'a> {
    rest: Reader<'a>,
    is_same_system: bool,
}

impl<'a> Iterator for Files<'a> {
    type Item = SavedFile<'a>;

    fn next(&mut self) -> Option<SavedFile<'a>> {
        let known = self.rest.file()?;
        Some(SavedFile {
            is_trusted: known.is_trusted && (self.is_same_system || !known.stamp.is_coarse()),
            ..known
        })
    }
}

/// What is left to read; `None` where it is not what it should be.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn origin(&mut self) -> Option<Origin<'a>> {
        Some(Origin {
            choices: blake3::Hash::from_bytes(self.array()?),
            file_system: self.u64()?,
            root: self.path()?,
        })
    }

    fn file(&mut self) -> Option<SavedFile<'a>> {
        let [flags, codings, text, decoding] = self.array()?;
        if flags > TRUSTED | SHA256 | LAST_MODIFIED | NEWEST_DATE | LOCATION || codings > 7 {
            return None;
        }
        let text = *TextKind::ALL.get(usize::from(text))?;
        let decoding = match decoding.checked_sub(1) {
            Some(place) => Some(decodings().nth(usize::from(place))?),
            None => None,
        };
        let has = |flag: u8| flags & flag != 0;
        let path = self.bytes()?;
        let stamp = Stamp {
            device: 0,
            inode: self.u64()?,
            size: self.u64()?,
            mtime_ns: self.i64()?,
            ctime_ns: self.i64()?,
        };
        Some(SavedFile {
            path,
            is_trusted: has(TRUSTED),
            text,
            hash: self.array()?,
            sha256: self.optional(has(SHA256), Self::array)?,
            last_modified: self.optional(has(LAST_MODIFIED), Self::date)?,
            newest_date: self.optional(has(NEWEST_DATE), Self::date)?,
            location: self.optional(has(LOCATION), Self::path)?,
            groups: self.groups(stamp.size)?,
            stamp,
            decoding,
            codings: CODINGS
                .iter()
                .filter(|(_, bit)| codings & bit != 0)
                .map(|(coding, _)| *coding)
                .collect(),
        })
    }

    fn groups(&mut self, size: u64) -> Option<&'a [[u8; 32]]> {
        let number = if size > MAX_WHOLE {
            size.div_ceil(GROUP_SIZE)
        } else {
            0
        };
        let length = usize::try_from(number.checked_mul(32)?).ok()?;
        let (groups, rest) = self.take(length)?.as_chunks();
        rest.is_empty().then_some(groups)
    }

    /// What stands here, if it is there at all.
    fn optional<T>(
        &mut self,
        is_there: bool,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if is_there {
            read(self).map(Some)
        } else {
            Some(None)
        }
    }

    fn date(&mut self) -> Option<HttpDate> {
        HttpDate::from_unix(self.i64()?)
    }

    fn path(&mut self) -> Option<&'a Path> {
        Some(Path::new(OsStr::from_bytes(self.bytes()?)))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOICES: blake3::Hash = blake3::Hash::from_bytes([7; 32]);

    fn origin() -> Origin<'static> {
        Origin {
            choices: CHOICES,
            file_system: 5,
            root: Path::new("/srv/site"),
        }
    }

    /// Files with each optional part and without.
    fn files() -> Vec<SavedFile<'static>> {
        const GROUPS: &[[u8; 32]] = &[[1; 32], [2; 32], [3; 32], [4; 32], [5; 32]];
        let stamp = |size| Stamp {
            device: 0,
            inode: 77,
            size,
            mtime_ns: -1,
            ctime_ns: 1_700_000_000_123_456_789,
        };
        let plain = SavedFile {
            path: b"index.html",
            location: None,
            stamp: stamp(12),
            is_trusted: true,
            text: TextKind::Utf8,
            hash: [9; 32],
            sha256: None,
            groups: &[],
            last_modified: None,
            newest_date: None,
            decoding: None,
            codings: vec![],
        };
        let full = SavedFile {
            path: b"caf\xe9/film.mp4",
            location: Some(Path::new("/elsewhere/film.mp4")),
            stamp: stamp(4 * GROUP_SIZE + 1),
            sha256: Some([8; 32]),
            groups: GROUPS,
            last_modified: HttpDate::from_unix(5),
            newest_date: HttpDate::from_unix(6),
            codings: vec![Coding::Brotli, Coding::Gzip],
            ..plain.clone()
        };
        let open = SavedFile {
            path: b"",
            is_trusted: false,
            text: TextKind::OtherCharset,
            newest_date: HttpDate::from_unix(0),
            decoding: Some(Decoding {
                coding: Coding::Gzip,
                text: TextKind::Binary,
            }),
            codings: vec![Coding::Zstd],
            ..plain.clone()
        };
        vec![plain, full, open]
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, origin(), files().into_iter()).expect("written");
        bytes
    }

    /// The same content with a new hash: damage that the hash does not show.
    fn sealed(mut content: Vec<u8>) -> Vec<u8> {
        let seal = blake3::hash(&content);
        content.extend_from_slice(seal.as_bytes());
        content
    }

    fn reason(bytes: &[u8], origin: Origin<'_>) -> Unusable {
        read(bytes, origin).map(|_| ()).expect_err("unusable")
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written();
        let read: Vec<_> = read(&bytes, origin()).expect("read").collect();
        assert_eq!(read, files());
    }

    #[test]
    fn a_site_without_files_is_one_too() {
        let mut bytes = Vec::new();
        write(&mut bytes, origin(), std::iter::empty()).expect("written");
        assert_eq!(read(&bytes, origin()).expect("read").count(), 0);
    }

    #[test]
    fn what_is_cut_anywhere_is_damaged() {
        let bytes = written();
        for length in 0..bytes.len() {
            let reason = reason(&bytes[..length], origin());
            assert_eq!(reason, Unusable::Damaged, "{length} bytes");
        }
        let longer = [&bytes[..], b"\0"].concat();
        assert_eq!(reason(&longer, origin()), Unusable::Damaged);
    }

    #[test]
    fn a_changed_bit_anywhere_is_found() {
        let bytes = written();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[place] ^= 1 << bit;
                assert!(read(&bytes, origin()).is_err(), "bit {bit} of byte {place}");
            }
        }
    }

    #[test]
    fn what_is_sealed_well_and_nonsense_is_damaged_too() {
        let bytes = written();
        let content = &bytes[..bytes.len() - SEAL_LENGTH];
        let head = MAGIC.len() + 4 + 32 + 8 + 4 + "/srv/site".len();
        let [flags, codings, text, decoding, length] = [0, 1, 2, 3, 4].map(|place| head + place);
        let size = head + 8 + "index.html".len() + 8;
        let with = |place: usize, new: &[u8]| {
            let mut content = content.to_vec();
            content[place..place + new.len()].copy_from_slice(new);
            sealed(content)
        };
        assert!(read(&with(flags, &[0]), origin()).is_ok());
        let cases = [
            ("unknown flags", with(flags, &[1 << 6])),
            ("unknown codings", with(codings, &[8])),
            ("an unknown kind of text", with(text, &[6])),
            ("an unknown way to decode", with(decoding, &[19])),
            ("a path without end", with(length, &[0xff; 4])),
            ("groups without end", with(size, &[0xff; 8])),
            (
                "more groups than there are",
                with(size, &(9 * GROUP_SIZE).to_le_bytes()),
            ),
            ("a date that there is not", with(flags, &[LAST_MODIFIED])),
            ("half a file", sealed(content[..content.len() - 1].to_vec())),
            ("no root", sealed(content[..head - 1].to_vec())),
            (
                "nothing but a version",
                sealed(content[..MAGIC.len() + 4].to_vec()),
            ),
        ];
        for (name, bytes) in cases {
            assert_eq!(reason(&bytes, origin()), Unusable::Damaged, "{name}");
        }
    }

    #[test]
    fn what_is_of_something_else_is_not_used() {
        let bytes = written();
        let choices = blake3::Hash::from_bytes([6; 32]);
        let other = Origin {
            choices,
            ..origin()
        };
        assert_eq!(reason(&bytes, other), Unusable::Choices);
        let root = Path::new("/srv/other");
        let other = Origin { root, ..origin() };
        let found = Unusable::Root("/srv/site".into());
        assert_eq!(reason(&bytes, other), found);
        let mut later = bytes.clone();
        later[MAGIC.len()] = 99;
        assert_eq!(reason(&later, origin()), Unusable::Version(99));
        assert_eq!(reason(b"#!/bin/sh\n", origin()), Unusable::Foreign);
        assert_eq!(reason(&[0; 500], origin()), Unusable::Foreign);
        for damaged in [0..1, 0..8, 8..16, 15..16] {
            let mut bytes = bytes.clone();
            bytes[damaged].fill(0);
            assert_eq!(reason(&bytes, origin()), Unusable::Damaged);
        }
        let mut other = bytes.clone();
        other[..9].fill(0);
        assert_eq!(reason(&other, origin()), Unusable::Foreign);
    }

    #[test]
    fn coarse_times_are_not_trusted_on_another_file_system() {
        let mut files = files();
        files[0].stamp.ctime_ns = 1_700_000_000_000_000_000;
        let mut bytes = Vec::new();
        write(&mut bytes, origin(), files.into_iter()).expect("written");
        let trusted = |origin| -> Vec<_> {
            let files = read(&bytes, origin).expect("read");
            files.map(|known| known.is_trusted).collect()
        };
        assert_eq!(trusted(origin()), [true, true, false]);
        let other = Origin {
            file_system: 6,
            ..origin()
        };
        assert_eq!(trusted(other), [false, true, false]);
    }
}
