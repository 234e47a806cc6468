//! Hand-overs, as they follow from what is bound: see [`crate::arbiter::Handovers`].

use std::{net::IpAddr, sync::Arc, time::Duration};

use guard_core::{
    arbiter::{Bound, Handover},
    evidence::Station,
    lease::Lease,
    segment::Segment,
};
use jiff::Timestamp;

use super::{Inner, Owners};
use crate::clock;

/// For so long before the agent's start a hand-over may have been stored and not announced. Later
/// than that, everyone has found out alone (RFC 4861 §7.3: 30 s of reachability, a delay, probes).
const UNANNOUNCED: Duration = Duration::from_secs(60);

impl Owners {
    /// Waits until there may be somebody to announce.
    pub async fn handed_over(&self) {
        self.handed_over.notified().await;
    }

    /// The new holders of addresses whose ports are ready; each is given once.
    pub fn take_handovers(&self, is_ready: impl Fn(u32) -> bool) -> Vec<Handover> {
        self.inner.lock().handovers.take(is_ready)
    }

    /// A station claims an address that it did not claim before.
    pub fn heard(&self, segment: &Segment, address: IpAddr, station: &Station) {
        let place = (segment.clone(), address);
        if self.inner.lock().handovers.heard(&place, station) {
            self.handed_over.notify_one();
        }
    }
}

impl Inner {
    /// Whether a binding was written, or somebody waits to be announced.
    pub(super) fn hands_over(&self) -> bool {
        !self.rebound.is_empty() || self.handovers.waits()
    }

    /// Who may use the address of a lease, if that is declared.
    pub(super) fn bound(&self, lease: &Lease) -> Option<Bound> {
        let Lease { segment, address, generation, binding, .. } = lease;
        let key = (segment.clone(), *address);
        let (port, mac) = binding.declared.then(|| self.declared(&key, binding))?;
        Some(Bound { generation: *generation, mac, port })
    }

    /// A port has come or gone: so has what the bindings that name it are announced with.
    pub(super) fn hand_over_again_to(&mut self, keys: &[(Segment, IpAddr)]) {
        for key in keys {
            let bound = self.holders.get(key).and_then(|lease| self.bound(lease));
            self.handovers.forget(key);
            self.handovers.bound(key, None, bound);
        }
    }

    /// Announces again what an earlier agent may have stored and not announced, and no more.
    pub(super) fn hand_over_again(&mut self) {
        self.handovers.clear();
        let now = clock::now().wall;
        let (from, to) = (now.checked_sub(UNANNOUNCED), now.checked_add(UNANNOUNCED));
        let recent = from.unwrap_or(Timestamp::MIN)..=to.unwrap_or(Timestamp::MAX);
        let recent = |lease: &&Arc<Lease>| recent.contains(&lease.updated_at);
        let recent: Vec<_> = self.holders.values().filter(recent).cloned().collect();
        for lease in recent {
            let key = (lease.segment.clone(), lease.address);
            let bound = self.bound(&lease);
            self.handovers.bound(&key, None, bound);
        }
    }
}
