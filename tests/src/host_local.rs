//! `host-local`, the IPAM plugin that most CNI installations use: what guard is compared with.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::lab::{GATEWAY, Lab};
use crate::sandbox::Sandbox;

const PLUGIN: &str = "/usr/lib/cni/host-local";

/// The plugin with a range of its own, on a store in the lab's directory.
#[derive(Debug)]
pub struct HostLocal {
    config: Value,
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
        ensure!(
            Path::new(PLUGIN).is_file(),
            "{PLUGIN} is missing: install the package containernetworking-plugins"
        );
        let config = json!({
            "cniVersion": "0.4.0",
            "name": "lab",
            "ipam": { "type": "host-local", "dataDir": dir, "ranges": [[range]] },
        });
        Ok(Self { config, dir })
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
        let result: Value = serde_json::from_str(&self.call("ADD", id, netns)?)
            .context("the result of host-local")?;
        let address = result.pointer("/ips/0/address").and_then(Value::as_str);
        let address = address.and_then(|prefix| prefix.split('/').next());
        address.context("no address in the result")?.parse().context("the address in the result")
    }

    /// Releases what a sandbox has (CNI's DEL).
    ///
    /// # Errors
    /// What the plugin says.
    pub fn del(&self, sandbox: &Sandbox) -> Result<()> {
        self.call("DEL", sandbox.name(), &sandbox.netns().path()).map(drop)
    }

    /// Where it keeps its leases, a file for each.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.join("lab")
    }

    fn call(&self, command: &str, id: &str, netns: &Path) -> Result<String> {
        let mut child = Command::new(PLUGIN)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {PLUGIN}"))?;
        let mut stdin = child.stdin.take().context("a plugin without standard input")?;
        stdin.write_all(self.config.to_string().as_bytes()).context("writing to the plugin")?;
        drop(stdin);
        let output = child.wait_with_output().context("waiting for the plugin")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("host-local {command} for {id}: {}", stdout.trim());
        }
        Ok(stdout)
    }
}
