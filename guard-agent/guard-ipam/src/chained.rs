//! Behind a plugin that makes interfaces: the port and the MAC that it made are declared, so that
//! another claimant is a conflict at its first frame.

use guard_api::proto::{BindRequest, Lease, Outcome};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    agent::{Agent, with_retry},
    call::Call,
    conf::NetConf,
    error::Error,
};

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
}

/// What the plugin before us made.
#[derive(Debug, Deserialize)]
struct Previous {
    #[serde(default)]
    interfaces: Vec<Interface>,
}

/// One veth: its MAC in the container, and its name on the host.
#[derive(Debug, PartialEq, Eq)]
struct Veth {
    mac: String,
    port: String,
}

impl Previous {
    fn read(document: &Value) -> Result<Self, Error> {
        if document.is_null() {
            let why = "there is no prevResult to bind, and no ipam to allocate with";
            return Err(Error::Chain(why.to_owned()));
        }
        Ok(Self::deserialize(document)?)
    }
}

/// Binds the container's leases to the veth of `previous`.
///
/// # Errors
/// `previous` has no veth, the container no lease, or the agent refuses.
pub(crate) async fn bind(conf: &NetConf, previous: &Value, call: &Call) -> Result<(), Error> {
    let previous = Previous::read(previous)?;
    with_retry(&conf.socket(), async |agent| {
        let mut failed = Vec::new();
        for (lease, veth) in pairs(&agent, conf, &previous, call).await? {
            let Veth { mac, port } = veth;
            let request = BindRequest { generation: lease.generation, mac, interface: port };
            match agent.bind(request).await {
                Ok(Outcome::Done) => {}
                Ok(_) => failed.push(Error::Chain(format!(
                    "the lease of {} has ended before it was bound",
                    lease.address
                ))),
                Err(error) => failed.push(error.into()),
            }
        }
        Error::all(failed)
    })
    .await
}

/// Whether the leases are bound as [`bind`] left them.
///
/// # Errors
/// They are not.
pub(crate) async fn check(conf: &NetConf, previous: &Value, call: &Call) -> Result<(), Error> {
    let previous = Previous::read(previous)?;
    with_retry(&conf.socket(), async |agent| {
        let mut wrong = Vec::new();
        for (lease, veth) in pairs(&agent, conf, &previous, call).await? {
            if (lease.mac.as_str(), &lease.interface) != (&veth.mac, &veth.port) {
                wrong.push(Error::Check(format!(
                    "{} is bound to {:?} on {:?}, and the container has {:?} on {:?}",
                    lease.address, lease.mac, lease.interface, veth.mac, veth.port
                )));
            }
        }
        Error::all(wrong)
    })
    .await
}

async fn pairs(
    agent: &Agent,
    conf: &NetConf,
    previous: &Previous,
    call: &Call,
) -> Result<Vec<(Lease, Veth)>, Error> {
    let key = conf.key(&call.ifname);
    let leases = agent.leases_of(&call.container, conf, &call.ifname).await?;
    if leases.is_empty() {
        return Err(Error::Chain(format!(
            "container {:?} has no lease for {key:?}: make guard-ipam the ipam of this network too",
            call.container
        )));
    }
    let pair = |lease: Lease| Ok((veth(previous, &call.ifname, &lease.bridge)?, lease));
    let pairs: Result<Vec<_>, Error> = leases.into_iter().map(pair).collect();
    Ok(pairs?.into_iter().map(|(veth, lease)| (lease, veth)).collect())
}

/// The container's interface, and the one that is left on the host once the bridge is set aside.
fn veth(previous: &Previous, ifname: &str, bridge: &str) -> Result<Veth, Error> {
    let inside = previous.interfaces.iter().find(|i| !i.sandbox.is_empty() && i.name == ifname);
    let mut outside = previous.interfaces.iter().filter(|i| i.sandbox.is_empty());
    let port = outside.by_ref().find(|i| i.name != bridge);
    let another = outside.find(|i| i.name != bridge);
    match (inside, port, another) {
        (Some(inside), Some(port), None) => {
            Ok(Veth { mac: inside.mac.to_lowercase(), port: port.name.clone() })
        }
        _ => Err(Error::Chain(format!(
            "prevResult does not tell {ifname:?}'s veth: it must name one interface in the \
             container and one on the host besides bridge {bridge:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_veth_is_what_the_bridge_plugin_says() {
        let of = |interfaces: Value| {
            let previous = Previous::deserialize(json!({ "interfaces": interfaces })).unwrap();
            veth(&previous, "eth0", "rt0")
        };
        let bridge = json!({ "name": "rt0", "mac": "02:b0:00:00:00:01" });
        let host = json!({ "name": "veth1a2b", "mac": "02:00:00:00:00:99" });
        let inside =
            json!({ "name": "eth0", "mac": "02:00:00:00:00:0A", "sandbox": "/run/netns/a" });
        let veth = of(json!([bridge, host, inside])).unwrap();
        assert_eq!(veth, Veth { mac: "02:00:00:00:00:0a".into(), port: "veth1a2b".into() });
        for incomplete in [json!([]), json!([bridge, host]), json!([bridge, inside])] {
            assert!(matches!(of(incomplete), Err(Error::Chain(_))));
        }
        assert!(matches!(of(json!([host, { "name": "tap0" }, inside])), Err(Error::Chain(_))));
    }
}
