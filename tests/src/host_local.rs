//! `host-local`, the IPAM plugin that most CNI installations use: what guard is compared with.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    cni::{Attachment, Plugin},
    lab::{GATEWAY, Lab},
    sandbox::Sandbox,
};

/// The plugin with a range of its own, on a store in the lab's directory.
#[derive(Debug)]
pub struct HostLocal {
    plugin: Plugin,
    dir: PathBuf,
}

impl HostLocal {
    /// With a range of just this one address.
    ///
    /// # Errors
    /// The plugin is not installed.
    pub fn with_one_address(lab: &Lab, address: Ipv4Addr) -> Result<Self> {
        let range = json!({
            "subnet": lab.prefix().trunc().to_string(),
            "rangeStart": address,
            "rangeEnd": address,
            "gateway": GATEWAY,
        });
        Self::with_range(&range, lab.dir().join("host-local"))
    }

    /// With all of the lab's prefix, and its leases in `dir`.
    ///
    /// # Errors
    /// The plugin is not installed.
    pub fn with_prefix(lab: &Lab, dir: &Path) -> Result<Self> {
        let range = json!({ "subnet": lab.prefix().trunc().to_string(), "gateway": GATEWAY });
        Self::with_range(&range, dir.to_owned())
    }

    fn with_range(range: &Value, dir: PathBuf) -> Result<Self> {
        let conf = json!({
            "cniVersion": "0.4.0",
            "name": "lab",
            "ipam": { "type": "host-local", "dataDir": dir, "ranges": [[range]] },
        });
        Ok(Self { plugin: Plugin::debian("host-local", None, conf)?, dir })
    }

    /// The plugin itself.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Allocates an address for a sandbox (CNI's ADD).
    ///
    /// # Errors
    /// What the plugin says.
    pub fn add(&self, sandbox: &Sandbox) -> Result<Ipv4Addr> {
        self.add_container(sandbox.name(), &sandbox.netns().path())
    }

    /// Allocates an address for a container; the plugin only passes its namespace's path on.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn add_container(&self, id: &str, netns: &Path) -> Result<Ipv4Addr> {
        let result = self.plugin.done("ADD", Attachment::new(id, netns))?;
        let address = result.pointer("/ips/0/address").and_then(Value::as_str);
        let address = address.and_then(|prefix| prefix.split('/').next());
        address.context("no address in the result")?.parse().context("the address in the result")
    }

    /// Releases what a sandbox has (CNI's DEL).
    ///
    /// # Errors
    /// What the plugin says.
    pub fn del(&self, sandbox: &Sandbox) -> Result<()> {
        let netns = sandbox.netns().path();
        self.plugin.done("DEL", Attachment::new(sandbox.name(), &netns)).map(drop)
    }

    /// Where it keeps its leases, a file for each.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.join("lab")
    }
}
