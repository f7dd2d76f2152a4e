//! Content codings that the scan makes of files (`--compress`), before anything of them is published.
//!
//! Which codings a file has follows from its bytes, its name and the policy alone, never from when it
//! changed or what it was before: so equal digests mean equal answers, whichever replica made its
//! codings when (P7). What is published while somebody still writes to it has none until it settles.
//! Each coding is proven by decoding it once. None is made for a request.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::encode::{self, MIN_LENGTH};
use super::maker::{Encoded, MakeError, Maker, Step};
use super::proven::read_proven;
use super::unpublished::Attempt;
use super::{Pass, Scanner, site_path};
use crate::cache::EntryPiece;
use crate::disk::{self, Root, Spool, SpoolError};
use crate::manifest::Manifest;
use crate::representation::{
    Data, GROUP_SIZE, GroupHash, MAX_IN_MEMORY, MAX_WHOLE, Representation, Resource, SpooledSource,
    group_hash,
};
use crate::semantics::coding::Coding;
use crate::semantics::etag::ETag;

/// Longer files get no codings in the scan: a change of one would hold up others for seconds.
pub(super) const MAX_LENGTH: u64 = 8 << 20;
/// Files that are named one by one; beyond this number they are only counted.
const MAX_SHOWN: usize = 20;

/// Whether `--compress` makes codings of a resource that has none.
pub(super) fn is_compressible(resource: &Resource) -> bool {
    let (identity, _) = resource.of_files();
    resource.settled
        && (MIN_LENGTH..=MAX_LENGTH).contains(&identity.length)
        // What is compressed under its own name has no other coding.
        && resource.fields.decoding().is_none()
        && encode::is_compressible(&resource.path, resource.text)
}

/// How many files of a site could be sent compressed and are not, and how many bytes they have. None where
/// most are compressed: whoever did that has left out what is not worth it.
pub fn uncompressed(manifest: &Manifest) -> (u64, u64) {
    let (mut compressed, mut files, mut bytes) = (0_u64, 0, 0);
    for resource in manifest.iter().filter(|it| is_compressible(it)) {
        let (identity, encoded) = resource.of_files();
        if encoded.is_empty() {
            files += 1;
            bytes += identity.length;
        } else {
            compressed += 1;
        }
    }
    match compressed > files {
        true => (0, 0),
        false => (files, bytes),
    }
}

/// Does `work`, which makes the codings of these resources: at a start on all cores, and later on
/// threads that stand back.
pub(super) fn run<T: Send>(
    maker: &Maker,
    pass: &Pass<'_>,
    resources: &[&Arc<Resource>],
    work: impl FnOnce() -> T + Send,
) -> T {
    if pass.is_start {
        let compressible = resources
            .iter()
            .filter(|resource| is_compressible(resource));
        let length: u64 = compressible.map(|it| it.of_files().0.length).sum();
        maker.progress.set_total(maker.progress.total() + length);
        let result = work();
        maker.rest();
        return result;
    }
    let is_needed = resources.iter().any(|resource| is_compressible(resource));
    if !is_needed {
        return work();
    }
    let result = maker.threads.run(work);
    maker.rest();
    result
}

/// The codings that a resource has in addition to those that lie next to it, and why some are missing,
/// if that is so.
pub(super) fn codings(
    scanner: &Scanner,
    maker: &Maker,
    pass: &Pass<'_>,
    resource: &Resource,
    shipped: &[Representation],
) -> (Vec<Representation>, Option<MakeError>) {
    if !is_compressible(resource) {
        return (Vec::new(), None);
    }
    let (identity, _) = resource.of_files();
    let wanted = maker.wanted(shipped);
    let (attempts, error) = attempts(scanner, maker, pass, resource, &wanted);
    maker.progress.add(identity.length);
    let (made, failed) = sort_attempts(attempts);
    (made, error.or(failed))
}

/// What was made, and the first reason why something was not.
fn sort_attempts(attempts: Vec<(Coding, Attempt)>) -> (Vec<Representation>, Option<MakeError>) {
    let (mut made, mut failed) = (Vec::new(), None);
    for (_, attempt) in attempts {
        match attempt {
            Attempt::Made(coding) => made.push(coding),
            Attempt::NotWorthIt => {}
            Attempt::Failed(reason) => drop(failed.get_or_insert(MakeError::Encoder(reason))),
        }
    }
    (made, failed)
}

