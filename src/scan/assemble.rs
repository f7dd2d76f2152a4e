//! A site whose files another process has read, as a store of releases lists it.
//!
//! As with saved state, only what was learned by reading the files is listed. Field values, tags and
//! dictionaries are derived again, so that a site has the digest here that it has where it was read.

use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{Scanner, rules};
use crate::manifest::{Changes, Manifest};
use crate::representation::{Data, Decoding, Representation, Resource, TextKind};
use crate::rules::{RuleFile, Rules};
use crate::semantics::coding::Coding;
use crate::semantics::date::HttpDate;
use crate::semantics::etag::ETag;

/// What another process has found in a site.
#[derive(Debug, Default)]
pub struct PublishedSite {
    /// Its files.
    pub files: Vec<PublishedFile>,
    /// Its folders without files, without a slash at the end.
    pub empty_folders: Vec<Box<[u8]>>,
    /// The content of its rule files, of those that are there.
    pub rules: Vec<(RuleFile, Vec<u8>)>,
}

/// A file as another process has read it.
#[derive(Clone, Debug)]
pub struct PublishedFile {
    /// Its path in the site.
    pub path: Box<[u8]>,
    /// Whether its content is text.
    pub text: TextKind,
    /// When its content was last modified, if that could be told.
    pub last_modified: Option<HttpDate>,
    /// The newest date that its path ever had.
    pub newest_date: Option<HttpDate>,
    /// How it was proven to decode, where its name or a rule wanted that.
    pub decoding: Option<Decoding>,
    /// Its content.
    pub identity: PublishedContent,
    /// Its content codings, proven to decode to it.
    pub codings: Vec<PublishedContent>,
}

/// The bytes of a file, or of one of its content codings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublishedContent {
    /// Their content coding.
    pub coding: Coding,
    /// Their BLAKE3.
    pub hash: [u8; 32],
    /// How many they are.
    pub length: u64,
    /// Their SHA-256, where the site's settings want it.
    pub sha256: Option<[u8; 32]>,
    /// Whether a scan made them, rather than finding them in a file of the site.
    pub is_made: bool,
}

impl Scanner {
    /// The manifest of a site that another process has read. `data` says where the content of the file
    /// at a path is.
    pub fn assemble(
        &self,
        site: PublishedSite,
        data: impl Fn(&[u8], &PublishedContent) -> Data + Sync,
    ) -> Manifest {
        let rules = self.listed_rules(&site.rules);
        let files = site.files.into_par_iter();
        let empty = self.empty();
        let mut changes = Changes {
            changed: files
                .map(|file| Arc::new(self.listed_resource(file, &data)))
                .collect(),
            new_folders: site.empty_folders,
            rules: Some(Arc::new(rules)),
            ..Changes::default()
        };
        self.choose_dictionaries(&empty, &mut changes);
        empty.with(changes)
    }

    fn listed_rules(&self, files: &[(RuleFile, Vec<u8>)]) -> Rules {
        let dialect = rules::dialect(&self.settings);
        files.iter().fold(Rules::default(), |rules, (file, text)| {
            rules.with(*file, Some(text), dialect).unwrap_or(rules)
        })
    }

    fn listed_resource(
        &self,
        file: PublishedFile,
        data: &impl Fn(&[u8], &PublishedContent) -> Data,
    ) -> Resource {
        let representation = |content: &PublishedContent| {
            let (etag, data) = (ETag::new(content.hash), data(&file.path, content));
            let representation = Representation::new(content.coding, etag, content.length, data)
                .with_sha256(content.sha256);
            match content.is_made {
                true => representation.made(),
                false => representation,
            }
        };
        let mut encoded: Vec<_> = file.codings.iter().map(representation).collect();
        // As the scan orders them, or the digest would be another one.
        encoded.sort_by_key(|each| {
            let coding = each.coding();
            (coding.dictionary().is_some(), each.length, coding)
        });
        let identity = representation(&file.identity);
        let fields = self.fields(&file.path, file.text, true, file.decoding);
        let resource = Resource {
            last_modified: file.last_modified,
            text: file.text,
            encoded: encoded.into(),
            ..Resource::new(file.path, fields, identity)
        };
        resource.with_newest_date(file.newest_date)
    }
}
