//! Carving child subnets out of pools, and putting them back.
//!
//! A subnet is somebody else's to hand out, so nothing in it may be anyone's: no lease in whatever
//! state, nothing live, no address that the pool itself never hands out. That includes addresses
//! that are cooling down: what rests for the sake of its last owner's peers rests for the holder
//! of a subnet too.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;

use super::{
    Act, State, Subnet, Swap, Write,
    command::{Reason, Refusal, Reply, ReserveSubnet, WhichSubnet},
    number,
    transaction::Transaction,
};
use crate::segment::Segment;

impl Transaction<'_> {
    /// The lowest free block, or the requested one; the same one for whoever has one already.
    pub(super) fn reserve_subnet(&mut self, ask: &ReserveSubnet) -> Result<Reply, Refusal> {
        self.caller.check(Act::Pool(&ask.pool))?;
        let wanted = ask.prefix.map(|prefix| prefix.trunc());
        if let Some(known) = self.engine.subnets.get(&ask.id) {
            let same = known.pool == ask.pool
                && known.prefix.prefix_len() == ask.length
                && wanted.is_none_or(|wanted| wanted == known.prefix);
            if same {
                self.caller.check(known.act())?;
                return Ok(Reply::Subnet(Arc::clone(known)));
            }
            return Err(Refusal::new(
                Reason::SubnetHeld,
                format!(
                    "{:?} already has {} in pool {:?}, and asks for another; release that first, \
                     or use another identifier",
                    &*ask.id, known.prefix, &*known.pool
                ),
            ));
        }
        let table = self.table_named(&ask.pool)?;
        let prefix = match wanted {
            Some(wanted) => self.requested_subnet(table, ask.length, wanted)?,
            None => self.lowest_subnet(table, ask.length)?,
        };
        let pool = &self.engine.tables[table].pool;
        let subnet = Arc::new(Subnet {
            id: Arc::clone(&ask.id),
            segment: pool.segment().clone(),
            prefix,
            pool: Arc::clone(pool.name()),
            created_at: self.now.wall,
            maker: self.caller.maker(),
        });
        self.put_subnet(None, Some(&subnet));
        Ok(Reply::Subnet(subnet))
    }

    /// Idempotent. What is in use in it is found at once.
    pub(super) fn release_subnet(&mut self, which: &WhichSubnet) -> Result<Reply, Refusal> {
        let found: Vec<_> = match which {
            WhichSubnet::Id(id) => self.engine.subnets.get(id).into_iter().cloned().collect(),
            WhichSubnet::Prefix { prefix, pool } => {
                let of = |subnet: &&Arc<Subnet>| {
                    subnet.prefix == prefix.trunc()
                        && pool.as_ref().is_none_or(|pool| subnet.pool == *pool)
                };
                self.engine.subnets.iter().filter(of).cloned().collect()
            }
        };
        let [subnet] = &found[..] else {
            let Some(first) = found.first() else { return Ok(Reply::NotFound) };
            return Err(Refusal::new(
                Reason::SubnetAmbiguous,
                format!(
                    "{} is a child subnet of {} pools; name the pool or the identifier",
                    first.prefix,
                    found.len()
                ),
            ));
        };
        self.caller.check(subnet.act())?;
        self.put_subnet(Some(subnet), None);
        let Subnet { segment, prefix, .. } = &**subnet;
        for address in self.view.addresses(segment) {
            if prefix.contains(&address)
                && let Some(slot) = self.engine.slot(segment, address)
            {
                self.recheck(slot);
            }
        }
        Ok(Reply::Subnet(Arc::clone(subnet)))
    }

    fn put_subnet(&mut self, old: Option<&Arc<Subnet>>, new: Option<&Arc<Subnet>>) {
        self.engine.set_subnet(old, new);
        let swap = Swap { old: old.cloned(), new: new.cloned() };
        self.changes.push(Write::Subnet(swap));
    }

    /// How many addresses a subnet of the length has.
    fn size_of(&self, table: usize, length: u8) -> Result<u128, Refusal> {
        let pool = &self.engine.tables[table].pool;
        let (parent, most) = (pool.prefix().prefix_len(), pool.prefix().max_prefix_len());
        if parent < length && length <= most {
            return Ok(1 << (most - length));
        }
        Err(Refusal::new(
            Reason::SubnetMalformed,
            format!(
                "a child subnet of pool {:?} has a length of {} to {most}, not of {length}",
                &**pool.name(),
                parent + 1
            ),
        ))
    }

    fn live_in(&self, segment: &Segment, prefix: IpNet) -> BTreeSet<u128> {
        let live = self.view.addresses(segment).into_iter();
        live.filter(|address| prefix.contains(address)).map(number::of).collect()
    }

    fn lowest_subnet(&self, table: usize, length: u8) -> Result<IpNet, Refusal> {
        let size = self.size_of(table, length)?;
        let table = &self.engine.tables[table];
        let live = self.live_in(table.pool.segment(), table.pool.prefix());
        let first = table.first_block(size, &live).ok_or_else(|| {
            let until = table.first_cooled();
            let next = until.map_or_else(String::new, |until| {
                format!("; the next address cools down at {}", self.now.wall_at(until))
            });
            Refusal {
                reason: Reason::SubnetExhausted,
                message: format!(
                    "pool {:?} has no aligned block of length {length} in which nothing is leased, \
                     resting, quarantined, live or excluded{next}",
                    &**table.pool.name()
                ),
                retry_after: until.map(|until| until.saturating_sub(self.now.boot)),
            }
        })?;
        Ok(IpNet::new(table.pool.address(first), length).expect("the length fits the family"))
    }

    /// Whether this very prefix can be had, and what is in the way.
    fn requested_subnet(&self, table: usize, length: u8, wanted: IpNet) -> Result<IpNet, Refusal> {
        self.size_of(table, length)?;
        let table = &self.engine.tables[table];
        let (pool, segment) = (table.pool.name(), table.pool.segment());
        let refuse = |reason, what: String| Err(Refusal::new(reason, what));
        if wanted.prefix_len() != length {
            let what = format!("{wanted} is no prefix of length {length}");
            return refuse(Reason::SubnetMalformed, what);
        }
        if !table.pool.prefix().contains(&wanted) {
            let what = format!("{wanted} is not inside pool {pool:?} ({})", table.pool.prefix());
            return refuse(Reason::SubnetOutsidePool, what);
        }
        if let Some(other) = self.engine.subnets.touching(segment, wanted) {
            let what = format!("{wanted} overlaps the child subnet {other}");
            return refuse(Reason::SubnetOverlaps, what);
        }
        let (first, last) = (number::of(wanted.network()), number::of(wanted.broadcast()));
        if !table.gives_all(first, last) {
            let what = format!(
                "{wanted} has an address that pool {pool:?} never hands out: network, broadcast, \
                 gateway, the host's or an excluded one"
            );
            return refuse(Reason::SubnetReserved, what);
        }
        if let Some(lease) = table.lease_in(first, last) {
            let until = lease.until.filter(|_| lease.state == State::Cooling);
            let of = lease.owner.as_ref().map_or_else(String::new, |owner| format!(" ({owner})"));
            return Err(Refusal {
                reason: Reason::SubnetLeased,
                message: format!("{} in {wanted} is {}{of}", lease.address, lease.state.name()),
                retry_after: until.map(|until| until.saturating_sub(self.now.boot)),
            });
        }
        if let Some(live) = self.live_in(segment, wanted).first() {
            let what = format!("{} in {wanted} is in use", table.pool.address(*live));
            return refuse(Reason::SubnetLive, what);
        }
        Ok(wanted)
    }
}
