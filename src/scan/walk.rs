//! Which files of the tree are part of the site: the closed world begins here.
//!
//! Names that begin with a dot (other than `.well-known`), what patterns exclude, anything that is
//! neither a regular file nor a directory, and links that the policy forbids are left out. The rule files in the root are
//! yielded, but are not part of the site. These conditions apply to the path in the site, not to
//! the real path that a link resolves to.
//!
//! Whether a link is followed depends on the real folders along its path and on nothing that was
//! looked at before, so that a walk from any start finds what a walk from the root finds there.
//! The one exception is the limit on what links bring to the whole site ([`TreeSize::limit`]): a
//! walk that reaches it says so, and only a walk from the root can then tell which links are
//! followed.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use walkdir::{DirEntry, WalkDir};

use super::site_path::is_admitted;
use super::tree_size::TreeSize;
use crate::disk::seam::Call;
use crate::disk::{self, seam};
use crate::exclude::Exclusions;
use crate::rules::RuleFile;
use crate::settings::Symlinks;

/// One thing that the walk yields.
#[derive(Debug)]
pub(crate) enum WalkStep {
    /// A file that is part of the site.
    File(FoundFile),
    /// A rule file, which is not part of the site.
    Rules(RuleFile, FoundFile),
    /// A folder that is part of the site, by its path; the root is not yielded.
    Folder(Box<[u8]>),
    /// A link, whether or not it leads to a part of the site.
    Link(Link),
    /// A path that may be part of the site but can't be looked at, with the reason. It is not gone.
    Unreadable(Box<[u8]>, io::Error),
    /// The last step: how much was found.
    End(TreeSize),
}

impl WalkStep {
    fn of(found: FoundFile) -> Self {
        match RuleFile::named(&found.path) {
            Some(file) => Self::Rules(file, found),
            None => Self::File(found),
        }
    }
}

/// A file, and where it really is.
#[derive(Debug)]
pub(crate) struct FoundFile {
    /// Its path in the site: raw bytes, without a leading slash.
    pub(crate) path: Box<[u8]>,
    /// Where it is, free of links: relative to the root, or absolute where a link left the root.
    pub(crate) location: PathBuf,
    /// Whether a link leads to it, so that the same file may have more paths.
    pub(crate) linked: bool,
}

/// A symbolic link in the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its path in the site.
    pub path: Box<[u8]>,
    /// The real path at its end; `None` if there is nothing.
    pub target: Option<PathBuf>,
    /// Whether it is followed.
    pub verdict: LinkVerdict,
}

/// Whether a link is followed, and if not, why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkVerdict {
    /// It is followed.
    Followed,
    /// It leads nowhere, or to where links may not lead.
    Excluded,
    /// It leads to a folder that its path has already passed, and the path has repeated one before.
    Repeats,
    /// Its path leads through as many links as a path may.
    TooDeep,
    /// What lies behind it would be more than links may bring to a site.
    TooMuch,
}

/// Number of links that one path may lead through: as many as Linux follows in one
/// (path_resolution(7)), so nobody could open what lies behind more of them by this path. Each level
/// makes all paths behind it longer: a chain of some ten thousand would take gigabytes.
pub const MAX_LINKS: usize = 40;

/// How many times as many entries as links may bring are looked at to find those that fit.
const MAX_DISCARDED: usize = 4;

/// Walks the site from `start`: a file, or a directory and everything below it, or the whole site
/// if it is empty. `root` is a real path.
///
/// Links are followed in the order of their distance from the root, counted in links, and then of
/// their paths: where they bring too much, the longest ways are left out, on every machine the
/// same.
pub(crate) fn walk(
    root: &Path,
    start: &[u8],
    symlinks: Symlinks,
    exclusions: &Exclusions,
) -> impl Iterator<Item = WalkStep> + use<> {
    let mut walk = SiteWalk {
        root: root.to_path_buf(),
        symlinks,
        exclusions: exclusions.clone(),
        current: None,
        steps: VecDeque::new(),
        found: BTreeMap::new(),
        level: BTreeMap::new(),
        size: TreeSize::default(),
        discarded: 0,
        is_done: false,
    };
    if is_admitted(start) {
        match walk.find(start) {
            Ok(Some((place, real))) => walk.current = Some(PlainWalk::new(place, &real)),
            // It is gone, or behind a link that is not followed.
            Ok(None) => {}
            Err(error) => walk
                .steps
                .push_back(WalkStep::Unreadable(start.into(), error)),
        }
    }
    walk
}

