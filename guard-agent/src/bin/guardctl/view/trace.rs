//! How a frame was decoded.

use std::fmt::Write as _;

use guard_agent::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{text, time};
use crate::output::{Screen, View, printable};

#[derive(Debug, Serialize)]
pub struct TracedFrame {
    time: Option<Timestamp>,
    interface: String,
    kind: String,
    vlan: u32,
    inner_vlan: u32,
    eth_src: String,
    says: String,
    reason: Option<String>,
    address: Option<String>,
    mac: Option<String>,
    strength: Option<String>,
    flags: Vec<String>,
    outcome: String,
    event: Option<String>,
    drop: Option<String>,
    router: Option<String>,
}

impl From<proto::TracedFrame> for TracedFrame {
    fn from(frame: proto::TracedFrame) -> Self {
        Self {
            time: time(frame.time),
            interface: frame.interface,
            kind: frame.kind,
            vlan: frame.vlan,
            inner_vlan: frame.inner_vlan,
            eth_src: frame.eth_src,
            says: frame.says,
            reason: text(frame.reason),
            address: text(frame.address),
            mac: text(frame.mac),
            strength: text(frame.strength),
            flags: frame.flags,
            outcome: frame.outcome,
            event: text(frame.event),
            drop: text(frame.drop),
            router: text(frame.router),
        }
    }
}

/// One line, such as `arp from 02:…:0b: claim 10.8.64.2 at 02:…:0b (assert) -> report violation`.
impl View for TracedFrame {
    fn text(&self, _: Screen) -> String {
        let at = self.time.map_or_else(|| "-".to_owned(), |time| format!("{time:.6}"));
        let mut line = format!("{at} {} from {}: {}", self.kind, self.eth_src, self.says);
        let mut add = |what: &str, value: &Option<String>| {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(line, "{what}{value}");
            }
        };
        add(" ", &self.reason);
        add(" ", &self.address);
        add(" at ", &self.mac);
        add(", ", &self.strength);
        add("", &Some(self.flags.iter().map(|flag| format!(" {flag}")).collect()));
        add(" -> ", &Some(self.outcome.clone()));
        add(" ", &self.event);
        add("; would be dropped: ", &self.drop);
        add("; router ", &self.router);
        add(" vlan ", &(self.vlan != 0).then(|| self.vlan.to_string()));
        printable(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::stamp, *};

    #[test]
    fn a_frame_is_one_line() {
        let frame = proto::TracedFrame {
            time: stamp(1),
            kind: "arp".to_owned(),
            eth_src: "02:00:00:00:00:0b".to_owned(),
            says: "claim".to_owned(),
            address: "10.8.64.2".to_owned(),
            mac: "02:00:00:00:00:0b".to_owned(),
            strength: "assert".to_owned(),
            outcome: "report".to_owned(),
            event: "violation".to_owned(),
            drop: "violation".to_owned(),
            ..proto::TracedFrame::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            TracedFrame::from(frame).text(Screen { width: 80, colour: false, now }),
            "1970-01-01T00:00:01.000000Z arp from 02:00:00:00:00:0b: claim 10.8.64.2 at \
             02:00:00:00:00:0b, assert -> report violation; would be dropped: violation"
        );
    }
}
