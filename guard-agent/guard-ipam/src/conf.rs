//! The network configuration, as far as it concerns us. Keys of other plugins are none of ours.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{VERSIONS, error::Error};

/// Where the agent listens, unless the configuration says otherwise.
const SOCKET: &str = "/run/guard/guard.sock";

/// How a configuration names us.
const PLUGIN: &str = "guard-ipam";

static NOTHING: Value = Value::Null;

/// A network.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetConf {
    /// The version that it is written in, one of those that are spoken here.
    #[serde(skip)]
    pub cni_version: String,
    /// Leases are told apart by it.
    pub name: String,
    /// Which plugin is called, perhaps with us as its `ipam`.
    #[serde(rename = "type")]
    plugin: String,
    /// The bridge of the plugin `bridge`.
    #[serde(default)]
    pub bridge: Option<String>,
    /// Where the agent listens, for us as a chained plugin.
    #[serde(default)]
    socket: Option<PathBuf>,
    #[serde(default)]
    ipam: Option<Ipam>,
    /// What the plugin before us made.
    #[serde(default)]
    pub prev_result: Option<Value>,
    /// What one container asks for, by convention.
    #[serde(default, deserialize_with = "or_nothing")]
    pub args: Args,
    /// What the runtime asks for, by capability.
    #[serde(default, deserialize_with = "or_nothing")]
    pub runtime_config: Wishes,
    /// GC: all that is there.
    #[serde(default, rename = "cni.dev/valid-attachments", deserialize_with = "or_none_in_it")]
    valid_attachments: Option<Vec<Attachment>>,
    /// As above; the name that the specification's text has.
    #[serde(default, rename = "cni.dev/attachments", deserialize_with = "or_none_in_it")]
    attachments: Option<Vec<Attachment>>,
}

/// `ipam`: our own part. It takes what `host-local` takes, except that the pool decides.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ipam {
    #[serde(default, rename = "type")]
    plugin: String,
    #[serde(default)]
    socket: Option<PathBuf>,
    /// One pool of the agent.
    #[serde(default)]
    pool: Option<String>,
    /// Several, an address from each.
    #[serde(default, deserialize_with = "or_nothing")]
    pools: Vec<String>,
    /// An address from each set.
    #[serde(default, deserialize_with = "or_nothing")]
    ranges: Vec<Vec<Range>>,
    /// One range, as it was written before there were sets.
    #[serde(default)]
    subnet: Option<IpNet>,
    #[serde(default)]
    range_start: Option<std::net::IpAddr>,
    #[serde(default)]
    range_end: Option<std::net::IpAddr>,
    #[serde(default)]
    gateway: Option<std::net::IpAddr>,
    /// Passed on.
    #[serde(default, deserialize_with = "or_nothing")]
    pub routes: Vec<Value>,
    /// A file in the format of `resolv.conf`, passed on as `dns`.
    #[serde(default)]
    pub resolv_conf: Option<PathBuf>,
}

/// A piece of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Range {
    /// The subnet that a pool has as its prefix.
    pub subnet: IpNet,
    /// The first address to be given.
    #[serde(default)]
    pub range_start: Option<std::net::IpAddr>,
    /// The last one.
    #[serde(default)]
    pub range_end: Option<std::net::IpAddr>,
    /// Which must be the pool's.
    #[serde(default)]
    pub gateway: Option<std::net::IpAddr>,
}

/// `args`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Args {
    /// Ours and other plugins'.
    #[serde(default, deserialize_with = "or_nothing")]
    pub cni: Wishes,
}

/// What a container may ask for.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wishes {
    /// Addresses, with or without the length of their prefix.
    #[serde(default, deserialize_with = "or_nothing")]
    pub ips: Vec<String>,
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Attachment {
    /// The container's id.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface's name in it.
    pub ifname: String,
}

