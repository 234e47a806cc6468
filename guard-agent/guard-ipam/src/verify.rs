//! CHECK and STATUS: nothing is changed.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{
    agent::{Agent, with_retry},
    call::Call,
    choice,
    conf::{NetConf, Role},
    error::Error,
};

#[derive(Debug, Deserialize)]
struct Previous {
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: String,
}

/// Whether a container has the leases that ADD's result shows.
///
/// # Errors
/// It does not.
pub(crate) async fn check(conf: &NetConf, call: &Call) -> Result<(), Error> {
    let Some(previous) = &conf.prev_result else {
        return Err(Error::Conf("CHECK without prevResult".to_owned()));
    };
    let shown: BTreeSet<_> =
        Previous::deserialize(previous)?.ips.into_iter().map(|ip| ip.address).collect();
    let key = conf.key(&call.ifname);
    with_retry(&conf.socket(), async |agent| {
        let leases = agent.leases_of(&call.container, conf, &call.ifname).await?;
        if leases.is_empty() {
            return Err(Error::Check(format!(
                "container {:?} has no lease for {key:?}",
                call.container
            )));
        }
        // Another plugin may have added addresses of its own.
        for lease in leases {
            let leased = format!("{}/{}", lease.address, lease.prefix_len);
            if !shown.contains(&leased) {
                return Err(Error::Check(format!("{leased} is leased, and not in prevResult")));
            }
        }
        Ok(())
    })
    .await
}

/// Whether ADD could work now. It does not wait: the runtime asks again.
///
/// # Errors
/// The agent is not there or not ready, or has no such pools.
pub(crate) async fn status(conf: &NetConf) -> Result<(), Error> {
    let not_ready = |error: Error| match error {
        Error::Agent(error) if error.is_passing() => Error::NotReady(error.to_string()),
        error => error,
    };
    look(conf).await.map_err(not_ready)
}

async fn look(conf: &NetConf) -> Result<(), Error> {
    let agent = Agent::connect(&conf.socket()).await?;
    let status = agent.status().await?;
    if !status.ready {
        let degraded: Vec<_> =
            status.degraded.iter().map(|d| format!("{}: {}", d.what, d.why)).collect();
        let why =
            if degraded.is_empty() { "it is starting".to_owned() } else { degraded.join("; ") };
        return Err(Error::NotReady(format!("guard-agent is not ready: {why}")));
    }
    if let Role::Ipam(ipam) = conf.role()? {
        let known = agent.pools().await?;
        for ask in choice::choose(conf, ipam, &[], &known)? {
            if !known.iter().any(|pool| pool.name == ask.pool) {
                return Err(Error::Conf(format!("the agent has no pool {:?}", ask.pool)));
            }
        }
    }
    Ok(())
}
