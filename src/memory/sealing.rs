//! Which content of files lies in sealed memory: what is asked for again and again, as far as the
//! budget goes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lru::LruCache;
use tokio::sync::Notify;

use super::{ENTRY_OVERHEAD, Memory, Reservation, max_copy};
use crate::disk;
use crate::locks::lock;
use crate::representation::{
    FileSource, GROUP_SIZE, GroupHash, MAX_IN_MEMORY, MAX_WHOLE, group_hash,
};
use crate::sealed::SealedMemory;

/// Longer content is not sealed: the first byte of a response would wait for all of it.
const MAX_SEALED: u64 = 64 << 20;
/// What responses send of sealed content, with what is being sealed, takes at most this part of what
/// small bodies leave of the budget: half of what may be pinned before others are handed copies. So a
/// few clients that read slowly slow nobody else down.
const MAX_SHARE: u64 = 4;
/// Limit for the contents that are sealed at once: reading them takes the threads that others read cold
/// pieces with.
const MAX_SEALINGS: usize = 2;

/// What is sealed, and what is about to be.
#[derive(Debug)]
pub(super) struct SealedFiles {
    ready: Mutex<LruCache<[u8; 32], Arc<SealedFile>>>,
    under_way: Mutex<HashMap<[u8; 32], SealingUnderWay>>,
    finished: Notify,
    /// Bytes of all contents that are sealed.
    held: AtomicU64,
    /// Bytes of the contents that responses send now. They count as pinned, too.
    in_use: AtomicU64,
}

/// Content that is being sealed.
#[derive(Debug)]
struct SealingUnderWay {
    length: u64,
    /// Whether nobody will ask for it any more.
    is_outdated: bool,
}

impl SealedFiles {
    pub(super) fn new() -> Self {
        Self {
            // Bounded by the budget: a bounded `LruCache` allocates all its room in advance.
            ready: Mutex::new(LruCache::unbounded()),
            under_way: Mutex::default(),
            finished: Notify::new(),
            held: AtomicU64::new(0),
            in_use: AtomicU64::new(0),
        }
    }

    /// Bytes of all contents that are sealed.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Gives up what was not used for the longest time; `false` where all is in use. To give that up
    /// would free nothing.
    pub(super) fn evict(&self) -> bool {
        let mut ready = lock(&self.ready);
        // Handles are cloned under this lock only.
        let mut last_first = ready.iter().rev();
        let unused = last_first.find(|(_, content)| Arc::strong_count(content) == 1);
        let unused = unused.map(|(hash, _)| *hash);
        let evicted = unused.and_then(|hash| ready.pop(&hash));
        // Dropped after the lock is released.
        drop(ready);
        evicted.is_some()
    }

    /// Gives up the content with this hash, which nobody will ask for any more, also where it is about
    /// to be sealed.
    pub(super) fn forget(&self, hash: &[u8; 32]) {
        if let Some(sealing) = lock(&self.under_way).get_mut(hash) {
            sealing.is_outdated = true;
        }
        let forgotten = lock(&self.ready).pop(hash);
        drop(forgotten);
    }

    /// Keeps what was sealed for those who ask next, unless nobody will.
    fn keep(&self, hash: [u8; 32], content: &Arc<SealedFile>) {
        // Held until it is kept: what becomes outdated after that is found among the ready ones.
        let under_way = lock(&self.under_way);
        let sealing = under_way.get(&hash);
        if !sealing.is_some_and(|sealing| sealing.is_outdated) {
            lock(&self.ready).put(hash, Arc::clone(content));
        }
    }

    /// Bytes that could be given up now, counted up to `enough`.
    fn unused_bytes(&self, enough: u64) -> u64 {
        let (ready, mut bytes) = (lock(&self.ready), 0);
        for (_, content) in ready.iter() {
            if bytes >= enough {
                break;
            }
            // Handles are cloned under this lock only.
            if Arc::strong_count(content) == 1 {
                bytes += content.held.bytes;
            }
        }
        bytes
    }
}

