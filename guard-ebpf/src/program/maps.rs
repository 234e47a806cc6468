//! The maps, by the names of the ABI, pinned by the agent.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf, lpm_trie::Key},
};
use guard_ebpf::{
    abi::{
        self, AddressKey, BridgeCounters, Challenger, ChallengerKey, DropKey, Drops, Event, Live,
        MAX_BRIDGES, MAX_CHALLENGERS, MAX_DROPS, MAX_EXCEPTIONS, MAX_LIVE, MAX_MACS, MAX_OWNED,
        MAX_PORTS, MAX_PREFIXES, MacHolder, MacKey, Mode, Owned, Policy, Port, PortMac, PortState,
        Prefix, RING_BYTES, Vlans, near_slot,
    },
    decide::Tables,
    watch::{Scratch, Store},
};

use crate::clock;

#[map]
static PORTS: HashMap<u32, Port> = HashMap::pinned(MAX_PORTS, 0);

#[map]
static NEAR_PORTS: Array<Port> = Array::pinned(abi::NEAR_PORTS, 0);

/// What the agent says of a port.
#[inline(always)]
pub(crate) fn port(ifindex: u32) -> Option<&'static Port> {
    if let Some(near) = NEAR_PORTS.get(near_slot(ifindex))
        && near.ifindex == ifindex
    {
        return Some(near);
    }
    #[expect(unsafe_code, reason = "a map's value may change while it is read")]
    // SAFETY: plain data that the verifier keeps in bounds, written by the agent alone.
    unsafe {
        PORTS.get(ifindex)
    }
}

