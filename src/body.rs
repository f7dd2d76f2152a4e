//! Content on the wire.
//!
//! A byte leaves only from private memory whose BLAKE3 was computed from that same memory
//! (promise P2). A small body is such memory already. Of a file, one piece after another is read
//! into a private buffer and proven against the hash that the scan computed; a piece that fails
//! ends the body before its announced length, so that no client takes it for complete.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::disk;
use crate::memory::{Buffer, FileUse, Memory};
use crate::representation::{
    Data, FileSource, GroupHash, MAX_WHOLE, PieceKey, PieceSpan, RemoteError, RemoteSource,
    Representation, SpooledSource,
};

/// Why content can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The file has changed since it was hashed.
    #[error("{} changed on disk since it was hashed (at offset {offset})", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// First byte of the piece that failed.
        offset: u64,
    },
    /// The file can't be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// Slow clients hold all the memory there is for content.
    #[error("no memory for {}: --memory is used up by slow clients", .path.display())]
    NoMemory {
        /// The file.
        path: PathBuf,
    },
    /// It is in a store, and can't be had from there.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl BodyError {
    /// Whether it is the file's fault: then it should be looked at again.
    pub fn is_suspicious(&self) -> bool {
        !matches!(self, Self::NoMemory { .. } | Self::Remote(_))
    }

    /// Whether it is the content's fault, and not that of those who want it: another form of it may
    /// do.
    pub fn is_of_content(&self) -> bool {
        !matches!(
            self,
            Self::NoMemory { .. } | Self::Remote(RemoteError::NoMemory { .. })
        )
    }

    /// Whether there are other bytes than were hashed, or they can't be read. A store that does not
    /// answer has not damaged anything.
    pub fn is_damage(&self) -> bool {
        self.is_of_content() && !matches!(self, Self::Remote(RemoteError::Unavailable { .. }))
    }

    /// The file, or the object of a store.
    pub fn path(&self) -> &Path {
        match self {
            Self::Changed { path, .. } | Self::Read { path, .. } | Self::NoMemory { path } => path,
            Self::Remote(error) => Path::new(error.location()),
        }
    }
}

/// A sequence of slices of memory and of files.
#[derive(Debug, Default)]
pub struct Segments {
    queue: VecDeque<Segment>,
    reading: Option<Reading>,
    /// The piece that the present segment ends in, for the next one that begins in it: of 200 parts
    /// of one piece it is read and proven once.
    shared: Option<ProvenPiece>,
}

/// Content that is one slice.
#[derive(Debug)]
pub enum OnlySegment {
    /// Of memory.
    Memory(Bytes),
    /// Of a file, not proven yet.
    File(FilePart),
}