/// The root, or a directory that a link leads to: what lies below it without another link.
struct Place {
    /// Its path in the site.
    path: Box<[u8]>,
    real: PathBuf,
    /// Where its link is: in which place, and in which real folder there. `None` for the root.
    above: Option<(Arc<Self>, PathBuf)>,
}

impl Place {
    /// The real folders along the path of `folder` in this place, innermost first.
    fn folders<'p>(&'p self, folder: &'p Path) -> Vec<&'p Path> {
        let mut folders = Vec::new();
        let mut next = Some((self, folder));
        while let Some((place, folder)) = next {
            for each in folder.ancestors() {
                folders.push(each);
                if each == place.real {
                    break;
                }
            }
            next = place
                .above
                .as_ref()
                .map(|(place, folder)| (&**place, &**folder));
        }
        folders
    }

    /// The path in the site of a real path in this place.
    fn site_path(&self, real: &Path) -> Box<[u8]> {
        let below = real.strip_prefix(&self.real).unwrap_or(real);
        let below = below.as_os_str().as_bytes();
        match (self.path.is_empty(), below.is_empty()) {
            (true, _) => below.into(),
            (_, true) => self.path.clone(),
            _ => [&self.path, b"/".as_slice(), below].concat().into(),
        }
    }

    fn is_linked(&self) -> bool {
        self.above.is_some()
    }

    /// How many links its path leads through.
    fn links(&self) -> usize {
        let mut links = 0;
        let mut next = &self.above;
        while let Some((place, _)) = next {
            links += 1;
            next = &place.above;
        }
        links
    }
}

/// Whether a link to the folder `target` is followed from the last of these `folders`, through
/// which its path leads. One folder of a path may occur twice: a link to a folder above it is
/// followed once, as `en` for a site whose pages begin with their language. The link that would
/// begin a second repetition is not.
fn repeats_too_often(folders: &[&Path], target: &Path) -> bool {
    let occurs = |folder: &Path| folders.iter().filter(|each| **each == folder).count();
    match occurs(target) {
        0 => false,
        1 => folders.iter().any(|folder| occurs(folder) > 1),
        _ => true,
    }
}

/// A walk through one place that follows no link.
struct PlainWalk {
    place: Arc<Place>,
    walker: walkdir::IntoIter,
}

impl PlainWalk {
    fn new(place: Arc<Place>, start: &Path) -> Self {
        let walker = WalkDir::new(start)
            // A start that is a link itself is yielded as one.
            .follow_root_links(false)
            .follow_links(false)
            .into_iter();
        Self { place, walker }
    }
}

/// What a link leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LeadsTo {
    Directory,
    File,
    Other,
}

/// What a plain walk has met.
enum Met {
    /// Nothing that counts.
    Nothing,
    /// What a pattern leaves out.
    Excluded,
    /// A directory, by its path in the site.
    Directory(Box<[u8]>),
    Step(WalkStep),
    /// A link to a file, and that file.
    LinkedFile(Link, FoundFile),
    /// A link to a directory, which is followed if there is room for what lies there.
    Door(Arc<Place>),
}

