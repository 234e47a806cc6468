//! `ctr run --cni`: containerd's own client as the runtime that calls the plugins.
//!
//! It reads `/etc/cni/net.d` and `/opt/cni/bin` and nothing else, so that it runs in a mount
//! namespace of its own, where both are the lab's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    cni::PLUGINS,
    command::{binary, output},
    containerd::{Containerd, SLEEP},
    lab::Lab,
    netns::Netns,
};

const MOUNT: &str = "mount --bind \"$0\" /opt; mount --bind \"$1\" /etc; shift; exec ctr \"$@\"";

/// A containerd whose containers `ctr` connects to one network.
#[derive(Debug)]
pub struct CtrCni<'a> {
    containerd: &'a Containerd,
    host: Netns,
    etc: PathBuf,
    opt: PathBuf,
}

impl Lab {
    /// A network for the containers of `containerd`, by its configuration.
    ///
    /// # Errors
    /// `guard-ipam` is not built.
    pub fn ctr_cni<'a>(&self, containerd: &'a Containerd, conf: &Value) -> Result<CtrCni<'a>> {
        let (etc, opt) = (containerd.dir().join("etc"), containerd.dir().join("opt"));
        let (networks, plugins) = (etc.join("cni/net.d"), opt.join("cni/bin"));
        for dir in [&networks, &plugins] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        fs::write(networks.join("10-net.conf"), conf.to_string()).context("the network")?;
        symlink(binary("guard-ipam")?, plugins.join("guard-ipam")).context("guard-ipam")?;
        symlink(Path::new(PLUGINS).join("bridge"), plugins.join("bridge")).context("bridge")?;
        Ok(CtrCni { containerd, host: self.host().clone(), etc, opt })
    }
}

impl CtrCni<'_> {
    /// Runs a container to its end, which is at once: `ctr` calls ADD before and DEL after it.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn run(&self, id: &str) -> Result<()> {
        self.ctr(id, &["--rm"], &["true"])
    }

    /// Starts a container that goes on. `ctr` will never call DEL for it.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn start(&self, id: &str) -> Result<()> {
        self.containerd.remember(id);
        self.ctr(id, &["--detach"], SLEEP)?;
        self.containerd.reap(id)
    }

    /// What `ctr` calls a container when it calls a plugin.
    #[must_use]
    pub fn container_id(&self, id: &str) -> String {
        format!("{}-{id}", self.containerd.namespace())
    }

    fn ctr(&self, id: &str, options: &[&str], words: &[&str]) -> Result<()> {
        let mut command = self.host.command("unshare");
        command.args(["--mount", "sh", "-e", "-c", MOUNT]).arg(&self.opt).arg(&self.etc);
        let mut options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        options.push("--cni".to_owned());
        let mut command: Command = self.containerd.command(command);
        command.args(self.containerd.run_args(id, &options, words)).stdin(Stdio::null());
        output(&mut command).map(drop)
    }
}
