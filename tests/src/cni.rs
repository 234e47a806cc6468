//! CNI plugins, called as a runtime calls them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{command::binary, netns::Netns};

/// Where Debian puts the plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";

/// A plugin with a network configuration, on a host or where the caller is.
#[derive(Clone, Debug)]
pub struct Plugin {
    path: PathBuf,
    host: Option<Netns>,
    conf: Value,
    search: String,
}

/// What a call is about, but for the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Its namespace.
    pub netns: &'a Path,
    /// `CNI_ARGS`.
    pub args: &'a str,
}

/// The error document of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The specification's code.
    pub code: u64,
    /// Message and details.
    pub text: String,
}

impl<'a> Attachment<'a> {
    /// The `eth0` of a container.
    #[must_use]
    pub fn new(container: &'a str, netns: &'a Path) -> Self {
        Self { container, netns, args: "" }
    }
}

impl Plugin {
    /// One of Debian's.
    ///
    /// # Errors
    /// It is not installed.
    pub fn debian(name: &str, host: Option<&Netns>, conf: Value) -> Result<Self> {
        let path = Path::new(PLUGINS).join(name);
        ensure!(
            path.is_file(),
            "{} is missing: install the package containernetworking-plugins",
            path.display()
        );
        Ok(Self { path, host: host.cloned(), conf, search: PLUGINS.to_owned() })
    }

    /// `guard-ipam`.
    ///
    /// # Errors
    /// It is not built.
    pub fn guard_ipam(host: Option<&Netns>, conf: Value) -> Result<Self> {
        let (path, search) = (binary("guard-ipam")?, PLUGINS.to_owned());
        Ok(Self { path, host: host.cloned(), conf, search })
    }

    /// So that it finds `guard-ipam` when it delegates to it.
    ///
    /// # Errors
    /// As [`Plugin::guard_ipam`].
    pub fn beside_ours(mut self) -> Result<Self> {
        let ours = binary("guard-ipam")?;
        let dir = ours.parent().context("the directory of guard-ipam")?;
        self.search = format!("{PLUGINS}:{}", dir.display());
        Ok(self)
    }

    /// The same plugin with something else in its configuration.
    #[must_use]
    pub fn with(&self, key: &str, value: Value) -> Self {
        let mut plugin = self.clone();
        plugin.conf[key] = value;
        plugin
    }

    /// Calls it, and returns what it prints: `null` for nothing.
    ///
    /// # Errors
    /// It cannot be run. A refusal is in what is returned.
    pub fn call(&self, command: &str, of: Attachment<'_>) -> Result<Result<Value, Refused>> {
        self.call_with(&self.conf.to_string(), command, of)
    }

    /// As [`Plugin::call`], with this for its configuration.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn call_with(
        &self,
        conf: &str,
        command: &str,
        of: Attachment<'_>,
    ) -> Result<Result<Value, Refused>> {
        let Attachment { container, netns, args } = of;
        let process = self.host.as_ref().map(|host| host.command(&self.path));
        let mut process = process.unwrap_or_else(|| Command::new(&self.path));
        let mut child = process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args)
            .env("CNI_PATH", &self.search)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        let mut stdin = child.stdin.take().context("a plugin without standard input")?;
        stdin.write_all(conf.as_bytes()).context("writing to the plugin")?;
        drop(stdin);
        let output = child.wait_with_output().context("waiting for the plugin")?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let document = match stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)
                .with_context(|| format!("{command} printed {text:?}, and {stderr:?}"))?,
        };
        if output.status.success() {
            return Ok(Ok(document));
        }
        let Some(code) = document["code"].as_u64() else {
            bail!("{command}: {}: {stdout} {stderr}", output.status);
        };
        let text = |key: &str| document[key].as_str().unwrap_or_default();
        Ok(Err(Refused { code, text: format!("{}: {}", text("msg"), text("details")) }))
    }

    /// Calls it for something that it is to do.
    ///
    /// # Errors
    /// It refuses.
    pub fn done(&self, command: &str, of: Attachment<'_>) -> Result<Value> {
        match self.call(command, of)? {
            Ok(document) => Ok(document),
            Err(Refused { code, text }) => bail!("{command} for {}: {code}: {text}", of.container),
        }
    }
}
