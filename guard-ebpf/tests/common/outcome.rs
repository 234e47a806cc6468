//! What came of a frame, in the words of the cases, so that runners can be compared.

use guard_ebpf::{
    abi::{
        BridgeCounters, CLAIM_GROUP, CLAIM_LINK_LOCAL, CLAIM_MISMATCH, CLAIM_ODD, CLAIM_ROUTER,
        CLAIM_SPOOF, CLAIM_VIRTUAL, CLAIM_WEAK, EVENT_ALLOWED, EVENT_BRIDGE_MAC, EVENT_CLONE,
        EVENT_CONTEST, EVENT_DECLINED, EVENT_FLOOD, EVENT_LIVE, EVENT_OPAQUE, EVENT_OWNER,
        EVENT_PROBE, EVENT_ROUTER, EVENT_ROUTER_FLAG, EVENT_VIOLATION, Event, Live, Owned,
        PortState,
    },
    counters::{DropReason, FrameKind, MalformedReason, NoClaim, OpaqueReason},
};
use serde::Deserialize;

use super::Case;

/// What came of a frame. All of it is compared, so what a case leaves out must not happen.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outcome {
    /// The first event, as in [`name`].
    pub event: Option<String>,
    /// The event's flags, in the order of their bits.
    pub flags: Vec<String>,
    /// Whether the event says that its frame was to a group, where a case is about that.
    pub group: Option<bool>,
    /// The port and the MAC of the holder that the event names.
    pub holder: Option<(u32, String)>,
    /// The events that follow it.
    pub also: Vec<String>,
    /// What was stored: `live`, `live_seen` or `owner_seen`.
    pub wrote: Option<String>,
    /// Why enforcement would drop the frame.
    pub drop: Option<String>,
    /// Why it was dropped: a runner's, not the file's.
    #[serde(skip)]
    pub dropped: Option<String>,
    /// The counter of frames that cannot be read.
    pub malformed: Option<String>,
    /// The counter of frames that claim nothing.
    pub no_claim: Option<String>,
    /// The counter of frames that cannot be read to their end.
    pub opaque: Option<String>,
    /// The counter of claims over the quota.
    pub over_quota: u64,
    /// The counter of what is over the port's budget.
    pub over_budget: u64,
    /// Whether the port of the MAC was learnt, where a case is about that.
    pub learnt: Option<bool>,
    /// The addresses and the frames that count for the port's quota, where a case is about that.
    pub used: Option<(u32, u32)>,
    /// The counter of odd packets.
    pub odd: bool,
    /// The counter of kinds, where it is not plain from the frame.
    pub kind: Option<String>,
}

/// An event's kind.
fn name(kind: u8) -> &'static str {
    match kind {
        EVENT_LIVE => "live",
        EVENT_OWNER => "owner",
        EVENT_VIOLATION => "violation",
        EVENT_CONTEST => "contest",
        EVENT_PROBE => "probe",
        EVENT_CLONE => "clone",
        EVENT_BRIDGE_MAC => "bridge_mac",
        EVENT_OPAQUE => "opaque",
        EVENT_ROUTER => "router",
        EVENT_ROUTER_FLAG => "router_flag",
        EVENT_FLOOD => "flood",
        EVENT_ALLOWED => "allowed",
        EVENT_DECLINED => "declined",
        other => panic!("event {other}"),
    }
}

impl Outcome {
    /// Whether it is told as something that should not be.
    pub(crate) fn alarms(&self) -> bool {
        let quiet = ["live", "owner", "probe", "allowed", "router_flag"];
        self.event.iter().chain(&self.also).any(|event| !quiet.contains(&event.as_str()))
    }

    /// This, as it came on a port that is enforced, and what is asked for there: a frame that is dropped
    /// writes nothing, and what it shows of an address that nobody has is not told.
    pub(crate) fn enforced(self, asked: &Self) -> (Self, Self) {
        if asked.drop.is_none() {
            return (self.cut_to(asked), asked.clone());
        }
        let events = asked.event.iter().chain(&asked.also);
        let shows = |event: &str| match event {
            "live" | "owner" => true,
            "probe" => asked.holder.is_none(),
            _ => false,
        };
        let mut told = events.filter(|event| !shows(event)).cloned();
        let (event, also) = (told.next(), told.collect());
        let is_first = event == asked.event;
        let (dropped, learnt) = (asked.drop.clone(), asked.learnt.map(|_| false));
        let asked = Self { event, also, dropped, learnt, drop: None, wrote: None, ..asked.clone() };
        let asked = Self { used: None, ..asked };
        let came = self.cut_to(&asked);
        let event_alone = |outcome: Self| match is_first {
            true => outcome,
            false => Self { flags: Vec::new(), group: None, holder: None, ..outcome },
        };
        (event_alone(came), event_alone(asked))
    }

