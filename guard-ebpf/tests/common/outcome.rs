//! What came of a frame, in the words of the cases, so that runners can be compared.

use guard_ebpf::{
    abi::{
        BridgeCounters, CLAIM_LINK_LOCAL, CLAIM_MISMATCH, CLAIM_ODD, CLAIM_SPOOF, CLAIM_VIRTUAL,
        EVENT_CONTEST, EVENT_LIVE, EVENT_OWNER, EVENT_PROBE, EVENT_VIOLATION,
    },
    counters::{DropReason, FrameKind, MalformedReason, NoClaim},
};
use serde::Deserialize;

/// What came of a frame. All of it is compared, so what a case leaves out must not happen.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome {
    /// The event: `live`, `owner`, `violation`, `contest` or `probe`.
    pub event: Option<String>,
    /// The event's flags, in the order of their bits.
    pub flags: Vec<String>,
    /// The port and the MAC of the holder that the event names.
    pub holder: Option<(u32, String)>,
    /// What was stored: `live`, `live_seen` or `owner_seen`.
    pub wrote: Option<String>,
    /// Why enforcement would drop the frame.
    pub drop: Option<String>,
    /// The counter of frames that cannot be read.
    pub malformed: Option<String>,
    /// The counter of frames that claim nothing.
    pub no_claim: Option<String>,
    /// The counter of odd packets.
    pub odd: bool,
    /// The counter of kinds, where it is not plain from the frame.
    pub kind: Option<String>,
}

impl Outcome {
    /// Whether it opens an incident.
    pub fn alarms(&self) -> bool {
        matches!(self.event.as_deref(), Some("violation" | "contest"))
    }

    /// Adds an event.
    pub fn event(&mut self, kind: u8, flags: u16, holder_ifindex: u32, holder_mac: [u8; 6]) {
        let kind = match kind {
            EVENT_LIVE => "live",
            EVENT_OWNER => "owner",
            EVENT_VIOLATION => "violation",
            EVENT_CONTEST => "contest",
            EVENT_PROBE => "probe",
            other => panic!("event {other}"),
        };
        assert_eq!(self.event.replace(kind.to_owned()), None, "a second event");
        let names = [
            (CLAIM_MISMATCH, "mismatch"),
            (CLAIM_SPOOF, "spoof"),
            (CLAIM_LINK_LOCAL, "link_local"),
            (CLAIM_VIRTUAL, "virtual"),
            (CLAIM_ODD, "odd"),
        ];
        let set = names.iter().filter(|(bit, _)| flags & bit != 0);
        self.flags = set.map(|(_, name)| (*name).to_owned()).collect();
        if (holder_ifindex, holder_mac) != (0, [0; 6]) {
            let mac = holder_mac.map(|octet| format!("{octet:02x}")).join(":");
            self.holder = Some((holder_ifindex, mac));
        }
    }

    /// Adds what was counted for one frame.
    pub fn counted(&mut self, counters: &BridgeCounters) {
        let BridgeCounters { frames, malformed, no_claim, would_drop, odd, events_lost, live_full } =
            counters;
        let names = |all: &[&'static str], counts: &[u64]| -> Option<String> {
            let mut seen = all.iter().zip(counts).filter(|(_, count)| **count != 0);
            let (name, count) = seen.next()?;
            assert_eq!((*count, seen.next()), (1, None), "one frame is counted once");
            Some((*name).to_owned())
        };
        self.kind = names(&FrameKind::ALL.iter().map(|k| k.name()).collect::<Vec<_>>(), frames);
        self.malformed =
            names(&MalformedReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>(), malformed);
        self.no_claim = names(&NoClaim::ALL.iter().map(|r| r.name()).collect::<Vec<_>>(), no_claim);
        self.drop =
            names(&DropReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>(), would_drop);
        self.odd = *odd == 1;
        assert_eq!((*events_lost, *live_full), (0, 0));
    }
}
