//! The modes of ports, in a file of the state directory.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use guard_api::files;
use guard_core::{
    bounds,
    enforcement::{Mode, Override, Overrides},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The file's name.
const NAME: &str = "port-modes.json";

/// One port's.
#[derive(Deserialize, Serialize)]
struct Row {
    ifindex: u32,
    bridge: Arc<str>,
    port: Arc<str>,
    mode: Mode,
    /// In seconds since 1970; `null`: until it is changed.
    until: Option<i64>,
}

/// The modes of ports. What is in memory is in the file.
#[derive(Debug)]
pub(super) struct OverridesFile {
    path: PathBuf,
    overrides: Overrides,
}

impl OverridesFile {
    /// Reads the file; where there is none, no port has a mode of its own.
    ///
    /// # Errors
    /// It cannot be read, and counts as empty.
    pub(super) fn open(state_dir: &Path) -> Result<Self, (Self, io::Error)> {
        let path = state_dir.join(NAME);
        let mut opened = Self { path, overrides: Overrides::default() };
        match opened.read() {
            Ok(overrides) => {
                opened.overrides = overrides;
                Ok(opened)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(opened),
            Err(error) => Err((opened, error)),
        }
    }

    fn read(&self) -> io::Result<Overrides> {
        let text = files::read_regular(&self.path, bounds::CONFIGURATION)?;
        let mut overrides = Overrides::default();
        for row in serde_json::from_str::<Vec<Row>>(&text)? {
            let Row { ifindex, bridge, port, mode, until } = row;
            let until = until.map(Timestamp::from_second).transpose().map_err(io::Error::other)?;
            overrides.set(ifindex, Some(Override { bridge, port, mode, until }));
        }
        Ok(overrides)
    }

    /// Gives a port a mode of its own, or its bridge's.
    ///
    /// # Errors
    /// It cannot be stored, and nothing is changed.
    pub(super) fn set(&mut self, ifindex: u32, mode: Option<Override>) -> io::Result<()> {
        let mut new = self.overrides.clone();
        new.set(ifindex, mode);
        self.store(&new)?;
        self.overrides = new;
        Ok(())
    }

    /// Removes those whose time or whose port is over, and returns them, and whether that is stored: they
    /// are over all the same.
    pub(super) fn expire(
        &mut self,
        now: Timestamp,
        has_ended: impl Fn(u32) -> bool,
    ) -> (Vec<(u32, Override)>, io::Result<()>) {
        let over = self.overrides.expire(now, has_ended);
        let stored = if over.is_empty() { Ok(()) } else { self.store(&self.overrides) };
        (over, stored)
    }

    /// All of them, by ifindex.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Override)> {
        self.overrides.iter()
    }

    /// Writes another file and puts it in the place of the one before.
    fn store(&self, overrides: &Overrides) -> io::Result<()> {
        let row = |(ifindex, entry): (u32, &Override)| Row {
            ifindex,
            bridge: entry.bridge.clone(),
            port: entry.port.clone(),
            mode: entry.mode,
            until: entry.until.map(Timestamp::as_second),
        };
        let rows: Vec<_> = overrides.iter().map(row).collect();
        let new = self.path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(&rows)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_there_at_the_next_start_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = OverridesFile::open(dir.path()).unwrap();
        let until = Timestamp::from_second(100).ok();
        let (bridge, port) = (Arc::from("rt0"), Arc::from("veth-a"));
        let own = Override { bridge, port, mode: Mode::Enforce, until };
        file.set(7, Some(own.clone())).unwrap();
        let mut file = OverridesFile::open(dir.path()).unwrap();
        assert_eq!(file.iter().collect::<Vec<_>>(), [(7, &own)]);
        let (over, stored) = file.expire(Timestamp::from_second(100).unwrap(), |_| false);
        assert_eq!((over, stored.is_ok()), (vec![(7, own)], true));
        assert_eq!(OverridesFile::open(dir.path()).unwrap().iter().count(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_read_counts_as_empty_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "[{\"bridge\": 3}]").unwrap();
        let (file, error) = OverridesFile::open(dir.path()).unwrap_err();
        assert!(
            file.iter().next().is_none() && error.to_string().contains("invalid type"),
            "{error}"
        );
    }
}
