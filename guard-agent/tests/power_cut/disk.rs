//! What a power cut leaves of a directory: of what was not synced some, in pieces, in any order.
//!
//! The files themselves are as the running programs see them. Beside each stands what is on disk
//! for certain, and what was done to it since.

use std::{
    collections::{BTreeMap, HashMap},
    fs, mem,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use fastrand::Rng;
use parking_lot::Mutex;

/// A disk writes so many bytes whole or not at all.
const SECTOR: usize = 512;

/// All disks, each with its directory.
static DISKS: LazyLock<Mutex<HashMap<PathBuf, Arc<Disk>>>> = LazyLock::new(Mutex::default);

/// There is no power.
#[derive(Debug)]
pub(crate) struct Off;

/// One directory.
#[derive(Debug)]
pub(crate) struct Disk(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    files: BTreeMap<PathBuf, Shadow>,
    marker: PathBuf,
    /// What the marker may be after a cut: all that was written since it was last synced.
    lines: Vec<Vec<u8>>,
    /// How much is done yet before the power is cut.
    left: u64,
    off: bool,
    /// It says that it has synced, and has not.
    lies: bool,
}

#[derive(Debug, Default)]
struct Shadow {
    synced: Vec<u8>,
    /// What was done since.
    pending: Vec<Change>,
    /// Its name is on disk.
    named: bool,
    /// It was deleted, and that is not on disk.
    deleted: bool,
    /// What had its name before, and may have it again.
    before: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    /// Does it, or of a write those sectors that `keep` keeps.
    fn apply(&self, content: &mut Vec<u8>, mut keep: impl FnMut() -> bool) {
        match self {
            Self::Truncate(length) => {
                if keep() {
                    content.resize(*length, 0);
                }
            }
            Self::Write(at, data) => {
                let mut from = 0;
                while from < data.len() {
                    let to = data.len().min(from + SECTOR - (at + from) % SECTOR);
                    if keep() {
                        content.resize(content.len().max(at + to), 0);
                        content[at + from..at + to].copy_from_slice(&data[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

impl Disk {
    /// The disk beneath a directory, which has nothing in it yet.
    pub(crate) fn of(directory: &Path, marker: PathBuf, lies: bool) -> Arc<Self> {
        let (files, lines) = (BTreeMap::new(), Vec::new());
        let inner = Inner { files, marker, lines, left: u64::MAX, off: false, lies };
        let disk = Arc::new(Self(Mutex::new(inner)));
        DISKS.lock().insert(directory.to_owned(), Arc::clone(&disk));
        disk
    }

    /// The one that has a file on it.
    pub(crate) fn with(file: &Path) -> Option<Arc<Self>> {
        DISKS.lock().get(file.parent()?).cloned()
    }

    /// From now on there is power, for so many changes.
    pub(crate) fn power_on(&self, changes: u64) {
        let inner = &mut *self.0.lock();
        (inner.left, inner.off) = (changes, false);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// The power is cut now, if it was not before.
    pub(crate) fn cut(&self) {
        self.0.lock().cut();
    }

    /// The store syncs its directory and its marker at known moments, past SQLite.
    pub(crate) fn all_is_named(&self) {
        let inner = &mut *self.0.lock();
        inner.name_all();
        inner.lines.clear();
        inner.note_marker();
    }

    pub(crate) fn directory_synced(&self) {
        self.0.lock().name_all();
    }

    pub(crate) fn opened(&self, file: &Path, is_new: bool) -> Result<(), Off> {
        let inner = &mut *self.0.lock();
        inner.step()?;
        if is_new {
            let old = inner.files.remove(file);
            let before = old.filter(|old| old.named).map(|old| old.synced);
            inner.files.insert(file.to_owned(), Shadow { before, ..Shadow::default() });
        }
        Ok(())
    }

    pub(crate) fn changed(&self, file: &Path, change: Change) -> Result<(), Off> {
        let inner = &mut *self.0.lock();
        if inner.off {
            return Err(Off);
        }
        inner.files.entry(file.to_owned()).or_default().pending.push(change);
        // It may be on its way when the power is cut.
        inner.step()
    }

    /// A file was synced; with it, where it is a new log or journal, the names in its directory.
    pub(crate) fn synced(&self, file: &Path, names: bool) -> Result<(), Off> {
        let inner = &mut *self.0.lock();
        inner.step()?;
        if inner.lies {
            return Ok(());
        }
        let shadow = inner.files.entry(file.to_owned()).or_default();
        for change in mem::take(&mut shadow.pending) {
            change.apply(&mut shadow.synced, || true);
        }
        if names && !shadow.named {
            inner.name_all();
        }
        Ok(())
    }

    pub(crate) fn deleted(&self, file: &Path) -> Result<(), Off> {
        let inner = &mut *self.0.lock();
        inner.step()?;
        if let Some(shadow) = inner.files.get_mut(file) {
            shadow.deleted = true;
        }
        Ok(())
    }

    /// Makes the files what the cut has left of them.
    pub(crate) fn lose(&self, rng: &mut Rng) {
        let inner = &mut *self.0.lock();
        assert!(inner.off, "there is power still");
        for (path, mut shadow) in mem::take(&mut inner.files) {
            let kept =
                if inner.lies { 0.0 } else { rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]).unwrap() };
            let mut content = mem::take(&mut shadow.synced);
            for change in &shadow.pending {
                change.apply(&mut content, || rng.f64() < kept);
            }
            let exists = if shadow.named { !shadow.deleted || rng.bool() } else { rng.bool() };
            let content =
                if exists { Some(content) } else { shadow.before.filter(|_| !shadow.named) };
            match content {
                Some(synced) => {
                    fs::write(&path, &synced).unwrap();
                    inner.files.insert(path, Shadow { synced, named: true, ..Shadow::default() });
                }
                None if path.exists() => fs::remove_file(&path).unwrap(),
                None => {}
            }
        }
        // One that lies has the newest marker, and lost what it is about.
        let line = if inner.lies { inner.lines.last() } else { rng.choice(&inner.lines) };
        if let Some(line) = line.cloned() {
            fs::write(&inner.marker, &line).unwrap();
            inner.lines = vec![line];
        }
    }
}

impl Inner {
    fn step(&mut self) -> Result<(), Off> {
        self.note_marker();
        if self.left == 0 {
            self.off = true;
        }
        self.left = self.left.saturating_sub(1);
        if self.off { Err(Off) } else { Ok(()) }
    }

    fn cut(&mut self) {
        self.note_marker();
        self.off = true;
    }

    /// The marker is written past SQLite, and not any more once the power is cut.
    fn note_marker(&mut self) {
        if !self.off
            && let Ok(line) = fs::read(&self.marker)
            && self.lines.last() != Some(&line)
        {
            self.lines.push(line);
        }
    }

    fn name_all(&mut self) {
        self.files.retain(|_, shadow| !shadow.deleted);
        for shadow in self.files.values_mut() {
            (shadow.named, shadow.before) = (true, None);
        }
    }
}
