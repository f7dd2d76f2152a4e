//! One file read once: its BLAKE3, its bytes or the chaining values of its groups, and whether
//! it is text.
//!
//! Files are read into private memory, never mapped: a mapping of a file that is truncated
//! meanwhile ends the process, and for small files reading is faster anyway.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::sync::Arc;

use blake3::hazmat::{Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::document::is_document;
use super::text::{TextEvidence, text_kind, text_kind_of};
use crate::disk::read_exact_at;
use crate::representation::{
    GROUP_SIZE, GroupHash, MAX_IN_MEMORY, MAX_WHOLE, TextKind, group_hash,
};

/// What is known of a file after reading it once.
#[derive(Debug)]
pub(crate) struct HashedFile {
    /// BLAKE3 of the bytes.
    pub(crate) hash: [u8; 32],
    /// Their SHA-256, if it was asked for.
    pub(super) sha256: Option<[u8; 32]>,
    /// Whether they are text.
    pub(crate) text: TextKind,
    /// What is kept of them.
    pub(super) form: Retained,
}

impl HashedFile {
    /// Hashes bytes that lie in one piece, and keeps none of them.
    fn of(bytes: &[u8], wanted: HashOptions) -> Self {
        Self {
            hash: *blake3::hash(bytes).as_bytes(),
            sha256: wanted.sha256.then(|| Sha256::digest(bytes).into()),
            text: text_kind_of(bytes),
            form: Retained::Whole,
        }
    }
}

/// What is kept of the bytes, by length.
#[derive(Debug)]
pub(super) enum Retained {
    /// Up to [`MAX_IN_MEMORY`], if asked for: the very buffer that was hashed.
    Small(Vec<u8>),
    /// Up to [`MAX_WHOLE`]: nothing, the hash proves them in one piece.
    Whole,
    /// Longer: a chaining value for each group.
    Groups(Arc<[GroupHash]>),
    /// Of a document: the buffer that was hashed, which ends with the tail, and the hash of what
    /// comes before it.
    Tailed { body: Vec<u8>, plain: [u8; 32] },
}

thread_local! {
    /// For files that are read but not kept; one for each hashing thread.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What to compute or keep in addition to the BLAKE3 hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HashOptions {
    /// Keep the body of a file of up to [`MAX_IN_MEMORY`] bytes.
    pub(super) body: bool,
    /// Compute the SHA-256. It has no tree, so a long file is then read by one thread.
    pub(super) sha256: bool,
}

/// Reads and hashes the first `length` bytes of `file`, and calls `step` as it gets on.
///
/// # Errors
/// As `pread(2)`; [`io::ErrorKind::UnexpectedEof`] where the file is shorter.
pub(crate) fn content(
    file: &File,
    length: u64,
    wanted: HashOptions,
    step: &(dyn Fn() + Sync),
) -> io::Result<HashedFile> {
    step();
    if length <= MAX_IN_MEMORY && wanted.body {
        let mut body = vec![0; length as usize];
        read_exact_at(file, &mut body, 0)?;
        let hashed = HashedFile::of(&body, wanted);
        return Ok(HashedFile {
            form: Retained::Small(body),
            ..hashed
        });
    }
    if length <= MAX_WHOLE {
        return with_buffer(length as usize, |buffer| {
            read_exact_at(file, buffer, 0)?;
            Ok(HashedFile::of(buffer, wanted))
        });
    }
    content_in_groups(file, length, wanted, step)
}

/// Reads a file of more than one group: on all cores, unless its SHA-256 is wanted, which has to
/// see the bytes in order.
fn content_in_groups(
    file: &File,
    length: u64,
    wanted: HashOptions,
    step: &(dyn Fn() + Sync),
) -> io::Result<HashedFile> {
    let indices = 0..length.div_ceil(GROUP_SIZE);
    let read = |index, sha256: Option<&mut Sha256>| {
        step();
        read_group(file, length, index, sha256)
    };
    let mut sha256 = wanted.sha256.then(Sha256::new);
    let groups: Vec<Group> = match &mut sha256 {
        None => indices
            .into_par_iter()
            .map(|index| read(index, None))
            .collect::<io::Result<_>>(),
        Some(sha256) => indices.map(|index| read(index, Some(sha256))).collect(),
    }?;
    let (hashes, texts): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .map(|group| (group.hash, group.text))
        .unzip();
    let text = text_kind(&texts);
    let groups: Arc<[_]> = hashes.into();
    Ok(HashedFile {
        hash: root_hash(&groups, length),
        sha256: sha256.map(|sha256| sha256.finalize().into()),
        text,
        form: Retained::Groups(groups),
    })
}

fn read_group(
    file: &File,
    length: u64,
    index: u64,
    sha256: Option<&mut Sha256>,
) -> io::Result<Group> {
    let offset = index * GROUP_SIZE;
    with_buffer(GROUP_SIZE.min(length - offset) as usize, |buffer| {
        read_exact_at(file, buffer, offset)?;
        if let Some(sha256) = sha256 {
            sha256.update(&buffer);
        }
        Ok(Group {
            hash: group_hash(buffer, offset),
            text: TextEvidence::of(buffer, offset),
        })
    })
}

/// Reads the first `length` bytes of `file` and hashes them with `tail` behind them, if they are a
/// document; otherwise as [`content`].
///
/// # Errors
/// As [`content`].
pub(super) fn content_with_tail(
    file: &File,
    length: u64,
    tail: &str,
    wanted: HashOptions,
) -> io::Result<HashedFile> {
    let mut body = vec![0; length as usize];
    read_exact_at(file, &mut body, 0)?;
    if !is_document(&body) {
        return content(file, length, wanted, &|| ());
    }
    let plain = *blake3::hash(&body).as_bytes();
    let text = text_kind_of(&body);
    // The tag covers what is sent, the tail included (P1).
    body.extend_from_slice(tail.as_bytes());
    Ok(HashedFile {
        hash: *blake3::hash(&body).as_bytes(),
        sha256: wanted.sha256.then(|| Sha256::digest(&body).into()),
        text,
        form: Retained::Tailed { body, plain },
    })
}

struct Group {
    hash: GroupHash,
    text: TextEvidence,
}

fn with_buffer<T>(length: usize, read: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        read(&mut buffer[..length])
    })
}

