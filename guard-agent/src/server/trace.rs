//! The trace of one port as a stream: the program's numbers by their names.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use guard_core::mac::Mac;
use guard_ebpf::{
    abi,
    counters::{DropReason, FrameKind, MalformedReason, NoClaim, OpaqueReason},
    trace::{self, Traced},
};
use jiff::Timestamp;
use tonic::Status;

use super::{Deps, convert, error, stopped};
use guard_api::proto;

use crate::datapath::{Line, Tracer};

pub(super) type TraceStream =
    Pin<Box<dyn Stream<Item = Result<proto::TracedFrame, Status>> + Send>>;

/// How often it is looked whether the port is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Traces a port until nobody listens, the port is gone, or the agent stops.
pub(super) async fn trace(deps: &Arc<Deps>, port: String) -> Result<TraceStream, Status> {
    let known = {
        let ports = deps.observer.ports.read();
        let mut found = ports.iter().filter(|(_, status)| *status.port.interface == *port);
        found.next().map(|(ifindex, status)| (*ifindex, status.coverage))
    };
    let (ifindex, coverage) = known.ok_or_else(|| error::port_unknown(&port))?;
    let coverage = coverage.ok_or_else(|| error::port_uncovered(&port))?;
    let (bpffs, interface) = (deps.config().bpffs.clone(), port.clone());
    // The verifier takes its time.
    let runtime = tokio::runtime::Handle::current();
    let started = tokio::task::spawn_blocking(move || {
        let _inside = runtime.enter();
        Tracer::start(&bpffs, &interface, coverage.attach)
    });
    let started = started.await.map_err(|panicked| Status::internal(panicked.to_string()))?;
    let tracer = started.map_err(|why| error::not_in_kernel(why.to_string()))?;
    tracing::info!(port, "a port is traced");

    let ended = Box::pin(ended(deps.clone(), ifindex));
    let frames = stream::unfold(Some((tracer, ended, port)), |tracing| async move {
        let (mut tracer, mut ended, port) = tracing?;
        tokio::select! {
            line = tracer.next() => {
                let frame = message(&line?, &port);
                tracing::debug!(target: "guard_agent::trace", port, frame = ?frame, "frame");
                Some((Ok(frame), Some((tracer, ended, port))))
            }
            gone = &mut ended => gone.then(|| (Err(error::port_unknown(&port)), None)),
        }
    });
    Ok(frames.boxed())
}

/// Waits until there is nothing to trace any more. True if it is the port that has ended.
async fn ended(deps: Arc<Deps>, ifindex: u32) -> bool {
    let gone = async {
        while deps.observer.ports.read().contains_key(&ifindex) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = gone => true,
        () = stopped(deps.stopping.clone()) => false,
    }
}

fn message(line: &Line, port: &str) -> proto::TracedFrame {
    let empty = proto::TracedFrame {
        time: Some(convert::timestamp(Timestamp::now())),
        interface: port.to_owned(),
        ..proto::TracedFrame::default()
    };
    match line {
        Line::Traced(traced) => frame(traced, empty),
        Line::Lost(lost) => proto::TracedFrame { lost: *lost, ..empty },
    }
}

/// What a frame says, by its names.
pub(super) fn frame(traced: &Traced, empty: proto::TracedFrame) -> proto::TracedFrame {
    let Traced {
        key,
        mac,
        eth_src,
        flags,
        kind,
        says,
        reason,
        strength,
        does,
        event,
        verdict,
        router,
        claim,
        reserved: _,
    } = *traced;
    let claims = says == trace::SAYS_CLAIM;
    let (says, reason) = match says {
        trace::SAYS_CLAIM => ("claim", ""),
        trace::SAYS_NO_CLAIM => ("no_claim", name(NoClaim::ALL, reason, NoClaim::name)),
        trace::SAYS_MALFORMED => {
            ("malformed", name(MalformedReason::ALL, reason, MalformedReason::name))
        }
        trace::SAYS_OPAQUE => ("opaque", name(OpaqueReason::ALL, reason, OpaqueReason::name)),
        _ => ("nothing", ""),
    };
    let (outcome, event) = match does {
        trace::DOES_NOT_COUNT => ("no_claim", name(NoClaim::ALL, event, NoClaim::name)),
        trace::DOES_REFRESH => ("refresh", event_name(event)),
        trace::DOES_LIVE => ("live", event_name(event)),
        trace::DOES_REPORT => ("report", event_name(event)),
        trace::DOES_OVER_QUOTA => ("over_quota", ""),
        _ => ("nothing", ""),
    };
    let drop = verdict.checked_sub(1).map_or("", |at| name(DropReason::ALL, at, DropReason::name));
    proto::TracedFrame {
        kind: name(FrameKind::ALL, kind, FrameKind::name).to_owned(),
        vlan: key.vlan.into(),
        inner_vlan: key.inner_vlan.into(),
        eth_src: Mac(eth_src).to_string(),
        says: says.to_owned(),
        reason: reason.to_owned(),
        address: if claims { key.ip().to_string() } else { String::new() },
        mac: if claims { Mac(mac).to_string() } else { String::new() },
        strength: match strength {
            abi::STRENGTH_TENTATIVE => "tentative",
            abi::STRENGTH_USE => "use",
            abi::STRENGTH_ASSERT => "assert",
            _ => "",
        }
        .to_owned(),
        flags: flag_names(flags),
        outcome: outcome.to_owned(),
        event: event.to_owned(),
        drop: drop.to_owned(),
        router: ["", "flag", "message"].get(usize::from(router)).copied().unwrap_or("").to_owned(),
        claim: claim.into(),
        ..empty
    }
}

fn name<T: Copy>(all: &[T], at: u8, name: fn(T) -> &'static str) -> &'static str {
    all.get(usize::from(at)).map_or("", |known| name(*known))
}

fn event_name(kind: u8) -> &'static str {
    match kind {
        abi::EVENT_LIVE => "live",
        abi::EVENT_OWNER => "owner",
        abi::EVENT_VIOLATION => "violation",
        abi::EVENT_CONTEST => "contest",
        abi::EVENT_PROBE => "probe",
        _ => "",
    }
}

fn flag_names(flags: u16) -> Vec<String> {
    let all = [
        (abi::CLAIM_MISMATCH, "mismatch"),
        (abi::CLAIM_SPOOF, "spoof"),
        (abi::CLAIM_LINK_LOCAL, "link_local"),
        (abi::CLAIM_VIRTUAL, "virtual"),
        (abi::CLAIM_ODD, "odd"),
        (abi::CLAIM_WEAK, "weak"),
        (abi::CLAIM_ROUTER, "router"),
    ];
    all.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}