struct SiteWalk {
    root: PathBuf,
    symlinks: Symlinks,
    exclusions: Exclusions,
    /// The walk that yields its steps as it meets them; there is no limit on what it finds.
    current: Option<PlainWalk>,
    steps: VecDeque<WalkStep>,
    /// The linked directories that were found behind those of the present level, by their paths.
    found: BTreeMap<Box<[u8]>, Arc<Place>>,
    /// Those that are as many links away from the root as the one that was entered last.
    level: BTreeMap<Box<[u8]>, Arc<Place>>,
    size: TreeSize,
    /// Entries that were met behind links that are not followed, because there were too many.
    discarded: usize,
    is_done: bool,
}

impl Iterator for SiteWalk {
    type Item = WalkStep;

    fn next(&mut self) -> Option<WalkStep> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(step);
            }
            if let Some(mut current) = self.current.take() {
                if let Some(met) = self.meet(&mut current) {
                    let is_linked = current.place.is_linked();
                    self.current = Some(current);
                    self.take(met, is_linked);
                }
                continue;
            }
            if self.level.is_empty() {
                self.level = std::mem::take(&mut self.found);
            }
            match self.level.pop_first() {
                Some((_, place)) => self.enter(&place),
                None if self.is_done => return None,
                None => {
                    self.is_done = true;
                    return Some(WalkStep::End(self.size));
                }
            }
        }
    }
}

impl SiteWalk {
    /// Finds a path of the site on the disk as a walk from the root would: in which place it is,
    /// and its real path, whose last step may be a link. `None` if no walk would find it.
    fn find(&self, start: &[u8]) -> io::Result<Option<(Arc<Place>, PathBuf)>> {
        let mut place = Arc::new(Place {
            path: Box::default(),
            real: self.root.clone(),
            above: None,
        });
        let mut folder = self.root.clone();
        let start = Path::new(OsStr::from_bytes(start));
        let Some(name) = start.file_name() else {
            return Ok(Some((place, folder)));
        };
        for step in start.parent().unwrap_or(Path::new("")).components() {
            let Component::Normal(name) = step else {
                return Ok(None);
            };
            let next = folder.join(name);
            if self.exclusions.exclude(&place.site_path(&next), true) {
                return Ok(None);
            }
            let kind = match disk::kind(&next) {
                Ok(kind) => kind,
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            if kind.is_dir() {
                folder = next;
            } else if kind.is_symlink() {
                let (link, leads_to) = self.judge(&place, &next)?;
                let (Some(real), LinkVerdict::Followed, LeadsTo::Directory) =
                    (link.target, link.verdict, leads_to)
                else {
                    return Ok(None);
                };
                place = Arc::new(Place {
                    path: link.path,
                    real: real.clone(),
                    above: Some((place, folder)),
                });
                folder = real;
            } else {
                return Ok(None);
            }
        }
        Ok(Some((place, folder.join(name))))
    }

    /// What the walk meets next; `None` at its end.
    fn meet(&self, walk: &mut PlainWalk) -> Option<Met> {
        let entry = match walk.walker.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(self.explain(&walk.place, error)),
        };
        let path = walk.place.site_path(entry.path());
        if !is_admitted(&path) {
            if entry.file_type().is_dir() {
                walk.walker.skip_current_dir();
            }
            return Some(Met::Nothing);
        }
        let is_folder = entry.file_type().is_dir();
        if !entry.path_is_symlink() && self.is_excluded(&path, is_folder) {
            if is_folder {
                walk.walker.skip_current_dir();
            }
            return Some(Met::Excluded);
        }
        if let Err(error) = seam::pass(Call::List) {
            if entry.file_type().is_dir() {
                walk.walker.skip_current_dir();
            }
            return Some(self.explain_at(path, error));
        }
        if entry.path_is_symlink() {
            return Some(match self.follow(&walk.place, &entry) {
                Ok(met) => met,
                Err(error) => Met::Step(WalkStep::Unreadable(path, error)),
            });
        }
        Some(if entry.file_type().is_file() {
            let is_linked = walk.place.is_linked();
            Met::Step(WalkStep::of(self.found(path, entry.path(), is_linked)))
        } else if entry.file_type().is_dir() {
            Met::Directory(path)
        } else {
            Met::Nothing
        })
    }