/// What the published state has of the content of a resource.
struct PublishedCodings<'a> {
    encoded: &'a [Representation],
    /// Whether it has all codings that are worth it.
    is_complete: bool,
}

impl<'a> PublishedCodings<'a> {
    fn of(pass: &'a Pass<'_>, resource: &Resource) -> Self {
        let path = &resource.path;
        let same = pass.base.locate(path).filter(|before| {
            let (before, now) = (before.of_files().0, resource.of_files().0);
            before.etag.hash() == now.etag.hash()
        });
        match same {
            Some(before) => Self {
                encoded: before.of_files().1,
                // What an earlier process has saved has no made codings.
                is_complete: !pass.is_start
                    && is_compressible(before)
                    && !pass.base.without_codings().contains(path)
                    && !pass.base.unreadable().contains_key(path),
            },
            None => Self {
                encoded: &[],
                is_complete: false,
            },
        }
    }

    /// What has become of a coding, if that is known: of one that lay next to the file it is not.
    fn attempt(&self, coding: Coding) -> Option<Attempt> {
        match self.encoded.iter().find(|each| each.coding() == coding) {
            // Rules give tags a suffix when the resource is published.
            Some(found) => (found.is_made).then(|| Attempt::Made(found.as_coding(coding))),
            None => self.is_complete.then_some(Attempt::NotWorthIt),
        }
    }
}

/// Codings that are published, were made for a batch that is not, or are made now; and why some of
/// them are missing, if that is so.
fn attempts(
    scanner: &Scanner,
    maker: &Maker,
    pass: &Pass<'_>,
    resource: &Resource,
    wanted: &[Coding],
) -> (Vec<(Coding, Attempt)>, Option<MakeError>) {
    let content = resource.of_files().0.etag.hash();
    let mut attempts = known(maker, pass, resource, wanted);
    // What is read again is proven again, too.
    if pass.scope.rereads(&resource.path) {
        let before = attempts.len();
        attempts.retain(|(_, attempt)| is_good(attempt));
        if attempts.len() < before {
            maker.unpublished.forget([content]);
        }
    }
    let missing = without(wanted, &attempts);
    if missing.is_empty() || pass.is_compared {
        return (attempts, None);
    }
    let step = || pass.progress.step();
    // Those that are known stay, whatever becomes of the others: there may be no room for more.
    match make_now(scanner, maker, pass.root, resource, &missing, &step) {
        Ok(made) => {
            // What a start finds is published.
            if !pass.is_start {
                maker.unpublished.put(*content, &made);
            }
            attempts.extend(made);
            (attempts, None)
        }
        Err(error) => (attempts, Some(error)),
    }
}

/// Those of `wanted` of which nothing is known.
pub(super) fn without(wanted: &[Coding], known: &[(Coding, Attempt)]) -> Vec<Coding> {
    let is_unknown = |coding: &Coding| known.iter().all(|(each, _)| each != coding);
    wanted.iter().copied().filter(is_unknown).collect()
}

/// What has become of those of these codings of a resource of which that is known.
pub(super) fn known(
    maker: &Maker,
    pass: &Pass<'_>,
    resource: &Resource,
    wanted: &[Coding],
) -> Vec<(Coding, Attempt)> {
    let content = resource.of_files().0.etag.hash();
    let published = PublishedCodings::of(pass, resource);
    let file = OnceCell::new();
    let known = |coding: &Coding| {
        let attempt = published.attempt(*coding);
        let mut attempt = attempt.or_else(|| maker.unpublished.get(content, *coding))?;
        if let Attempt::Made(made) = &mut attempt
            && let Data::Spooled(source) = &made.data
        {
            // The root was replaced, or another file has the same content.
            let file: &PathBuf = file.get_or_init(|| location(pass.root, resource));
            if *source.of != **file {
                made.data = Data::Spooled(Arc::new(source.of_file(file)));
            }
        }
        Some((*coding, attempt))
    };
    wanted.iter().filter_map(known).collect()
}

/// Whether what was made still has the bytes that its tag says.
fn is_good(attempt: &Attempt) -> bool {
    match attempt {
        Attempt::Made(made) => read_proven(made, |_| Ok(())).is_ok(),
        Attempt::NotWorthIt | Attempt::Failed(_) => true,
    }
}

