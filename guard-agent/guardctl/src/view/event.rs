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
    pub probe_race: Option<ProbeRace>,
}

/// Two stations that probe for one address at once.
#[derive(Debug, Serialize)]
pub struct ProbeRace {
    pub bridge: Option<String>,
    pub vlan: u32,
    pub inner_vlan: u32,
    pub address: Option<String>,
    pub probers: Vec<Prober>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub struct Prober {
    pub mac: Option<String>,
    pub interface: Option<String>,
    pub ifindex: u32,
}

impl From<proto::ProbeRace> for ProbeRace {
    fn from(race: proto::ProbeRace) -> Self {
        let proto::ProbeRace { bridge, vlan, inner_vlan, address, probers } = race;
        let probers = probers.into_iter().map(|proto::Prober { mac, interface, ifindex }| Prober {
            mac: text(mac),
            interface: text(interface),
            ifindex,
        });
        let (bridge, address) = (text(bridge), text(address));
        Self { bridge, vlan, inner_vlan, address, probers: probers.collect() }
    }
}

/// A source that an operator does without, or did.
#[derive(Debug, Serialize)]
pub struct IgnoredSource {
    pub name: Option<String>,
    pub until: Option<Timestamp>,
}

impl From<proto::Event> for Event {
    fn from(event: proto::Event) -> Self {
        let (mut lease, mut conflict, mut source, mut probe_race) = (None, None, None, None);
        match event.subject {
            Some(proto::event::Subject::Lease(subject)) => lease = Some(subject.into()),
            Some(proto::event::Subject::Conflict(subject)) => conflict = Some(subject.into()),
            Some(proto::event::Subject::Source(proto::IgnoredSource { name, until })) => {
                source = Some(IgnoredSource { name: text(name), until: time(until) });
            }
            Some(proto::event::Subject::ProbeRace(race)) => probe_race = Some(race.into()),
            None => {}
        }
        let (seq, time, kind) = (event.seq, time(event.time), text(event.r#type));
        Self { seq, time, kind, lease, conflict, source, probe_race }
    }
}

/// One line, as `events --follow` prints it.
impl View for Event {
    fn text(&self, _: Screen) -> String {
        let time = self.time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
        let kind = printable(self.kind.as_deref().unwrap_or("-"));
        let lease = self.lease.as_ref().map(of_lease);
        let subject = lease
            .or_else(|| self.conflict.as_ref().map(Conflict::line))
            .or_else(|| self.source.as_ref().map(of_source))
            .or_else(|| self.probe_race.as_ref().map(of_race))
            .unwrap_or_default();
        format!("{time} {} {kind:<17} {subject}", self.seq).trim_end().to_owned()
    }
}

fn of_source(source: &IgnoredSource) -> String {
    let until = source.until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
    printable(&format!("{}{until}", source.name.as_deref().unwrap_or("-")))
}

fn of_race(race: &ProbeRace) -> String {
    let place = |prober: &Prober| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        format!("{}@{}", text(&prober.mac), text(&prober.interface))
    };
    let probers: Vec<_> = race.probers.iter().map(place).collect();
    printable(&format!("{} {}", race.address.as_deref().unwrap_or("-"), probers.join(" / ")))
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

    fn race() -> proto::event::Subject {
        let prober = |mac: &str, interface: &str, ifindex| proto::Prober {
            mac: mac.to_owned(),
            interface: interface.to_owned(),
            ifindex,
        };
        proto::event::Subject::ProbeRace(proto::ProbeRace {
            bridge: "rt0".to_owned(),
            address: "10.8.64.2".to_owned(),
            probers: vec![
                prober("02:00:00:00:00:0a", "veth-a", 7),
                prober("02:00:00:00:00:0b", "veth-b", 8),
            ],
            ..Default::default()
        })
    }

    #[test]
    fn event_as_json() {
        let head = r#"{"seq":9,"time":"1970-01-01T00:00:01Z","type":"#;
        golden(
            &event("lease.active", Some(proto::event::Subject::Lease(active()))),
            &format!(
                r#"{head}"lease.active","lease":{ACTIVE},"conflict":null,"source":null,"probe_race":null}}"#
            ),
        );
        golden(
            &event("conflict.opened", Some(proto::event::Subject::Conflict(duplicate()))),
            &format!(
                r#"{head}"conflict.opened","lease":null,"conflict":{DUPLICATE},"source":null,"probe_race":null}}"#
            ),
        );
        golden(
            &event("source.ignored", Some(ignored())),
            &format!(
                r#"{head}"source.ignored","lease":null,"conflict":null,"source":
                {{"name":"directory","until":"1970-01-01T01:00:00Z"}},"probe_race":null}}"#
            ),
        );
        golden(
            &event("probe_race", Some(race())),
            &format!(
                r#"{head}"probe_race","lease":null,"conflict":null,"source":null,"probe_race":
                {{"bridge":"rt0","vlan":0,"inner_vlan":0,"address":"10.8.64.2","probers":
                [{{"mac":"02:00:00:00:00:0a","interface":"veth-a","ifindex":7}},
                {{"mac":"02:00:00:00:00:0b","interface":"veth-b","ifindex":8}}]}}}}"#
            ),
        );
        let gap = format!(
            r#"{head}"gap","lease":null,"conflict":null,"source":null,"probe_race":null}}"#
        );
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
        assert_eq!(
            line(&event("probe_race", Some(race()))),
            "1970-01-01T00:00:01.000Z 9 probe_race        10.8.64.2 02:00:00:00:00:0a@veth-a / \
             02:00:00:00:00:0b@veth-b"
        );
        assert_eq!(line(&event("gap", None)), "1970-01-01T00:00:01.000Z 9 gap");
    }
}
