//! The maps in the kernel, as plain collections: for recorded frames, and for tests.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    vec::Vec,
};

use bytemuck::{Zeroable as _, must_cast};

use crate::{
    abi::{
        AddressKey, BridgeCounters, Challenger, ChallengerKey, DropKey, Drops, Event, Live,
        MacHolder, MacKey, Mode, Owned, Policy, Port, PortMac, PortState, Prefix, Vlans,
    },
    decide::Tables,
    frame::Frame,
    watch::{Ingress, Scratch, Store, watch},
};

/// Everything that the program knows, writes and tells.
#[derive(Clone, Debug)]
pub struct Model {
    /// Who owns what.
    pub owned: HashMap<AddressKey, Owned>,
    /// Who is live with what.
    pub live: HashMap<AddressKey, Live>,
    /// The prefixes, by key and its length: see [`Model::add_prefix`].
    pub prefixes: HashMap<(AddressKey, u32), Prefix>,
    lengths: BTreeSet<u32>,
    /// The VLANs of ports.
    pub vlans: HashMap<u32, Vlans>,
    /// Where MACs are.
    pub macs: HashMap<MacKey, MacHolder>,
    /// What the port has used of its quota.
    pub state: PortState,
    /// What enforcement does on the port.
    pub policy: Policy,
    /// Whether its bridge is enforced.
    pub mode: Mode,
    /// The MACs that are bound to ports.
    pub bound_macs: BTreeMap<PortMac, u32>,
    /// What ports may claim besides their bindings, by key and length.
    pub exceptions: HashMap<(AddressKey, u32), u32>,
    /// How often the agent has changed something.
    pub changes: u32,
    /// What was dropped, or would have been.
    pub drops: HashMap<DropKey, Drops>,
    /// The challengers that were reported.
    pub challengers: HashMap<ChallengerKey, Challenger>,
    /// The events that were sent.
    pub events: Vec<Event>,
    /// What was counted.
    pub counters: BridgeCounters,
    /// The time.
    pub now_ns: u64,
}

impl Model {
    /// With nothing in it.
    pub fn new(now_ns: u64) -> Self {
        Self {
            owned: HashMap::new(),
            live: HashMap::new(),
            prefixes: HashMap::new(),
            lengths: BTreeSet::new(),
            vlans: HashMap::new(),
            macs: HashMap::new(),
            state: PortState::default(),
            policy: Policy::default(),
            mode: Mode::default(),
            bound_macs: BTreeMap::new(),
            exceptions: HashMap::new(),
            changes: 1,
            drops: HashMap::new(),
            challengers: HashMap::new(),
            events: Vec::new(),
            counters: BridgeCounters::zeroed(),
            now_ns,
        }
    }

    /// Adds what is known of a prefix, with the length of its key.
    pub fn add_prefix(&mut self, key: AddressKey, len: u32, prefix: Prefix) {
        self.prefixes.insert((cut(&key, len), len), prefix);
        self.lengths.insert(len);
    }

    /// Lets a port claim an address besides its bindings.
    pub fn except(&mut self, port: u32, key: &AddressKey, len: u32, bits: u32) {
        self.exceptions.insert((cut(&key.on_port(port), len), len), bits);
    }

    /// A frame comes. Returns whether it is dropped.
    pub fn watch<F: Frame + ?Sized>(&mut self, frame: &F, port: &Port) -> bool {
        let mut counters = self.counters;
        let mut ingress = Ingress { port, from: port.ifindex, counters: &mut counters };
        let dropped = watch(frame, self, &mut ingress, &mut Scratch::zeroed());
        self.counters = counters;
        dropped
    }
}

/// The first bits of a key, which all lie beyond its segment.
fn cut(key: &AddressKey, len: u32) -> AddressKey {
    let [segment, high, low]: [u64; 3] = must_cast(*key);
    let address = u128::from(u64::from_be(high)) << 64 | u128::from(u64::from_be(low));
    let rest = u128::MAX.checked_shr(len.saturating_sub(64)).unwrap_or(0);
    let [high, low] = [(address & !rest) >> 64, address & !rest & u128::from(u64::MAX)];
    let word = |bits: u128| u64::try_from(bits).map_or(0, u64::to_be);
    must_cast([segment, word(high), word(low)])
}

impl Tables for Model {
    fn owned(&self, key: &AddressKey) -> Option<&Owned> {
        self.owned.get(key)
    }

    fn live(&self, key: &AddressKey) -> Option<&Live> {
        self.live.get(key)
    }

    fn prefix(&self, key: &AddressKey) -> Option<&Prefix> {
        let mut longest = self.lengths.iter().rev();
        longest.find_map(|len| self.prefixes.get(&(cut(key, *len), *len)))
    }

    fn is_member(&self, ifindex: u32, vlan: u16) -> bool {
        self.vlans.get(&ifindex).is_some_and(|vlans| vlans.has(vlan))
    }

    fn mac_holder(&self, key: &MacKey) -> Option<&MacHolder> {
        self.macs.get(key)
    }

    fn port_state(&self, _: u32) -> Option<&PortState> {
        Some(&self.state)
    }

    fn policy(&self, _: u32) -> Option<&Policy> {
        Some(&self.policy)
    }

    fn mode(&self, _: u32) -> Option<&Mode> {
        Some(&self.mode)
    }

    fn station(&self, key: &PortMac) -> u32 {
        self.bound_macs.get(key).copied().unwrap_or(0)
    }

    fn exception(&self, key: &AddressKey) -> u32 {
        let lengths = (0..=AddressKey::FULL_LEN).rev();
        let mut longest = lengths.filter_map(|len| self.exceptions.get(&(cut(key, len), len)));
        longest.next().copied().unwrap_or(0)
    }

    fn changes(&self) -> u32 {
        self.changes
    }
}

impl Store for Model {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn event_ns(&self) -> u64 {
        self.now_ns
    }

    fn owned_mut(&mut self, key: &AddressKey) -> Option<&mut Owned> {
        self.owned.get_mut(key)
    }

    fn live_mut(&mut self, key: &AddressKey) -> Option<&mut Live> {
        self.live.get_mut(key)
    }

    fn insert_live(&mut self, key: &AddressKey, live: &Live) -> bool {
        let new = !self.live.contains_key(key);
        self.live.entry(*key).or_insert(*live);
        new
    }

    fn insert_mac(&mut self, key: &MacKey, holder: &MacHolder) -> bool {
        let new = !self.macs.contains_key(key);
        self.macs.entry(*key).or_insert(*holder);
        new
    }

    fn port_state_mut(&mut self, _: u32) -> Option<&mut PortState> {
        Some(&mut self.state)
    }

    fn challenger_mut(&mut self, key: &ChallengerKey) -> Option<&mut Challenger> {
        self.challengers.get_mut(key)
    }

    fn insert_challenger(&mut self, key: &ChallengerKey, challenger: &Challenger) {
        self.challengers.insert(*key, *challenger);
    }

    fn drops_mut(&mut self, key: &DropKey) -> Option<&mut Drops> {
        self.drops.get_mut(key)
    }

    fn insert_drops(&mut self, key: &DropKey) {
        self.drops.insert(*key, Drops::zeroed());
    }

    fn emit(&mut self, event: impl FnOnce() -> Event) -> bool {
        self.events.push(event());
        true
    }
}
