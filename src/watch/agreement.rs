//! A test that what is looked at part by part is what a fresh scan finds: random trees with links,
//! and random edits.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::coverage::Coverage;
use super::source::NoReports;
use crate::disk::Root;
use crate::manifest::Manifest;
use crate::scan::{Link, Progress, Scanner, Scope, Unsettled};
use crate::settings::{Settings, Symlinks};

/// Number of random trees. Each gets [`EDITS`] batches of edits.
const TREES: u64 = 200;
const EDITS: usize = 8;

/// Numbers that depend on a seed alone (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// A directory with a site and something outside it.
struct Tree {
    top: PathBuf,
    random: Random,
    written: usize,
}

impl Tree {
    /// The folders, or everything else, that is there.
    fn entries(&self, folders: bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.top.join("site"), self.top.join("outside")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).expect("listed") {
                let entry = entry.expect("an entry");
                match entry.file_type().expect("its kind").is_dir() {
                    true => open.push(entry.path()),
                    false if !folders => found.push(entry.path()),
                    false => {}
                }
            }
            if folders {
                found.push(folder);
            }
        }
        found.sort();
        found
    }

    fn folder(&mut self) -> PathBuf {
        let folders = self.entries(true);
        folders[self.random.below(folders.len())].clone()
    }

    /// A folder that is neither the site nor what holds the outside.
    fn inner_folder(&mut self) -> Option<PathBuf> {
        let folder = self.folder();
        (folder.parent() != Some(&*self.top)).then_some(folder)
    }

    fn other(&mut self) -> Option<PathBuf> {
        let others = self.entries(false);
        (!others.is_empty()).then(|| others[self.random.below(others.len())].clone())
    }

    /// Makes a random edit, and returns where something has happened.
    fn edit(&mut self) -> Vec<PathBuf> {
        match self.random.below(13) {
            0..3 => self.write(),
            3..5 => self.make_folder(),
            5..8 => self.link(),
            8 => self.remove(),
            9 => self.move_folder(),
            10 => self.swap_folders(),
            11 => self.remove_empty_folder(),
            _ => self.relink(),
        }
    }

    fn write(&mut self) -> Vec<PathBuf> {
        let name = self.random.one_of(&["f", "g.html", "index.html", "f.gz"]);
        let file = self.folder().join(name);
        if file.symlink_metadata().is_ok_and(|now| !now.is_file()) {
            return Vec::new();
        }
        self.written += 1;
        fs::write(&file, format!("{}", self.written)).expect("written");
        vec![file]
    }

    fn make_folder(&mut self) -> Vec<PathBuf> {
        let folder = self.folder();
        // The depth is bounded, so that no tree grows without end.
        let depth = folder.components().count() - self.top.components().count();
        let folder = folder.join(self.random.one_of(&["a", "b", "c", ".d"]));
        let is_new = depth < 4 && fs::create_dir(&folder).is_ok();
        if !is_new {
            return Vec::new();
        }
        if self.random.below(3) == 0 {
            fs::write(folder.join("f"), "new").expect("written");
        }
        vec![folder]
    }

    /// Removes a folder that has nothing in it, if there is one.
    fn remove_empty_folder(&mut self) -> Vec<PathBuf> {
        let mut folders = self.entries(true);
        folders.retain(|folder| {
            let mut entries = fs::read_dir(folder).expect("listed");
            folder.parent() != Some(&*self.top) && entries.next().is_none()
        });
        if folders.is_empty() {
            return Vec::new();
        }
        let folder = folders.swap_remove(self.random.below(folders.len()));
        fs::remove_dir(&folder).expect("removed");
        vec![folder]
    }

    fn target(&mut self) -> PathBuf {
        match self.random.below(8) {
            0 => ".".into(),
            1 => "..".into(),
            2 => "../a".into(),
            3 => "a/b".into(),
            4 => self.top.clone(),
            5 => self.other().unwrap_or_else(|| "f".into()),
            _ => self.folder(),
        }
    }

    fn link(&mut self) -> Vec<PathBuf> {
        let (folder, target) = (self.folder(), self.target());
        let link = folder.join(self.random.one_of(&["a", "l", "m", "n", ".k"]));
        match symlink(target, &link) {
            Ok(()) => vec![link],
            Err(_) => Vec::new(),
        }
    }

    /// Replaces a link by another one, at once.
    fn relink(&mut self) -> Vec<PathBuf> {
        let Some(link) = self.other().filter(|other| other.is_symlink()) else {
            return Vec::new();
        };
        let (target, new) = (self.target(), self.top.join("new"));
        symlink(target, &new).expect("linked");
        fs::rename(new, &link).expect("renamed");
        vec![link]
    }

    fn remove(&mut self) -> Vec<PathBuf> {
        let is_folder = self.random.below(3) == 0;
        let gone = match is_folder {
            true => self.inner_folder(),
            false => self.other(),
        };
        let Some(gone) = gone else {
            return Vec::new();
        };
        match is_folder {
            true => fs::remove_dir_all(&gone).expect("removed"),
            false => fs::remove_file(&gone).expect("removed"),
        }
        vec![gone]
    }

    fn move_folder(&mut self) -> Vec<PathBuf> {
        let name = self.random.one_of(&["a", "b", "c"]);
        let (Some(from), to) = (self.inner_folder(), self.folder().join(name)) else {
            return Vec::new();
        };
        if to.starts_with(&from) || to.symlink_metadata().is_ok() {
            return Vec::new();
        }
        fs::rename(&from, &to).expect("moved");
        vec![from, to]
    }

    /// Two folders take each other's name.
    fn swap_folders(&mut self) -> Vec<PathBuf> {
        let (Some(one), Some(two)) = (self.inner_folder(), self.inner_folder()) else {
            return Vec::new();
        };
        if one.starts_with(&two) || two.starts_with(&one) {
            return Vec::new();
        }
        let aside = self.top.join("aside");
        fs::rename(&one, &aside).expect("moved");
        fs::rename(&two, &one).expect("moved");
        fs::rename(&aside, &two).expect("moved");
        vec![one, two]
    }
}