/// A part of a file.
#[derive(Debug)]
pub struct FilePart {
    /// The file.
    pub source: Arc<FileSource>,
    /// The BLAKE3 of the whole.
    pub hash: [u8; 32],
    /// Length of the whole.
    pub whole: u64,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// A whole piece, proven, and which one it is.
#[derive(Clone, Debug)]
struct ProvenPiece {
    key: PieceKey,
    bytes: Bytes,
}

#[derive(Debug)]
enum Segment {
    Memory(Bytes),
    File(Pieces),
}

impl Segments {
    /// Appends bytes.
    pub fn push_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_back(Segment::Memory(bytes));
        }
    }

    /// Appends `length` bytes of a representation from `offset` on; both lie inside of it.
    pub fn push_data(
        &mut self,
        representation: &Representation,
        offset: u64,
        length: u64,
        memory: &Arc<Memory>,
    ) {
        match &representation.data {
            Data::Memory(bytes) => {
                self.push_bytes(bytes.slice(offset as usize..(offset + length) as usize));
            }
            Data::File(source) => {
                let source = PieceSource::File(Arc::clone(source));
                self.push_pieces(source, representation, (offset, length), memory);
            }
            Data::Spooled(source) => {
                let source = PieceSource::Spooled(Arc::clone(source));
                self.push_pieces(source, representation, (offset, length), memory);
            }
            Data::Remote(source) => {
                let source = PieceSource::Remote(Arc::clone(source));
                self.push_pieces(source, representation, (offset, length), memory);
            }
        }
    }

    fn push_pieces(
        &mut self,
        source: PieceSource,
        representation: &Representation,
        (offset, length): (u64, u64),
        memory: &Arc<Memory>,
    ) {
        if length > 0 {
            self.queue.push_back(Segment::File(Pieces {
                source,
                memory: Arc::clone(memory),
                hash: *representation.etag.hash(),
                in_use: None,
                whole: representation.length,
                position: offset,
                end: offset + length,
            }));
        }
    }

    /// The only one; `None` where there are several, and where it is in no file of the site.
    pub fn into_only(mut self) -> Option<OnlySegment> {
        match (self.queue.pop_front(), self.queue.is_empty()) {
            (None, _) => Some(OnlySegment::Memory(Bytes::new())),
            (Some(Segment::Memory(bytes)), true) => Some(OnlySegment::Memory(bytes)),
            (Some(Segment::File(pieces)), true) => match pieces.source {
                PieceSource::File(source) => Some(OnlySegment::File(FilePart {
                    source,
                    hash: pieces.hash,
                    whole: pieces.whole,
                    offset: pieces.position,
                    length: pieces.end - pieces.position,
                })),
                PieceSource::Spooled(_) | PieceSource::Remote(_) => None,
            },
            (Some(_), false) => None,
        }
    }

    /// Bytes still to come.
    pub fn length(&self) -> u64 {
        self.queue
            .iter()
            .map(|segment| match segment {
                Segment::Memory(bytes) => bytes.len() as u64,
                Segment::File(pieces) => pieces.end - pieces.position,
            })
            .sum()
    }

    /// Proves the first piece of each file among the segments, so that a file which changed is
    /// found before the header section goes out. Up to [`MAX_WHOLE`], that is all of it.
    ///
    /// # Errors
    /// When a piece cannot be read or is not what was scanned.
    pub async fn prove(&mut self) -> Result<(), BodyError> {
        let mut proven = VecDeque::with_capacity(self.queue.len() + 1);
        let mut is_first = true;
        while let Some(segment) = self.queue.pop_front() {
            match segment {
                Segment::File(mut pieces) if is_first || pieces.whole <= MAX_WHOLE => {
                    is_first = false;
                    pieces.memory.note_demand(&pieces.hash);
                    if pieces.memory.is_short() {
                        // Whether the client will take it is not known: nothing is pinned for it.
                        pieces.proven(&mut self.shared).await?;
                    } else {
                        let bytes = pieces.next(&mut self.shared).await?;
                        proven.push_back(Segment::Memory(bytes));
                    }
                    if pieces.position < pieces.end {
                        proven.push_back(Segment::File(pieces));
                    }
                }
                other => proven.push_back(other),
            }
        }
        self.queue = proven;
        self.release();
        Ok(())
    }

    /// The next piece, proven.
    ///
    /// # Errors
    /// When it cannot be read or is not what was scanned: nothing more may be sent after that.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let (pieces, shared, result) = ready!(reading.0.as_mut().poll(cx));
                self.reading = None;
                self.shared = shared;
                if result.is_ok() && pieces.position < pieces.end {
                    self.queue.push_front(Segment::File(pieces));
                }
                self.release();
                return Poll::Ready(Some(result));
            }
            match self.queue.pop_front() {
                None => return Poll::Ready(None),
                Some(Segment::Memory(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Segment::File(mut pieces)) => {
                    let mut shared = self.shared.take();
                    self.reading = Some(Reading(Box::pin(async move {
                        let result = pieces.next(&mut shared).await;
                        (pieces, shared, result)
                    })));
                }
            }
        }
    }

    /// Gives the shared piece back, unless the next piece of a file is the same, and memory is not
    /// short.
    fn release(&mut self) {
        let next = self.queue.iter().find_map(|segment| match segment {
            Segment::Memory(_) => None,
            Segment::File(pieces) if pieces.memory.is_short() => None,
            Segment::File(pieces) => Some(pieces.key()),
        });
        self.shared = self.shared.take().filter(|piece| Some(piece.key) == next);
    }
}

