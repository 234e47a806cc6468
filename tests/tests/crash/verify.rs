//! What must hold after a crash, whenever it came.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use guard_api::proto::{Lease, LeaseState, Outcome};
use guard_tests::{Client, POOL};

use crate::knowledge::{Doubt, Knowledge};

/// Compares what the agent has with what the clients know, and brings what is in doubt to an end
/// as a client does: by asking again.
pub(crate) async fn verify(socket: &Path, all: &mut [Knowledge]) -> Result<()> {
    let mut client = Client::connect(socket).await?;
    let listed = client.leases().await?;
    let mut addresses = HashSet::new();
    for lease in &listed {
        ensure!(addresses.insert(&lease.address), "{} is listed twice", lease.address);
    }
    let by_generation: HashMap<u64, &Lease> = listed.iter().map(|l| (l.generation, l)).collect();
    ensure!(by_generation.len() == listed.len(), "a generation was given twice");

    let mut explained = HashSet::new();
    for knowledge in all.iter() {
        for lease in &knowledge.held {
            let found = by_generation.get(&lease.generation);
            let found = found.with_context(|| format!("acknowledged and lost: {lease:?}"))?;
            let same = found.address == lease.address && found.sandbox == lease.sandbox;
            ensure!(same && is_owned(found), "{lease:?} became {found:?}");
            explained.insert(lease.generation);
        }
        for generation in &knowledge.ended {
            let found = by_generation.get(generation);
            ensure!(!found.is_some_and(|l| is_owned(l)), "given back and still there: {found:?}");
        }
        if let Some(Doubt::Release(generation)) = &knowledge.doubt {
            explained.insert(*generation);
        }
    }
    let asked: HashSet<&str> = all.iter().filter_map(|k| asked_for(k.doubt.as_ref())).collect();
    for lease in listed.iter().filter(|lease| is_owned(lease)) {
        let known = explained.contains(&lease.generation) || asked.contains(&*lease.sandbox);
        ensure!(known, "nobody asked for {lease:?}");
    }
    for knowledge in all {
        settle(&mut client, knowledge, &listed).await?;
    }
    Ok(())
}

fn asked_for(doubt: Option<&Doubt>) -> Option<&str> {
    if let Some(Doubt::Allocate(sandbox)) = doubt { Some(sandbox) } else { None }
}

fn is_owned(lease: &Lease) -> bool {
    matches!(lease.state(), LeaseState::Held | LeaseState::Active)
}

async fn settle(client: &mut Client, knowledge: &mut Knowledge, listed: &[Lease]) -> Result<()> {
    match knowledge.doubt.take() {
        Some(Doubt::Allocate(sandbox)) => {
            let before = listed.iter().find(|l| is_owned(l) && l.sandbox == sandbox);
            let lease = client.allocate(POOL, &sandbox).await?;
            if let Some(before) = before {
                ensure!(lease.generation == before.generation, "{before:?}, and then {lease:?}");
            }
            knowledge.held.push(lease);
        }
        Some(Doubt::Release(generation)) => {
            let before = listed.iter().any(|l| l.generation == generation && is_owned(l));
            match (client.release(generation).await?, before) {
                // One that had come through already is not one again.
                (Outcome::Cooling, _) | (Outcome::Stale | Outcome::NotFound, false) => {}
                (outcome, _) => bail!("release of {generation}, asked again: {outcome:?}"),
            }
            knowledge.ended.push(generation);
        }
        None => {}
    }
    if let Some(lease) = knowledge.held.last() {
        let again = client.allocate(POOL, &lease.sandbox).await?;
        let same = again.generation == lease.generation && again.address == lease.address;
        ensure!(same, "asked again: {lease:?}, and then {again:?}");
    }
    Ok(())
}
