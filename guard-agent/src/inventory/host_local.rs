//! The reservations of CNI's `host-local` plugin: one file for each address, named by it, with the
//! container's id and the interface's name in it.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use guard_api::bounds;

use crate::regular;

/// One address that `host-local` gave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reservation {
    /// The address.
    pub address: IpAddr,
    /// The container's id.
    pub container: String,
    /// The interface within the container; empty in files of old versions.
    pub interface: String,
    /// The network's name, which `host-local` has its directory by.
    pub network: String,
}

impl Reservation {
    /// The key that `guard-ipam` looks for the lease by, so that DEL and GC find it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.network, self.interface)
    }
}

/// The reservations cannot be read; none was taken over.
#[derive(Debug, thiserror::Error)]
pub enum HostLocalError {
    /// A directory or a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The last part of the path is not the name of a network.
    #[error("{} is not named after a network; name /var/lib/cni/networks/NETWORK", path.display())]
    NoNetwork {
        /// The directory.
        path: PathBuf,
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
    let network = directory.file_name().and_then(|name| name.to_str());
    let network = network.ok_or(HostLocalError::NoNetwork { path: directory.to_owned() })?;
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(io(directory))? {
        let path = entry.map_err(io(directory))?.path();
        // Beside the reservations there are "lock" and "last_reserved_ip.N".
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(address) = name.and_then(|name| name.parse::<IpAddr>().ok()) else { continue };
        let text = regular::read_text(&path, bounds::RESERVATION).map_err(io(&path))?;
        let mut lines = text.lines().map(str::trim);
        let container = lines.next().unwrap_or_default().to_owned();
        if container.is_empty() {
            return Err(HostLocalError::NoContainer { path });
        }
        let interface = lines.next().unwrap_or_default().to_owned();
        let many = bounds::RESERVATIONS.check("the directory", found.len() + 1);
        many.map_err(|many| io(directory)(io::Error::other(many)))?;
        found.push(Reservation { address, container, interface, network: network.to_owned() });
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
        let net = dir.path().join("net");
        fs::create_dir(&net).unwrap();
        let write = |name: &str, text: &str| fs::write(net.join(name), text).unwrap();
        write("10.22.0.5", "3f2a\r\neth0");
        write("10.22.0.12", "77b1");
        write("fd00::7", "3f2a\r\neth1\r\n");
        write("last_reserved_ip.0", "10.22.0.12");
        write("lock", "");
        let read_all = || read(&net);
        let found: Vec<_> = read_all()
            .unwrap()
            .into_iter()
            .map(|r| format!("{} {} {}", r.address, r.container, r.key()))
            .collect();
        let all = ["10.22.0.5 3f2a net/eth0", "10.22.0.12 77b1 net/", "fd00::7 3f2a net/eth1"];
        assert_eq!(found, all);
        write("10.22.0.13", " \r\n");
        assert!(matches!(read_all(), Err(HostLocalError::NoContainer { .. })));
        assert!(read(&dir.path().join("absent")).is_err());
        assert!(matches!(read(&net.join("..")), Err(HostLocalError::NoNetwork { .. })));
    }
}