/// Proven content that nobody can change.
#[derive(Debug)]
pub(super) struct SealedFile {
    bytes: SealedMemory,
    /// Responses that send it.
    users: AtomicUsize,
    // The last field, for it is dropped last: when the memory is given back.
    held: Reservation,
}

impl SealedFile {
    fn new(bytes: SealedMemory, held: Reservation) -> Self {
        let sealed = &held.memory.sealed;
        sealed.held.fetch_add(held.bytes, Ordering::Relaxed);
        Self {
            bytes,
            users: AtomicUsize::new(0),
            held,
        }
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        let sealed = &self.held.memory.sealed;
        sealed.held.fetch_sub(self.held.bytes, Ordering::Relaxed);
    }
}

/// The use that a response makes of sealed content.
#[derive(Debug)]
pub struct SealedUse(Arc<SealedFile>);

impl SealedUse {
    fn new(content: Arc<SealedFile>) -> Self {
        if content.users.fetch_add(1, Ordering::AcqRel) == 0 {
            let memory = &content.held.memory;
            let relaxed = Ordering::Relaxed;
            memory.pinned.fetch_add(content.held.bytes, relaxed);
            memory.sealed.in_use.fetch_add(content.length(), relaxed);
        }
        Self(content)
    }

    /// Number of bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.length()
    }

    /// As [`SealedMemory::send`].
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes none now; others when it takes no more.
    pub fn send(
        &self,
        socket: impl AsFd,
        offset: u64,
        length: u64,
        is_fast: bool,
    ) -> io::Result<usize> {
        let clamp = |number| usize::try_from(number).unwrap_or(usize::MAX);
        self.0
            .bytes
            .send(socket, clamp(offset), clamp(length), is_fast)
    }
}

impl Drop for SealedUse {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            let memory = &self.0.held.memory;
            let relaxed = Ordering::Relaxed;
            memory.pinned.fetch_sub(self.0.held.bytes, relaxed);
            memory.sealed.in_use.fetch_sub(self.0.length(), relaxed);
        }
    }
}

impl Memory {
    /// The content of a file in sealed memory, for a response. It is put there if it is worth that.
    /// `None` if it is not, or can't be: then it has to be read and proven piece by piece. Whether it
    /// can be read at all is told there.
    pub async fn sealed(
        self: &Arc<Self>,
        hash: &[u8; 32],
        length: u64,
        source: &Arc<FileSource>,
    ) -> Option<SealedUse> {
        let mut has_waited = false;
        loop {
            // Registered before the look, or an end between the two would go unnoticed.
            let finished = self.sealed.finished.notified();
            if let Some(content) = self.recall_sealed(hash) {
                return Some(content);
            }
            if !self.is_worth_sealing(hash, length) {
                return None;
            }
            match self.begin_sealing(hash, length, has_waited) {
                Some(true) => {}
                Some(false) => {
                    has_waited = true;
                    finished.await;
                    continue;
                }
                None => return None,
            }
            let (memory, hash, source) = (Arc::clone(self), *hash, Arc::clone(source));
            // On a thread that goes on if this response is given up: others may wait for it.
            let sealing = tokio::task::spawn_blocking(move || {
                let _end = EndOfSealing(&memory.sealed, hash);
                memory.seal(hash, length, &source)
            });
            return sealing.await.ok().flatten();
        }
    }

    /// The content with this hash in sealed memory, if it is there. What nobody sends yet would be
    /// pinned: that is left alone while slow clients hold much of the memory, or the share of sealed
    /// content. To send what others send anyway pins nothing more.
    pub fn recall_sealed(&self, hash: &[u8; 32]) -> Option<SealedUse> {
        let mut ready = lock(&self.sealed.ready);
        let content = ready.get(hash)?;
        let is_in_use = content.users.load(Ordering::Acquire) > 0;
        if !is_in_use && (self.is_short() || !self.has_sealed_share(content.length())) {
            return None;
        }
        let recalled = SealedUse::new(Arc::clone(content));
        drop(ready);
        self.note_demand(hash);
        Some(recalled)
    }

