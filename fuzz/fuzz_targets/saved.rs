//! A saved manifest: whatever is in the file, it is refused, or it is read as what would be written
//! again as the same bytes.
//!
//! Input: such a file without the hash at its end, which is added, so that damage gets beyond it.
#![no_main]

use std::path::Path;

use etagd::representation::{GROUP_SIZE, MAX_WHOLE};
use etagd::state::{Origin, Unusable, read, write};
use libfuzzer_sys::fuzz_target;

/// Where the file system stands: after the magic, the version and the choices.
const SYSTEM: usize = 16 + 4 + 32;

fuzz_target!(|input: &[u8]| {
    let origin = Origin {
        choices: blake3::Hash::from_bytes([0x2e; 32]),
        file_system: 0x2e2e,
        root: Path::new("/srv/site"),
    };
    // As it is, it would have to hold its own hash.
    assert!(read(input, origin).is_err());
    let sealed = [input, blake3::hash(input).as_bytes()].concat();
    let files = match read(&sealed, origin) {
        Ok(files) => files,
        Err(Unusable::Foreign | Unusable::Damaged | Unusable::Choices) => return,
        Err(Unusable::Version(version)) => return assert_ne!(version, 1),
        Err(Unusable::Root(root)) => return assert_ne!(root, origin.root),
    };
    for known in files.clone() {
        let (size, groups) = (known.stamp.size, known.groups.len() as u64);
        let wanted = if size > MAX_WHOLE {
            size.div_ceil(GROUP_SIZE)
        } else {
            0
        };
        assert_eq!(groups, wanted);
    }
    let mut again = Vec::new();
    write(&mut again, origin, files.clone()).expect("written to memory");
    assert!(read(&again, origin).expect("what was written").eq(files));
    // From another file system, coarse times lose their trust.
    if input[SYSTEM..].starts_with(&origin.file_system.to_le_bytes()) {
        assert_eq!(again, sealed);
    }
});
