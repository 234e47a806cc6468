use guard_api::proto::{self, event::Subject};

use super::{conflict, lease::station, moment, or_dash};
use crate::output::{Screen, View, printable};

/// One line, as `events --follow` prints it.
impl View for proto::Event {
    fn text(&self, _: Screen) -> String {
        let kind = printable(or_dash(&self.r#type));
        let subject = match &self.subject {
            Some(Subject::Lease(lease)) => of_lease(lease),
            Some(Subject::Conflict(conflict)) => conflict::line(conflict),
            Some(Subject::Source(source)) => of_source(source),
            Some(Subject::ProbeRace(race)) => of_race(race),
            Some(Subject::Dropped(dropped)) => of_dropped(dropped),
            None => String::new(),
        };
        let line = format!("{} {} {kind:<17} {subject}", moment(self.time, 3), self.seq);
        line.trim_end().to_owned()
    }
}

fn of_source(source: &proto::IgnoredSource) -> String {
    let until = source.until.map(|until| format!(" until {}", moment(Some(until), 0)));
    printable(&format!("{}{}", or_dash(&source.name), until.unwrap_or_default()))
}

fn of_race(race: &proto::ProbeRace) -> String {
    let place =
        |prober: &proto::Prober| format!("{}@{}", or_dash(&prober.mac), or_dash(&prober.interface));
    let probers: Vec<_> = race.probers.iter().map(place).collect();
    printable(&format!("{} {}", or_dash(&race.address), probers.join(" / ")))
}

fn of_dropped(dropped: &proto::DroppedFrames) -> String {
    let proto::DroppedFrames { interface, reason, address, frames, dropped, .. } = dropped;
    let what = if address.is_empty() { String::new() } else { format!(" of {address}") };
    let port = or_dash(interface);
    printable(&format!("{port} {reason}{what}: {frames} frames, {dropped} in all"))
}

fn of_lease(lease: &proto::Lease) -> String {
    let generation = match lease.generation {
        0 => String::new(),
        generation => format!("generation {generation}"),
    };
    let mut place = station(lease).to_vec();
    place.retain(|text| !text.is_empty());
    let reason = match &*lease.reason {
        "" => String::new(),
        reason => format!("({reason})"),
    };
    let words = [&lease.address, &lease.sandbox, &generation, &place.join("@"), &reason];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).map(|w| &**w).collect();
    printable(&words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{lease::tests::active, testing::stamp},
        *,
    };

    fn event(kind: &str, subject: Option<Subject>) -> proto::Event {
        proto::Event { seq: 9, time: stamp(1), r#type: kind.to_owned(), subject }
    }

    fn line(event: &proto::Event) -> String {
        event.text(Screen { width: 80, colour: false, now: jiff::Timestamp::UNIX_EPOCH })
    }

    fn ignored() -> Subject {
        let (name, until) = ("directory".to_owned(), stamp(3600));
        Subject::Source(proto::IgnoredSource { name, until })
    }

    fn race() -> Subject {
        let prober = |mac: &str, interface: &str, ifindex| proto::Prober {
            mac: mac.to_owned(),
            interface: interface.to_owned(),
            ifindex,
        };
        Subject::ProbeRace(proto::ProbeRace {
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
    fn event_as_a_line() {
        let active = event("lease.active", Some(Subject::Lease(active())));
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
        let dropped = Subject::Dropped(proto::DroppedFrames {
            interface: "veth-b".to_owned(),
            reason: "violation".to_owned(),
            address: "10.8.64.2".to_owned(),
            frames: 10,
            dropped: 12,
            ..Default::default()
        });
        assert_eq!(
            line(&event("frames.dropped", Some(dropped))),
            "1970-01-01T00:00:01.000Z 9 frames.dropped    veth-b violation of 10.8.64.2: \
             10 frames, 12 in all"
        );
        assert_eq!(line(&event("gap", None)), "1970-01-01T00:00:01.000Z 9 gap");
    }
}