    /// Counts and keeps what was met on the way.
    fn take(&mut self, met: Met, is_linked: bool) {
        let count = match is_linked {
            true => &mut self.size.linked,
            false => &mut self.size.own,
        };
        match met {
            Met::Nothing => {}
            Met::Excluded => self.size.excluded += 1,
            Met::Directory(path) => {
                *count += 1;
                // A directory may have the name of a rule file, which no client may learn.
                if !path.is_empty() && RuleFile::named(&path).is_none() {
                    self.steps.push_back(WalkStep::Folder(path));
                }
            }
            Met::Step(step) => {
                *count += 1;
                self.steps.push_back(step);
            }
            Met::LinkedFile(link, file) => {
                *count += 1;
                self.steps.push_back(WalkStep::Link(link));
                self.steps.push_back(WalkStep::of(file));
            }
            Met::Door(place) => {
                *count += 1;
                self.found.insert(place.path.clone(), place);
            }
        }
    }

    /// Follows a link to a directory, if there is room for all that lies in it without another
    /// link.
    fn enter(&mut self, place: &Arc<Place>) {
        let limit = self.size.limit();
        let room = limit.saturating_sub(self.size.linked);
        let mut all = Vec::new();
        let may_look = self.discarded < limit.saturating_mul(MAX_DISCARDED);
        if may_look {
            let mut walk = PlainWalk::new(Arc::clone(place), &place.real);
            while all.len() <= room
                && let Some(met) = self.meet(&mut walk)
            {
                if !matches!(met, Met::Nothing | Met::Excluded) {
                    all.push(met);
                }
            }
        }
        let has_room = may_look && all.len() <= room;
        let verdict = match has_room {
            true => LinkVerdict::Followed,
            false => LinkVerdict::TooMuch,
        };
        self.steps.push_back(WalkStep::Link(Link {
            path: place.path.clone(),
            target: Some(place.real.clone()),
            verdict,
        }));
        if !has_room {
            self.size.is_limited = true;
            self.discarded += all.len();
            return;
        }
        for met in all {
            self.take(met, true);
        }
    }

    /// A link, whether it is followed by what is known of its target and its path, and what it
    /// leads to. `link` is its real path in the place.
    ///
    /// # Errors
    /// When it can't be told now.
    fn judge(&self, place: &Place, link: &Path) -> io::Result<(Link, LeadsTo)> {
        let path = place.site_path(link);
        let target = match disk::real_path(link) {
            Ok(target) => Some(target),
            Err(error) if disk::is_passing(&error) => return Err(error),
            // It leads nowhere, in a circle, or through what may not be entered.
            Err(_) => None,
        };
        let leads_to = match target.as_deref().map(disk::kind) {
            Some(Ok(kind)) if kind.is_dir() => LeadsTo::Directory,
            Some(Ok(kind)) if kind.is_file() => LeadsTo::File,
            Some(Err(error)) if disk::is_passing(&error) => return Err(error),
            _ => LeadsTo::Other,
        };
        let is_allowed = |real: &PathBuf| self.symlinks.allow(&self.root, real);
        let verdict = match target.as_ref().filter(|real| is_allowed(real)) {
            None => LinkVerdict::Excluded,
            Some(real) => {
                let folder = link.parent().unwrap_or(link);
                let is_directory = leads_to == LeadsTo::Directory;
                if place.links() >= MAX_LINKS {
                    LinkVerdict::TooDeep
                } else if is_directory && repeats_too_often(&place.folders(folder), real) {
                    LinkVerdict::Repeats
                } else {
                    LinkVerdict::Followed
                }
            }
        };
        let link = Link {
            path,
            target,
            verdict,
        };
        Ok((link, leads_to))
    }