    /// Leaves out what a case does not ask for.
    pub(crate) fn cut_to(mut self, asked: &Self) -> Self {
        if asked.kind.is_none() {
            self.kind = None;
        }
        if asked.learnt.is_none() {
            self.learnt = None;
        }
        if asked.group.is_none() {
            self.group = None;
        }
        if asked.used.is_none() {
            self.used = None;
        }
        self
    }

    /// Adds the events of one frame.
    pub(crate) fn told(&mut self, events: &[Event], case: &Case) {
        for event in events {
            assert_eq!(event.ifindex, case.here);
            assert_eq!(event.eth_src, case.frame.eth_src());
            assert_eq!((event.key.bridge, event.key.segment()), (super::BRIDGE, case.segment()));
        }
        let Some((first, rest)) = events.split_first() else { return };
        self.event = Some(name(first.kind).to_owned());
        self.also = rest.iter().map(|event| name(event.kind).to_owned()).collect();
        match first.kind {
            EVENT_OPAQUE | EVENT_ROUTER | EVENT_ROUTER_FLAG | EVENT_FLOOD => {
                assert_eq!(first.key.address, [0; 16], "about no address");
            }
            EVENT_CLONE | EVENT_BRIDGE_MAC => assert_eq!(first.mac, first.eth_src),
            EVENT_DECLINED => {
                let declined = case.address.unwrap_or([0; 16].into());
                assert_eq!((first.key.ip(), first.mac), (declined, first.eth_src));
            }
            _ => assert_eq!((first.key, first.mac), (case.key(), case.frame.mac())),
        }
        self.group = Some(first.flags & CLAIM_GROUP != 0);
        let names = [
            (CLAIM_MISMATCH, "mismatch"),
            (CLAIM_SPOOF, "spoof"),
            (CLAIM_LINK_LOCAL, "link_local"),
            (CLAIM_VIRTUAL, "virtual"),
            (CLAIM_ODD, "odd"),
            (CLAIM_WEAK, "weak"),
            (CLAIM_ROUTER, "router"),
        ];
        let set = names.iter().filter(|(bit, _)| first.flags & bit != 0);
        self.flags = set.map(|(_, name)| (*name).to_owned()).collect();
        if (first.holder_ifindex, first.holder_mac) != (0, [0; 6]) {
            let mac = first.holder_mac.map(|octet| format!("{octet:02x}")).join(":");
            let is_here = first.holder_ifindex == case.here;
            self.holder = Some((if is_here { super::HERE } else { first.holder_ifindex }, mac));
        }
    }

    /// Adds what was written about the case's address.
    pub(crate) fn written(
        &mut self,
        case: &Case,
        now_ns: u64,
        live: Option<Live>,
        owned: Option<Owned>,
        state: PortState,
    ) {
        self.wrote = match (case.live(now_ns), live) {
            (None, Some(live)) => {
                assert_eq!((live.ifindex, live.mac), (case.here, case.frame.mac()));
                assert_eq!(live.first_ns, live.seen_ns);
                Some("live".to_owned())
            }
            (before, after) if before != after.map(|live| Live { passed: 0, ..live }) => {
                Some("live_seen".to_owned())
            }
            _ if owned != case.owned(now_ns) => Some("owner_seen".to_owned()),
            _ => None,
        };
        self.used = Some((state.addresses, state.frames));
    }

    /// Adds what was counted for one frame.
    pub(crate) fn counted(&mut self, counters: &BridgeCounters) {
        let BridgeCounters {
            frames,
            malformed,
            no_claim,
            opaque,
            would_drop,
            dropped,
            odd,
            clones,
            routers,
            over_quota,
            over_budget,
            events_lost,
            live_full,
            macs_full,
            unjudged,
        } = counters;
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
        self.opaque =
            names(&OpaqueReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>(), opaque);
        self.drop =
            names(&DropReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>(), would_drop);
        self.dropped =
            names(&DropReason::ALL.iter().map(|r| r.name()).collect::<Vec<_>>(), dropped);
        self.odd = *odd == 1;
        self.over_quota = *over_quota;
        self.over_budget = *over_budget;
        let told = |kinds: &[&str]| {
            let events = self.event.iter().chain(&self.also);
            events.filter(|event| kinds.contains(&event.as_str())).count() as u64
        };
        if *over_budget == 0 {
            assert_eq!(*clones, told(&["clone", "bridge_mac"]));
        }
        assert_eq!(*routers, told(&["router", "router_flag"]));
        assert_eq!((*events_lost, *live_full, *macs_full, *unjudged), (0, 0, 0, 0));
    }
}
