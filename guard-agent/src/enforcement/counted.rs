//! What the kernel has counted of frames that were dropped, or would have been.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aya::maps::{MapData, PerCpuHashMap};
use bytemuck::Zeroable as _;
use guard_core::enforcement::can_be_braked;
use guard_ebpf::{
    abi::{self, DropKey, Drops, NO_TAG},
    counters::DropReason,
    frame::Frame,
    model::Model,
    trace::{self, Arrival, SAYS_CLAIM, Traced},
    watch::Scratch,
};

/// The kernel's map.
pub(crate) type DropsMap = PerCpuHashMap<MapData, DropKey, Drops>;

/// The frames of one port that break one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The port.
    pub ifindex: u32,
    /// Which rule.
    pub reason: DropReason,
    /// Frames that were dropped.
    pub dropped: u64,
    /// Frames that would have been.
    pub would_drop: u64,
    /// The first of them, on `CLOCK_MONOTONIC`.
    pub first: Duration,
    /// The last of them.
    pub last: Duration,
    /// The first frame.
    pub frame: FirstFrame,
}

impl Counted {
    /// The address that the first frame claims.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let traced = decode(&self.frame);
        (traced.says == SAYS_CLAIM).then(|| traced.key.ip())
    }
}

/// How a frame begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirstFrame {
    /// As much of it as is kept.
    pub bytes: Vec<u8>,
    len: u32,
    tag: Option<u16>,
}

impl Frame for FirstFrame {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.load(offset)
    }

    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.head(offset)
    }

    fn size(&self) -> u32 {
        self.len
    }

    fn stripped_tag(&self) -> Option<u16> {
        self.tag
    }

    fn begin(&self, into: &mut [u8; abi::FRAME_BYTES]) {
        self.bytes.begin(into);
    }
}

/// What a frame says, as far as its beginning tells: the first of its claims.
pub(crate) fn decode(frame: &FirstFrame) -> Traced {
    let (tables, port) = (Model::new(0), abi::Port::zeroed());
    let at = Arrival { port: &port, from: 0, now_ns: 0 };
    let mut first = None;
    trace::trace(frame, &tables, &at, &mut Scratch::zeroed(), |traced| {
        first.get_or_insert(*traced);
    });
    first.unwrap_or_else(Traced::zeroed)
}

/// Reads the map, and removes from it what is of ports that are gone.
pub(super) fn read(map: &mut DropsMap, exists: impl Fn(u32) -> bool) -> Vec<Counted> {
    let (mut counted, mut gone) = (BTreeMap::new(), Vec::new());
    for (key, values) in map.iter().filter_map(Result::ok) {
        if exists(key.ifindex) {
            counted.extend(sum(key, &values).map(|row| ((key.ifindex, key.reason), row)));
        } else {
            gone.push(key);
        }
    }
    for key in gone {
        // Idempotent: it may be gone already.
        let _ = map.remove(&key);
    }
    counted.into_values().collect()
}

/// The sum over all CPUs; a CPU that has seen none of them has nothing to say.
fn sum(key: DropKey, values: &[Drops]) -> Option<Counted> {
    let reason = *DropReason::ALL.get(usize::try_from(key.reason).ok()?)?;
    let seen = || values.iter().filter(|drops| drops.first_ns != 0);
    let first = seen().min_by_key(|drops| drops.first_ns)?;
    let kept = usize::try_from(first.len).unwrap_or(usize::MAX).min(first.frame.len());
    Some(Counted {
        ifindex: key.ifindex,
        reason,
        dropped: seen().map(|drops| drops.dropped).sum(),
        would_drop: seen().map(|drops| drops.would_drop).sum(),
        first: Duration::from_nanos(first.first_ns),
        last: Duration::from_nanos(seen().map(|drops| drops.last_ns).max()?),
        frame: FirstFrame {
            bytes: first.frame[..kept].to_vec(),
            len: first.len,
            tag: (first.tag != NO_TAG).then(|| u16::try_from(first.tag).ok()).flatten(),
        },
    })
}

/// The ports of which more was dropped than before, for reasons that the brake concerns.
pub(super) fn begun(before: &[Counted], now: &[Counted]) -> impl Iterator<Item = u32> {
    let before: BTreeMap<_, _> =
        before.iter().map(|row| ((row.ifindex, row.reason as u8), row.dropped)).collect();
    let has_grown = move |row: &&Counted| {
        let was = before.get(&(row.ifindex, row.reason as u8)).copied().unwrap_or_default();
        can_be_braked(row.reason) && row.dropped > was
    };
    now.iter().filter(has_grown).map(|row| row.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ARP reply of 10.8.64.2 by 02:…:0b.
    fn arp() -> [u8; abi::FRAME_BYTES] {
        let mac = [2, 0, 0, 0, 0, 11];
        let mut frame = [0; abi::FRAME_BYTES];
        let parts: [&[u8]; 8] = [
            &[255; 6],
            &mac,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &mac,
            &[10, 8, 64, 2],
            &[255; 6],
            &[10, 8, 64, 2],
            &[],
        ];
        let bytes = parts.concat();
        frame[..bytes.len()].copy_from_slice(&bytes);
        frame
    }

    fn drops(dropped: u64, first_ns: u64) -> Drops {
        let frame = arp();
        let last_ns = first_ns + 5;
        Drops { dropped, would_drop: 1, first_ns, last_ns, len: 42, tag: NO_TAG, frame }
    }

    fn key(ifindex: u32, reason: DropReason) -> DropKey {
        DropKey { ifindex, reason: reason as u32 }
    }

    #[test]
    fn the_cpus_are_summed_and_one_that_saw_nothing_says_nothing() {
        let nothing = Drops::zeroed();
        let violation = key(7, DropReason::Violation);
        assert_eq!(sum(violation, &[nothing, nothing]), None);
        let row = sum(violation, &[nothing, drops(3, 20), drops(4, 10)]).unwrap();
        assert_eq!((row.dropped, row.would_drop), (7, 2));
        assert_eq!((row.first.as_nanos(), row.last.as_nanos()), (10, 25));
        assert_eq!(row.frame.bytes.len(), 42);
        assert_eq!(sum(DropKey { ifindex: 7, reason: 99 }, &[drops(1, 1)]), None);
    }

    #[test]
    fn the_first_frame_is_decoded() {
        let row = sum(key(7, DropReason::Violation), &[drops(1, 1)]).unwrap();
        assert_eq!(row.address(), Some([10, 8, 64, 2].into()));
        assert_eq!(decode(&row.frame).eth_src, [2, 0, 0, 0, 0, 11]);
        let cut = FirstFrame { bytes: vec![1, 2, 3], ..row.frame };
        assert_ne!(decode(&cut).says, SAYS_CLAIM);
    }
}