/// What we are in this network.
#[derive(Debug)]
pub(crate) enum Role<'a> {
    /// Allocator.
    Ipam(&'a Ipam),
    /// Behind another plugin, with its result.
    Chained(&'a Value),
}

/// The version that a document names, whatever else is in it.
pub(crate) fn version_of(text: &str) -> Option<String> {
    let document: Value = serde_json::from_str(text).ok()?;
    document.get("cniVersion").and_then(Value::as_str).map(str::to_owned)
}

/// `null` is read as nothing: Go writes it for an empty list.
fn or_nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// As [`or_nothing`], where a list that is missing is something else than one with nothing in it.
fn or_none_in_it<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<Option<T>, D::Error> {
    or_nothing(value).map(Some)
}

impl NetConf {
    /// Reads it. `version` becomes its version as soon as that is known, for the result.
    ///
    /// # Errors
    /// Not JSON, a version that is not spoken here, or a value of the wrong kind.
    pub(crate) fn parse(text: &str, version: &mut String) -> Result<Self, Error> {
        let document: Value = serde_json::from_str(text)?;
        // CNI specification: a missing one means 0.1.0.
        let asked = document.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0");
        if !VERSIONS.contains(&asked) {
            return Err(Error::Version { asked: asked.to_owned() });
        }
        asked.clone_into(version);
        let asked = asked.to_owned();
        let mut conf: Self = serde_json::from_value(document)?;
        conf.cni_version = asked;
        let odd = |byte: u8| !byte.is_ascii_alphanumeric() && !b"_.-".contains(&byte);
        if conf.name.is_empty() || conf.name.len() > 200 || conf.name.bytes().any(odd) {
            return Err(Error::Conf(format!(
                "name {:?} is not a network's: letters, digits, '_', '.' and '-'",
                conf.name
            )));
        }
        if let Some(ipam) = &mut conf.ipam
            && let Some(subnet) = ipam.subnet.take()
        {
            let (range_start, range_end) = (ipam.range_start, ipam.range_end);
            ipam.ranges
                .insert(0, vec![Range { subnet, range_start, range_end, gateway: ipam.gateway }]);
        }
        Ok(conf)
    }

    /// Whether we allocate, or bind what the plugin before us made.
    ///
    /// # Errors
    /// Neither: the configuration does not name us where it should.
    pub(crate) fn role(&self) -> Result<Role<'_>, Error> {
        match (&self.ipam, &self.prev_result) {
            (_, Some(previous)) if self.plugin == PLUGIN => Ok(Role::Chained(previous)),
            (Some(ipam), _) if ipam.plugin == PLUGIN => Ok(Role::Ipam(ipam)),
            // What it is to bind is missing, which matters to ADD and CHECK alone.
            _ if self.plugin == PLUGIN => Ok(Role::Chained(&NOTHING)),
            _ => Err(Error::Conf(format!("neither type nor ipam.type is {PLUGIN:?}"))),
        }
    }

    /// Where the agent listens.
    pub(crate) fn socket(&self) -> PathBuf {
        let ipam = self.ipam.as_ref().and_then(|ipam| ipam.socket.clone());
        ipam.or_else(|| self.socket.clone()).unwrap_or_else(|| SOCKET.into())
    }

    /// The key of a lease for this interface.
    pub(crate) fn key(&self, ifname: &str) -> String {
        format!("{}/{ifname}", self.name)
    }

    /// GC's list.
    ///
    /// # Errors
    /// There is none: without a list nothing can be said to be gone.
    pub(crate) fn attachments(&self) -> Result<&[Attachment], Error> {
        let list = self.valid_attachments.as_deref().or(self.attachments.as_deref());
        list.ok_or_else(|| Error::Conf("GC without \"cni.dev/valid-attachments\"".to_owned()))
    }
}

impl Ipam {
    /// The pools that are named.
    pub(crate) fn pools(&self) -> Vec<String> {
        self.pool.iter().chain(&self.pools).cloned().collect()
    }

    /// The sets of ranges.
    pub(crate) fn ranges(&self) -> &[Vec<Range>] {
        &self.ranges
    }
}
