//! What enforcement does on each port, in the kernel's map of policies: it follows from what the port
//! is, and from the bindings that name it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use aya::maps::{Array, MapData, MapError};
use guard_core::{
    enforcement::{Bound, Effects, Mode, Override, Settings, policy},
    lease::Lease,
};
use guard_ebpf::abi::{MODE_ENFORCE, MODE_OBSERVE, MODE_OF_BRIDGE, Policy};

use jiff::Timestamp;

use super::{Inner, Owners};
use crate::{clock, datapath::CountedMap};

/// A port, as far as its policy follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// Its bridge, and its name.
    pub name: (Arc<str>, Arc<str>),
    /// Its slot in the kernel's maps.
    pub slot: u32,
    /// A sandbox is behind it.
    pub is_access: bool,
}

/// The policies of the ports.
#[derive(Default)]
pub(super) struct Policies {
    map: Option<Array<MapData, Policy>>,
    ports: BTreeMap<u32, Judged>,
    /// What their declared bindings name.
    bound: BTreeMap<u32, Bound>,
    /// The ports that are spared, whatever is set: the kernel does not have all that is bound to them, and
    /// would take their own for another's.
    spared: BTreeSet<u32>,
    /// What their exceptions come to.
    effects: BTreeMap<u32, Effects>,
    /// The leases are known: until then what an earlier agent wrote of a port stays.
    known: bool,
    /// What bridges are set to.
    settings: HashMap<Arc<str>, Settings>,
    /// The ports that have a mode of their own, and when that ends on the program's clock.
    overrides: BTreeMap<u32, (Override, u64)>,
}

impl Policies {
    pub(super) fn set_map(&mut self, map: Array<MapData, Policy>) {
        self.map = Some(map);
    }

    /// A port is this now.
    pub(super) fn set(&mut self, ifindex: u32, port: Judged) -> Result<(), MapError> {
        self.ports.insert(ifindex, port);
        self.write(ifindex)
    }

    /// A port has left its bridge. Its entry means nothing to the next one in its slot.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.ports.remove(&ifindex);
    }

    /// A bridge is set to this.
    pub(super) fn set_bridge(
        &mut self,
        bridge: &Arc<str>,
        settings: Settings,
    ) -> Result<(), MapError> {
        self.settings.insert(Arc::clone(bridge), settings);
        self.write_all()
    }

    /// A port has a mode of its own, or its bridge's.
    fn set_mode(&mut self, ifindex: u32, mode: Option<Override>) -> Result<(), MapError> {
        match mode {
            Some(mode) => {
                let until_ns = mode.until.map_or(0, deadline);
                self.overrides.insert(ifindex, (mode, until_ns));
            }
            None => drop(self.overrides.remove(&ifindex)),
        }
        self.write(ifindex)
    }

    /// A link has ended, and its own mode with it.
    pub(super) fn ended(&mut self, ifindex: u32) {
        self.overrides.remove(&ifindex);
    }

    /// The declared bindings of a port name this now. Returns whether anything has changed.
    pub(super) fn set_bound(
        &mut self,
        ifindex: u32,
        bound: Bound,
        spared: bool,
    ) -> Result<bool, MapError> {
        let was_spared =
            if spared { !self.spared.insert(ifindex) } else { self.spared.remove(&ifindex) };
        let before = match bound == Bound::default() {
            true => self.bound.remove(&ifindex),
            false => self.bound.insert(ifindex, bound),
        };
        let changed = before.unwrap_or_default() != bound || was_spared != spared;
        if changed { self.write(ifindex).map(|()| true) } else { Ok(false) }
    }

    /// The exceptions of a port come to this now.
    pub(super) fn set_effects(&mut self, ifindex: u32, effects: Effects) -> Result<(), MapError> {
        match effects == Effects::default() {
            true => self.effects.remove(&ifindex),
            false => self.effects.insert(ifindex, effects),
        };
        self.write(ifindex)
    }

    /// The leases are known.
    pub(super) fn known(&mut self) -> Result<(), MapError> {
        self.known = true;
        self.write_all()
    }

    fn write_all(&mut self) -> Result<(), MapError> {
        self.repair().map(drop)
    }

    /// Puts right the entries that are not as they should be. Returns how many those were.
    fn repair(&mut self) -> Result<usize, MapError> {
        let ports: Vec<_> = self.ports.keys().copied().collect();
        let mut wrong = 0;
        let mut result = Ok(());
        for ifindex in ports {
            match self.put_right(ifindex) {
                Ok(was_wrong) => wrong += usize::from(was_wrong),
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| wrong)
    }

    fn write(&mut self, ifindex: u32) -> Result<(), MapError> {
        self.put_right(ifindex).map(drop)
    }

    /// Brings the kernel's entry to what it should be. Returns whether it was not.
    fn put_right(&mut self, ifindex: u32) -> Result<bool, MapError> {
        let Some(Judged { name, slot, is_access }) = self.ports.get(&ifindex) else {
            return Ok(false);
        };
        let own = self.overrides.get(&ifindex).filter(|(own, _)| own.bridge == name.0);
        let (mode, until_ns) = match own.map(|(own, until_ns)| (own.mode, *until_ns)) {
            None => (MODE_OF_BRIDGE, 0),
            Some((Mode::Observe, until_ns)) => (MODE_OBSERVE, until_ns),
            Some((Mode::Enforce, until_ns)) => (MODE_ENFORCE, until_ns),
        };
        let (mode, until_ns) =
            if self.spared.contains(&ifindex) { (MODE_OBSERVE, 0) } else { (mode, until_ns) };
        let settings = self.settings.get(&name.0).cloned().unwrap_or_default();
        let bound = self.bound.get(&ifindex).copied().unwrap_or_default();
        let none = Effects::default();
        let effects = self.effects.get(&ifindex).unwrap_or(&none);
        let policy =
            Policy { ifindex, mode, until_ns, ..policy(*is_access, &settings, bound, effects) };
        let Some(map) = &mut self.map else { return Ok(false) };
        let there = map.get(slot, 0)?;
        let stays = there == policy || (!self.known && there.ifindex == ifindex && *is_access);
        if stays { Ok(false) } else { map.set(*slot, policy, 0).map(|()| true) }
    }
}