/// The BLAKE3 of `length` bytes (more than one group) whose groups have these chaining values.
pub(crate) fn root_hash(groups: &[GroupHash], length: u64) -> [u8; 32] {
    let (left, right) = halves(groups, length);
    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

fn subtree(groups: &[GroupHash], length: u64) -> GroupHash {
    match groups {
        [only] => *only,
        _ => {
            let (left, right) = halves(groups, length);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

fn halves(groups: &[GroupHash], length: u64) -> (GroupHash, GroupHash) {
    let left = left_subtree_len(length);
    // More than one group means that the left subtree is a whole number of them.
    let (first, second) = groups.split_at((left / GROUP_SIZE) as usize);
    (subtree(first, left), subtree(second, length - left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const BODY: HashOptions = HashOptions {
        body: true,
        sha256: false,
    };

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn the_hash_is_blake3_of_the_bytes_at_every_length() {
        let bytes: Vec<u8> = (0..5 * GROUP_SIZE as usize + 77)
            .map(|i| (i % 251) as u8)
            .collect();
        let lengths = [
            0,
            1,
            1024,
            MAX_IN_MEMORY,
            MAX_IN_MEMORY + 1,
            GROUP_SIZE,
            MAX_WHOLE - 1,
            MAX_WHOLE,
        ]
        .into_iter()
        .chain([
            MAX_WHOLE + 1,
            MAX_WHOLE + GROUP_SIZE,
            MAX_WHOLE + GROUP_SIZE + 1,
            bytes.len() as u64,
        ]);
        for length in lengths {
            let bytes = &bytes[..length as usize];
            let content = content(&file(bytes), length, BODY, &|| ()).expect("read");
            assert_eq!(
                content.hash,
                *blake3::hash(bytes).as_bytes(),
                "{length} bytes"
            );
            match content.form {
                Retained::Small(body) => assert!(body == bytes && length <= MAX_IN_MEMORY),
                Retained::Whole => assert!(length > MAX_IN_MEMORY && length <= MAX_WHOLE),
                Retained::Groups(groups) => {
                    assert_eq!(groups.len() as u64, length.div_ceil(GROUP_SIZE))
                }
                Retained::Tailed { .. } => unreachable!("no tail was wanted"),
            }
        }
    }

    #[test]
    fn the_sha256_is_of_the_same_bytes() {
        let bytes: Vec<u8> = (0..MAX_WHOLE as usize + 77)
            .map(|i| (i % 251) as u8)
            .collect();
        for length in [0, 1, MAX_IN_MEMORY + 1, MAX_WHOLE + 77] {
            let bytes = &bytes[..length as usize];
            let wanted = HashOptions {
                body: true,
                sha256: true,
            };
            let content = content(&file(bytes), length, wanted, &|| ()).expect("read");
            assert_eq!(
                content.sha256,
                Some(Sha256::digest(bytes).into()),
                "{length} bytes"
            );
            assert_eq!(
                content.hash,
                *blake3::hash(bytes).as_bytes(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn text_is_found_across_the_ends_of_groups() {
        let euro = "€".repeat(MAX_WHOLE as usize);
        for shift in 0..4 {
            let text = format!("{}{euro}", &"abc"[..shift.min(3)]);
            let length = text.len() as u64;
            let kind = |bytes: &[u8], length| {
                content(&file(bytes), length, BODY, &|| ())
                    .expect("read")
                    .text
            };
            assert_eq!(
                kind(text.as_bytes(), length),
                TextKind::Utf8,
                "shift {shift}"
            );
            let cut = &text.as_bytes()[..text.len() - 1];
            assert_eq!(
                kind(cut, length - 1),
                TextKind::OtherCharset,
                "cut, shift {shift}"
            );
            let mut torn = text.into_bytes();
            torn[2 * GROUP_SIZE as usize] = b'x';
            torn[2 * GROUP_SIZE as usize - 1] = b'\xe2';
            assert_eq!(
                kind(&torn, length),
                TextKind::OtherCharset,
                "torn, shift {shift}"
            );
            torn[3 * GROUP_SIZE as usize] = 0;
            assert_eq!(
                kind(&torn, length),
                TextKind::Binary,
                "a NUL, shift {shift}"
            );
        }
    }

    #[test]
    fn a_shorter_file_is_an_error() {
        let error = content(&file(b"four"), 5, BODY, &|| ()).expect_err("short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
