//! The marker beside the store: that there was one, how it ended, and how much was in it.
//!
//! One line of fixed length. After each commit it is overwritten in place, without waiting for the
//! disk: it survives the process at once, and a power cut leaves an older line, which claims less.
//! So a store with fewer commits than its marker has lost some.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{StoreError, exchange};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The store is being made; there is nothing in it yet.
    Creating,
    /// An agent has it open, or had when it was killed.
    Open,
    /// It was closed in order.
    Closed,
}

/// The marker's file.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    line: Line,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    phase: Phase,
    commits: u64,
    rows: u64,
}

pub(super) fn path_of(store: &Path) -> PathBuf {
    exchange::beside(store, exchange::MARKER)
}

/// Puts the names in the file's directory on disk: without it a new file can be lost.
pub(super) fn sync_directory(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

impl Marker {
    /// Reads the marker of a store, if there is one.
    pub(super) fn read(store: &Path) -> Result<Option<Self>, StoreError> {
        let path = path_of(store);
        let unreadable = |what: String| StoreError::Marker { path: path.clone(), what };
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let damaged = || {
            let what = format!("the line of its marker {} cannot be read", path.display());
            StoreError::damaged(store, what)
        };
        let text = match io::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let line = Line::parse(&text).ok_or_else(damaged)?;
        Ok(Some(Self { file, line }))
    }

    /// Makes the marker before the store: from now on its absence is a loss. It gets its name when
    /// it is whole, so that a power cut leaves no half of one.
    pub(super) fn create(store: &Path) -> Result<Self, StoreError> {
        let write = || -> io::Result<Self> {
            let line = Line { phase: Phase::Creating, commits: 0, rows: 0 };
            let path = path_of(store);
            let new = path.with_added_extension("new");
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(true).open(&new)?;
            file.write_all(line.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_directory(&path)?;
            Ok(Self { file, line })
        };
        write().map_err(|error| StoreError::marker(store, &error))
    }

    pub(super) fn is_creating(&self) -> bool {
        self.line.phase == Phase::Creating
    }

    pub(super) fn commits(&self) -> u64 {
        self.line.commits
    }

    pub(super) fn opened(&mut self, commits: u64, rows: u64) -> io::Result<()> {
        self.write(Line { phase: Phase::Open, commits, rows })?;
        self.file.sync_data()
    }

    pub(super) fn committed(&mut self, commits: u64, rows: u64) -> io::Result<()> {
        self.write(Line { phase: Phase::Open, commits, rows })
    }

    pub(super) fn closed(&mut self, commits: u64, rows: u64) -> io::Result<()> {
        self.write(Line { phase: Phase::Closed, commits, rows })?;
        self.file.sync_data()
    }

    fn write(&mut self, line: Line) -> io::Result<()> {
        self.file.write_all_at(line.to_string().as_bytes(), 0)?;
        self.line = line;
        Ok(())
    }
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        (words.next()? == "guard-lease-store-1").then_some(())?;
        let phase = match words.next()? {
            "creating" => Phase::Creating,
            "open" => Phase::Open,
            "closed" => Phase::Closed,
            _ => return None,
        };
        let commits = words.next()?.strip_prefix("commits=")?.parse().ok()?;
        let rows = words.next()?.strip_prefix("rows=")?.parse().ok()?;
        let line = Self { phase, commits, rows };
        (line.to_string() == text).then_some(line)
    }

    fn body(&self) -> String {
        let Self { phase, commits, rows } = self;
        let phase = match phase {
            Phase::Creating => "creating",
            Phase::Open => "open",
            Phase::Closed => "closed",
        };
        format!("guard-lease-store-1 {phase:<8} commits={commits:020} rows={rows:020}")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        writeln!(f, "{body} crc={:08x}", crc32fast::hash(body.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_digit_is_noticed_and_the_length_never_changes() {
        let line = Line { phase: Phase::Open, commits: 41, rows: 7 };
        let text = line.to_string();
        assert_eq!(Line::parse(&text), Some(line));
        assert_eq!(Line::parse(&text.replace("41 ", "40 ")), None);
        assert_eq!(Line::parse(&text[..text.len() - 2]), None);
        let other = Line { phase: Phase::Creating, commits: u64::MAX, rows: u64::MAX };
        assert_eq!(other.to_string().len(), text.len());
    }
}
