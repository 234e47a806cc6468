//! `guard.v1.Guard`: what the observer sees, and the state of the agent.

use std::{ops::Bound, pin::Pin, sync::Arc};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use guard_core::incident::{Incident, Role};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::{
    Deps, convert, enforcement,
    error::{self, Invalid},
    live,
    page::Page,
    sources,
    trace::{self, TraceStream},
    until_stopped, why,
};
use guard_api::proto;

use crate::{
    clock,
    datapath::Attach,
    events::{Subject, Subscription},
    health::{self, Degraded},
    observer::{PortKind, PortStatus},
};

pub(super) struct Service(pub Arc<Deps>);

type ConflictStream = Pin<Box<dyn Stream<Item = Result<proto::Conflict, Status>> + Send>>;

#[tonic::async_trait]
impl proto::guard_server::Guard for Service {
    async fn live(
        &self,
        request: Request<proto::LiveRequest>,
    ) -> Result<Response<proto::LiveResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = Page::of("Guard.Live", &mut request, self.0.bus.last())?;
        let proto::LiveRequest { bridge, .. } = request;
        let of_bridge = |name: &str| bridge.is_empty() || bridge == name;
        let watched = self.0.config().bridges.iter().any(|watched| of_bridge(&watched.name));
        if !watched {
            // An empty list would say that nothing is in use there.
            return Err(error::bridge_unknown(&bridge));
        }
        let bridge = Some(Arc::from(bridge)).filter(|bridge: &Arc<str>| !bridge.is_empty());
        let live = live::page(&self.0, bridge, &mut page).await.map_err(error::refused)?;
        let (next_page_token, seq) = (page.next(), page.seq);
        Ok(Response::new(proto::LiveResponse { live, next_page_token, seq }))
    }

    async fn ports(
        &self,
        request: Request<proto::PortsRequest>,
    ) -> Result<Response<proto::PortsResponse>, Status> {
        let mut page = Page::of("Guard.Ports", &mut request.into_inner(), self.0.bus.last())?;
        let in_force = self.0.enforcement.in_force();
        let some = |after: Option<&u32>, wanted| {
            let ports = self.0.observer.ports.read();
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let some = ports.range((from, Bound::Unbounded)).take(wanted);
            let port = |(id, status): (&u32, &PortStatus)| {
                let mode = enforcement::mode(in_force.of(*id, status)).into();
                (*id, proto::Port { mode, ..self.port(*id, status) })
            };
            some.map(port).collect()
        };
        let ports = page.of_pieces(some).await;
        let (next_page_token, seq) = (page.next(), page.seq);
        Ok(Response::new(proto::PortsResponse { ports, next_page_token, seq }))
    }

    async fn conflicts(
        &self,
        request: Request<proto::ConflictsRequest>,
    ) -> Result<Response<proto::ConflictsResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = Page::of("Guard.Conflicts", &mut request, self.0.bus.last())?;
        let some = |after: Option<&u64>, wanted| {
            let after = after.copied().unwrap_or_default();
            let some = self.0.reporter.list_after(request.all, after, wanted);
            some.iter().map(|incident| (incident.id, self.conflict(incident))).collect()
        };
        let conflicts = page.of_pieces(some).await;
        let (next_page_token, seq) = (page.next(), page.seq);
        Ok(Response::new(proto::ConflictsResponse { conflicts, next_page_token, seq }))
    }

    type WatchConflictsStream = ConflictStream;

    async fn watch_conflicts(
        &self,
        _request: Request<proto::WatchConflictsRequest>,
    ) -> Result<Response<ConflictStream>, Status> {
        let (open, Subscription { receiver, .. }) = self.0.reporter.subscribe();
        let deps = self.0.clone();
        let later = stream::unfold((receiver, deps), |(mut receiver, deps)| async move {
            let incidents = loop {
                match receiver.recv().await {
                    Ok(event) => {
                        if let Subject::Conflict(_, incident) = &event.subject {
                            break vec![(**incident).clone()];
                        }
                    }
                    // Some were lost to this subscriber: it gets the state anew.
                    Err(RecvError::Lagged(_)) => break deps.reporter.list(true),
                    Err(RecvError::Closed) => return None,
                }
            };
            Some((messages(deps.clone(), incidents), (receiver, deps)))
        });
        let stream = messages(self.0.clone(), open).chain(later.flatten());
        Ok(Response::new(until_stopped(stream, self.0.stopping.clone())))
    }

    async fn why(
        &self,
        request: Request<proto::WhyRequest>,
    ) -> Result<Response<proto::WhyResponse>, Status> {
        Ok(Response::new(why::why(&self.0, request.into_inner()).await?))
    }

    type TraceStream = TraceStream;

    async fn trace(
        &self,
        request: Request<proto::TraceRequest>,
    ) -> Result<Response<TraceStream>, Status> {
        let proto::TraceRequest { interface } = request.into_inner();
        Ok(Response::new(trace::trace(&self.0, interface).await?))
    }

    async fn silence(
        &self,
        request: Request<proto::SilenceRequest>,
    ) -> Result<Response<proto::Conflict>, Status> {
        let proto::SilenceRequest { id, duration } = request.into_inner();
        let missing = Invalid::Missing("duration is missing: silence it for how long?");
        let span = error::to_span(duration.ok_or(missing)?)?;
        // What is no number is no incident's.
        let silence = |id| self.0.reporter.silence(id, span, clock::now());
        match id.parse().ok().and_then(silence) {
            Some(incident) => Ok(Response::new(convert::conflict(&incident, &*self.0.live))),
            None => Err(error::conflict_unknown(&id)),
        }
    }

    async fn drops(
        &self,
        request: Request<proto::DropsRequest>,
    ) -> Result<Response<proto::DropsResponse>, Status> {
        enforcement::drops(&self.0, request.into_inner()).map(Response::new)
    }

    async fn enforcement(
        &self,
        request: Request<proto::EnforcementRequest>,
    ) -> Result<Response<proto::EnforcementResponse>, Status> {
        enforcement::enforcement(&self.0, &request.into_inner()).map(Response::new)
    }

    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let Deps { ledger, health, .. } = &*self.0;
        let degraded = |Degraded { what, since, why }| proto::Degraded {
            what,
            since: Some(convert::timestamp(since)),
            why,
        };
        Ok(Response::new(proto::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: health.ready(),
            degraded: health.list().into_iter().map(degraded).collect(),
            boot_pass: if health.booted() { "done" } else { "running" }.to_owned(),
            store: match health.why(health::STORE) {
                _ if !ledger.is_alive() => "the writer has ended".to_owned(),
                Some(why) => why,
                None => "ok".to_owned(),
            },
            sources: sources::all(&self.0).await,
            bridges: self.bridges(),
        }))
    }
}

