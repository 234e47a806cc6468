//! Frames of ports from which spanning tree lets nothing in. The program judges them as any; what they
//! would do is set aside for the grace, and then the port is looked at once more.

use guard_ebpf::abi::{self, EVENT_FLOOD, EVENT_LIVE, EVENT_OWNER, EVENT_ROUTER_FLAG};

use super::{Arbiter, Effect, Facts, Question, Read, event::challenger_key, given::Given};
use crate::{evidence::Station, mac::Mac};

/// The address, the port, the MAC, and the kind of event.
pub(super) type AsideKey = (abi::AddressKey, u32, Mac, u8);

fn key(event: &abi::Event) -> AsideKey {
    (event.key, event.ifindex, Mac(event.mac), event.kind)
}

/// Whether an event is about what moves something, or tells on somebody.
const fn is_moving(kind: u8) -> bool {
    !matches!(kind, EVENT_LIVE | EVENT_OWNER | EVENT_FLOOD | EVENT_ROUTER_FLAG)
}

impl Arbiter {
    /// Sets an event aside, if it is one of those. Returns whether it has.
    pub(super) fn set_aside<F: Facts>(
        &mut self,
        event: &abi::Event,
        read: Read,
        given: &Given<'_, F>,
    ) -> bool {
        if !read.blocked || !is_moving(event.kind) {
            return false;
        }
        // What there is no room for comes again.
        let at = given.now.monotonic + self.conflict.grace;
        if let Some(port) =
            given.facts.port(event.ifindex).filter(|_| !self.aside.contains(&key(event)))
        {
            self.aside.insert(key(event), (event.ifindex, &port), at, *event);
        }
        true
    }

    pub(super) fn aside_due<F: Facts>(&mut self, given: &mut Given<'_, F>) {
        for key in self.aside.due(given.now.monotonic) {
            if let Some(event) = self.aside.remove(&key) {
                given.ask(Question::Forwards(Box::new(event)));
            }
        }
    }

    /// The port of what was set aside lets frames in by now, or it does not, and the frame was none.
    pub(super) fn port_read<F: Facts>(
        &mut self,
        event: &abi::Event,
        read: Read,
        given: &mut Given<'_, F>,
    ) {
        if read.blocked {
            given.forget_told(event);
        } else {
            self.frame(event, read, given);
        }
    }
}

impl<F: Facts> Given<'_, F> {
    /// The program forgets that it has told this: what comes once the port lets it in is news.
    fn forget_told(&mut self, event: &abi::Event) {
        let abi::Event { key, ifindex, mac, kind, .. } = *event;
        let Some(port) = self.facts.port(ifindex) else { return };
        let station = Station { mac: Mac(mac), interface: port.interface, ifindex };
        // Where a bridge does not filter VLANs, a MAC is one in all of them.
        let in_all = abi::AddressKey { vlan: 0, ..key };
        for key in [key, in_all] {
            let told = challenger_key(&key, &station, kind);
            self.effects.push(Effect::ForgetChallenger(told));
        }
    }
}