/// What a watcher knows of a site.
struct Watched {
    scanner: Scanner,
    root: Arc<Root>,
    coverage: Coverage,
    manifest: Manifest,
    links: Vec<Link>,
}

impl Watched {
    fn new(top: &Path, symlinks: Symlinks, listing: bool) -> Self {
        let directory = top.join("site");
        let root = Arc::new(Root::open(&directory).expect("a root"));
        let settings = Settings {
            listing,
            ..Settings::default()
        };
        let settings = Arc::new(settings);
        let scanner = Scanner::new(symlinks, Arc::clone(&settings), None);
        let source = Box::new(NoReports);
        let exclude = Arc::clone(&settings.exclude);
        let (root_again, metrics) = (Arc::clone(&root), Arc::default());
        let mut coverage = Coverage::new(source, directory, root_again, exclude, metrics);
        let (manifest, links) = scanner.scan(&root, &Progress::default());
        coverage.watch_links(links.clone(), &Scope::Everything);
        Self {
            scanner,
            root,
            coverage,
            manifest,
            links,
        }
    }

    /// Looks at what has happened as the watcher does.
    fn look(&mut self, touched: BTreeSet<PathBuf>) {
        let dirty = touched
            .into_iter()
            .filter(|path| self.coverage.concerns_site(path))
            .collect();
        let scope = Scope::Paths(self.coverage.concerned_paths(&dirty));
        let (base, unsettled) = (&self.manifest, Unsettled::Publish);
        let progress = Progress::default();
        let outcome = (self.scanner).reconcile(&self.root, base, &scope, unsettled, &progress);
        self.manifest = self.manifest.with(outcome.changes);
        self.links.retain(|link| !scope.covers(&link.path));
        self.links.extend(outcome.links.clone());
        self.coverage.adopt_links(outcome.links, &scope);
    }
}

fn listed(manifest: &Manifest) -> Vec<String> {
    let mut text = Vec::new();
    manifest.write_text(&mut text).expect("written");
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::to_owned).collect()
}

fn sorted(mut links: Vec<Link>) -> Vec<Link> {
    links.sort_by(|a, b| a.path.cmp(&b.path));
    links
}

#[test]
fn looks_at_parts_find_what_a_fresh_scan_finds() {
    let (mut publications, mut followed, mut empty) = (0, 0, 0);
    for seed in 0..TREES {
        let directory = tempfile::tempdir().expect("a directory");
        let top = directory.path().canonicalize().expect("there");
        fs::create_dir(top.join("site")).expect("made");
        fs::create_dir(top.join("outside")).expect("made");
        let random = Random(seed);
        let mut tree = Tree {
            top: top.clone(),
            random,
            written: 0,
        };
        for _ in 0..24 {
            tree.edit();
        }
        let symlinks = [Symlinks::Inside, Symlinks::All, Symlinks::Inside][seed as usize % 3];
        let listing = seed % 4 != 0;
        let mut watched = Watched::new(&top, symlinks, listing);
        for step in 0..EDITS {
            let edits: Vec<_> = (0..=tree.random.below(3)).map(|_| tree.edit()).collect();
            watched.look(edits.concat().into_iter().collect());
            let fresh = Watched::new(&top, symlinks, listing);
            let at = format!("seed {seed}, step {step}, links {symlinks:?}: after {edits:?}");
            assert_eq!(listed(&watched.manifest), listed(&fresh.manifest), "{at}");
            let folders = watched.manifest.empty_folders();
            assert_eq!(folders, fresh.manifest.empty_folders(), "{at}");
            assert_eq!(watched.manifest.digest(), fresh.manifest.digest(), "{at}");
            let links = sorted(watched.links.clone());
            assert_eq!(links, sorted(fresh.links), "{at}");
            publications += 1;
            empty += folders.len();
            followed += links.iter().filter(|link| link.target.is_some()).count();
        }
    }
    assert!(publications == TREES as usize * EDITS && followed > publications);
    assert!(empty > publications / 4, "{empty} empty folders");
}

#[test]
fn a_link_below_a_folder_that_was_replaced_is_looked_at() {
    let directory = tempfile::tempdir().expect("a directory");
    let top = directory.path().canonicalize().expect("there");
    for (folder, text) in [("site/one/sub", "1"), ("site/two/sub", "2")] {
        fs::create_dir_all(top.join(folder)).expect("made");
        fs::write(top.join(folder).join("f"), text).expect("written");
    }
    symlink("one/sub", top.join("site/link")).expect("linked");
    let mut watched = Watched::new(&top, Symlinks::Inside, false);
    let [one, two, aside] = ["site/one", "site/two", "aside"].map(|folder| top.join(folder));
    fs::rename(&one, &aside).expect("moved");
    fs::rename(&two, &one).expect("moved");
    watched.look(BTreeSet::from([one, two]));
    let fresh = Watched::new(&top, Symlinks::Inside, false);
    assert_eq!(listed(&watched.manifest), listed(&fresh.manifest));
}
