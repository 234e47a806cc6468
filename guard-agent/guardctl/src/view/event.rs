use guard_api::proto;
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
    pub source: Option<IgnoredSource>,
}

/// A source that an operator does without, or did.
#[derive(Debug, Serialize)]
pub struct IgnoredSource {
    pub name: Option<String>,
    pub until: Option<Timestamp>,
}

impl From<proto::Event> for Event {
    fn from(event: proto::Event) -> Self {
        let (mut lease, mut conflict, mut source) = (None, None, None);
        match event.subject {
            Some(proto::event::Subject::Lease(subject)) => lease = Some(subject.into()),
            Some(proto::event::Subject::Conflict(subject)) => conflict = Some(subject.into()),
            Some(proto::event::Subject::Source(proto::IgnoredSource { name, until })) => {
                source = Some(IgnoredSource { name: text(name), until: time(until) });
            }
            None => {}
        }
        let (seq, time, kind) = (event.seq, time(event.time), text(event.r#type));
        Self { seq, time, kind, lease, conflict, source }
    }
}

/// One line, as `events --follow` prints it.
impl View for Event {
    fn text(&self, _: Screen) -> String {
        let time = self.time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
        let kind = printable(self.kind.as_deref().unwrap_or("-"));
        let subject = match (&self.lease, &self.conflict, &self.source) {
            (Some(lease), _, _) => of_lease(lease),
            (None, Some(conflict), _) => conflict.line(),
            (None, None, Some(source)) => of_source(source),
            (None, None, None) => String::new(),
        };
        format!("{time} {} {kind:<17} {subject}", self.seq).trim_end().to_owned()
    }
}

fn of_source(source: &IgnoredSource) -> String {
    let until = source.until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
    printable(&format!("{}{until}", source.name.as_deref().unwrap_or("-")))
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

    fn ignored() -> proto::event::Subject {
        let (name, until) = ("directory".to_owned(), stamp(3600));
        proto::event::Subject::Source(proto::IgnoredSource { name, until })
    }

    #[test]
    fn event_as_json() {
        let head = r#"{"seq":9,"time":"1970-01-01T00:00:01Z","type":"#;
        golden(
            &event("lease.active", Some(proto::event::Subject::Lease(active()))),
            &format!(r#"{head}"lease.active","lease":{ACTIVE},"conflict":null,"source":null}}"#),
        );
        golden(
            &event("conflict.opened", Some(proto::event::Subject::Conflict(duplicate()))),
            &format!(
                r#"{head}"conflict.opened","lease":null,"conflict":{DUPLICATE},"source":null}}"#
            ),
        );
        golden(
            &event("source.ignored", Some(ignored())),
            &format!(
                r#"{head}"source.ignored","lease":null,"conflict":null,"source":
                {{"name":"directory","until":"1970-01-01T01:00:00Z"}}}}"#
            ),
        );
        let gap = format!(r#"{head}"gap","lease":null,"conflict":null,"source":null}}"#);
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
        assert_eq!(
            line(&event("source.ignored", Some(ignored()))),
            "1970-01-01T00:00:01.000Z 9 source.ignored    directory until 1970-01-01T01:00:00Z"
        );
        assert_eq!(line(&event("gap", None)), "1970-01-01T00:00:01.000Z 9 gap");
    }
}
