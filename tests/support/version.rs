//! Content that says in every 1 KiB which version it is of, so that a mixture of two is seen.

use std::collections::BTreeSet;

/// Length of a block; every length and every range here is a multiple of it.
pub(crate) const BLOCK: usize = 1024;

/// A version of a file of this length.
pub(crate) fn content(version: u64, length: usize) -> Vec<u8> {
    assert_eq!(length % BLOCK, 0);
    let mut block = template(version);
    let mut content = Vec::with_capacity(length);
    for index in 0..length / BLOCK {
        block[8..16].copy_from_slice(&(index as u64).to_le_bytes());
        content.extend_from_slice(&block);
    }
    content
}

/// The versions that these bytes are of, which were at `offset` of their file. More than one is a
/// mixture; none at all is an empty body.
pub(crate) fn versions_of(bytes: &[u8], offset: usize) -> Result<BTreeSet<u64>, String> {
    let mut versions = BTreeSet::new();
    let (mut version, mut block) = (0, template(0));
    for (number, found) in bytes.chunks(BLOCK).enumerate() {
        let index = offset / BLOCK + number;
        let Some(said) = found.first_chunk() else {
            return Err(format!("block {index} has {} bytes", found.len()));
        };
        let said = u64::from_le_bytes(*said);
        if said != version {
            (version, block) = (said, template(said));
        }
        block[8..16].copy_from_slice(&(index as u64).to_le_bytes());
        if found != block {
            return Err(format!(
                "block {index} is torn in itself, or of another place"
            ));
        }
        versions.insert(version);
    }
    Ok(versions)
}

fn template(version: u64) -> [u8; BLOCK] {
    let mut block = [version as u8; BLOCK];
    block[..8].copy_from_slice(&version.to_le_bytes());
    block[BLOCK - 8..].copy_from_slice(&version.to_le_bytes());
    block
}
