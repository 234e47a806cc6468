//! What enforcement does on each port, in the kernel's map of policies: it follows from what the port
//! is, and from the bindings that name it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aya::maps::{Array, MapData, MapError};
use guard_core::{
    enforcement::{Bound, Effects, Mode, Settings, policy},
    lease::Lease,
};
use guard_ebpf::abi::{MODE_ENFORCE, MODE_OBSERVE, MODE_OF_BRIDGE, Policy};

use super::{Inner, Owners};
use crate::datapath::CountedMap;

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
    /// What their exceptions come to.
    effects: BTreeMap<u32, Effects>,
    /// The leases are known: until then what an earlier agent wrote of a port stays.
    known: bool,
    /// What bridges are set to.
    settings: HashMap<Arc<str>, Settings>,
    /// The ports that have a mode of their own.
    overrides: BTreeMap<(Arc<str>, Arc<str>), Mode>,
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

    /// These are all ports that have a mode of their own.
    pub(super) fn set_overrides(
        &mut self,
        overrides: BTreeMap<(Arc<str>, Arc<str>), Mode>,
    ) -> Result<(), MapError> {
        self.overrides = overrides;
        self.write_all()
    }

    /// The declared bindings of a port name this now. Returns whether anything has changed.
    pub(super) fn set_bound(&mut self, ifindex: u32, bound: Bound) -> Result<bool, MapError> {
        let before = match bound == Bound::default() {
            true => self.bound.remove(&ifindex),
            false => self.bound.insert(ifindex, bound),
        };
        let changed = before.unwrap_or_default() != bound;
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
        let ports: Vec<_> = self.ports.keys().copied().collect();
        ports.into_iter().map(|ifindex| self.write(ifindex)).fold(Ok(()), Result::and)
    }

    /// Brings the kernel's entry to what it should be.
    fn write(&mut self, ifindex: u32) -> Result<(), MapError> {
        let Some(Judged { name, slot, is_access }) = self.ports.get(&ifindex) else {
            return Ok(());
        };
        let mode = match self.overrides.get(name) {
            None => MODE_OF_BRIDGE,
            Some(Mode::Observe) => MODE_OBSERVE,
            Some(Mode::Enforce) => MODE_ENFORCE,
        };
        let settings = self.settings.get(&name.0).cloned().unwrap_or_default();
        let bound = self.bound.get(&ifindex).copied().unwrap_or_default();
        let none = Effects::default();
        let effects = self.effects.get(&ifindex).unwrap_or(&none);
        let policy = Policy { ifindex, mode, ..policy(*is_access, &settings, bound, effects) };
        let Some(map) = &mut self.map else { return Ok(()) };
        let there = map.get(slot, 0)?;
        let stays = there == policy || (!self.known && there.ifindex == ifindex && *is_access);
        if stays { Ok(()) } else { map.set(*slot, policy, 0) }
    }
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
            let bound = self.bound_on(ifindex);
            let excepted = self.write_exceptions(ifindex);
            for changed in [excepted, self.policies.set_bound(ifindex, bound)] {
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

    /// What the declared bindings of a port name.
    fn bound_on(&self, ifindex: u32) -> Bound {
        let interface = self.ports.get(&ifindex).map(|(_, interface)| interface);
        let keys = interface.map(|interface| self.bound_to(ifindex, interface)).unwrap_or_default();
        let mut bound = Bound::default();
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
        }
        bound
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

    /// A bridge is set to this.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub fn set_enforcement(&self, bridge: &Arc<str>, settings: Settings) -> Result<(), MapError> {
        let inner = &mut *self.inner.lock();
        inner.policies.set_bridge(bridge, settings).and(inner.changed())
    }

    /// These are all ports that have a mode of their own, by bridge and name. A port that comes later has
    /// it with its first entry.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub fn set_overrides(
        &self,
        overrides: BTreeMap<(Arc<str>, Arc<str>), Mode>,
    ) -> Result<(), MapError> {
        self.inner.lock().policies.set_overrides(overrides)
    }
}
