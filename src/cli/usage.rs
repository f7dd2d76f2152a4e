//! Command lines that each parse, and ask for something that cannot be done.

use std::io;
use std::path::PathBuf;

use crate::replica::NothingToCompare;
use crate::settings::{Listen, StoreUrl};

/// Why a command line asks for something that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// One address for two flags.
    #[error("{first} and {second} have the same address, {address}: give each one of its own")]
    SameAddress {
        /// The flag that has it first.
        first: &'static str,
        /// The flag that has it, too; perhaps the same one.
        second: &'static str,
        /// The address.
        address: Listen,
    },
    /// `check` with one replica and nothing to compare it with.
    #[error(
        "one replica always agrees with itself: give a second URL, or say with --dir DIR or \
         --manifest FILE what it should serve"
    )]
    SingleReplica,
    /// `check` of replicas without manifests, and nothing to compare them with.
    #[error(transparent)]
    NothingToCompare(#[from] NothingToCompare),
    /// `health` without a URL where no admin listener is known.
    #[error("nobody to ask: give a URL, or the admin listener with --admin or ETAGD_ADMIN")]
    NobodyToAsk,
    /// `push --delete` without a list of the server's files.
    #[error("--delete needs to know what the server has: give --admin-url URL or --base FILE")]
    UnknownFiles,
    /// `push --delete` of an empty directory.
    #[error("{} is empty: to delete everything that the server has, add --force", .0.display())]
    EmptyDirectory(PathBuf),
    /// `push --token-file` with a file that can't be read.
    #[error("cannot read --token-file {}: {source}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// `push --token-file` with a file that has no token, or several.
    #[error("--token-file {} must have exactly one line with a token", .0.display())]
    Token(PathBuf),
    /// `push` to a store in the directory: each release would be a part of the next.
    #[error(
        "{store} is in {}, so each release would have all earlier ones among its files, for everybody to \
         download: keep the store elsewhere",
        .directory.display()
    )]
    StoreInSite {
        /// The store.
        store: StoreUrl,
        /// The directory, as it was given.
        directory: PathBuf,
    },
    /// `push` of a directory in the store.
    #[error("{} is in the store, {store}: keep what is to be released elsewhere", .directory.display())]
    SiteInStore {
        /// The store.
        store: StoreUrl,
        /// The directory, as it was given.
        directory: PathBuf,
    },
    /// The URL of a store where only a directory will do.
    #[error(
        "{} is a store of releases, and a directory is needed here: etagd serve takes stores, and etagd \
         releases lists what is in one",
        .0.display()
    )]
    NoDirectory(PathBuf),
    /// `--ca` with a folder.
    #[error("--ca is about TLS, and {0} is a folder: leave it out")]
    NoTls(StoreUrl),
    /// `push` to a store with a flag for servers.
    #[error(
        "--{0} is for servers: a store takes a release whole, or not at all (see etagd push --help)"
    )]
    ServerFlag(String),
    /// `push` to a server with a flag for stores.
    #[error(
        "--{0} is for stores: a server has settings of its own, which its operator chooses (see etagd push --help)"
    )]
    StoreFlag(String),
}
