//! What enforcement does on each port, in the kernel's map of policies: it follows from what the port
//! is, and from the bindings that name it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aya::maps::{Array, MapData, MapError};
use guard_core::enforcement::{Mode, Settings, drops};
use guard_ebpf::abi::{MODE_ENFORCE, MODE_OBSERVE, MODE_OF_BRIDGE, Policy};

use super::Owners;

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
        let drops = drops(*is_access, &settings);
        let policy = Policy { ifindex, drops, mode, ..Policy::default() };
        let Some(map) = &mut self.map else { return Ok(()) };
        if map.get(slot, 0)? == policy { Ok(()) } else { map.set(*slot, policy, 0) }
    }
}

impl Owners {
    /// What enforcement is to do on a port follows from this. Called before the kernel knows the port.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub(crate) fn port_judged(&self, ifindex: u32, port: Judged) -> Result<(), MapError> {
        self.inner.lock().policies.set(ifindex, port)
    }

    /// A bridge is set to this.
    ///
    /// # Errors
    /// The kernel's map cannot be written.
    pub fn set_enforcement(&self, bridge: &Arc<str>, settings: Settings) -> Result<(), MapError> {
        self.inner.lock().policies.set_bridge(bridge, settings)
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
