//! The modes of ports, in a file of the state directory.

use std::{
    collections::BTreeMap,
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

use super::PortMode;

/// The file's name.
const NAME: &str = "port-modes.json";

/// One port's.
#[derive(Deserialize, Serialize)]
struct Row {
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
        for Row { bridge, port, mode, until } in serde_json::from_str::<Vec<Row>>(&text)? {
            let until = until.map(Timestamp::from_second).transpose().map_err(io::Error::other)?;
            overrides.set(&bridge, &port, Some(Override { mode, until }));
        }
        Ok(overrides)
    }

    /// Gives a port a mode of its own, or its bridge's.
    ///
    /// # Errors
    /// It cannot be stored, and nothing is changed.
    pub(super) fn set(
        &mut self,
        bridge: &Arc<str>,
        port: &Arc<str>,
        mode: Option<Override>,
    ) -> io::Result<()> {
        let mut new = self.overrides.clone();
        new.set(bridge, port, mode);
        self.store(&new)?;
        self.overrides = new;
        Ok(())
    }

    /// Removes those whose time is over, and returns where they were.
    ///
    /// # Errors
    /// That cannot be stored; they are over all the same.
    pub(super) fn expire(&mut self, now: Timestamp) -> io::Result<Vec<(Arc<str>, Arc<str>)>> {
        let over = self.overrides.expire(now);
        if !over.is_empty() {
            self.store(&self.overrides)?;
        }
        Ok(over)
    }

    /// The ports of a bridge that have one.
    pub(super) fn on(&self, bridge: &str) -> Vec<PortMode> {
        self.overrides.on(bridge).map(|(port, entry)| (port.clone(), entry)).collect()
    }

    /// All modes, by bridge and port.
    pub(super) fn modes(&self) -> BTreeMap<(Arc<str>, Arc<str>), Mode> {
        self.overrides.iter().map(|(place, entry)| (place.clone(), entry.mode)).collect()
    }

    /// Writes another file and puts it in the place of the one before.
    fn store(&self, overrides: &Overrides) -> io::Result<()> {
        let row = |((bridge, port), entry): (&(Arc<str>, Arc<str>), Override)| Row {
            bridge: bridge.clone(),
            port: port.clone(),
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
        let (bridge, port) = (Arc::from("rt0"), Arc::from("veth-a"));
        let mut file = OverridesFile::open(dir.path()).unwrap();
        let until = Timestamp::from_second(100).ok();
        file.set(&bridge, &port, Some(Override { mode: Mode::Enforce, until })).unwrap();
        let mut file = OverridesFile::open(dir.path()).unwrap();
        assert_eq!(file.on("rt0"), [(port.clone(), Override { mode: Mode::Enforce, until })]);
        assert_eq!(file.expire(Timestamp::from_second(100).unwrap()).unwrap().len(), 1);
        assert_eq!(OverridesFile::open(dir.path()).unwrap().modes(), BTreeMap::new());
    }

    #[test]
    fn a_file_that_cannot_be_read_counts_as_empty_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "[{\"bridge\": 3}]").unwrap();
        let (file, error) = OverridesFile::open(dir.path()).unwrap_err();
        assert!(file.modes().is_empty() && error.to_string().contains("invalid type"), "{error}");
    }
}