    fn follow(&self, place: &Arc<Place>, entry: &DirEntry) -> io::Result<Met> {
        let (link, leads_to) = self.judge(place, entry.path())?;
        if self.is_excluded(&link.path, leads_to == LeadsTo::Directory) {
            return Ok(Met::Excluded);
        }
        Ok(match (&link.target, leads_to) {
            (Some(real), LeadsTo::Directory) if link.verdict == LinkVerdict::Followed => {
                let folder = entry.path().parent().unwrap_or(entry.path());
                Met::Door(Arc::new(Place {
                    path: link.path,
                    real: real.clone(),
                    above: Some((Arc::clone(place), folder.to_path_buf())),
                }))
            }
            (Some(real), LeadsTo::File) if link.verdict == LinkVerdict::Followed => {
                let file = self.found(link.path.clone(), real, true);
                Met::LinkedFile(link, file)
            }
            _ => Met::Step(WalkStep::Link(link)),
        })
    }

    /// Whether a pattern leaves out this path; those of rules are never left out.
    fn is_excluded(&self, path: &[u8], is_folder: bool) -> bool {
        RuleFile::named(path).is_none() && self.exclusions.exclude(path, is_folder)
    }

    fn found(&self, path: Box<[u8]>, real: &Path, linked: bool) -> FoundFile {
        let location = real.strip_prefix(&self.root).unwrap_or(real).to_path_buf();
        FoundFile {
            path,
            location,
            linked,
        }
    }

    /// A walk error as a step, unless nothing is missing from the site because of it.
    fn explain(&self, place: &Place, error: walkdir::Error) -> Met {
        let path = place.site_path(error.path().unwrap_or(&place.real));
        if !is_admitted(&path) {
            return Met::Nothing;
        }
        match error.into_io_error() {
            Some(error) => self.explain_at(path, error),
            // A loop, which a walk that follows no link can't meet.
            None => Met::Nothing,
        }
    }

    fn explain_at(&self, path: Box<[u8]>, error: io::Error) -> Met {
        if is_gone(&error) {
            // Deleted after its directory was listed: no longer part of the site.
            return Met::Nothing;
        }
        Met::Step(WalkStep::Unreadable(path, error))
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::exclude::ExcludePatterns;

    /// A site with these links, `path -> target`, and with a file `f` in each of these folders.
    fn site(folders: &[&str], links: &[(&str, &str)]) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for folder in folders {
            fs::create_dir_all(directory.path().join(folder)).expect("made");
            fs::write(directory.path().join(folder).join("f"), "").expect("written");
        }
        for (path, target) in links {
            symlink(target, directory.path().join(path)).expect("linked");
        }
        directory
    }

    struct Walked {
        files: BTreeSet<String>,
        folders: BTreeSet<String>,
        links: Vec<(String, LinkVerdict)>,
        size: TreeSize,
    }

    fn walked(site: &TempDir, start: &str, symlinks: Symlinks) -> Walked {
        walked_without(site, start, symlinks, "")
    }

    /// What is found where these patterns leave something out.
    fn walked_without(site: &TempDir, start: &str, symlinks: Symlinks, patterns: &str) -> Walked {
        let (patterns, problems) =
            ExcludePatterns::parse(patterns.as_bytes()).expect("not too large");
        assert_eq!(problems, []);
        let exclusions = Exclusions::new(&Arc::new(patterns), &Arc::default());
        let root = site.path().canonicalize().expect("there");
        let mut walked = Walked {
            files: BTreeSet::new(),
            folders: BTreeSet::new(),
            links: Vec::new(),
            size: TreeSize::default(),
        };
        let shown = |path: &[u8]| path.escape_ascii().to_string();
        for step in walk(&root, start.as_bytes(), symlinks, &exclusions) {
            match step {
                WalkStep::File(file) => {
                    assert!(root.join(&file.location).is_file(), "{file:?}");
                    assert!(walked.files.insert(shown(&file.path)), "once: {file:?}");
                }
                WalkStep::Folder(path) => {
                    let path = shown(&path);
                    assert!(walked.folders.insert(path.clone()), "once: {path}");
                }
                WalkStep::Link(link) => walked.links.push((shown(&link.path), link.verdict)),
                WalkStep::End(size) => walked.size = size,
                step => panic!("{step:?}"),
            }
        }
        walked.links.sort_by(|a, b| a.0.cmp(&b.0));
        walked
    }