/// A moment on the program's clock, on which nothing is before 1.
fn deadline(until: Timestamp) -> u64 {
    let left = until.duration_since(clock::now().wall);
    let at = clock::monotonic() + Duration::try_from(left).unwrap_or_default();
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

impl Inner {
    /// The program is to judge anew whom it knew.
    pub(super) fn changed(&mut self) -> Result<(), MapError> {
        self.map.as_mut().map_or(Ok(()), CountedMap::changed)
    }

    /// Brings the policies of ports to what their bindings are now, once the entries of these are written.
    pub(super) fn write_policies(
        &mut self,
        ports: impl IntoIterator<Item = u32>,
    ) -> Result<(), MapError> {
        let mut result = Ok(());
        let mut any = false;
        for ifindex in ports {
            let (bound, spared) = self.bound_on(ifindex);
            let excepted = self.write_exceptions(ifindex);
            for changed in [excepted, self.policies.set_bound(ifindex, bound, spared)] {
                match changed {
                    Ok(changed) => any |= changed,
                    Err(error) => result = Err(error),
                }
            }
        }
        if any { result.and(self.changed()) } else { result }
    }

    /// The same of all ports that there are.
    pub(super) fn write_all_policies(&mut self) -> Result<(), MapError> {
        let ports: Vec<_> = self.ports.keys().copied().collect();
        self.write_policies(ports)
    }

    /// What the declared bindings of a port name, and whether the kernel lacks any of it.
    fn bound_on(&self, ifindex: u32) -> (Bound, bool) {
        let interface = self.ports.get(&ifindex).map(|(_, interface)| interface);
        let keys = interface.map(|interface| self.bound_to(ifindex, interface)).unwrap_or_default();
        let (mut bound, mut lacks) = (Bound::default(), false);
        for key in keys {
            let Some(Lease { binding, .. }) = self.holders.get(&key).map(|lease| &**lease) else {
                continue;
            };
            if !binding.declared || self.declared(&key, binding).0 != Some(ifindex) {
                continue;
            }
            bound.ipv4 |= key.1.is_ipv4();
            bound.ipv6 |= key.1.is_ipv6();
            bound.any_mac |= binding.mac.is_none();
            lacks |= self.unwritten.contains(&key);
        }
        (bound, lacks)
    }
}

impl Owners {
    /// What enforcement is to do on a port follows from this. Called before the kernel knows the port.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub(crate) fn port_judged(&self, ifindex: u32, port: Judged) -> Result<(), MapError> {
        let inner = &mut *self.inner.lock();
        inner.policies.set(ifindex, port).and(inner.changed())
    }

    /// Puts right the policies that are not as they were written. Returns how many those were.
    ///
    /// # Errors
    /// The kernel's map cannot be read or written.
    pub(crate) fn repair_policies(&self) -> Result<usize, MapError> {
        let inner = &mut *self.inner.lock();
        let wrong = inner.policies.repair()?;
        if wrong > 0 {
            inner.changed()?;
        }
        Ok(wrong)
    }

    /// A bridge is set to this.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub fn set_enforcement(&self, bridge: &Arc<str>, settings: Settings) -> Result<(), MapError> {
        let inner = &mut *self.inner.lock();
        inner.policies.set_bridge(bridge, settings).and(inner.changed())
    }

    /// A port has a mode of its own, or its bridge's. One that comes later has it with its first entry.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub fn set_port_mode(&self, ifindex: u32, mode: Option<Override>) -> Result<(), MapError> {
        self.inner.lock().policies.set_mode(ifindex, mode)
    }

    /// Whether a port has a mode of its own: that ends with the port.
    pub fn has_mode(&self, ifindex: u32) -> bool {
        self.inner.lock().policies.overrides.contains_key(&ifindex)
    }

    /// The ports that have a mode of their own.
    pub fn ports_with_modes(&self) -> Vec<u32> {
        self.inner.lock().policies.overrides.keys().copied().collect()
    }

    /// Of these ports nobody can tell whether they are those that had the mode.
    pub fn end_port_modes(&self, ports: &[u32]) {
        let inner = &mut *self.inner.lock();
        ports.iter().for_each(|ifindex| inner.policies.ended(*ifindex));
    }
}
