//! The ways in which programs write files, careful and careless ones.
#![allow(
    unsafe_code,
    reason = "a mapping that can be written to is unsafe to make"
)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::MmapMut;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::tree::rename_over;

/// How a file gets its next version. Its length stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// `pwrite(2)` over what is there.
    InPlace,
    /// Emptied, then written.
    Truncate,
    /// Stores to a mapping, whose descriptor is closed before them.
    Mapped,
    /// Written to a temporary file that is renamed over it.
    Rename,
}

pub(crate) const WRITERS: [Writer; 4] = [
    Writer::InPlace,
    Writer::Truncate,
    Writer::Mapped,
    Writer::Rename,
];

impl Writer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in-place",
            Self::Truncate => "truncate",
            Self::Mapped => "mapped",
            Self::Rename => "rename",
        }
    }

    pub(crate) fn write(self, path: &Path, content: &[u8]) {
        // Piece by piece, so that a reader comes in between.
        const PIECE: usize = 128 << 10;
        match self {
            Self::InPlace => {
                let file = File::options().write(true).open(path).unwrap();
                for (index, piece) in content.chunks(PIECE).enumerate() {
                    file.write_all_at(piece, (index * PIECE) as u64).unwrap();
                }
            }
            Self::Truncate => {
                let mut file = File::create(path).unwrap();
                for piece in content.chunks(PIECE) {
                    file.write_all(piece).unwrap();
                }
            }
            Self::Mapped => {
                let file = File::options().read(true).write(true).open(path).unwrap();
                // SAFETY: nobody shortens these files, and what other processes read of them is
                // none of this one's memory.
                let mut mapping = unsafe { MmapMut::map_mut(&file) }.unwrap();
                drop(file);
                for (index, piece) in content.chunks(PIECE).enumerate() {
                    let place = index * PIECE;
                    mapping[place..place + piece.len()].copy_from_slice(piece);
                }
            }
            Self::Rename => rename_over(path, content),
        }
    }
}

/// Puts one directory in the place of another, in one step, and removes what was there.
pub(crate) fn exchange_directories(new: &Path, old: &Path) {
    renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).unwrap();
    fs::remove_dir_all(new).unwrap();
}
