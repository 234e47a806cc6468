//! Ports that claim the addresses of many (claims.md A19b): one incident for the port, in the place
//! of one for each address.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
};

use super::{Facts, Seen};
use crate::{incident::Target, segment::Segment};

/// So many owned addresses that one port claims have an incident each.
const EACH: usize = 16;
/// So many are told apart.
const MOST: usize = 4096;

/// An address in its segment.
pub(super) type Place = (Segment, IpAddr);

/// What ports claim that others own.
#[derive(Debug, Default)]
pub(super) struct Proxies(HashMap<u32, Claims>);

#[derive(Debug, Default)]
struct Claims {
    first: Vec<Place>,
    others: BTreeSet<Place>,
    /// They are one incident, as long as that is open.
    many: bool,
}

/// The incident of a port that claims many.
pub(super) struct Many {
    /// How many, and the first of them.
    pub(super) detail: Arc<str>,
    /// Those that had an incident each until now.
    pub(super) folded: Vec<Place>,
}

impl Proxies {
    /// A port claims what another owns. Returns the incident that this is about, unless it is one
    /// about the address.
    pub(super) fn claim<F: Facts>(&mut self, seen: &Seen, facts: &F) -> Option<Many> {
        let Seen { segment, address, claim, .. } = seen;
        let port = claim.station.ifindex;
        let claims = self.0.entry(port).or_default();
        let bridge = Segment::new(segment.bridge.clone(), 0);
        let lasts = claims.many && facts.incident(&bridge, Target::Port(port)).is_some();
        if !lasts {
            claims.many = false;
            claims.others.clear();
            let is_open = |(segment, address): &Place| {
                facts.incident(segment, Target::Address(*address)).is_some()
            };
            claims.first.retain(is_open);
        }
        let place = (segment.clone(), *address);
        if !claims.first.contains(&place) {
            if claims.first.len() < EACH {
                claims.first.push(place);
            } else if claims.others.len() < MOST {
                claims.others.insert(place);
            }
        }
        if claims.others.is_empty() {
            return None;
        }
        let begins = !std::mem::replace(&mut claims.many, true);
        let folded = if begins { claims.first.clone() } else { Vec::new() };
        Some(Many { detail: claims.describe(), folded })
    }

    pub(super) fn port_gone(&mut self, ifindex: u32) {
        self.0.remove(&ifindex);
    }
}

impl Claims {
    fn describe(&self) -> Arc<str> {
        let many = self.first.len() + self.others.len();
        let mut text = format!("claims {many} addresses of others:");
        for (_, address) in &self.first {
            let _ = write!(text, " {address}");
        }
        text.into()
    }
}