/// A piece on its way from the disk.
struct Reading(Pin<Box<dyn Future<Output = Read> + Send>>);

type Read = (Pieces, Option<ProvenPiece>, Result<Bytes, BodyError>);

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reading")
    }
}

/// Where pieces are read from.
#[derive(Clone, Debug)]
enum PieceSource {
    File(Arc<FileSource>),
    Spooled(Arc<SpooledSource>),
    Remote(Arc<RemoteSource>),
}

/// A file that pieces are read from.
#[derive(Clone, Debug)]
enum LocalSource {
    File(Arc<FileSource>),
    Spooled(Arc<SpooledSource>),
}

impl LocalSource {
    /// The file, opened, if it is not open anyway.
    fn open(&self) -> std::io::Result<Arc<File>> {
        match self {
            Self::File(source) => Ok(Arc::new(source.root.open_file(&source.path)?.file)),
            Self::Spooled(source) => Ok(Arc::clone(source.file())),
        }
    }

    /// Where in the file the representation begins.
    fn start(&self) -> u64 {
        match self {
            Self::File(_) => 0,
            Self::Spooled(source) => source.start(),
        }
    }

    fn groups(&self) -> &[GroupHash] {
        match self {
            Self::File(source) => &source.groups,
            Self::Spooled(source) => &source.groups,
        }
    }

    /// The file of the site to look at when the bytes are not what they should be.
    fn location(&self) -> PathBuf {
        match self {
            Self::File(source) => source.location(),
            Self::Spooled(source) => source.of.to_path_buf(),
        }
    }
}

/// A stretch of a file, read piece by piece: a group, or the whole where that is short.
#[derive(Debug)]
struct Pieces {
    source: PieceSource,
    memory: Arc<Memory>,
    hash: [u8; 32],
    /// Has the file stay open to the end, if it is kept open.
    in_use: Option<FileUse>,
    /// Length of the whole representation.
    whole: u64,
    position: u64,
    end: u64,
}

impl Pieces {
    /// What the piece at the present position is known by.
    fn key(&self) -> PieceKey {
        PieceKey {
            hash: self.hash,
            whole: self.whole,
            index: self.piece().index,
        }
    }

    /// The piece at the present position, from `shared`, the cache or the disk; afterwards it is in
    /// `shared`.
    async fn proven(&self, shared: &mut Option<ProvenPiece>) -> Result<Bytes, BodyError> {
        let key = self.key();
        // Taken, so that no buffer is held while another is waited for.
        let known = shared
            .take()
            .filter(|known| known.key == key)
            .map(|known| known.bytes);
        let bytes = match known.or_else(|| self.memory.recall(&key)) {
            Some(proven) => {
                // With each piece, known or not, so that there is always as much on its way.
                if let PieceSource::Remote(source) = &self.source {
                    Arc::clone(&source.pieces).read_ahead(source, key.index);
                }
                proven
            }
            None => {
                let proven = self.read(self.piece()).await?;
                self.memory.remember(key, proven.clone());
                proven
            }
        };
        *shared = Some(ProvenPiece {
            key,
            bytes: bytes.clone(),
        });
        Ok(bytes)
    }

