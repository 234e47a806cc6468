//! The maps, by the names of the ABI, pinned by the agent.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use guard_ebpf::{
    abi::{
        AddressKey, BridgeCounters, Challenger, ChallengerKey, Live, MAX_BRIDGES, MAX_CHALLENGERS,
        MAX_LIVE, MAX_OWNED, MAX_PORTS, MAX_PREFIXES, Owned, Port, RING_BYTES,
    },
    decide::Tables,
};

#[map]
pub static PORTS: HashMap<u32, Port> = HashMap::pinned(MAX_PORTS, 0);

// The two large maps are not preallocated: full, they would hold some 27 MB each from the start,
// where most nodes have a few hundred addresses. The agent alone inserts into the one, and only an
// address's first claim into the other; an insert that gets no memory is counted as a full map is.
#[map]
pub static OWNED: HashMap<AddressKey, Owned> = HashMap::pinned(MAX_OWNED, BPF_F_NO_PREALLOC);

#[map]
pub static LIVE: HashMap<AddressKey, Live> = HashMap::pinned(MAX_LIVE, BPF_F_NO_PREALLOC);

#[map]
pub static CHALLENGERS: LruHashMap<ChallengerKey, Challenger> =
    LruHashMap::pinned(MAX_CHALLENGERS, 0);

#[map]
pub static PREFIXES: LpmTrie<AddressKey, u32> = LpmTrie::pinned(MAX_PREFIXES, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(RING_BYTES, 0);

#[map]
pub static COUNTERS: PerCpuArray<BridgeCounters> = PerCpuArray::pinned(MAX_BRIDGES, 0);

#[map]
pub static FRAMES: PerCpuArray<u64> = PerCpuArray::pinned(MAX_PORTS, 0);

/// The kernel's maps as the decision function's tables.
pub struct Maps;

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
    fn is_on_prefix(&self, key: &AddressKey) -> bool {
        PREFIXES.get(Key::new(AddressKey::FULL_LEN, *key)).is_some()
    }
}
