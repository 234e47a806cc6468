//! DEL and GC: what a container had, and what all that are gone had.

use guard_agent::proto::Lease;

use crate::{
    agent::patiently,
    call::Call,
    conf::{Attachment, NetConf},
    error::Error,
};

/// How many leases an error names.
const NAMED: usize = 3;

/// Releases what one interface of a container has. Nothing is as good as something.
///
/// # Errors
/// The agent is not there.
pub async fn del(conf: &NetConf, call: &Call) -> Result<(), Error> {
    let key = conf.key(&call.ifname);
    patiently(&conf.socket(), async |agent| {
        for lease in agent.leases_of(&call.container, &key).await? {
            agent.release(lease.generation).await?;
        }
        Ok(())
    })
    .await
}

/// Releases what this network's containers have that are not on the runtime's list. A list that
/// leaves out one that is in use is not believed at all.
///
/// # Errors
/// There is no list, or it contradicts the wire; then nothing is released. Or the agent is not
/// there.
pub async fn collect(conf: &NetConf) -> Result<(), Error> {
    let valid = conf.attachments()?;
    let network = conf.key("");
    patiently(&conf.socket(), async |agent| {
        let mut leases = agent.leases("").await?;
        leases.retain(|lease| is_gone(lease, &network, valid));
        let live: Vec<_> = leases.iter().filter(|lease| !lease.evidence.is_empty()).collect();
        if !live.is_empty() {
            let named: Vec<_> = live.iter().take(NAMED).map(|lease| describe(lease)).collect();
            return Err(Error::Contradiction(format!(
                "GC: the list leaves out {} container(s) whose addresses are in use, such as {}; \
                 nothing is released",
                live.len(),
                named.join(", ")
            )));
        }
        for lease in leases {
            agent.release(lease.generation).await?;
        }
        Ok(())
    })
    .await
}

fn is_gone(lease: &Lease, network: &str, valid: &[Attachment]) -> bool {
    let Some(ifname) = lease.key.strip_prefix(network) else { return false };
    !valid.iter().any(|valid| valid.container == lease.sandbox && valid.ifname == ifname)
}

fn describe(lease: &Lease) -> String {
    format!("{} ({})", lease.sandbox, lease.address)
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
        ] {
            assert_eq!(is_gone(&lease, "net/", &valid), gone, "{lease:?}");
        }
    }
}