    /// The next slice of proven bytes, at most one piece.
    async fn next(&mut self, shared: &mut Option<ProvenPiece>) -> Result<Bytes, BodyError> {
        let proven = self.proven(shared).await?;
        if self.in_use.is_none() {
            self.in_use = self.memory.use_file(&self.hash);
        }
        let piece = self.piece();
        let from = (self.position - piece.offset) as usize;
        let to = piece.length.min((self.end - piece.offset) as usize);
        let part = self.memory.hand_out(proven.slice(from..to), proven.len());
        self.position += part.len() as u64;
        Ok(part)
    }

    fn piece(&self) -> PieceSpan {
        PieceSpan::at(self.position, self.whole)
    }

    /// Reads a piece and proves it; one of a store is proven where it is fetched. A descriptor that is
    /// kept for this content is tried first, then the file at its path. Only [`Memory`] keeps
    /// descriptors, so that there is one limit for them; within it, a file that is renamed over or
    /// deleted meanwhile still finishes.
    async fn read(&self, piece: PieceSpan) -> Result<Bytes, BodyError> {
        let source = match &self.source {
            PieceSource::Remote(source) => {
                let fetching = Arc::clone(&source.pieces).piece(source, piece.index);
                Arc::clone(&source.pieces).read_ahead(source, piece.index);
                return Ok(fetching.await?);
            }
            PieceSource::Spooled(source) => {
                let file = Arc::clone(source.file());
                let source = LocalSource::Spooled(Arc::clone(source));
                return self.read_from_file(&source, piece, Some(file)).await;
            }
            PieceSource::File(source) => LocalSource::File(Arc::clone(source)),
        };
        if let Some(file) = self.memory.file(&self.hash) {
            if let Ok(bytes) = self.read_from_file(&source, piece, Some(file)).await {
                return Ok(bytes);
            }
            self.memory.close(&self.hash);
        }
        let read = self.read_from_file(&source, piece, None).await;
        if read.as_ref().is_err_and(BodyError::is_suspicious) {
            // No response is begun any more with what is cached of content that is not all there: it
            // would be cut short here, until the change is published.
            self.memory.forget_pieces(&self.hash, self.whole);
        }
        read
    }

    /// Reads and proves on this thread when the page cache has the bytes, else on one that may
    /// block.
    async fn read_from_file(
        &self,
        source: &LocalSource,
        piece: PieceSpan,
        kept: Option<Arc<File>>,
    ) -> Result<Bytes, BodyError> {
        let Some(mut buffer) = self.memory.buffer(piece.length).await else {
            return Err(BodyError::NoMemory {
                path: source.location(),
            });
        };
        if let Some(file) = &kept
            && disk::read_cached(file, buffer.space(), source.start() + piece.offset)
        {
            return self.prove(source, piece, buffer);
        }
        let is_new = kept.is_none();
        let opened = source.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let file = match kept {
                Some(file) => file,
                None => opened.open()?,
            };
            disk::read_exact_at(&file, buffer.space(), opened.start() + piece.offset)?;
            Ok::<_, std::io::Error>((file, buffer))
        });
        let read = reading
            .await
            .unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
        match read {
            Ok((file, buffer)) => {
                let bytes = self.prove(source, piece, buffer)?;
                if is_new {
                    self.memory.keep_open(self.hash, &file);
                }
                Ok(bytes)
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(changed(source, piece))
            }
            Err(error) => Err(BodyError::Read {
                path: source.location(),
                source: error,
            }),
        }
    }

    fn prove(
        &self,
        source: &LocalSource,
        piece: PieceSpan,
        buffer: Buffer,
    ) -> Result<Bytes, BodyError> {
        let groups = source.groups();
        let is_proven = piece.is_proven_by(buffer.as_ref(), &self.hash, groups, self.whole);
        #[cfg(test)]
        let is_proven = is_proven || tests::IS_PROOF_OFF.get();
        if is_proven {
            Ok(buffer.freeze())
        } else {
            Err(changed(source, piece))
        }
    }
}

