//! Streams: one line for each message, until somebody ends it.
//!
//! An agent that restarts ends its streams, or loses them. What was followed goes on with the next one.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use guard_api::{
    client::{CallError, answer, connect},
    pages,
    proto::{
        Conflict, ConflictsRequest, Event, PortsRequest, WatchConflictsRequest, WatchRequest,
        guard_client::GuardClient, leases_client::LeasesClient,
    },
};
use jiff::Timestamp;
use tokio::{signal, time::sleep};
use tonic::{Streaming, transport::Channel};

use crate::{
    error::Error,
    output::{Output, View, printable},
};

/// How long to wait before an agent that went away is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// How many events are shown where nothing else is asked for.
const LAST: u64 = 20;

/// Which events are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events {
    /// Also those to come.
    pub follow: bool,
    /// Those after this one.
    pub from: Option<u64>,
    /// Those that are no older than this.
    pub since: Option<Duration>,
}

/// Prints what comes, until interrupted.
///
/// # Errors
/// The agent went away, or standard output cannot be written.
pub(crate) async fn follow<M, V>(mut stream: Streaming<M>, output: Output) -> Result<(), Error>
where
    V: From<M> + View,
{
    let mut interrupt = std::pin::pin!(signal::ctrl_c());
    loop {
        let message = tokio::select! {
            biased;
            _ = &mut interrupt => return Ok(()),
            message = next(&mut stream) => message?,
        };
        output.print(&V::from(message))?;
    }
}

/// Prints the events that are asked for.
///
/// # Errors
/// The agent cannot be reached or refuses, or standard output cannot be written.
pub(crate) async fn events(
    socket: &Path,
    channel: Channel,
    events: Events,
    output: Output,
) -> Result<(), Error> {
    let Events { follow, from, since } = events;
    let last = last(&channel).await?;
    let start = match (from, since) {
        (Some(from), _) => from,
        (None, Some(_)) => 0,
        (None, None) if follow => last,
        (None, None) => last.saturating_sub(LAST),
    };
    let oldest = since.and_then(|since| Timestamp::now().checked_sub(since).ok());
    let mut at = start;
    let mut print = async |channel: Channel| -> Result<(), Error> {
        let request = WatchRequest { after_seq: Some(at), ..WatchRequest::default() };
        let mut stream = answer(LeasesClient::new(channel).watch(request)).await?;
        loop {
            if !follow && at >= last {
                return Ok(());
            }
            let event: Event = next(&mut stream).await?;
            at = at.max(event.seq);
            let time = guard_api::json::time(event.time);
            let is_old = oldest.zip(time).is_some_and(|(oldest, time)| time < oldest);
            if !is_old {
                output.print(&event)?;
            }
        }
    };
    if follow { again(socket, channel, print).await } else { print(channel).await }
}

/// Prints the incidents that are open, and then each as it changes.
///
/// # Errors
/// As [`events`].
pub(crate) async fn conflicts(
    socket: &Path,
    channel: Channel,
    output: Output,
) -> Result<(), Error> {
    let mut open: HashMap<String, Conflict> = HashMap::new();
    again(socket, channel, async |channel| {
        let mut guard = GuardClient::new(channel.clone());
        let mut stream = answer(guard.watch_conflicts(WatchConflictsRequest {})).await?;
        if !open.is_empty() {
            // Some may have closed since the agent went away.
            let all = ConflictsRequest { all: true, ..ConflictsRequest::default() };
            let all = pages::all(&channel, all).await?.conflicts;
            for closed in all.into_iter().filter(|conflict| !conflict.open) {
                if open.remove(&closed.id).is_some() {
                    output.print(&closed)?;
                }
            }
        }
        loop {
            let conflict = next(&mut stream).await?;
            if open.get(&conflict.id) == Some(&conflict) {
                continue;
            }
            output.print(&conflict)?;
            match conflict.open {
                true => open.insert(conflict.id.clone(), conflict),
                false => open.remove(&conflict.id),
            };
        }
    })
    .await
}

/// Follows, and looks for the agent again where it has gone, until interrupted.
async fn again(
    socket: &Path,
    channel: Channel,
    mut print: impl AsyncFnMut(Channel) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut interrupt = std::pin::pin!(signal::ctrl_c());
    let mut channel = Some(channel);
    let mut told = false;
    loop {
        let work = async {
            let channel = match channel.take() {
                Some(channel) => channel,
                None => {
                    let channel = connect(socket).await?;
                    told = false;
                    channel
                }
            };
            print(channel).await
        };
        let error = tokio::select! {
            biased;
            _ = &mut interrupt => return Ok(()),
            done = work => match done {
                Err(Error::Call(error)) if error.is_passing() => error,
                done => return done,
            },
        };
        if !told {
            // Where stderr is closed, nobody reads it.
            let line = printable(&format!("{error}; waiting for the agent"));
            let _ = writeln!(io::stderr(), "{line}");
            told = true;
        }
        tokio::select! {
            biased;
            _ = &mut interrupt => return Ok(()),
            () = sleep(PAUSE) => {}
        }
    }
}

/// The number of the last event. A list of which little is read says it, also where there is no store.
async fn last(channel: &Channel) -> Result<u64, CallError> {
    let request = PortsRequest { page_size: 1, ..PortsRequest::default() };
    Ok(answer(GuardClient::new(channel.clone()).ports(request)).await?.seq)
}

async fn next<M>(stream: &mut Streaming<M>) -> Result<M, Error> {
    match stream.message().await? {
        Some(message) => Ok(message),
        None => Err(Error::Ended),
    }
}