    /// Whether who wants this content has to seal it, or somebody else does: then to wait. `None` where
    /// it has to be read in another way: others are being sealed, which leaves no room for it; or who
    /// wants it has waited for another's attempt, which has failed: so would the next one.
    fn begin_sealing(&self, hash: &[u8; 32], length: u64, has_waited: bool) -> Option<bool> {
        let mut under_way = lock(&self.sealed.under_way);
        if under_way.contains_key(hash) {
            return Some(false);
        }
        // Looked at again under this lock: of two that came at once, each found the room free.
        if has_waited
            || under_way.len() >= MAX_SEALINGS
            || !self.has_room_to_seal(length, under_way.values())
        {
            return None;
        }
        let is_outdated = false;
        let sealing = SealingUnderWay {
            length,
            is_outdated,
        };
        under_way.insert(*hash, sealing);
        Some(true)
    }

    /// Whether this content is to be put in sealed memory: it was asked for before, lately, and
    /// takes no more than its share.
    pub fn is_worth_sealing(&self, hash: &[u8; 32], length: u64) -> bool {
        let is_candidate =
            (MAX_IN_MEMORY + 1..=MAX_SEALED).contains(&length) && self.is_in_demand(hash);
        if !is_candidate {
            return false;
        }
        let under_way = lock(&self.sealed.under_way);
        let others = under_way.iter().filter(|(other, _)| *other != hash);
        self.has_room_to_seal(length, others.map(|(_, sealing)| sealing))
    }

    /// Whether content of this length may be sealed while `others` are. What small bodies hold never
    /// gives way; of the rest, half is for those who read piece by piece.
    fn has_room_to_seal<'s>(
        &self,
        length: u64,
        others: impl Iterator<Item = &'s SealingUnderWay>,
    ) -> bool {
        // Neither pinned yet nor able to give way.
        let others: u64 = others.map(|sealing| sealing.length).sum();
        let sealing = others.saturating_add(length);
        let pinned = self.pinned().saturating_add(sealing);
        self.has_sealed_share(sealing) && max_copy(pinned, self.for_pieces()).is_none()
    }

    /// Whether responses may send this much more of sealed content.
    fn has_sealed_share(&self, length: u64) -> bool {
        let in_use = self.sealed.in_use.load(Ordering::Relaxed);
        in_use.saturating_add(length) <= self.for_pieces() / MAX_SHARE
    }

    /// Whether `bytes` would have room if what nobody sends gave way. To find out by evicting it would
    /// cost others all that was read and proven for them, for nothing.
    fn can_make_room(&self, bytes: u64) -> bool {
        let missing = self.used().saturating_add(bytes);
        let missing = missing.saturating_sub(self.limit);
        if missing == 0 {
            return true;
        }
        // A cached piece that is pinned frees nothing: those that are given up may be just these.
        let in_use = self.sealed.in_use.load(Ordering::Relaxed);
        let enough = missing + self.pinned().saturating_sub(in_use);
        let unused = self.sealed.unused_bytes(enough);
        unused >= enough || unused + self.cached_bytes(enough - unused) >= enough
    }

    /// Copies the content of a file to sealed memory, and proves it there.
    fn seal(
        self: &Arc<Self>,
        hash: [u8; 32],
        length: u64,
        source: &FileSource,
    ) -> Option<SealedUse> {
        let bytes = length + ENTRY_OVERHEAD;
        if !self.can_make_room(bytes) {
            return None;
        }
        let held = self.hold(bytes)?;
        // A descriptor that is kept has this content, whatever its path leads to by now.
        let file = match self.file(&hash) {
            Some(kept) => kept,
            None => Arc::new(source.root.open_file(&source.path).ok()?.file),
        };
        // What is wrong with the file is told where it is read.
        let bytes = seal_file(&hash, length, &source.groups, &file).ok()??;
        let content = Arc::new(SealedFile::new(bytes, held));
        self.sealed.keep(hash, &content);
        Some(SealedUse::new(content))
    }
}