/// Makes these codings of a resource.
///
/// # Errors
/// When none of them can be made.
pub(super) fn make_now(
    scanner: &Scanner,
    maker: &Maker,
    root: &Root,
    resource: &Resource,
    wanted: &[Coding],
    step: Step<'_>,
) -> Result<Vec<(Coding, Attempt)>, MakeError> {
    let (identity, _) = resource.of_files();
    maker
        .find_room(scanner, identity, wanted)
        .map_err(MakeError::NoRoom)?;
    let Encoded { entry, failed } = maker.make(wanted, identity, step)?;
    let part = |(coding, piece): (&Coding, &EntryPiece)| MadePart {
        coding: *coding,
        etag: ETag::new(piece.hash),
        offset: piece.range.start,
        length: piece.range.len(),
        groups: groups(&entry.bytes[piece.range.clone()]),
        sha256: (scanner.wants_sha256())
            .then(|| Sha256::digest(&entry.bytes[piece.range.clone()]).into()),
    };
    let parts: Vec<_> = wanted
        .iter()
        .zip(&entry.pieces)
        .filter(|(_, piece)| !piece.range.is_empty())
        .map(part)
        .collect();
    let lengths = entry.pieces.iter().map(|piece| piece.range.len() as u64);
    let lengths: Vec<_> = wanted.iter().copied().zip(lengths).collect();
    let mut kept = match parts.is_empty() {
        true => Vec::new(),
        false => {
            let file = location(root, resource);
            let spool = maker.store.spool.as_ref();
            let kept = keep(scanner, spool, entry.bytes, parts, &file);
            kept.map_err(|error| {
                let content = *identity.etag.hash();
                maker.unpublished.note_lengths(content, &lengths);
                MakeError::NoRoom(error)
            })?
        }
    };
    let attempt = |(coding, failed): (&Coding, Option<Arc<str>>)| {
        let attempt = match kept.iter().position(|each| each.coding() == *coding) {
            Some(place) => Attempt::Made(kept.swap_remove(place)),
            None => failed.map_or(Attempt::NotWorthIt, Attempt::Failed),
        };
        (*coding, attempt)
    };
    Ok(wanted.iter().zip(failed).map(attempt).collect())
}

/// The absolute path of a resource's file.
fn location(root: &Root, resource: &Resource) -> PathBuf {
    match &resource.of_files().0.data {
        Data::File(source) => source.location(),
        Data::Memory(_) | Data::Spooled(_) | Data::Remote(_) => {
            site_path::join(root.path(), &resource.path)
        }
    }
}

/// Whether made codings of a resource name a file that is not below this root: it was replaced, or a
/// link leads out of it.
pub(super) fn are_made_elsewhere(resource: &Resource, root: &Root) -> bool {
    let (_, encoded) = resource.of_files();
    encoded.iter().any(|each| match &each.data {
        Data::Spooled(source) => !source.of.starts_with(root.path()),
        Data::Memory(_) | Data::File(_) | Data::Remote(_) => false,
    })
}

/// One made coding, before its bytes have a place.
struct MadePart {
    coding: Coding,
    etag: ETag,
    /// Where it begins in the bytes of all of them.
    offset: usize,
    length: usize,
    groups: Arc<[GroupHash]>,
    sha256: Option<[u8; 32]>,
}

/// Keeps the codings of a file in memory, as small bodies are, or in the temporary file. Without one
/// they are known, and can't be sent.
fn keep(
    scanner: &Scanner,
    spool: Option<&Spool>,
    bytes: Vec<u8>,
    parts: Vec<MadePart>,
    file: &Path,
) -> Result<Vec<Representation>, SpoolError> {
    let is_small = bytes.len() as u64 <= MAX_IN_MEMORY;
    let kept = match scanner.memory.as_ref().filter(|_| is_small) {
        Some(memory) => memory.keep(bytes),
        None => Err(bytes),
    };
    let kept = match kept {
        Ok(bytes) => Ok(bytes),
        Err(bytes) => Err(match spool {
            Some(spool) => Some(Arc::new(spool.store(&bytes)?)),
            None => None,
        }),
    };
    let representation = |part: MadePart| {
        let data = match &kept {
            Ok(bytes) => Data::Memory(bytes.slice(part.offset..part.offset + part.length)),
            Err(None) => Data::Memory(Bytes::new()),
            Err(Some(extent)) => Data::Spooled(Arc::new(SpooledSource {
                extent: Arc::clone(extent),
                offset: part.offset as u64,
                groups: part.groups,
                of: file.into(),
            })),
        };
        Representation::new(part.coding, part.etag, part.length as u64, data)
            .with_sha256(part.sha256)
            .made()
    };
    Ok(parts.into_iter().map(representation).collect())
}

