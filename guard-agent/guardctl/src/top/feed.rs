//! What the agent says, once a second, for as long as somebody looks.

use std::{
    future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use guard_api::{
    client::{CallError, answer, connect},
    pages,
    proto::{
        Conflict, ConflictsRequest, Event, ListPoolsRequest, Pool, Port, PortsRequest,
        StatusRequest, StatusResponse, WatchRequest, guard_client::GuardClient,
        leases_client::LeasesClient,
    },
};
use jiff::Timestamp;
use tokio::{
    sync::mpsc::Sender,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic::{Streaming, transport::Channel};

use crate::view::conflict::worst_first;

const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take before the screen says that there is none.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How it is at one moment.
pub(super) struct Sample {
    /// For rates.
    pub at: Instant,
    /// For ages.
    pub now: Timestamp,
    pub status: StatusResponse,
    pub pools: Vec<Pool>,
    pub ports: Vec<Port>,
    pub conflicts: Vec<Conflict>,
    /// Since the sample before; none where events are not for this caller.
    pub events: Option<Events>,
}

/// How many events there were.
#[derive(Clone, Copy, Default)]
pub(super) struct Events {
    /// Addresses that were handed out.
    pub held: u64,
    /// Of any kind.
    pub all: u64,
}

/// Sends what it is told, or why it is told nothing, until nobody listens.
pub(super) async fn run(socket: PathBuf, updates: Sender<Result<Sample, String>>) {
    while let Err(error) = session(&socket, &updates).await {
        if updates.send(Err(error.to_string())).await.is_err() {
            return;
        }
        sleep(INTERVAL).await;
    }
}

/// As long as one connection lasts.
async fn session(socket: &Path, updates: &Sender<Result<Sample, String>>) -> Result<(), CallError> {
    let channel = in_time(connect(socket)).await?;
    let watch = LeasesClient::new(channel.clone()).watch(WatchRequest::default()).await;
    let mut stream = match watch.map_err(CallError::from) {
        Ok(response) => Some(response.into_inner()),
        // Readers may not follow events.
        Err(CallError::Refused(_)) => None,
        Err(error) => return Err(error),
    };
    let mut events = stream.is_some().then(Events::default);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let sample = in_time(sample(&channel, events)).await?;
                if updates.send(Ok(sample)).await.is_err() {
                    return Ok(());
                }
                events = events.map(|_| Events::default());
            }
            event = next(&mut stream) => {
                let event = event?;
                if let Some(events) = &mut events {
                    events.all += 1;
                    events.held += u64::from(event.r#type == "lease.held");
                }
            }
        }
    }
}

async fn sample(channel: &Channel, events: Option<Events>) -> Result<Sample, CallError> {
    let mut guard = GuardClient::new(channel.clone());
    let pools = pages::all(channel, ListPoolsRequest::default()).await?;
    let ports = pages::all(channel, PortsRequest::default()).await?;
    let at = Instant::now();
    let mut conflicts = pages::all(channel, ConflictsRequest::default()).await?;
    worst_first(&mut conflicts.conflicts);
    let status = answer(guard.status(StatusRequest {})).await?;
    Ok(Sample {
        at,
        now: Timestamp::now(),
        status,
        pools: pools.pools,
        ports: ports.ports,
        conflicts: conflicts.conflicts,
        events,
    })
}

async fn next(stream: &mut Option<Streaming<Event>>) -> Result<Event, CallError> {
    match stream {
        Some(stream) => match stream.message().await? {
            Some(event) => Ok(event),
            None => Err(CallError::Lost("it ended the stream".to_owned())),
        },
        None => future::pending().await,
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(CallError::Deadline(CALL_TIMEOUT)))
}
