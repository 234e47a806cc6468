//! The transitions of one lease. What each state must and must not have is written here only.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{Binding, Generation, Hold, Lease, Owner, Pool, State, reason};
use crate::{evidence::Evidence, time::Now};

/// Whether the table of states has this step; `None` is free.
pub(super) fn is_legal(from: Option<State>, to: Option<State>) -> bool {
    use State::{Active, Cooling, Held, Quarantined, Releasing};
    match (from, to) {
        // An address that nobody has is handed out, or found in use.
        (None | Some(Cooling), Some(Held | Active | Quarantined)) => true,
        (Some(Held), Some(Active | Releasing | Cooling | Quarantined)) => true,
        (Some(Active), Some(Releasing | Cooling)) => true,
        (Some(Releasing), Some(Cooling)) => true,
        (Some(Quarantined), Some(Active)) => true,
        (Some(Cooling | Quarantined), None) => true,
        // The same state: its binding, deadline or evidence changed.
        (from, to) => from == to,
    }
}

/// What a hand-out starts with.
pub(super) struct Assignment {
    pub(super) owner: Owner,
    pub(super) key: Arc<str>,
    pub(super) generation: Generation,
    pub(super) binding: Binding,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) cooldown_bypassed: bool,
    pub(super) boot: u64,
    pub(super) maker: Option<u32>,
}

/// free, cooling → held; quarantined, free → active where the inventory names the owner.
pub(super) fn hand_out(pool: &Pool, address: IpAddr, given: Assignment, now: Now) -> Lease {
    let Assignment { owner, key, generation, binding, labels, cooldown_bypassed, boot, maker } =
        given;
    Lease {
        segment: pool.segment().clone(),
        address,
        pool: Arc::clone(pool.name()),
        state: State::Held,
        owner: Some(owner),
        key,
        generation,
        binding,
        reason: empty(),
        holds: Vec::new(),
        misses: 0,
        missed_at: None,
        boot,
        created_at: now.wall,
        updated_at: now.wall,
        until: Some(now.boot + pool.spec().unconfirmed_ttl),
        cooldown_bypassed,
        release_order: 0,
        maker,
        labels,
    }
}

/// held → active.
pub(super) fn activate(lease: &Lease, now: Now) -> Lease {
    Lease { state: State::Active, until: None, updated_at: now.wall, ..lease.clone() }
}

/// held, active → releasing. The generation has ended.
pub(super) fn release(lease: &Lease, why: &str, holds: Vec<Hold>, now: Now) -> Lease {
    Lease {
        state: State::Releasing,
        reason: Arc::from(why),
        until: holds.iter().map(|hold| hold.until).min(),
        holds,
        misses: 0,
        missed_at: None,
        updated_at: now.wall,
        ..lease.clone()
    }
}

/// held, active, releasing → cooling.
pub(super) fn cool(lease: &Lease, cooldown: Duration, release_order: u64, now: Now) -> Lease {
    Lease {
        state: State::Cooling,
        reason: empty(),
        holds: Vec::new(),
        misses: 0,
        missed_at: None,
        until: Some(now.boot + cooldown),
        release_order,
        updated_at: now.wall,
        ..lease.clone()
    }
}

/// free, held, cooling → quarantined: who had it last stays on record, and who uses it now is
/// shown as its binding.
pub(super) fn quarantine(
    pool: &Pool,
    address: IpAddr,
    before: Option<&Lease>,
    why: &str,
    evidence: &[Evidence],
    now: Now,
) -> Lease {
    let labels = match why {
        reason::DISPUTED => BTreeMap::from([("owners".to_owned(), owners(evidence))]),
        _ => BTreeMap::new(),
    };
    Lease {
        segment: pool.segment().clone(),
        address,
        pool: Arc::clone(pool.name()),
        state: State::Quarantined,
        owner: before.and_then(|lease| lease.owner.clone()),
        key: before.map_or_else(empty, |lease| Arc::clone(&lease.key)),
        generation: before.map_or(0, |lease| lease.generation),
        binding: user(evidence),
        reason: Arc::from(why),
        holds: Vec::new(),
        misses: 0,
        missed_at: None,
        boot: before.map_or(0, |lease| lease.boot),
        created_at: now.wall,
        updated_at: now.wall,
        until: None,
        cooldown_bypassed: false,
        release_order: before.map_or(0, |lease| lease.release_order),
        maker: before.and_then(|lease| lease.maker),
        labels,
    }
}

/// The MAC and the port of who uses an address, as far as the evidence names them.
pub(super) fn user(evidence: &[Evidence]) -> Binding {
    let rank = |e: &&Evidence| {
        let Evidence { mac, interface, ifindex, .. } = e;
        (mac.is_some(), ifindex.is_some(), interface.is_some())
    };
    evidence.iter().rev().max_by_key(rank).map_or_else(Binding::default, |best| Binding {
        declared: false,
        mac: best.mac,
        interface: best.interface.clone(),
        ifindex: best.ifindex,
        ..Binding::default()
    })
}

fn owners(evidence: &[Evidence]) -> String {
    let mut names: Vec<_> =
        evidence.iter().filter_map(|e| e.owner.as_ref()).map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// The empty text, which many rows share.
pub fn empty() -> Arc<str> {
    static EMPTY: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from(""));
    Arc::clone(&EMPTY)
}
