use guard_agent::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{Conflict, Lease, text, time};
use crate::output::{Screen, View, printable};

/// Something that was committed.
#[derive(Debug, Serialize)]
pub struct Event {
    pub seq: u64,
    pub time: Option<Timestamp>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub lease: Option<Lease>,
    pub conflict: Option<Conflict>,
}

impl From<proto::Event> for Event {
    fn from(event: proto::Event) -> Self {
        let (lease, conflict) = match event.subject {
            Some(proto::event::Subject::Lease(lease)) => (Some(lease.into()), None),
            Some(proto::event::Subject::Conflict(conflict)) => (None, Some(conflict.into())),
            None => (None, None),
        };
        Self { seq: event.seq, time: time(event.time), kind: text(event.r#type), lease, conflict }
    }
}

/// One line, as `events --follow` prints it.
impl View for Event {
    fn text(&self, _: Screen) -> String {
        let time = self.time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
        let kind = printable(self.kind.as_deref().unwrap_or("-"));
        let subject = match (&self.lease, &self.conflict) {
            (Some(lease), _) => of_lease(lease),
            (None, Some(conflict)) => conflict.line(),
            (None, None) => String::new(),
        };
        format!("{time} {} {kind:<17} {subject}", self.seq).trim_end().to_owned()
    }
}

fn of_lease(lease: &Lease) -> String {
    let mut words = Vec::new();
    words.extend(lease.address.clone());
    words.extend(lease.sandbox.clone());
    words.extend(lease.generation.map(|generation| format!("generation {generation}")));
    let place = (lease.seen_mac(), lease.seen_interface());
    match place {
        (Some(mac), Some(interface)) => words.push(format!("{mac}@{interface}")),
        (Some(one), None) | (None, Some(one)) => words.push(one.to_owned()),
        (None, None) => {}
    }
    words.extend(lease.reason.as_ref().map(|reason| format!("({reason})")));
    printable(&words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            conflict::tests::{DUPLICATE, duplicate},
            lease::tests::{ACTIVE, active},
            testing::{golden, stamp},
        },
        *,
    };

    fn event(kind: &str, subject: Option<proto::event::Subject>) -> Event {
        Event::from(proto::Event { seq: 9, time: stamp(1), r#type: kind.to_owned(), subject })
    }

    fn line(event: &Event) -> String {
        event.text(Screen { width: 80, colour: false, now: Timestamp::UNIX_EPOCH })
    }

    #[test]
    fn event_as_json() {
        let head = r#"{"seq":9,"time":"1970-01-01T00:00:01Z","type":"#;
        golden(
            &event("lease.active", Some(proto::event::Subject::Lease(active()))),
            &format!(r#"{head}"lease.active","lease":{ACTIVE},"conflict":null}}"#),
        );
        golden(
            &event("conflict.opened", Some(proto::event::Subject::Conflict(duplicate()))),
            &format!(r#"{head}"conflict.opened","lease":null,"conflict":{DUPLICATE}}}"#),
        );
        let gap = format!(r#"{head}"gap","lease":null,"conflict":null}}"#);
        golden(&event("gap", None), &gap);
    }

    #[test]
    fn event_as_a_line() {
        let active = event("lease.active", Some(proto::event::Subject::Lease(active())));
        assert_eq!(
            line(&active),
            "1970-01-01T00:00:01.000Z 9 lease.active      10.8.64.2 web-1 generation 1866435632857088 \
             02:00:00:00:00:0a@veth-web-1"
        );
        assert_eq!(line(&event("gap", None)), "1970-01-01T00:00:01.000Z 9 gap");
    }
}