/// As [`crate::representation::FileSource::groups`].
fn groups(bytes: &[u8]) -> Arc<[GroupHash]> {
    if bytes.len() as u64 <= MAX_WHOLE {
        return Arc::default();
    }
    (0..)
        .step_by(GROUP_SIZE as usize)
        .zip(bytes.chunks(GROUP_SIZE as usize))
        .map(|(offset, group)| group_hash(group, offset))
        .collect()
}

/// Says which files have become ones without their codings. What can't be read now is said by
/// whoever looks again.
pub(super) fn report(pass: &Pass<'_>, failures: &[(Box<[u8]>, MakeError)]) {
    let is_known = |path| {
        pass.base.unreadable().contains_key(path) || pass.base.without_codings().contains(path)
    };
    let mut new: Vec<_> = failures
        .iter()
        .filter(|(path, _)| !is_known(path))
        .collect();
    new.sort_by(|one, other| one.0.cmp(&other.0));
    let (without_room, others): (Vec<_>, Vec<_>) = new
        .into_iter()
        .partition(|(_, error)| matches!(error, MakeError::NoRoom(_)));
    if let Some((first, error)) = without_room.first() {
        let (count, path) = (without_room.len(), site_path::join(pass.root.path(), first));
        let path = path.display();
        let others = match count - 1 {
            0 => String::new(),
            1 => ", as is 1 other file".to_owned(),
            others => format!(", as are {others} other files"),
        };
        let advice = match error {
            MakeError::NoRoom(error) => error.advice(),
            MakeError::Unreadable(_) | MakeError::Encoder(_) => "",
        };
        tracing::warn!(
            count, %path, %error,
            "{path}: {error}: it is sent as it is{others}, and the site digest is incomplete; {advice}"
        );
    }
    for (path, error) in others.into_iter().take(MAX_SHOWN) {
        let is_passing = matches!(error, MakeError::Unreadable(error) if disk::is_passing(error));
        if !is_passing {
            let path = site_path::join(pass.root.path(), path);
            let path = path.display();
            tracing::warn!(
                %path, %error,
                "{path} is not sent in all compressed forms, and the site digest is incomplete: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::locks::lock;
    use crate::memory::{MIN_MEMORY, Memory};
    use crate::scan::encode::Effort;
    use crate::scan::maker::Encoder;
    use crate::scan::unmade::Unmade;
    use crate::scan::{Progress, ScanOutcome, Scope, Unsettled};
    use crate::settings::{CompressionPolicy, Settings, Symlinks};

    /// A site that is looked at again and again.
    struct Looks {
        directory: TempDir,
        root: Arc<Root>,
        scanner: Scanner,
        published: Manifest,
    }

    impl Looks {
        fn new(memory: Option<Arc<Memory>>, encoder: Encoder) -> Self {
            let settings = Settings {
                compress: Some(CompressionPolicy::default()),
                ..Settings::default()
            };
            let mut scanner = Scanner::new(Symlinks::Inside, settings, memory);
            scanner.maker.as_mut().expect("a maker").encoder = encoder;
            let directory = tempfile::tempdir().expect("a directory");
            Self {
                root: Arc::new(Root::open(directory.path()).expect("a root")),
                directory,
                published: scanner.empty(),
                scanner,
            }
        }

        fn write(&self, name: &str, content: &[u8]) {
            fs::write(self.directory.path().join(name), content).expect("written");
        }

        fn look(&self, unsettled: Unsettled) -> ScanOutcome {
            let (everything, progress) = (Scope::Everything, Progress::default());
            let (root, published) = (&self.root, &self.published);
            self.scanner
                .reconcile(root, published, &everything, unsettled, &progress)
        }

        fn publish(&mut self, outcome: ScanOutcome) {
            self.scanner.forget_published(&outcome.changes.changed);
            self.published = self.published.with(outcome.changes);
        }

        /// Which codings are to be made of which files before the next look.
        fn deferred(&self) -> Vec<(String, Vec<Coding>)> {
            let outcome = self.look(Unsettled::Defer);
            let (root, unmade) = (&self.root, &outcome.unmade);
            self.scanner.make_codings(root, unmade, &|| true);
            let named = |unmade: &Unmade| {
                let path = String::from_utf8_lossy(&unmade.resource.path).into_owned();
                (path, unmade.wanted.clone())
            };
            let mut named: Vec<_> = unmade.iter().map(named).collect();
            named.sort();
            named
        }

        /// The made codings of a file.
        fn made(&self, name: &str) -> Vec<Coding> {
            let resource = self.published.locate(name.as_bytes()).expect("published");
            let made = resource.encoded.iter().filter(|each| each.is_made);
            let mut made: Vec<_> = made.map(Representation::coding).collect();
            made.sort();
            made
        }
    }

    /// A text that is compressed to about a fifth.
    fn text(length: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("{:x} ", (state >> 16) % 512)
        });
        let mut text: Vec<u8> = words.take(length).flat_map(String::into_bytes).collect();
        text.truncate(length);
        text
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        encode::encode(Coding::Gzip, Effort::Sidecar, content, &|| ()).expect("encoded")
    }

    const BOTH: [Coding; 2] = [Coding::Brotli, Coding::Gzip];

    #[test]
    fn what_is_deferred_is_what_the_next_look_needs() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        fn counted(
            coding: Coding,
            effort: Effort,
            bytes: &[u8],
            step: &dyn Fn(),
        ) -> io::Result<Vec<u8>> {
            MADE.fetch_add(1, Ordering::Relaxed);
            encode::encode(coding, effort, bytes, step)
        }
        let mut looks = Looks::new(None, counted);
        let length = 700_000;
        let [one, two] = [1, 2].map(|seed| text(length, seed));
        // One sidecar is that of another file, one is good, and one file has none.
        looks.write("a.txt", &one);
        looks.write("a.txt.gz", &gzip(b"something else"));
        looks.write("b.txt", &two);
        looks.write("b.txt.gz", &gzip(&two));
        // As a.txt, and as b.txt.
        looks.write("c.txt", &one);
        looks.write("d.txt", &two);
        let wanted = [
            ("a.txt", &BOTH[..]),
            ("b.txt", &BOTH[..1]),
            ("c.txt", &BOTH),
            ("d.txt", &BOTH),
        ];
        let wanted: Vec<_> = wanted
            .map(|(name, wanted)| (name.to_owned(), wanted.to_vec()))
            .into();
        assert_eq!(looks.deferred(), wanted);
        let before = MADE.load(Ordering::Relaxed);
        let outcome = looks.look(Unsettled::Defer);
        assert!(!outcome.is_deferred());
        looks.publish(outcome);
        assert_eq!(MADE.load(Ordering::Relaxed), before, "made inline");
        for (name, wanted) in wanted {
            assert_eq!(looks.made(&name), wanted, "{name}");
        }
        // What is published has one coding that was made, and now needs the other.
        for name in ["a.txt", "b.txt"] {
            looks.write(name, &text(length, 3));
            looks.write(&format!("{name}.gz"), &gzip(&text(length, 3)));
        }
        looks.deferred();
        let outcome = looks.look(Unsettled::Report);
        looks.publish(outcome);
        assert_eq!(looks.made("a.txt"), [Coding::Brotli]);
        for name in ["a.txt.gz", "b.txt.gz"] {
            fs::remove_file(looks.directory.path().join(name)).expect("removed");
        }
        let gzip = [Coding::Gzip].to_vec();
        let wanted = ["a.txt", "b.txt"].map(|name| (name.to_owned(), gzip.clone()));
        assert_eq!(looks.deferred(), wanted);
    }

    #[test]
    fn a_start_compresses_on_all_cores() {
        static ENTERED: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());
        // Nobody leaves it until there is one for each core.
        fn together(
            coding: Coding,
            effort: Effort,
            bytes: &[u8],
            step: &dyn Fn(),
        ) -> io::Result<Vec<u8>> {
            let (entered, change) = &ENTERED;
            let mut entered = lock(entered);
            *entered += 1;
            change.notify_all();
            let is_alone = |entered: &mut usize| *entered < rayon::current_num_threads();
            let patience = Duration::from_secs(60);
            let waited = change.wait_timeout_while(entered, patience, is_alone);
            let (entered, waited) = waited.expect("unpoisoned");
            drop(entered);
            match waited.timed_out() {
                true => Err(io::ErrorKind::TimedOut.into()),
                false => encode::encode(coding, effort, bytes, step),
            }
        }
        let looks = Looks::new(None, together);
        for number in 0..4 * rayon::current_num_threads() {
            looks.write(&format!("{number}.txt"), &text(20_000, number as u32));
        }
        let (site, _) = looks.scanner.scan(&looks.root, &Progress::default());
        assert!(site.digest().is_complete(), "one after another");
        assert!(site.iter().all(|file| file.encoded.len() == 2));
    }

    #[test]
    fn a_sidecar_is_decoded_once_until_its_batch_is_published() {
        let mut looks = Looks::new(None, encode::encode);
        let [one, two] = [1, 2].map(|seed| text(1_500_000, seed));
        looks.write("a.txt", &one);
        looks.write("a.txt.gz", &gzip(&one));
        looks.write("b.txt", &two);
        let bad = gzip(b"something else");
        looks.write("b.txt.gz", &bad);
        let is_proven = |looks: &Looks, content: &[u8], sidecar: &[u8]| {
            let [content, sidecar] =
                [content, sidecar].map(|bytes| *blake3::hash(bytes).as_bytes());
            let maker = looks.scanner.maker.as_ref().expect("a maker");
            maker.unpublished.is_proven(&content, Coding::Gzip, sidecar)
        };
        assert_eq!(looks.deferred().len(), 2);
        assert!(is_proven(&looks, &one, &gzip(&one)));
        assert!(!is_proven(&looks, &two, &bad));
        // Were it decoded again, it would be found out.
        let maker = looks.scanner.maker.as_ref().expect("a maker");
        let [content, sidecar] = [&two, &bad].map(|bytes| *blake3::hash(bytes).as_bytes());
        maker
            .unpublished
            .note_proven(content, Coding::Gzip, sidecar);
        let outcome = looks.look(Unsettled::Defer);
        assert!(!outcome.is_deferred());
        looks.publish(outcome);
        for name in ["a.txt", "b.txt"] {
            assert_eq!(looks.made(name), [Coding::Brotli], "{name}");
        }
        assert!(!is_proven(&looks, &one, &gzip(&one)), "still known");
    }

    #[test]
    fn a_coding_that_is_there_stays_while_there_is_no_room_for_another() {
        let memory = Memory::new(4 * MIN_MEMORY, 4);
        let mut looks = Looks::new(Some(memory), encode::encode);
        let text = text(900_000, 1);
        let directory = tempfile::tempdir().expect("a directory");
        let spool = |limit| Some(Spool::new(vec![directory.path().to_path_buf()], limit));
        let maker = looks.scanner.maker.as_mut().expect("a maker");
        let encoded = encode::encode(Coding::Gzip, Effort::Scan, &text, &|| ()).expect("encoded");
        maker.store.spool = spool(encoded.len() as u64 + 4096);
        looks.write("a.txt", &text);
        let brotli = encode::encode(Coding::Brotli, Effort::Scan, &text, &|| ()).expect("encoded");
        looks.write("a.txt.br", &brotli);
        let outcome = looks.look(Unsettled::Report);
        looks.publish(outcome);
        assert_eq!(looks.made("a.txt"), [Coding::Gzip]);
        fs::remove_file(looks.directory.path().join("a.txt.br")).expect("removed");
        for unsettled in [Unsettled::Defer, Unsettled::Report] {
            let outcome = looks.look(unsettled);
            looks.publish(outcome);
            assert_eq!(looks.made("a.txt"), [Coding::Gzip]);
            assert!(!looks.published.digest().is_complete());
        }
    }

    #[test]
    fn what_saves_too_little_is_not_made_again() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        fn in_vain(
            coding: Coding,
            effort: Effort,
            bytes: &[u8],
            step: &dyn Fn(),
        ) -> io::Result<Vec<u8>> {
            MADE.fetch_add(1, Ordering::Relaxed);
            match coding {
                Coding::Gzip => Ok(bytes.to_vec()),
                _ => encode::encode(coding, effort, bytes, step),
            }
        }
        let mut looks = Looks::new(None, in_vain);
        looks.write("a.txt", &text(20_000, 1));
        let outcome = looks.look(Unsettled::Report);
        looks.publish(outcome);
        assert_eq!(looks.made("a.txt"), [Coding::Brotli]);
        let made = MADE.load(Ordering::Relaxed);
        assert_eq!(made, 2);
        // Touched, and nothing else.
        looks.write("a.txt", &text(20_000, 1));
        let outcome = looks.look(Unsettled::Defer);
        assert_eq!(outcome.changes.changed.len(), 1);
        looks.publish(outcome);
        assert_eq!(looks.made("a.txt"), [Coding::Brotli]);
        assert_eq!(MADE.load(Ordering::Relaxed), made);
    }

    #[test]
    fn what_there_is_no_room_for_is_tried_once() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        fn counted(
            coding: Coding,
            effort: Effort,
            bytes: &[u8],
            step: &dyn Fn(),
        ) -> io::Result<Vec<u8>> {
            MADE.fetch_add(1, Ordering::Relaxed);
            encode::encode(coding, effort, bytes, step)
        }
        let memory = Memory::new(4 * MIN_MEMORY, 4);
        let mut looks = Looks::new(Some(memory), counted);
        let directory = tempfile::tempdir().expect("a directory");
        let spool = |limit| Some(Spool::new(vec![directory.path().to_path_buf()], limit));
        let maker = looks.scanner.maker.as_mut().expect("a maker");
        maker.store.spool = spool(8192);
        // Of one an eighth is longer than what memory takes, of the other it is not. The codings of
        // both are longer.
        looks.write("long.txt", &text(2_000_000, 1));
        assert_eq!(looks.deferred().len(), 1);
        assert_eq!(MADE.load(Ordering::Relaxed), 2);
        looks.write("short.txt", &text(900_000, 2));
        for _ in 0..3 {
            let outcome = looks.look(Unsettled::Defer);
            assert!(!outcome.is_deferred());
            looks.publish(outcome);
            assert_eq!(MADE.load(Ordering::Relaxed), 4);
        }
        let without = looks.published.without_codings();
        assert_eq!(without.len(), 2);
        assert!(!looks.published.digest().is_complete());
        // Once there is room, they are made.
        let maker = looks.scanner.maker.as_mut().expect("a maker");
        maker.store.spool = spool(1 << 24);
        let outcome = looks.look(Unsettled::Report);
        looks.publish(outcome);
        for name in ["long.txt", "short.txt"] {
            assert_eq!(looks.made(name), BOTH, "{name}");
        }
        assert!(looks.published.digest().is_complete());
    }

    #[test]
    fn a_long_file_with_short_codings_needs_no_temporary_file() {
        let memory = Memory::new(4 * MIN_MEMORY, 4);
        let mut looks = Looks::new(Some(memory), encode::encode);
        let maker = looks.scanner.maker.as_mut().expect("a maker");
        maker.store.spool = Some(Spool::new(Vec::new(), 0));
        looks.write("log.txt", &"the same line\n".repeat(150_000).into_bytes());
        assert_eq!(looks.deferred().len(), 1);
        let outcome = looks.look(Unsettled::Report);
        looks.publish(outcome);
        assert_eq!(looks.made("log.txt"), BOTH);
        assert!(looks.published.digest().is_complete());
    }

    #[test]
    fn room_is_asked_for_the_codings_that_are_wanted() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        fn counted(
            coding: Coding,
            effort: Effort,
            bytes: &[u8],
            step: &dyn Fn(),
        ) -> io::Result<Vec<u8>> {
            MADE.fetch_add(1, Ordering::Relaxed);
            encode::encode(coding, effort, bytes, step)
        }
        let text = text(900_000, 1);
        let encoded =
            |coding| encode::encode(coding, Effort::Scan, &text, &|| ()).expect("encoded");
        let [brotli, gzip] = BOTH.map(encoded);
        let memory = Memory::new(4 * MIN_MEMORY, 4);
        let mut looks = Looks::new(Some(memory), counted);
        let directory = tempfile::tempdir().expect("a directory");
        let maker = looks.scanner.maker.as_mut().expect("a maker");
        // Not quite enough for both.
        let limit = (brotli.len() + gzip.len()) as u64 - 1;
        assert!(gzip.len() as u64 > MAX_IN_MEMORY);
        maker.store.spool = Some(Spool::new(vec![directory.path().to_path_buf()], limit));
        looks.write("a.txt", &text);
        for _ in 0..2 {
            let outcome = looks.look(Unsettled::Report);
            looks.publish(outcome);
            assert!(looks.made("a.txt").is_empty());
            assert_eq!(MADE.load(Ordering::Relaxed), 2);
        }
        // One of them comes with the site, and then there is room for the other.
        looks.write("a.txt.br", &brotli);
        let outcome = looks.look(Unsettled::Report);
        looks.publish(outcome);
        assert_eq!(looks.made("a.txt"), [Coding::Gzip]);
        assert_eq!(MADE.load(Ordering::Relaxed), 3);
        assert!(looks.published.digest().is_complete());
    }

    #[test]
    fn an_encoder_that_panics_or_errs_costs_one_coding_of_one_file() {
        static FAILURES: AtomicUsize = AtomicUsize::new(0);
        fn broken(
            coding: Coding,
            effort: Effort,
            bytes: &[u8],
            step: &dyn Fn(),
        ) -> io::Result<Vec<u8>> {
            match coding {
                Coding::Brotli if bytes.starts_with(b"bad") => {
                    FAILURES.fetch_add(1, Ordering::Relaxed);
                    panic!("of an encoder");
                }
                Coding::Gzip if bytes.starts_with(b"wrong") => {
                    FAILURES.fetch_add(1, Ordering::Relaxed);
                    Ok(gzip(b"another text"))
                }
                _ => encode::encode(coding, effort, bytes, step),
            }
        }
        let mut looks = Looks::new(None, broken);
        looks.write("bad.txt", &"bad text ".repeat(200_000).into_bytes());
        looks.write("good.txt", &"good text ".repeat(200).into_bytes());
        looks.write("wrong.txt", &"wrong text ".repeat(200).into_bytes());
        let deferred = looks.deferred();
        assert_eq!(deferred.len(), 3);
        for _ in 0..3 {
            let outcome = looks.look(Unsettled::Defer);
            assert!(!outcome.is_deferred());
            looks.publish(outcome);
            assert_eq!(looks.made("bad.txt"), [Coding::Gzip]);
            assert_eq!(looks.made("good.txt"), BOTH);
            assert_eq!(looks.made("wrong.txt"), [Coding::Brotli]);
            let without: Vec<_> = looks.published.without_codings().iter().collect();
            assert_eq!(without, [&b"bad.txt"[..].into(), &b"wrong.txt"[..].into()]);
            assert!(!looks.published.digest().is_complete());
        }
        assert_eq!(FAILURES.load(Ordering::Relaxed), 2, "tried again");
        let reason = "the encoder for br panicked (see above)";
        let error = MakeError::Encoder(reason.into()).to_string();
        assert_eq!(error, format!("{reason}: please report this"));
        // Once the files are others, nothing is missing.
        for name in ["bad.txt", "wrong.txt"] {
            looks.write(name, &"a text ".repeat(200).into_bytes());
        }
        let outcome = looks.look(Unsettled::Report);
        looks.publish(outcome);
        assert_eq!(looks.made("bad.txt"), BOTH);
        assert!(looks.published.digest().is_complete());
    }

    /// The files that made codings outside of memory are said to be of.
    fn origins(manifest: &Manifest) -> Vec<PathBuf> {
        let encoded = manifest.iter().flat_map(|resource| &resource.encoded);
        let origin = |each: &Representation| match &each.data {
            Data::Spooled(source) => Some(source.of.to_path_buf()),
            Data::Memory(_) | Data::File(_) | Data::Remote(_) => None,
        };
        encoded.filter_map(origin).collect()
    }

    #[test]
    fn codings_name_the_file_of_the_root_that_is_there() {
        let settings = Settings {
            compress: Some(CompressionPolicy::default()),
            ..Settings::default()
        };
        let scanner = Scanner::new(Symlinks::Inside, settings, None);
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        for directory in &directories {
            let text = "the same text, again and again\n".repeat(100);
            fs::write(directory.path().join("page.txt"), text).expect("written");
        }
        let root = |number: usize| {
            let directory: &TempDir = &directories[number];
            Arc::new(Root::open(directory.path()).expect("a root"))
        };
        let (old, new) = (root(0), root(1));
        let (manifest, _) = scanner.scan(&old, &Progress::default());
        let made = origins(&manifest);
        assert!(!made.is_empty());
        assert!(made.iter().all(|of| of.starts_with(old.path())), "{made:?}");
        let progress = Progress::default();
        let everything = Scope::Everything;
        let unsettled = Unsettled::Report;
        let outcome = scanner.reconcile(&new, &manifest, &everything, unsettled, &progress);
        let made = origins(&manifest.with(outcome.changes));
        assert!(!made.is_empty());
        assert!(made.iter().all(|of| of.starts_with(new.path())), "{made:?}");
    }
}