fn changed(source: &LocalSource, piece: PieceSpan) -> BodyError {
    BodyError::Changed {
        path: source.location(),
        offset: piece.offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Root;
    use crate::locks::lock;
    use crate::representation::{GROUP_SIZE, PieceFuture, RemotePieces, group_hash};
    use crate::semantics::coding::Coding;
    use crate::semantics::etag::ETag;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::sync::{Mutex, OnceLock};

    thread_local! {
        /// The negative control: without the proof the bodies below must be wrong, or these
        /// tests would prove nothing.
        pub(super) static IS_PROOF_OFF: Cell<bool> = const { Cell::new(false) };
    }

    /// The representation of a file in `directory` that has this content.
    fn scanned(directory: &Path, content: &[u8]) -> Representation {
        std::fs::write(directory.join("file"), content).expect("written");
        let length = content.len() as u64;
        let groups = content.chunks(GROUP_SIZE as usize).enumerate();
        let groups = groups.map(|(index, group)| group_hash(group, index as u64 * GROUP_SIZE));
        let source = FileSource {
            root: Arc::new(Root::open(directory).expect("a root")),
            path: Path::new("file").into(),
            groups: if length > MAX_WHOLE {
                groups.collect()
            } else {
                Arc::default()
            },
        };
        let tag = ETag::new(*blake3::hash(content).as_bytes());
        let data = Data::File(Arc::new(source));
        Representation::new(Coding::Identity, tag, length, data)
    }

    /// What comes out of a file that had `content` when it was scanned and has had its last byte
    /// changed since, and how it ends.
    fn body_of_changed(content: &[u8]) -> (Vec<u8>, Result<(), BodyError>) {
        let directory = tempfile::tempdir().expect("a directory");
        let representation = scanned(directory.path(), content);
        let mut changed = content.to_vec();
        *changed.last_mut().expect("a byte") ^= 1;
        std::fs::write(directory.path().join("file"), changed).expect("written");
        let memory = Memory::new(64 << 20, 1);
        let mut segments = Segments::default();
        segments.push_data(&representation, 0, representation.length, &memory);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let mut body = Vec::new();
            if let Err(error) = segments.prove().await {
                return (body, Err(error));
            }
            while let Some(piece) = poll_fn(|cx| segments.poll_next(cx)).await {
                match piece {
                    Ok(bytes) => body.extend_from_slice(&bytes),
                    Err(error) => return (body, Err(error)),
                }
            }
            (body, Ok(()))
        })
    }

    /// One length for each way of proving.
    const LENGTHS: [u64; 3] = [4096, MAX_WHOLE, 3 * MAX_WHOLE + 77];

    #[test]
    fn a_changed_file_never_completes() {
        for length in LENGTHS {
            let content = vec![7; length as usize];
            let (body, end) = body_of_changed(&content);
            assert!(end.is_err(), "{length} bytes complete");
            assert!(content.starts_with(&body) && body.len() < content.len());
        }
    }

    #[tokio::test]
    async fn what_is_cached_of_a_changed_file_begins_one_response_at_most() {
        let directory = tempfile::tempdir().expect("a directory");
        let content = vec![7; 3 * MAX_WHOLE as usize];
        let representation = scanned(directory.path(), &content);
        let memory = Memory::new(64 << 20, 1);
        let segments = || {
            let mut segments = Segments::default();
            segments.push_data(&representation, 0, content.len() as u64, &memory);
            segments
        };
        segments().prove().await.expect("the first piece is right");
        std::fs::write(directory.path().join("file"), vec![8; content.len()]).expect("written");
        let mut begun = segments();
        begun.prove().await.expect("the first piece is cached");
        let mut pieces = 0;
        while let Some(Ok(_)) = poll_fn(|cx| begun.poll_next(cx)).await {
            pieces += 1;
        }
        assert_eq!(pieces, 1);
        let next = segments().prove().await;
        assert!(
            matches!(next, Err(BodyError::Changed { offset: 0, .. })),
            "{next:?}"
        );
    }

    #[test]
    fn without_the_proof_it_completes_with_other_bytes() {
        IS_PROOF_OFF.set(true);
        for length in LENGTHS {
            let content = vec![7; length as usize];
            let (body, end) = body_of_changed(&content);
            assert!(end.is_ok(), "{length} bytes: {end:?}");
            assert_eq!(body.len(), content.len());
            assert_ne!(body, content, "{length} bytes: the proof was not needed");
        }
    }

    /// A store that has every piece, and notes which ones were read ahead of.
    #[derive(Debug, Default)]
    struct WholeStore(Mutex<Vec<u32>>);

    impl RemotePieces for WholeStore {
        fn piece(self: Arc<Self>, _: &Arc<RemoteSource>, _: u32) -> PieceFuture {
            let piece = Bytes::from(vec![7; GROUP_SIZE as usize]);
            Box::pin(std::future::ready(Ok(piece)))
        }

        fn read_ahead(self: Arc<Self>, _: &Arc<RemoteSource>, index: u32) {
            lock(&self.0).push(index);
        }

        fn location(&self, _: &RemoteSource) -> String {
            "a test".to_owned()
        }
    }

    #[tokio::test]
    async fn each_piece_of_a_store_has_the_next_ones_fetched_known_or_not() {
        let (store, length) = (Arc::new(WholeStore::default()), 6 * GROUP_SIZE);
        let source = RemoteSource {
            hash: [7; 32],
            length,
            groups: OnceLock::new(),
            pieces: Arc::clone(&store) as Arc<dyn RemotePieces>,
        };
        let data = Data::Remote(Arc::new(source));
        let representation =
            Representation::new(Coding::Identity, ETag::new([7; 32]), length, data);
        let memory = Memory::new(64 << 20, 1);
        for _ in 0..2 {
            let mut segments = Segments::default();
            segments.push_data(&representation, 0, length, &memory);
            while let Some(piece) = poll_fn(|cx| segments.poll_next(cx)).await {
                piece.expect("there");
            }
            let ahead = std::mem::take(&mut *lock(&store.0));
            assert_eq!(ahead, [0, 1, 2, 3, 4, 5]);
        }
    }

    /// A store that has nothing any more.
    #[derive(Debug)]
    struct EmptyStore;

    impl RemotePieces for EmptyStore {
        fn piece(self: Arc<Self>, source: &Arc<RemoteSource>, _: u32) -> PieceFuture {
            let location = self.location(source);
            Box::pin(std::future::ready(Err(RemoteError::Damaged { location })))
        }

        fn read_ahead(self: Arc<Self>, _: &Arc<RemoteSource>, _: u32) {}

        fn location(&self, _: &RemoteSource) -> String {
            "a test".to_owned()
        }
    }

    #[tokio::test]
    async fn what_is_proven_of_one_length_is_nothing_of_another() {
        // A listing has said that the content has 2 MiB, as is right, and the next one says another length.
        let (hash, whole) = ([7; 32], 2 * MAX_WHOLE);
        let memory = Memory::new(64 << 20, 1);
        for index in 0..PieceSpan::count(whole) {
            let key = PieceKey { hash, whole, index };
            memory.remember(key, Bytes::from(vec![7; GROUP_SIZE as usize]));
        }
        for length in [whole, GROUP_SIZE, whole - GROUP_SIZE, whole + GROUP_SIZE] {
            let source = RemoteSource {
                hash,
                length,
                groups: OnceLock::new(),
                pieces: Arc::new(EmptyStore),
            };
            let data = Data::Remote(Arc::new(source));
            let tag = ETag::new(hash);
            let representation = Representation::new(Coding::Identity, tag, length, data);
            let mut segments = Segments::default();
            segments.push_data(&representation, 0, length, &memory);
            let first = poll_fn(|cx| segments.poll_next(cx)).await.expect("a piece");
            assert_eq!(first.is_ok(), length == whole, "{length}");
        }
    }
}
