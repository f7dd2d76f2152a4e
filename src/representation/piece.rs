//! The pieces of a representation: what is read, proven and sent at once.

use blake3::hazmat::HasherExt;

/// Length of a group: the unit in which a large file is read, proven and sent.
pub const GROUP_SIZE: u64 = 256 << 10;
/// Up to this length a body is read and proven whole before the header section goes out.
pub const MAX_WHOLE: u64 = 1 << 20;

/// The BLAKE3 chaining value of one group, against which the group is proven.
pub type GroupHash = blake3::hazmat::ChainingValue;

/// The chaining value of a group that begins at `offset`, a multiple of [`GROUP_SIZE`].
pub fn group_hash(bytes: &[u8], offset: u64) -> GroupHash {
    blake3::Hasher::new()
        .set_input_offset(offset)
        .update(bytes)
        .finalize_non_root()
}

/// Which piece of what. It is proven for content of this hash and this length: a listing of a store may say
/// another length of the same hash, and what was proven for the right one proves nothing of that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PieceKey {
    /// The BLAKE3 of the whole representation.
    pub hash: [u8; 32],
    /// Its length.
    pub whole: u64,
    /// The number of the piece.
    pub index: u32,
}

/// Which bytes of a representation a piece has, and whether some bytes are they: the group with an
/// index, or all of it up to [`MAX_WHOLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceSpan {
    /// Its number, from 0.
    pub index: u32,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: usize,
}

impl PieceSpan {
    /// The piece that has the byte at `position` of a representation of `whole` bytes.
    pub fn at(position: u64, whole: u64) -> Self {
        if whole <= MAX_WHOLE {
            return Self {
                index: 0,
                offset: 0,
                length: whole as usize,
            };
        }
        let index = position / GROUP_SIZE;
        let offset = index * GROUP_SIZE;
        // A scan that found more than 2^32 groups (1 PiB) would have run out of memory.
        Self {
            index: index as u32,
            offset,
            length: GROUP_SIZE.min(whole - offset) as usize,
        }
    }

    /// The piece with this number; `None` if a representation of `whole` bytes has none.
    pub fn with_index(index: u32, whole: u64) -> Option<Self> {
        let position = u64::from(index) * GROUP_SIZE;
        let span = Self::at(position.min(whole.saturating_sub(1)), whole);
        (span.index == index).then_some(span)
    }

    /// How many pieces a representation of `whole` bytes has.
    pub fn count(whole: u64) -> u32 {
        match whole {
            0..=MAX_WHOLE => 1,
            _ => whole.div_ceil(GROUP_SIZE) as u32,
        }
    }

    /// Whether `bytes` are this piece of the content of `whole` bytes with this hash and groups.
    pub fn is_proven_by(
        &self,
        bytes: &[u8],
        hash: &[u8; 32],
        groups: &[GroupHash],
        whole: u64,
    ) -> bool {
        match groups.get(self.index as usize) {
            Some(group) => group_hash(bytes, self.offset) == *group,
            None => self.length as u64 == whole && blake3::hash(bytes) == *hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_of_a_representation_once() {
        let large = 5 * GROUP_SIZE + 7;
        for whole in [0, 1, MAX_WHOLE, MAX_WHOLE + 1, large] {
            let (mut end, mut count) = (0, 0);
            while end < whole || count == 0 {
                let span = PieceSpan::at(end, whole);
                assert_eq!((span.offset, span.index), (end, count));
                assert_eq!(PieceSpan::with_index(count, whole), Some(span));
                end += span.length as u64;
                count += 1;
            }
            assert_eq!((end, PieceSpan::count(whole)), (whole, count), "{whole}");
            assert_eq!(PieceSpan::with_index(count, whole), None, "{whole}");
        }
    }
}