    #[test]
    fn folders_are_yielded_with_and_without_files_unless_they_are_hidden() {
        let links = [("l", "a"), ("up", "a/.."), ("out", "/"), ("g", "a/f")];
        let site = site(&["a", "h/.x"], &links);
        for folder in [
            "a/b",
            ".e",
            ".well-known",
            "_headers/x",
            "_redirects.gz/x",
            "c/_headers",
        ] {
            fs::create_dir_all(site.path().join(folder)).expect("made");
        }
        let folders = |start: &str, symlinks| {
            let walked = walked(&site, start, symlinks);
            walked.folders.into_iter().collect::<Vec<_>>()
        };
        let own = [".well-known", "a", "a/b", "c", "c/_headers", "h"];
        assert_eq!(folders("", Symlinks::None), own);
        for (start, expected) in [
            ("a", &["a", "a/b"][..]),
            ("a/b", &["a/b"]),
            ("a/f", &[]),
            ("g", &[]),
            ("l", &["l", "l/b"]),
            ("l/b", &["l/b"]),
            ("out", &[]),
            (".e", &[]),
            ("_headers", &[]),
            ("nothing", &[]),
        ] {
            assert_eq!(folders(start, Symlinks::Inside), expected, "{start}");
        }
        let all = folders("", Symlinks::Inside);
        assert!(own.iter().all(|own| all.iter().any(|each| each == own)));
        assert!(all.contains(&"up/l/b".to_owned()), "{all:?}");
    }

    #[test]
    fn what_patterns_leave_out_is_found_from_no_start() {
        let folders = ["a", "a/out", "a/out/deep", "kept"];
        let links = [
            ("l", "a/out"),
            ("kept/out", "../kept"),
            ("out", "nowhere"),
            ("a/file", "../kept/f"),
        ];
        let site = site(&folders, &links);
        let patterns = "out/\nfile\n_headers\n";
        fs::write(site.path().join("_headers"), "").expect("written");
        let found = |start: &str| {
            let walked = walked_rules(&site, start, patterns);
            walked.into_iter().collect::<Vec<_>>()
        };
        // The link `out` leads to no folder, and `l` has another name than what it leads to.
        assert_eq!(found(""), ["_headers", "a/f", "kept/f", "l/deep/f", "l/f"]);
        for (start, expected) in [
            ("a", &["a/f"][..]),
            ("a/out", &[]),
            ("a/out/f", &[]),
            ("a/out/deep/f", &[]),
            ("kept/out/f", &[]),
            ("l/deep/f", &["l/deep/f"]),
            ("a/file", &[]),
            ("_headers", &["_headers"]),
        ] {
            assert_eq!(found(start), expected, "{start}");
        }
        let size = |patterns| walked_without(&site, "a", Symlinks::Inside, patterns).size;
        let (all, some) = (size(""), size("out/\nfile"));
        assert_eq!((all.own, all.excluded), (7, 0));
        assert_eq!((some.own, some.excluded), (2, 2));
    }

