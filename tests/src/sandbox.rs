//! A sandbox: a namespace behind a port of the bridge.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::{
    frame::{Arp, Mac},
    netns::Netns,
    raw_socket::RawSocket,
};

/// How the host's side of a sandbox's veth is called and numbered.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its ifindex, where it is not left to the kernel. Numbers repeat in real life too: a device that
    /// was made in another namespace keeps its own where that is free.
    pub number: Option<u32>,
}

/// A namespace whose `eth0` is a port of a bridge of its lab. Dropping it does nothing: like a
/// real one it runs until somebody removes it, or its lab goes.
#[derive(Clone, Debug)]
pub struct Sandbox {
    netns: Netns,
    host: Netns,
    name: String,
    port: String,
    mac: Mac,
    prefix_len: u8,
}

impl Sandbox {
    pub(crate) fn create(
        netns: Netns,
        host: Netns,
        name: &str,
        bridge: &str,
        mac: Mac,
        prefix_len: u8,
        port: &Port,
    ) -> Result<Self> {
        let Port { name: port, number } = port;
        let index = number.map(|number| format!("index {number}")).unwrap_or_default();
        host.ip(&format!(
            "link add {port} {index} type veth peer name eth0 netns {} address {mac}\n\
             link set {port} master {bridge} up",
            netns.name()
        ))?;
        netns.ip("link set eth0 up")?;
        Ok(Self { netns, host, name: name.to_owned(), port: port.clone(), mac, prefix_len })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's side of its veth.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The MAC of its `eth0`.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Gives its `eth0` an address of the lab's prefix. No frame is sent.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add_address(&self, address: Ipv4Addr) -> Result<()> {
        self.netns.ip(&format!("address add {address}/{} dev eth0", self.prefix_len))
    }

    /// A socket for raw frames on its `eth0`.
    ///
    /// # Errors
    /// The sandbox is gone.
    pub fn raw_socket(&self) -> Result<RawSocket> {
        RawSocket::open(&self.netns, "eth0")
    }

    /// Says that `address` is here, as a starting sandbox does (RFC 5227 §2.3).
    ///
    /// # Errors
    /// The sandbox is gone.
    pub fn announce(&self, address: Ipv4Addr) -> Result<()> {
        self.raw_socket()?.send(&Arp::announcement(self.mac, address).frame())
    }

    /// Asks who has `target`, as the holder of `address`.
    ///
    /// # Errors
    /// The sandbox is gone.
    pub fn ask(&self, address: Ipv4Addr, target: Ipv4Addr) -> Result<()> {
        self.raw_socket()?.send(&Arp::request(self.mac, address, target).frame())
    }

    /// Removes its port, as a runtime does that removes the sandbox, and then its namespace.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn delete(self) -> Result<()> {
        // The port first: a socket that is still open would keep the namespace, and the port with
        // it.
        self.host.ip(&format!("link delete {}", self.port))?;
        self.netns.delete()
    }
}
