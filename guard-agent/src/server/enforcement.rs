//! What is dropped, and where: `Guard.Drops`, `Guard.Enforcement`, `Admin.SetMode`,
//! `Admin.ResumeEnforcement`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use guard_core::{
    enforcement::{Finding, Mode, Override, allowed_by, rule},
    mac::Mac,
    time::Now,
};
use jiff::Timestamp;
use tonic::Status;

use super::{
    Deps, convert,
    error::{self, Invalid},
    page::Page,
    rightful::Rightful,
    trace,
};
use guard_api::proto::{self, EnforcementMode};

use crate::{
    clock,
    enforcement::{BridgeState, Counted, decode},
    observer::PortStatus,
};

/// A row's place among the others: the port, and the number of the reason.
type Place = (u8, Vec<String>);

pub(super) fn drops(
    deps: &Deps,
    mut request: proto::DropsRequest,
) -> Result<proto::DropsResponse, Status> {
    let mut page: Page<Place> = Page::of("Guard.Drops", &mut request, deps.bus.last())?;
    let proto::DropsRequest { bridge, interface, reason, .. } = request;
    watched(deps, &bridge)?;
    let ports = deps.observer.ports.read().clone();
    let is_asked = |row: &Counted| {
        let Some(PortStatus { port, .. }) = ports.get(&row.ifindex) else { return false };
        let is = |asked: &str, has: &str| asked.is_empty() || asked == has;
        is(&bridge, &port.bridge)
            && is(&interface, &port.interface)
            && is(&reason, row.reason.name())
    };
    let mut rows = deps.enforcement.drops();
    rows.retain(is_asked);
    let (now, rightful) = (Moment::now(), Rightful::new(deps));
    let place = |row: &Counted| (0, vec![format!("{:010}", row.ifindex), row.reason.name().into()]);
    let drops = page.of_all(rows, place, |row| message(&rightful, row, &ports, &now));
    Ok(proto::DropsResponse { drops, next_page_token: page.next(), seq: page.seq })
}

/// The rows, as `Guard.Drops` has them.
pub(super) fn messages(
    deps: &Deps,
    rows: &[Counted],
    ports: &BTreeMap<u32, PortStatus>,
) -> Vec<proto::Drops> {
    let (now, rightful) = (Moment::now(), Rightful::new(deps));
    rows.iter().map(|row| message(&rightful, row, ports, &now)).collect()
}

/// The two clocks at one moment.
struct Moment {
    monotonic: Duration,
    wall: Timestamp,
}

impl Moment {
    fn now() -> Self {
        let Now { wall, .. } = clock::now();
        Self { monotonic: clock::monotonic(), wall }
    }

    /// When that was.
    fn at(&self, monotonic: Duration) -> Option<prost_types::Timestamp> {
        let ago = self.monotonic.saturating_sub(monotonic);
        self.wall.checked_sub(ago).ok().map(convert::timestamp)
    }
}

fn message(
    rightful: &Rightful<'_>,
    row: &Counted,
    ports: &BTreeMap<u32, PortStatus>,
    now: &Moment,
) -> proto::Drops {
    let port = ports.get(&row.ifindex).map(|status| &status.port);
    let interface = port.map(|port| port.interface.to_string()).unwrap_or_default();
    let bridge = port.map(|port| port.bridge.to_string()).unwrap_or_default();
    let decoded = decode(&row.frame);
    let first = trace::frame(&decoded, proto::TracedFrame::default());
    let bound = rightful.deps.owners.bound_to(row.ifindex);
    let (sandbox, generation) = bound.unwrap_or_default();
    proto::Drops {
        allow: allowed_by(row.reason, &interface, Some(Mac(decoded.eth_src)), row.address()),
        interface,
        ifindex: row.ifindex,
        owner: rightful.owner(&bridge, row.reason, &decoded),
        bridge,
        reason: row.reason.name().to_owned(),
        dropped: row.dropped,
        would_drop: row.would_drop,
        first_time: now.at(row.first),
        last_time: now.at(row.last),
        frame: row.frame.bytes.clone(),
        says: says(&first),
        address: first.address,
        eth_src: first.eth_src,
        rule: rule(row.reason).to_owned(),
        sandbox,
        generation,
    }
}

/// Such as `arp from 02:…:0b: claim 10.8.64.2 at 02:…:0b`.
fn says(frame: &proto::TracedFrame) -> String {
    let proto::TracedFrame { kind, eth_src, says, reason, address, mac, .. } = frame;
    let words = [reason, address].into_iter().filter(|word| !word.is_empty());
    let mut text =
        words.fold(format!("{kind} from {eth_src}: {says}"), |text, word| text + " " + word);
    if !mac.is_empty() {
        text = text + " at " + mac;
    }
    text
}