// The large maps are not preallocated: full, they would hold some 27 MB each from the start,
// where most nodes have a few hundred addresses. The agent alone inserts into the one, and only an
// address's first claim into the other; an insert that gets no memory is counted as a full map is.
#[map]
pub(crate) static OWNED: HashMap<AddressKey, Owned> = HashMap::pinned(MAX_OWNED, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static LIVE: HashMap<AddressKey, Live> = HashMap::pinned(MAX_LIVE, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static MACS: HashMap<MacKey, MacHolder> = HashMap::pinned(MAX_MACS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static PORT_STATES: Array<PortState> = Array::pinned(MAX_PORTS, 0);

#[map]
pub(crate) static CHALLENGERS: HashMap<ChallengerKey, Challenger> =
    HashMap::pinned(MAX_CHALLENGERS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static PREFIXES: LpmTrie<AddressKey, Prefix> = LpmTrie::pinned(MAX_PREFIXES, 0);

#[map]
pub(crate) static VLANS: HashMap<u32, Vlans> = HashMap::pinned(MAX_PORTS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(RING_BYTES, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<BridgeCounters> = PerCpuArray::pinned(MAX_BRIDGES, 0);

#[map]
pub(crate) static FRAMES: PerCpuArray<u64> = PerCpuArray::pinned(MAX_PORTS, 0);

#[map]
static BOUND_MACS: HashMap<PortMac, u32> = HashMap::pinned(MAX_MACS, BPF_F_NO_PREALLOC);

#[map]
static EXCEPTIONS: LpmTrie<AddressKey, u32> = LpmTrie::pinned(MAX_EXCEPTIONS, 0);

#[map]
static POLICIES: Array<Policy> = Array::pinned(MAX_PORTS, 0);

#[map]
pub(crate) static OWNED_CHANGES: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static MODES: Array<Mode> = Array::pinned(MAX_BRIDGES, 0);

#[map]
static DROPS: PerCpuHashMap<DropKey, Drops> = PerCpuHashMap::pinned(MAX_DROPS, BPF_F_NO_PREALLOC);

#[map]
static NO_DROPS: Array<Drops> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The kernel's maps as the decision function's tables.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn owned(&self, key: &AddressKey) -> Option<&Owned> {
        #[expect(unsafe_code, reason = "a map's value may change while it is read")]
        // SAFETY: plain data that the verifier keeps in bounds. A value that is replaced while it is
        // read makes for one decision on the old, the new, or a mix: the next frame is judged anew.
        unsafe {
            OWNED.get(key)
        }
    }

    #[inline(always)]
    fn live(&self, key: &AddressKey) -> Option<&Live> {
        #[expect(unsafe_code, reason = "a map's value may change while it is read")]
        // SAFETY: as above.
        unsafe {
            LIVE.get(key)
        }
    }

    #[inline(always)]
    fn prefix(&self, key: &AddressKey) -> Option<&Prefix> {
        PREFIXES.get(Key::new(AddressKey::FULL_LEN, *key))
    }

    #[inline(always)]
    fn is_member(&self, ifindex: u32, vlan: u16) -> bool {
        #[expect(unsafe_code, reason = "a map's value may change while it is read")]
        // SAFETY: as above.
        let vlans = unsafe { VLANS.get(ifindex) };
        vlans.is_some_and(|vlans| vlans.has(vlan))
    }

    #[inline(always)]
    fn mac_holder(&self, key: &MacKey) -> Option<&MacHolder> {
        #[expect(unsafe_code, reason = "a map's value may change while it is read")]
        // SAFETY: as above.
        unsafe {
            MACS.get(key)
        }
    }

    #[inline(always)]
    fn port_state(&self, slot: u32) -> Option<&PortState> {
        PORT_STATES.get(slot)
    }

    #[inline(always)]
    fn policy(&self, slot: u32) -> Option<&Policy> {
        POLICIES.get(slot)
    }

    #[inline(always)]
    fn mode(&self, slot: u32) -> Option<&Mode> {
        MODES.get(slot)
    }

    #[inline(always)]
    fn station(&self, key: &PortMac) -> u32 {
        #[expect(unsafe_code, reason = "a map's value may change while it is read")]
        // SAFETY: as above.
        let station = unsafe { BOUND_MACS.get(key) };
        station.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn exception(&self, key: &AddressKey) -> u32 {
        EXCEPTIONS.get(Key::new(AddressKey::FULL_LEN, *key)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn changes(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "its last changes tell it apart")]
        match OWNED_CHANGES.get_ptr(0) {
            #[expect(unsafe_code, reason = "a map's value may change while it is read")]
            // SAFETY: a word that the verifier keeps in bounds, read before what it tells of.
            Some(count) => unsafe { count.read_volatile() as u32 },
            None => 0,
        }
    }
}

/// A map's value, to write in.
///
/// Plain data that the verifier keeps in bounds. Two CPUs may lose a count or a stamp to each other,
/// and should the agent replace an entry within these few instructions, a stamp is lost with it, or
/// lands in the entry that took its memory: nothing may rest on one of them alone.
#[inline(always)]
fn value<'a, T>(found: Option<*mut T>) -> Option<&'a mut T> {
    #[expect(unsafe_code, reason = "a map's value is written in place")]
    // SAFETY: as said above; the verifier allows no access after the program has ended.
    found.map(|value| unsafe { &mut *value })
}

impl Store for Maps {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    #[inline(always)]
    fn event_ns(&self) -> u64 {
        #[expect(unsafe_code, reason = "bpf_ktime_get_ns is a helper")]
        // SAFETY: the helper takes nothing and returns a number.
        unsafe {
            bpf_ktime_get_ns()
        }
    }

    #[inline(always)]
    fn owned_mut(&mut self, key: &AddressKey) -> Option<&mut Owned> {
        value(OWNED.get_ptr_mut(key))
    }

    #[inline(always)]
    fn live_mut(&mut self, key: &AddressKey) -> Option<&mut Live> {
        value(LIVE.get_ptr_mut(key))
    }

    #[inline(always)]
    fn insert_live(&mut self, key: &AddressKey, live: &Live) -> bool {
        LIVE.insert(key, live, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn insert_mac(&mut self, key: &MacKey, holder: &MacHolder) -> bool {
        MACS.insert(key, holder, u64::from(BPF_NOEXIST)).is_ok()
    }

    #[inline(always)]
    fn port_state_mut(&mut self, slot: u32) -> Option<&mut PortState> {
        value(PORT_STATES.get_ptr_mut(slot))
    }

    #[inline(always)]
    fn challenger_mut(&mut self, key: &ChallengerKey) -> Option<&mut Challenger> {
        value(CHALLENGERS.get_ptr_mut(key))
    }

    #[inline(always)]
    fn insert_challenger(&mut self, key: &ChallengerKey, challenger: &Challenger) {
        let _ = CHALLENGERS.insert(key, challenger, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn drops_mut(&mut self, key: &DropKey) -> Option<&mut Drops> {
        value(DROPS.get_ptr_mut(key))
    }

    #[inline(always)]
    fn insert_drops(&mut self, key: &DropKey) {
        // Nobody writes it, and the stack has no room for another.
        if let Some(none) = NO_DROPS.get(0) {
            let _ = DROPS.insert(key, none, u64::from(BPF_NOEXIST));
        }
    }

    #[inline(always)]
    fn emit(&mut self, event: impl FnOnce() -> Event) -> bool {
        let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return false };
        entry.write(event());
        entry.submit(0);
        true
    }
}
