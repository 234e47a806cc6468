//! `/metrics`, `/healthz` and `/readyz` over HTTP.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use guard_core::lease;
use tokio::net::TcpListener;

use crate::{
    ledger::writer_answers,
    metrics::{LeaseMetrics, PassMetrics, gauge_value},
    server::{Deps, stopped},
};

/// OpenMetrics, and how a client that takes it says so. Nobody prefers the other of the two.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const OPENMETRICS_NAME: &str = "application/openmetrics-text";
/// The Prometheus text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on http address {address}: {source}; set `http` to another one")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Opens the listening socket.
///
/// # Errors
/// The address is in use, or not one of this host.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Serves until the agent is to stop.
///
/// # Errors
/// The listener failed.
pub async fn serve(deps: Arc<Deps>, listener: TcpListener) -> io::Result<()> {
    let stopping = deps.stopping.clone();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(deps);
    axum::serve(listener, router).with_graceful_shutdown(stopped(stopping)).await
}

async fn healthz(State(deps): State<Arc<Deps>>) -> Response {
    match writer_answers(&deps.ledger).await {
        Ok(()) => "ok\n".into_response(),
        Err(why) => unavailable(format!("store: {why}\n")),
    }
}

async fn readyz(State(deps): State<Arc<Deps>>) -> Response {
    if deps.health.ready() {
        return "ready\n".into_response();
    }
    let mut reasons = String::new();
    if !deps.health.booted() {
        reasons.push_str("the boot pass is not over\n");
    }
    for degraded in deps.health.list() {
        // Writing to a string does not fail.
        let _ = writeln!(reasons, "{}: {}", degraded.what, degraded.why);
    }
    unavailable(reasons)
}

fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn metrics(State(deps): State<Arc<Deps>>, headers: HeaderMap) -> Response {
    collect(&deps).await;
    let mut accepts =
        headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let (kind, encoded) = if accepts.any(|accept| accept.contains(OPENMETRICS_NAME)) {
        (OPENMETRICS, deps.metrics.encode_openmetrics())
    } else {
        (TEXT, deps.metrics.encode())
    };
    match encoded {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Sets what is read rather than counted.
async fn collect(deps: &Deps) {
    let Deps { ledger, observer, live, reporter, health, metrics, .. } = deps;
    let config = deps.config();
    let LeaseMetrics { leases, pool_capacity, transitions_waiting, .. } = &metrics.leases;
    let PassMetrics { live_addresses, source_healthy, .. } = &metrics.passes;
    let pools = ledger.pools().await.unwrap_or_default();
    for pool in &pools {
        for state in lease::State::ALL {
            let count = i64::try_from(pool.count(state)).unwrap_or(i64::MAX);
            leases.with_label_values(&[&*pool.name, state.name()]).set(count);
        }
        let capacity = i64::try_from(pool.capacity).unwrap_or(i64::MAX);
        pool_capacity.with_label_values(&[&*pool.name]).set(capacity);
    }
    let all = observer.ports.read().clone();
    let listed = live.inventory().addresses();
    for bridge in &config.bridges {
        let name = &*bridge.name;
        let (wire, kernel) = live.count(name);
        live_addresses.with_label_values(&[name, "wire"]).set(gauge_value(wire));
        live_addresses.with_label_values(&[name, "kernel"]).set(gauge_value(kernel));
        let pools = config.pools.iter().filter(|pool| *pool.segment().bridge == *name);
        let here = |address: &&IpAddr| pools.clone().any(|pool| pool.prefix().contains(*address));
        let inventory = listed.iter().filter(here).count();
        live_addresses.with_label_values(&[name, "inventory"]).set(gauge_value(inventory));
        for covered in [true, false] {
            let count = all
                .values()
                .filter(|status| *status.port.bridge == *name && status.is_covered() == covered);
            let label = if covered { "true" } else { "false" };
            metrics
                .datapath
                .ports
                .with_label_values(&[name, label])
                .set(gauge_value(count.count()));
        }
    }
    let healthy = i64::from(health.booted() && health.observer().is_none());
    for source in ["wire", "kernel"] {
        source_healthy.with_label_values(&[source]).set(healthy);
    }
    for status in deps.reconciler.sources().status() {
        let healthy = i64::from(status.healthy());
        source_healthy.with_label_values(&[status.source.name()]).set(healthy);
        let waiting = pools.iter().map(|pool| pool.waiting_for(status.name)).sum::<u64>();
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        transitions_waiting.with_label_values(&[status.source.name()]).set(waiting);
    }
    metrics.incidents.subscriber_lag.reset();
    for (subscriber, lag) in deps.bus.lags() {
        let lag = i64::try_from(lag).unwrap_or(i64::MAX);
        metrics.incidents.subscriber_lag.with_label_values(&[&*subscriber]).set(lag);
    }
    reporter.collect(config.bridges.iter().map(|bridge| &*bridge.name));
    metrics.ready.set(i64::from(health.ready()));
    observer.counters.collect(metrics);
}
