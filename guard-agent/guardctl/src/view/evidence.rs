use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{span, text, time, word};

/// One source's word that an address is in use.
#[derive(Debug, Serialize)]
pub struct Evidence {
    pub source: Option<String>,
    pub detail: Option<String>,
    pub mac: Option<String>,
    pub interface: Option<String>,
    pub since: Option<Timestamp>,
    pub age_ms: Option<u64>,
}

impl From<proto::Evidence> for Evidence {
    fn from(evidence: proto::Evidence) -> Self {
        let source = word(evidence.source().as_str_name(), "SOURCE_");
        let proto::Evidence { source: _, detail, mac, interface, since, age } = evidence;
        Self {
            source,
            detail: text(detail),
            mac: text(mac),
            interface: text(interface),
            since: time(since),
            age_ms: age.and_then(millis),
        }
    }
}

impl Evidence {
    /// `wire 3s`: who says so, and how long ago.
    pub fn brief(&self) -> String {
        let source = self.source.as_deref().unwrap_or("-");
        match self.age_ms.and_then(|age| i64::try_from(age / 1000).ok()) {
            Some(age) => format!("{source} {}", span(age)),
            None => source.to_owned(),
        }
    }
}

/// All sources of an address, in one cell.
pub fn brief(evidence: &[Evidence]) -> Option<String> {
    let brief: Vec<String> = evidence.iter().map(Evidence::brief).collect();
    text(brief.join(", "))
}

fn millis(age: prost_types::Duration) -> Option<u64> {
    let seconds = u64::try_from(age.seconds).ok()?;
    let millis = u64::try_from(age.nanos / 1_000_000).ok()?;
    seconds.checked_mul(1000)?.checked_add(millis)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What a squatter's frame says.
    pub fn wire() -> proto::Evidence {
        proto::Evidence {
            source: proto::Source::Wire.into(),
            detail: "claimed by ARP".to_owned(),
            mac: "02:00:00:00:00:0c".to_owned(),
            interface: "veth-c".to_owned(),
            since: super::super::testing::stamp(50),
            age: Some(prost_types::Duration { seconds: 3, nanos: 250_000_000 }),
        }
    }

    pub const WIRE: &str = r#"{"source":"wire","detail":"claimed by ARP",
        "mac":"02:00:00:00:00:0c","interface":"veth-c","since":"1970-01-01T00:00:50Z",
        "age_ms":3250}"#;

    #[test]
    fn evidence_has_its_age_in_milliseconds() {
        let evidence = Evidence::from(wire());
        assert_eq!((evidence.age_ms, evidence.brief().as_str()), (Some(3250), "wire 3s"));
    }
}
