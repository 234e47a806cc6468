use guard_api::{json::milliseconds, proto};

use super::{or_dash, span};

/// `wire 3s`: who says so, and how long ago.
pub(super) fn brief(evidence: &proto::Evidence) -> String {
    let source = or_dash(evidence.source().word());
    match milliseconds(evidence.age).and_then(|age| i64::try_from(age / 1000).ok()) {
        Some(age) => format!("{source} {}", span(age)),
        None => source.to_owned(),
    }
}

/// All sources of an address, in one cell.
pub(super) fn all_brief(evidence: &[proto::Evidence]) -> String {
    evidence.iter().map(brief).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a squatter's frame says.
    pub(crate) fn wire() -> proto::Evidence {
        proto::Evidence {
            source: proto::Source::Wire.into(),
            detail: "claimed by ARP".to_owned(),
            mac: "02:00:00:00:00:0c".to_owned(),
            interface: "veth-c".to_owned(),
            since: super::super::testing::stamp(50),
            age: Some(prost_types::Duration { seconds: 3, nanos: 250_000_000 }),
        }
    }

    #[test]
    fn evidence_has_its_age_in_one_unit() {
        assert_eq!(brief(&wire()), "wire 3s");
    }
}