pub(super) fn enforcement(
    deps: &Deps,
    request: &proto::EnforcementRequest,
) -> Result<proto::EnforcementResponse, Status> {
    watched(deps, &request.bridge)?;
    let bridges = deps.enforcement.states(&request.bridge);
    Ok(proto::EnforcementResponse { bridges: bridges.iter().map(state).collect() })
}

/// What is said in the audit is the mode and where.
pub(super) fn set_mode(
    deps: &Deps,
    request: proto::SetModeRequest,
) -> Result<(proto::SetModeResponse, String), Status> {
    let wanted = request.mode();
    let proto::SetModeRequest { bridge, interface, duration, yes, dry_run, .. } = request;
    let mode = match wanted {
        EnforcementMode::Enforce => Some(Mode::Enforce),
        EnforcementMode::Observe => Some(Mode::Observe),
        EnforcementMode::Bridge => None,
        EnforcementMode::Unspecified => return Err(Invalid::Missing("mode is missing").into()),
    };
    let enforcement = &deps.enforcement;
    let word = mode.map_or("bridge", Mode::name);
    let what = format!("{bridge}{interface}: {word}");
    let set = match (bridge.is_empty(), interface.is_empty(), mode, duration) {
        (false, true, Some(mode), None) => enforcement.set_bridge(&bridge, mode, yes, dry_run),
        (false, true, ..) => {
            return Err(
                Invalid::Missing("only a port has a mode for a while, or its bridge's").into()
            );
        }
        (true, false, mode, span) => {
            let until = span.map(until).transpose()?;
            let mode = mode.map(|mode| (mode, until));
            enforcement.set_port(&interface, mode, yes, dry_run)
        }
        _ => return Err(Invalid::Missing("name either a bridge or a port").into()),
    };
    let set = set.map_err(|error| error::mode(&error, &bridge, &interface))?;
    Ok((proto::SetModeResponse { bridge: Some(state(&set)) }, what))
}

fn until(span: prost_types::Duration) -> Result<Timestamp, Status> {
    let span = error::to_span(span)?;
    let until = clock::now().wall.checked_add(span);
    until.map_err(|_| Invalid::Missing("duration is longer than any calendar").into())
}

pub(super) fn resume(
    deps: &Deps,
    request: &proto::ResumeEnforcementRequest,
) -> Result<proto::ResumeEnforcementResponse, Status> {
    let resumed = deps.enforcement.resume(&request.bridge);
    let resumed = resumed.map_err(|error| error::mode(&error, &request.bridge, ""))?;
    Ok(proto::ResumeEnforcementResponse { bridge: Some(state(&resumed)) })
}

/// An empty list would say that all is well there.
fn watched(deps: &Deps, bridge: &str) -> Result<(), Status> {
    let is = |known: &Arc<str>| bridge.is_empty() || **known == *bridge;
    let known = deps.config().bridges.iter().any(|known| is(&known.name));
    if known { Ok(()) } else { Err(error::bridge_unknown(bridge)) }
}

/// The API's word for a mode.
pub(super) fn mode(mode: Mode) -> EnforcementMode {
    match mode {
        Mode::Observe => EnforcementMode::Observe,
        Mode::Enforce => EnforcementMode::Enforce,
    }
}

fn state(state: &BridgeState) -> proto::BridgeEnforcement {
    let count = |ports| u32::try_from(ports).unwrap_or(u32::MAX);
    let port = |entry: &Override| proto::PortMode {
        interface: entry.port.to_string(),
        mode: mode(entry.mode).into(),
        until: entry.until.map(convert::timestamp),
    };
    let finding = |Finding { error, what, advice }: &Finding| proto::Finding {
        error: *error,
        what: what.clone(),
        advice: advice.clone(),
    };
    proto::BridgeEnforcement {
        bridge: state.name.to_string(),
        mode: mode(state.mode).into(),
        configured_mode: mode(state.settings.mode).into(),
        strict: state.settings.strict.name().to_owned(),
        classes: state.settings.hygiene.iter().map(|class| class.name().to_owned()).collect(),
        braked: state.braked.iter().map(|reason| reason.name().to_owned()).collect(),
        ports_enforcing: count(state.ports_enforcing),
        ports_dropping: count(state.ports_dropping),
        ports: state.ports.iter().map(port).collect(),
        findings: state.findings.iter().map(finding).collect(),
    }
}