    /// The paths of the files that are found, those of rules among them.
    fn walked_rules(site: &TempDir, start: &str, patterns: &str) -> BTreeSet<String> {
        let root = site.path().canonicalize().expect("there");
        let (patterns, _) = ExcludePatterns::parse(patterns.as_bytes()).expect("not too large");
        let exclusions = Exclusions::new(&Arc::new(patterns), &Arc::default());
        walk(&root, start.as_bytes(), Symlinks::Inside, &exclusions)
            .filter_map(|step| match step {
                WalkStep::File(found) | WalkStep::Rules(_, found) => {
                    Some(found.path.escape_ascii().to_string())
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_link_to_a_folder_above_is_followed_once() {
        use LinkVerdict::{Excluded, Followed, Repeats};
        type Case = (
            &'static [&'static str],
            &'static [(&'static str, &'static str)],
            &'static [&'static str],
            &'static [(&'static str, LinkVerdict)],
        );
        let cases: [Case; 5] = [
            (
                &["", "docs"],
                &[("en", ".")],
                &["docs/f", "en/docs/f", "en/f", "f"],
                &[("en", Followed), ("en/en", Repeats)],
            ),
            (
                &["docs"],
                &[("docs/up", "..")],
                &["docs/f", "docs/up/docs/f"],
                &[("docs/up", Followed), ("docs/up/docs/up", Repeats)],
            ),
            (
                &["x", "z"],
                &[("x/toz", "../z"), ("z/tox", "../x")],
                &[
                    "x/f",
                    "x/toz/f",
                    "x/toz/tox/f",
                    "z/f",
                    "z/tox/f",
                    "z/tox/toz/f",
                ],
                &[
                    ("x/toz", Followed),
                    ("x/toz/tox", Followed),
                    ("x/toz/tox/toz", Repeats),
                    ("z/tox", Followed),
                    ("z/tox/toz", Followed),
                    ("z/tox/toz/tox", Repeats),
                ],
            ),
            (
                &["", ".hidden"],
                &[("link", ".hidden"), (".hidden/back", "..")],
                &["f", "link/back/f", "link/f"],
                &[
                    ("link", Followed),
                    ("link/back", Followed),
                    ("link/back/link", Repeats),
                ],
            ),
            (
                &["a"],
                &[
                    ("loop", "loop"),
                    ("out", "/"),
                    ("gone", "nowhere"),
                    ("b", "a/f"),
                ],
                &["a/f", "b"],
                &[
                    ("b", Followed),
                    ("gone", Excluded),
                    ("loop", Excluded),
                    ("out", Excluded),
                ],
            ),
        ];
        for (folders, links, files, verdicts) in cases {
            let site = site(folders, links);
            let whole = walked(&site, "", Symlinks::Inside);
            let found: Vec<_> = whole.files.iter().map(String::as_str).collect();
            assert_eq!(found, files, "{links:?}");
            let found: Vec<_> = whole.links.iter().map(|(path, v)| (&**path, *v)).collect();
            assert_eq!(found, verdicts, "{links:?}");
            // From every path of the site, a walk finds what the walk from the root finds there.
            let paths = whole
                .files
                .iter()
                .chain(whole.links.iter().map(|(path, _)| path));
            let folders = paths.clone().filter_map(|path| path.rsplit_once('/'));
            let folders: BTreeSet<_> = folders.map(|(folder, _)| folder.to_owned()).collect();
            for start in paths.chain(&folders) {
                let is_in = |path: &str| {
                    path.strip_prefix(start.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                let part = walked(&site, start, Symlinks::Inside);
                let expected: BTreeSet<_> = whole
                    .files
                    .iter()
                    .filter(|path| is_in(path))
                    .cloned()
                    .collect();
                assert_eq!(part.files, expected, "{links:?} from {start}");
                let expected: Vec<_> = whole
                    .links
                    .iter()
                    .filter(|(path, _)| is_in(path))
                    .cloned()
                    .collect();
                assert_eq!(part.links, expected, "{links:?} from {start}");
            }
            for nowhere in [
                "nowhere",
                "en/en/docs/f",
                "x/toz/tox/toz/f",
                "out/etc",
                "a/f/g",
            ] {
                let part = walked(&site, nowhere, Symlinks::Inside);
                assert!(part.files.is_empty() && part.links.is_empty(), "{nowhere}");
            }
        }
    }

    #[test]
    fn a_link_that_leaves_the_site_is_not_the_way_to_one_that_returns() {
        let outside = site(&["out"], &[]);
        let out = outside.path().join("out");
        let site = site(&["x"], &[("away", out.to_str().expect("text"))]);
        symlink(site.path().join("x"), out.join("back")).expect("linked");
        let inside = walked(&site, "away/back/f", Symlinks::Inside);
        assert!(inside.files.is_empty() && inside.links.is_empty());
        let all = walked(&site, "away/back/f", Symlinks::All);
        assert!(all.files.contains("away/back/f"));
    }

    #[test]
    fn a_path_leads_through_so_many_links_and_no_more() {
        let length = MAX_LINKS + 10;
        let folders: Vec<_> = (0..=length).map(|n| format!("d{n}")).collect();
        let links: Vec<_> = (0..length)
            .map(|n| (format!("d{n}/next"), format!("../d{}", n + 1)))
            .collect();
        let links: Vec<_> = links.iter().map(|(path, to)| (&**path, &**to)).collect();
        let folders: Vec<_> = folders.iter().map(String::as_str).collect();
        let site = site(&folders, &links);
        symlink("f", site.path().join(format!("d{MAX_LINKS}/file"))).expect("linked");
        let behind = |links: usize| format!("d0{}", "/next".repeat(links));
        let whole = walked(&site, "", Symlinks::Inside);
        assert!(whole.files.contains(&format!("{}/f", behind(MAX_LINKS))));
        assert!(
            !whole
                .files
                .contains(&format!("{}/f", behind(MAX_LINKS + 1)))
        );
        let verdict = |path: String| {
            let link = whole.links.iter().find(|(link, _)| *link == path);
            link.map(|(_, verdict)| *verdict)
        };
        assert_eq!(verdict(behind(MAX_LINKS)), Some(LinkVerdict::Followed));
        assert_eq!(verdict(behind(MAX_LINKS + 1)), Some(LinkVerdict::TooDeep));
        assert_eq!(verdict(behind(MAX_LINKS + 2)), None);
        // To a file as well: the kernel counts it as any other.
        let file = format!("{}/file", behind(MAX_LINKS));
        assert_eq!(verdict(file), Some(LinkVerdict::TooDeep));
        assert_eq!(
            verdict(format!("d{MAX_LINKS}/file")),
            Some(LinkVerdict::Followed)
        );
        // From a folder behind many links a look finds what the walk from the root finds there.
        for (start, is_found) in [(MAX_LINKS, true), (MAX_LINKS + 1, false)] {
            let part = walked(&site, &format!("{}/f", behind(start)), Symlinks::Inside);
            assert_eq!(!part.files.is_empty(), is_found, "{start}");
        }
    }

    #[test]
    fn what_links_bring_is_limited_and_the_same_each_time() {
        let names = ["a", "b", "c", "d", "e", "f0", "g", "h"];
        let pairs = names
            .iter()
            .flat_map(|from| names.iter().map(move |to| (from, to)));
        let links: Vec<_> = pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| (format!("{from}/{to}"), format!("../{to}")))
            .collect();
        let links: Vec<_> = links.iter().map(|(path, to)| (&**path, &**to)).collect();
        let site = site(&names, &links);
        let whole = walked(&site, "", Symlinks::Inside);
        assert!(whole.size.is_limited && whole.size.linked <= whole.size.limit());
        assert!(
            whole.size.linked > whole.size.limit() / 2,
            "{:?}",
            whole.size
        );
        let followed = |path: &str| {
            let at = whole.links.iter().find(|(link, _)| link == path);
            at.map(|(_, verdict)| *verdict)
        };
        // The short ways are there, and it is the longest that are not.
        assert_eq!(followed("a/b/c/d"), Some(LinkVerdict::Followed));
        let depth = |path: &String| path.matches('/').count();
        let is = |verdict| move |link: &&(String, LinkVerdict)| link.1 == verdict;
        let longest = whole.links.iter().filter(is(LinkVerdict::Followed));
        let longest = longest.map(|(path, _)| depth(path)).max();
        let left_out = whole.links.iter().filter(is(LinkVerdict::TooMuch));
        let shortest = left_out.map(|(path, _)| depth(path)).min();
        assert!(shortest >= longest, "{shortest:?} {longest:?}");
    }
}
