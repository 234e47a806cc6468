//! The reservations of CNI's `host-local` plugin: one file for each address, named by it, with the
//! container's id and the interface's name in it.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// One address that `host-local` gave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reservation {
    /// The address.
    pub address: IpAddr,
    /// The container's id.
    pub container: String,
    /// The interface within the container; empty in files of old versions.
    pub interface: String,
}

/// The reservations cannot be read; none was taken over.
#[derive(Debug, thiserror::Error)]
pub enum HostLocalError {
    /// A directory or a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A reservation without an owner.
    #[error("{} names no container; look whether one has the address, then remove the file",
        path.display())]
    NoContainer {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the directory of one network, `/var/lib/cni/networks/NAME`, in order of the addresses.
///
/// # Errors
/// Something in it cannot be read: half of the reservations would leave running containers out.
pub fn read(directory: &Path) -> Result<Vec<Reservation>, HostLocalError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| HostLocalError::Io { path, source }
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        let path = entry.map_err(io(directory))?.path();
        // Beside the reservations there are "lock" and "last_reserved_ip.N".
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(address) = name.and_then(|name| name.parse::<IpAddr>().ok()) else { continue };
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let mut lines = text.lines().map(str::trim);
        let container = lines.next().unwrap_or_default().to_owned();
        if container.is_empty() {
            return Err(HostLocalError::NoContainer { path });
        }
        let interface = lines.next().unwrap_or_default().to_owned();
        found.push(Reservation { address, container, interface });
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_plugin_writes_and_nothing_else() {
        let dir = tempfile::TempDir::new().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("10.22.0.5", "3f2a\r\neth0");
        write("10.22.0.12", "77b1");
        write("fd00::7", "3f2a\r\neth1\r\n");
        write("last_reserved_ip.0", "10.22.0.12");
        write("lock", "");
        let read_all = || read(dir.path());
        let found: Vec<_> = read_all()
            .unwrap()
            .into_iter()
            .map(|r| format!("{} {} {}", r.address, r.container, r.interface))
            .collect();
        assert_eq!(found, ["10.22.0.5 3f2a eth0", "10.22.0.12 77b1 ", "fd00::7 3f2a eth1"]);
        write("10.22.0.13", " \r\n");
        assert!(matches!(read_all(), Err(HostLocalError::NoContainer { .. })));
        assert!(read(&dir.path().join("absent")).is_err());
    }
}