impl Service {
    /// The frames of an owner are no news, so that an incident does not know of them: the kernel does.
    fn conflict(&self, incident: &Incident) -> proto::Conflict {
        let mut conflict = convert::conflict(incident, &*self.0.live);
        let address = incident.target.address().filter(|_| conflict.open);
        let heard = address.and_then(|at| self.0.owners.last_heard(&incident.segment, at));
        let ago = heard.map(|heard| clock::monotonic().saturating_sub(heard));
        let Some(at) = ago.and_then(|ago| clock::now().wall.checked_sub(ago).ok()) else {
            return conflict;
        };
        for (claimant, shown) in incident.claimants.iter().zip(&mut conflict.claimants) {
            let known = shown.last_seen.is_some() && claimant.last_seen >= at;
            if claimant.role == Role::Owner && !claimant.gone && !known {
                shown.last_seen = Some(convert::timestamp(at));
            }
        }
        conflict
    }
}

/// Each is made when it is sent.
fn messages(
    deps: Arc<Deps>,
    incidents: Vec<Incident>,
) -> impl Stream<Item = Result<proto::Conflict, Status>> + Send {
    stream::iter(incidents).then(move |incident| {
        let message = convert::conflict(&incident, &*deps.live);
        tokio::task::yield_now().map(|()| Ok(message))
    })
}

impl Service {
    /// A port, without its mode.
    fn port(&self, ifindex: u32, status: &PortStatus) -> proto::Port {
        let PortStatus { port, kind: (kind, kind_why), slot, coverage, why } = status;
        let kind = match kind {
            PortKind::Access => proto::PortKind::Access,
            PortKind::Uplink => proto::PortKind::Uplink,
            PortKind::Unknown => proto::PortKind::Unknown,
        };
        let attach = match coverage.map(|coverage| coverage.attach) {
            Some(Attach::Tcx) => proto::Attach::Tcx,
            Some(Attach::Clsact) => proto::Attach::Clsact,
            None => proto::Attach::Unspecified,
        };
        proto::Port {
            interface: port.interface.to_string(),
            ifindex,
            bridge: port.bridge.to_string(),
            kind: kind.into(),
            kind_why: kind_why.to_string(),
            covered: status.is_covered(),
            why: why.as_deref().unwrap_or_default().to_owned(),
            attach: attach.into(),
            program_id: coverage.map_or(0, |coverage| coverage.program_id),
            since: coverage.and_then(|coverage| convert::system_time(coverage.since)),
            frames: coverage.map_or(0, |_| self.0.observer.counters.frames(*slot)),
            addresses: u32::try_from(self.0.live.addresses_behind(ifindex)).unwrap_or(u32::MAX),
            ..proto::Port::default()
        }
    }

    fn bridges(&self) -> Vec<proto::BridgeStatus> {
        let Deps { health, observer, .. } = &*self.0;
        let modes = self.0.enforcement.modes();
        let learned = self.0.owners.learned();
        let ports = observer.ports.read();
        let bridge = |name: &Arc<str>| {
            let own = || ports.values().filter(|status| status.port.bridge == *name);
            let count = |ports: usize| u32::try_from(ports).unwrap_or(u32::MAX);
            let (mode, configured) = modes.get(name).copied().unwrap_or_default();
            let learned = learned.iter().filter(|((bridge, _), _)| bridge == name);
            let learned: usize = learned.map(|(_, count)| count).sum();
            proto::BridgeStatus {
                mode: enforcement::mode(mode).into(),
                configured_mode: enforcement::mode(configured).into(),
                unprotected: if mode.enforces() { learned as u64 } else { 0 },
                name: name.to_string(),
                present: health.why(&health::bridge(name)).is_none(),
                ports: count(own().count()),
                covered: count(own().filter(|status| status.is_covered()).count()),
                unknown: own()
                    .filter(|status| status.kind.0 == PortKind::Unknown)
                    .map(|status| format!("{}: {}", status.port.interface, status.kind.1))
                    .collect(),
            }
        };
        let config = self.0.config();
        config.bridges.iter().map(|configured| bridge(&configured.name)).collect()
    }
}