/// Wakes those who wait for the same content, however its sealing has ended.
struct EndOfSealing<'s>(&'s SealedFiles, [u8; 32]);

impl Drop for EndOfSealing<'_> {
    fn drop(&mut self) {
        lock(&self.0.under_way).remove(&self.1);
        self.0.finished.notify_waiters();
    }
}

/// The content of a file in sealed memory; `None` if it is not what was scanned.
fn seal_file(
    hash: &[u8; 32],
    length: u64,
    groups: &[GroupHash],
    file: &File,
) -> io::Result<Option<SealedMemory>> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let sealed = SealedMemory::new(length, |bytes| disk::read_exact_at(file, bytes, 0))?;
    Ok(is_proven(hash, groups, &sealed).then_some(sealed))
}

/// Whether these are the bytes that were scanned: of the groups, or up to [`MAX_WHOLE`] of the hash.
fn is_proven(hash: &[u8; 32], groups: &[GroupHash], bytes: &[u8]) -> bool {
    if bytes.len() as u64 <= MAX_WHOLE {
        return blake3::hash(bytes) == *hash;
    }
    let found = (0..)
        .step_by(GROUP_SIZE as usize)
        .zip(bytes.chunks(GROUP_SIZE as usize));
    found
        .map(|(offset, group)| group_hash(group, offset))
        .eq(groups.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::thread;

    use super::*;
    use crate::disk::Root;
    use crate::representation::PieceKey;

    const LENGTHS: [u64; 4] = [MAX_IN_MEMORY + 1, MAX_WHOLE, MAX_WHOLE + 1, (16 << 20) + 77];

    struct Ground {
        _directory: tempfile::TempDir,
        content: Vec<u8>,
        hash: [u8; 32],
        source: Arc<FileSource>,
    }

    impl Ground {
        fn new(length: u64, on_disk: impl FnOnce(&mut Vec<u8>)) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let content: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
            let mut written = content.clone();
            on_disk(&mut written);
            fs::write(directory.path().join("file"), written).expect("written");
            let groups = content.chunks(GROUP_SIZE as usize).enumerate();
            let groups = groups.map(|(index, group)| group_hash(group, index as u64 * GROUP_SIZE));
            let source = FileSource {
                root: Arc::new(Root::open(directory.path()).expect("a root")),
                path: Path::new("file").into(),
                groups: match length > MAX_WHOLE {
                    true => groups.collect(),
                    false => Arc::default(),
                },
            };
            Self {
                hash: *blake3::hash(&content).as_bytes(),
                source: Arc::new(source),
                _directory: directory,
                content,
            }
        }

        async fn sealed(&self, memory: &Arc<Memory>) -> Option<SealedUse> {
            let length = self.content.len() as u64;
            let sealed = memory.sealed(&self.hash, length, &self.source).await;
            memory.note_demand(&self.hash);
            sealed
        }
    }

    fn received(content: &SealedUse) -> Vec<u8> {
        let (here, mut there) = UnixStream::pair().expect("sockets");
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).expect("read");
            all
        });
        let mut sent = 0;
        while sent < content.length() {
            let left = content.length() - sent;
            sent += content.send(&here, sent, left, true).expect("sent") as u64;
        }
        drop(here);
        reader.join().expect("read")
    }

    #[tokio::test]
    async fn what_is_asked_for_again_is_sealed_and_sent_whole() {
        for length in LENGTHS {
            let (ground, memory) = (Ground::new(length, |_| ()), Memory::new(256 << 20, 64));
            assert!(ground.sealed(&memory).await.is_none(), "asked for once");
            let content = ground.sealed(&memory).await.expect("sealed");
            assert!(received(&content) == ground.content, "{length} bytes");
            assert!(memory.used() >= length && memory.pinned() >= length);
            drop(content);
            assert_eq!(memory.pinned(), 0);
            memory.close_outdated(&ground.hash);
            assert_eq!(memory.used(), 0, "what is outdated is given up");
        }
    }

    #[tokio::test]
    async fn what_is_not_what_was_scanned_is_never_sealed() {
        type Change = fn(&mut Vec<u8>);
        let changes: [Change; 3] = [
            |content| *content.last_mut().expect("a byte") ^= 1,
            |content| content[0] ^= 1,
            |content| content.truncate(content.len() - 1),
        ];
        for length in LENGTHS {
            for change in changes {
                let (ground, memory) = (Ground::new(length, change), Memory::new(256 << 20, 64));
                for _ in 0..3 {
                    assert!(ground.sealed(&memory).await.is_none(), "{length} bytes");
                }
                assert_eq!(memory.used(), 0);
            }
        }
    }

    #[tokio::test]
    async fn it_gives_way_and_keeps_to_its_limits() {
        let memory = Memory::new(64 << 20, 64);
        let grounds = [1, 2, 3].map(|add| Ground::new(MAX_WHOLE + add, |_| ()));
        for ground in &grounds {
            ground.sealed(&memory).await;
            drop(ground.sealed(&memory).await.expect("sealed"));
        }
        for ground in &grounds {
            assert!(memory.recall_sealed(&ground.hash).is_some(), "room for all");
        }
        let buffers: Vec<_> = std::iter::from_fn(|| memory.hold(4 << 20)).collect();
        assert_eq!(buffers.len(), 16, "all that is sealed has given way");
        assert!(grounds[0].sealed(&memory).await.is_none(), "no room");
        let large = Ground::new(17 << 20, |_| ());
        drop(buffers);
        large.sealed(&memory).await;
        assert!(large.sealed(&memory).await.is_none(), "a quarter at most");
    }

    #[tokio::test]
    async fn it_gives_way_to_pieces_beyond_its_half() {
        let memory = Memory::new(64 << 20, 64);
        let grounds = [0, 1, 2, 3, 4, 5, 6].map(|add| Ground::new((8 << 20) + add, |_| ()));
        for ground in &grounds {
            ground.sealed(&memory).await;
            drop(ground.sealed(&memory).await.expect("sealed"));
        }
        assert!(memory.sealed.held() > 48 << 20);
        // Those who can't be sent sealed memory read these again and again.
        let key = |index| PieceKey {
            hash: [7; 32],
            whole: 96 * GROUP_SIZE,
            index,
        };
        for index in 0..96 {
            memory.keep_piece(key(index), &[0; GROUP_SIZE as usize]);
        }
        let kept = (0..96).filter(|index| memory.recall(&key(*index)).is_some());
        assert_eq!(kept.count(), 96);
        let held = memory.sealed.held();
        assert!((24 << 20..=33 << 20).contains(&held), "{held}");
    }

    #[tokio::test]
    async fn what_is_outdated_while_it_is_sealed_is_not_kept() {
        let (ground, memory) = (Ground::new(8 << 20, |_| ()), Memory::new(256 << 20, 64));
        memory.note_demand(&ground.hash);
        assert_eq!(
            memory.begin_sealing(&ground.hash, 8 << 20, false),
            Some(true)
        );
        memory.close_outdated(&ground.hash);
        let length = ground.content.len() as u64;
        let content = memory.seal(ground.hash, length, &ground.source);
        drop(EndOfSealing(&memory.sealed, ground.hash));
        let content = content.expect("who has begun may send it");
        assert!(memory.recall_sealed(&ground.hash).is_none());
        drop(content);
        assert_eq!(memory.used(), 0);
        // What comes back is kept as before.
        drop(ground.sealed(&memory).await.expect("sealed"));
        assert!(memory.recall_sealed(&ground.hash).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_the_same_content_gets_it() {
        let (ground, memory) = (Ground::new(8 << 20, |_| ()), Memory::new(256 << 20, 64));
        memory.note_demand(&ground.hash);
        let (one, two) = tokio::join!(ground.sealed(&memory), ground.sealed(&memory));
        let (one, two) = (one.expect("sealed"), two.expect("sealed"));
        assert!(Arc::ptr_eq(&one.0, &two.0));
    }

    #[test]
    fn what_is_being_sealed_has_limits_as_a_whole() {
        let memory = Memory::new(64 << 20, 64);
        let [one, two, three] = [[1; 32], [2; 32], [3; 32]];
        for hash in [&one, &two, &three] {
            memory.note_demand(hash);
        }
        assert_eq!(memory.begin_sealing(&one, 12 << 20, false), Some(true));
        assert!(memory.is_worth_sealing(&two, 4 << 20));
        assert!(!memory.is_worth_sealing(&two, 5 << 20), "a quarter in all");
        assert_eq!(memory.begin_sealing(&two, 5 << 20, false), None);
        assert!(memory.is_worth_sealing(&one, 12 << 20), "to wait for it");
        assert_eq!(memory.begin_sealing(&one, 12 << 20, false), Some(false));
        assert_eq!(memory.begin_sealing(&two, 1 << 20, false), Some(true));
        assert_eq!(
            memory.begin_sealing(&three, 1 << 20, false),
            None,
            "two at once"
        );
        drop(EndOfSealing(&memory.sealed, one));
        assert_eq!(memory.begin_sealing(&three, 1 << 20, false), Some(true));
    }

    #[tokio::test]
    async fn nothing_gives_way_for_what_would_have_no_room_then() {
        let (ground, memory) = (Ground::new(3 << 20, |_| ()), Memory::new(16 << 20, 64));
        let reading = memory.hold(12 << 20).expect("room");
        let (hash, whole) = ([7; 32], 10 * GROUP_SIZE);
        let key = |index| PieceKey { hash, whole, index };
        for index in 0..10 {
            memory.keep_piece(key(index), &[0; GROUP_SIZE as usize]);
        }
        ground.sealed(&memory).await;
        assert!(ground.sealed(&memory).await.is_some());
        memory.close_outdated(&ground.hash);
        for index in 0..6 {
            memory.keep_piece(key(index), &[0; GROUP_SIZE as usize]);
        }
        let more = memory.hold(2 << 20).expect("room");
        assert!(ground.sealed(&memory).await.is_none(), "no room");
        for index in 0..6 {
            assert!(memory.recall(&key(index)).is_some(), "piece {index}");
        }
        drop((reading, more));
        assert!(ground.sealed(&memory).await.is_some());
    }

    #[tokio::test]
    async fn slow_clients_of_sealed_content_slow_nobody_else_down() {
        let memory = Memory::new(64 << 20, 64);
        let grounds = [0, 1, 2, 3, 4].map(|add| Ground::new((5 << 20) + add, |_| ()));
        let mut uses = Vec::new();
        for ground in &grounds {
            ground.sealed(&memory).await;
            uses.extend(ground.sealed(&memory).await);
        }
        assert_eq!(uses.len(), 3, "a quarter at most");
        assert!(!memory.is_short(), "others are handed whole pieces");
        assert!(memory.recall_sealed(&grounds[0].hash).is_some());
        uses.truncate(2);
        assert!(grounds[3].sealed(&memory).await.is_some());
        // What has users is sent whatever else is pinned, and nothing else is.
        memory.pinned.fetch_add(40 << 20, Ordering::Relaxed);
        assert!(memory.is_short());
        assert!(memory.recall_sealed(&grounds[0].hash).is_some());
        assert!(memory.recall_sealed(&grounds[2].hash).is_none(), "unused");
        memory.pinned.fetch_sub(40 << 20, Ordering::Relaxed);
        assert!(memory.recall_sealed(&grounds[2].hash).is_some());
        drop(uses);
        assert_eq!(
            (
                memory.pinned(),
                memory.sealed.in_use.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }
}
