//! How a frame was decoded, or how many were missed.

use std::fmt::Write as _;

use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{text, time};
use crate::output::{Screen, View, printable};

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Traced {
    Frame(Box<TracedFrame>),
    Lost { time: Option<Timestamp>, interface: String, lost: u64 },
}

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
    claim: u32,
}

impl From<proto::TracedFrame> for Traced {
    fn from(frame: proto::TracedFrame) -> Self {
        if frame.lost == 0 {
            return Self::Frame(Box::new(frame.into()));
        }
        let proto::TracedFrame { time: at, interface, lost, .. } = frame;
        Self::Lost { time: time(at), interface, lost }
    }
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
            claim: frame.claim,
        }
    }
}

impl View for Traced {
    fn text(&self, _: Screen) -> String {
        match self {
            Self::Frame(frame) => printable(&frame.line()),
            Self::Lost { time, lost, .. } => {
                format!(
                    "{} lost {lost}: frames came faster than they could be shown",
                    moment(*time)
                )
            }
        }
    }
}

fn moment(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.6}"))
}

impl TracedFrame {
    /// Such as `arp from 02:…:0b: claim 10.8.64.2 at 02:…:0b, assert -> report violation`.
    fn line(&self) -> String {
        let also = if self.claim > 1 { "also " } else { "" };
        let Self { kind, eth_src, says, .. } = self;
        let mut line = format!("{} {kind} from {eth_src}: {also}{says}", moment(self.time));
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
        line
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::stamp, *};

    #[test]
    fn a_claim_is_one_line_and_so_is_a_loss() {
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
            claim: 1,
            ..proto::TracedFrame::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        let text = |frame| Traced::from(frame).text(Screen { width: 80, colour: false, now });
        let further = proto::TracedFrame { claim: 2, event: String::new(), ..frame.clone() };
        let lost = proto::TracedFrame { time: stamp(1), lost: 12, ..proto::TracedFrame::default() };
        assert_eq!(
            text(frame),
            "1970-01-01T00:00:01.000000Z arp from 02:00:00:00:00:0b: claim 10.8.64.2 at \
             02:00:00:00:00:0b, assert -> report violation; would be dropped: violation"
        );
        assert_eq!(
            text(further),
            "1970-01-01T00:00:01.000000Z arp from 02:00:00:00:00:0b: also claim 10.8.64.2 at \
             02:00:00:00:00:0b, assert -> report; would be dropped: violation"
        );
        assert_eq!(
            text(lost),
            "1970-01-01T00:00:01.000000Z lost 12: frames came faster than they could be shown"
        );
    }
}
