//! ADD: an address from each pool, for good until DEL.
//!
//! One connection, one call and one commit: a container waits for it.

use std::collections::HashMap;

use guard_api::{
    bounds,
    proto::{AllocateRequest, Lease},
};
use serde_json::Value;

use crate::{
    agent::{self, Agent, with_retry},
    call::{self, Call},
    choice::{self, Ask},
    conf::{Ipam, NetConf},
    error::Error,
    result,
};

/// ADD: allocates the interface's addresses.
///
/// # Errors
/// The configuration is wrong, or the agent refuses; then nothing is allocated.
pub(crate) async fn add(conf: &NetConf, ipam: &Ipam, call: &Call) -> Result<Value, Error> {
    let (wishes, dns) = (choice::wishes(conf, call)?, result::dns(ipam)?);
    with_retry(&conf.socket(), async |agent| {
        let known = match choice::needs_pools(ipam, &wishes) {
            true => agent.pools().await?,
            false => Vec::new(),
        };
        let asks = choice::choose(conf, ipam, &wishes, &known)?;
        let leases = allocate(&agent, conf, call, &asks).await?;
        if let Some(error) = leases.iter().find_map(|lease| choice::verify(ipam, lease).err()) {
            give_back(&agent, &leases).await;
            return Err(error);
        }
        Ok(result::of(&conf.cni_version, ipam, &dns, &leases))
    })
    .await
}

/// All in one call, where no two certain addresses are asked for.
async fn allocate(
    agent: &Agent,
    conf: &NetConf,
    call: &Call,
    asks: &[Ask],
) -> Result<Vec<Lease>, Error> {
    let certain = asks.iter().filter(|ask| ask.address.is_some()).count();
    if certain <= 1 {
        return Ok(agent.allocate(request(conf, call, asks)).await?);
    }
    // What an ADD before this one was given is its container's.
    let before = agent.leases_of(&call.container, conf, &call.ifname).await?;
    let mut leases: Vec<Lease> = Vec::new();
    for asks in asks.chunks(1) {
        match agent.allocate(request(conf, call, asks)).await {
            Ok(more) => leases.extend(more),
            Err(error) => {
                leases.retain(|lease| before.iter().all(|b| b.generation != lease.generation));
                give_back(agent, &leases).await;
                return Err(error.into());
            }
        }
    }
    Ok(leases)
}

fn request(conf: &NetConf, call: &Call, asks: &[Ask]) -> AllocateRequest {
    let address = asks.iter().find_map(|ask| ask.address).map(|address| address.to_string());
    // What people look for a container by, where the runtime tells.
    let labels = [call::NAMESPACE, call::POD];
    let label = |key: &str| {
        let value = call.args.get(key).filter(|value| value.len() <= bounds::LABEL_VALUE.most)?;
        Some((key.to_owned(), value.clone()))
    };
    AllocateRequest {
        pools: asks.iter().map(|ask| ask.pool.clone()).collect(),
        owner: agent::owner(&call.container),
        key: conf.key(&call.ifname),
        address: address.unwrap_or_default(),
        labels: labels.into_iter().filter_map(label).collect::<HashMap<_, _>>(),
        // A container may be silent for as long as it likes: DEL is what ends its lease.
        confirmed: true,
        workload: call.workload().unwrap_or_default(),
        ..AllocateRequest::default()
    }
}

/// What cannot be given back now is found by GC, and by the agent's own reconciliation.
async fn give_back(agent: &Agent, leases: &[Lease]) {
    for lease in leases {
        let _ = agent.release(lease.generation, false).await;
    }
}
