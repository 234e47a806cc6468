//! How a frame was decoded, or how many were missed.

use std::fmt::Write as _;

use guard_api::{json::time, proto};
use jiff::Timestamp;
use serde::Serialize;

use super::moment;
use crate::output::{Screen, View, printable};

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Traced {
    Frame(Box<proto::TracedFrame>),
    Lost { time: Option<Timestamp>, interface: String, lost: u64 },
}

impl From<proto::TracedFrame> for Traced {
    fn from(frame: proto::TracedFrame) -> Self {
        if frame.lost == 0 {
            return Self::Frame(Box::new(frame));
        }
        let proto::TracedFrame { time: at, interface, lost, .. } = frame;
        Self::Lost { time: time(at), interface, lost }
    }
}

impl View for Traced {
    fn text(&self, _: Screen) -> String {
        match self {
            Self::Frame(frame) => printable(&line(frame)),
            Self::Lost { time, lost, .. } => {
                let time = time.map_or_else(|| "-".to_owned(), |time| format!("{time:.6}"));
                format!("{time} lost {lost}: frames came faster than they could be shown")
            }
        }
    }
}

/// Such as `arp from 02:…:0b: claim 10.8.64.2 at 02:…:0b, assert -> report violation`.
fn line(frame: &proto::TracedFrame) -> String {
    let also = if frame.claim > 1 { "also " } else { "" };
    let proto::TracedFrame { kind, eth_src, says, .. } = frame;
    let mut line = format!("{} {kind} from {eth_src}: {also}{says}", moment(frame.time, 6));
    let mut add = |what: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(line, "{what}{value}");
        }
    };
    add(" ", &frame.reason);
    add(" ", &frame.address);
    add(" at ", &frame.mac);
    add(", ", &frame.strength);
    for flag in &frame.flags {
        add(" ", flag);
    }
    add(" -> ", &frame.outcome);
    add(" ", &frame.event);
    add("; would be dropped: ", &frame.drop);
    add("; router ", &frame.router);
    add(" vlan ", &super::number(frame.vlan.into()));
    line
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
