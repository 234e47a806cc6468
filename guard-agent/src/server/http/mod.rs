//! `/metrics`, `/healthz` and `/readyz` over HTTP. Nothing else rests on it: where it cannot be served
//! it is degraded, and tried again.

mod budget;
mod connections;
mod host;
mod listener;

use std::{
    fmt::Display,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use guard_core::{lease, text};
use tokio::sync::{Mutex, OwnedMutexGuard};

use self::{budget::Budget, listener::Listener};
use crate::{
    config::HttpAddress,
    health::{HTTP, Health},
    ledger::writer_answers,
    logging,
    metrics::{LeaseMetrics, Metrics, PassMetrics, gauge_value, openmetrics},
    server::{Deps, Passed, stopped},
};

/// OpenMetrics, and how a client that takes it says so. Nobody prefers the other of the two.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const OPENMETRICS_NAME: &str = "application/openmetrics-text";
/// The Prometheus text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How soon a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What it is served on; nothing where that cannot be had.
#[derive(Debug)]
pub(crate) struct Http {
    address: HttpAddress,
    listener: Option<Listener>,
}

/// Opens the listening socket. One that cannot be opened is degraded.
pub(crate) fn open(address: HttpAddress, passed: &mut Passed, health: &Health) -> Http {
    let listener = listener::open(&address, passed);
    match &listener {
        Ok(_) => health.recovered(HTTP),
        Err(error) => health.degraded(HTTP, &error.to_string()),
    }
    Http { address, listener: listener.ok() }
}

/// What the handlers share.
struct Served {
    deps: Arc<Deps>,
    rendered: Arc<Mutex<Rendered>>,
}

/// The metrics as they were last rendered, in both formats.
#[derive(Default)]
struct Rendered {
    budget: Budget,
    text: Bytes,
    openmetrics: Bytes,
}

/// Serves until the agent is to stop.
pub(crate) async fn serve(deps: Arc<Deps>, http: Http) {
    let Http { address, mut listener } = http;
    let mut stopping = pin!(stopped(deps.stopping.clone()));
    let listener = loop {
        if let Some(listener) = listener {
            break listener;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = &mut stopping => return,
        }
        listener = open(address.clone(), &mut Passed::default(), &deps.health).listener;
    };
    let refused = deps.metrics.refused("http");
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(address, host::check))
        .with_state(Arc::new(Served { deps, rendered: Arc::default() }));
    match listener {
        Listener::Tcp(listener) => connections::serve(listener, router, refused, stopping).await,
        Listener::Unix(door) => connections::serve(door, router, refused, stopping).await,
    }
}

async fn healthz(State(served): State<Arc<Served>>) -> Response {
    match writer_answers(&served.deps.ledger).await {
        Ok(()) => "ok\n".into_response(),
        // Anyone may ask: why is for those who may read the status.
        Err(_) => unavailable("store\n".to_owned()),
    }
}

async fn readyz(State(served): State<Arc<Served>>) -> Response {
    let health = &served.deps.health;
    if health.ready() {
        return "ready\n".into_response();
    }
    let mut names = String::new();
    if !health.booted() {
        names.push_str("the boot pass is not over\n");
    }
    // Anyone may ask: why is for those who may read the status.
    for degraded in health.list() {
        names.push_str(&text::escaped(&degraded.what));
        names.push('\n');
    }
    unavailable(names)
}

fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

async fn metrics(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    let mut rendered = served.rendered.clone().lock_owned().await;
    // Whoever asks more often than that gets what the last one got, and is told so (RFC 9211).
    let fresh = rendered.budget.take(Instant::now());
    if fresh {
        // To its end, also where the client does not wait for it: others are to have it too.
        match tokio::spawn(render(served.deps.clone(), rendered)).await {
            Ok(Ok(new)) => rendered = new,
            Ok(Err(error)) => return failed(&error),
            Err(error) => return failed(&error),
        }
    }
    let mut accepts =
        headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let (kind, body) = if accepts.any(|accept| accept.contains(OPENMETRICS_NAME)) {
        (OPENMETRICS, rendered.openmetrics.clone())
    } else {
        (TEXT, rendered.text.clone())
    };
    let cache = if fresh { "guard-agent; fwd=miss" } else { "guard-agent; hit" };
    ([(header::CONTENT_TYPE, kind), (CACHE_STATUS, cache)], body).into_response()
}

async fn render(
    deps: Arc<Deps>,
    mut rendered: OwnedMutexGuard<Rendered>,
) -> Result<OwnedMutexGuard<Rendered>, prometheus::Error> {
    collect(&deps).await;
    let text = deps.metrics.encode()?;
    rendered.openmetrics = openmetrics(&text).into();
    rendered.text = text.into();
    Ok(rendered)
}

fn failed(error: &dyn Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
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
    Metrics::follow(&metrics.log_dropped, logging::dropped());
    observer.counters.collect(metrics);
    deps.enforcement.collect(metrics);
}
