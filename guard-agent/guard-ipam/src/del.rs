//! DEL and GC: release what one container had, and what all that are gone had.

use guard_api::{client::CallError, proto::Lease};

use crate::{
    agent::{Agent, with_retry},
    call::Call,
    conf::{Attachment, NetConf},
    error::Error,
};

/// Releases what one interface of a container has. Idempotent: it may have nothing.
///
/// # Errors
/// The agent is not there, or refuses some of it; the rest is released.
pub(crate) async fn del(conf: &NetConf, call: &Call) -> Result<(), Error> {
    with_retry(&conf.socket(), async |agent| {
        let leases = agent.leases_of(&call.container, conf, &call.ifname).await?;
        release(&agent, leases, false).await
    })
    .await
}

/// Releases what this network's containers have that are not on the runtime's list. One that is
/// still in use is left as it is: a runtime that lost its state has a list without it.
///
/// # Errors
/// There is no list; then nothing is released. Containers that it leaves out are in use; then the
/// others are. Or the agent is not there.
pub(crate) async fn collect(conf: &NetConf) -> Result<(), Error> {
    let valid = conf.attachments()?;
    let network = conf.key("");
    with_retry(&conf.socket(), async |agent| {
        let mut leases = agent.leases("").await?;
        leases.retain(|lease| is_gone(lease, &network, valid));
        release(&agent, leases, true).await
    })
    .await
}

/// Releases what can be released, and then says what could not.
async fn release(agent: &Agent, leases: Vec<Lease>, only_if_gone: bool) -> Result<(), Error> {
    let mut kept = Vec::new();
    for Lease { sandbox, address, generation, .. } in leases {
        match agent.release(generation, only_if_gone).await {
            Ok(()) => {}
            Err(why @ CallError::Refused(_)) => {
                kept.push(Error::Kept { container: sandbox, address, why: Box::new(why) });
            }
            // The next call would fare no better.
            Err(error) => return Err(error.into()),
        }
    }
    Error::all(kept)
}

fn is_gone(lease: &Lease, network: &str, valid: &[Attachment]) -> bool {
    let Some(ifname) = lease.key.strip_prefix(network) else { return false };
    let is_it = |valid: &Attachment| {
        valid.container == lease.sandbox && (valid.ifname == ifname || ifname.is_empty())
    };
    !valid.iter().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gc_touches_its_own_network_only() {
        let lease = |sandbox: &str, key: &str| Lease {
            sandbox: sandbox.to_owned(),
            key: key.to_owned(),
            ..Lease::default()
        };
        let valid = [Attachment { container: "a".into(), ifname: "eth0".into() }];
        for (lease, gone) in [
            (lease("a", "net/eth0"), false),
            (lease("a", "net/eth1"), true),
            (lease("b", "net/eth0"), true),
            (lease("b", "net2/eth0"), false),
            (lease("b", ""), false),
            (lease("a", "net/"), false),
            (lease("b", "net/"), true),
        ] {
            assert_eq!(is_gone(&lease, "net/", &valid), gone, "{lease:?}");
        }
    }
}
