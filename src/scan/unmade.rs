//! What a look leaves to other threads, because compressing it takes long.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::representation::{Data, Resource};
use crate::semantics::coding::Coding;

/// A file whose codings are to be made, and which.
#[derive(Debug)]
pub struct Unmade {
    pub(super) resource: Arc<Resource>,
    pub(super) wanted: Vec<Coding>,
}

impl Unmade {
    /// Where the file is: an absolute path, or one below the root.
    pub fn location(&self) -> PathBuf {
        match &self.resource.of_files().0.data {
            Data::File(source) => source.location(),
            Data::Memory(_) | Data::Spooled(_) | Data::Remote(_) => {
                OsStr::from_bytes(&self.resource.path).into()
            }
        }
    }
}
