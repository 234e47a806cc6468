//! Calls that cannot be meant are refused by name, and change nothing.

use anyhow::{Context, Result, ensure};
use guard_api::{
    client::connect,
    proto::{
        self, AllocateRequest, BindRequest, ConfirmRequest, Event, LeaseState, ListLeasesRequest,
        Owner, ReleaseRequest, WatchRequest, event::Subject, leases_client::LeasesClient,
        release_request::Which,
    },
};
use guard_tests::{Agent, Lab, POOL, reason, retry_delay};
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Response, Status, Streaming, transport::Channel};

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

async fn client(agent: &Agent) -> Result<LeasesClient<Channel>> {
    Ok(LeasesClient::new(connect(&agent.socket()).await?))
}

fn is_malformed<T>(answer: Result<Response<T>, Status>, names: &str) -> Result<()> {
    let refused = answer.err().with_context(|| format!("not refused: {names}"))?;
    let why = (refused.code(), reason(&refused));
    ensure!(why == (Code::InvalidArgument, Some("REQUEST_MALFORMED".to_owned())), "{refused}");
    ensure!(refused.message().contains(names), "{names:?} is not in: {refused}");
    Ok(())
}

#[test]
fn a_call_about_a_lease_names_its_generation() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let lease = agent.allocate("a")?;
    runtime()?.block_on(async {
        let mut client = client(&agent).await?;
        let confirm = client.confirm(ConfirmRequest::default()).await;
        is_malformed(confirm, "confirm names no generation")?;
        let mac = "02:00:00:00:00:0a".to_owned();
        let bind = client.bind(BindRequest { mac, ..Default::default() }).await;
        is_malformed(bind, "bind names no generation")?;
        is_malformed(client.release(ReleaseRequest::default()).await, "release names neither")?;
        let which = Some(Which::Generation(0));
        let release = client.release(ReleaseRequest { which, ..Default::default() }).await;
        is_malformed(release, "release names no generation")
    })?;
    assert_eq!(agent.state(&lease)?, "held");
    Ok(())
}

#[test]
fn labels_have_the_lengths_of_other_systems() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    runtime()?.block_on(async {
        let mut client = client(&agent).await?;
        let ask = |sandbox: &str, labels: Vec<(String, String)>| AllocateRequest {
            pools: vec![POOL.to_owned()],
            owner: Some(Owner { sandbox: sandbox.to_owned(), ..Owner::default() }),
            labels: labels.into_iter().collect(),
            ..AllocateRequest::default()
        };
        let one = |key: usize, value: usize| vec![("k".repeat(key), "v".repeat(value))];
        client.allocate(ask("longest", one(63, 253))).await?;
        for (labels, names) in [
            (one(64, 1), "more than 63 bytes"),
            (one(1, 254), "more than 253 bytes"),
            (one(0, 1), "no key"),
            ((0..65).map(|at| (at.to_string(), String::new())).collect(), "more than 64 labels"),
        ] {
            is_malformed(client.allocate(ask("refused", labels)).await, names)?;
        }
        anyhow::Ok(())
    })?;
    assert_eq!(agent.list(&["leases"], "leases")?.len(), 1);
    Ok(())
}

#[test]
fn a_list_is_not_narrowed_to_a_state_that_no_lease_has() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    runtime()?.block_on(async {
        let mut client = client(&agent).await?;
        let list = |state: i32| ListLeasesRequest { state, ..Default::default() };
        is_malformed(client.list(list(99)).await, "state 99")?;
        is_malformed(client.list(list(LeaseState::Free.into())).await, "a free address")?;
        let held = client.list(list(LeaseState::Held.into())).await?.into_inner();
        ensure!(held.leases.len() == 1, "{held:?}");
        Ok(())
    })
}

async fn next(events: &mut Streaming<Event>) -> Result<Event> {
    events.message().await?.context("the stream has ended")
}

#[test]
fn a_watcher_is_told_what_it_asks_for_and_that_the_agent_stops() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let runtime = runtime()?;
    let mut events = runtime.block_on(async {
        let sandbox = "b".to_owned();
        let request = WatchRequest { sandbox, ..Default::default() };
        anyhow::Ok(client(&agent).await?.watch(request).await?.into_inner())
    })?;
    agent.allocate("a")?;
    let lease = agent.allocate("b")?;
    let event = runtime.block_on(next(&mut events))?;
    let is_it = |of: &proto::Lease| of.generation == lease.generation;
    ensure!(matches!(&event.subject, Some(Subject::Lease(of)) if is_it(of)), "{event:?}");
    // The runtime has to run while the agent waits for those who listen.
    let end = runtime.block_on(async {
        let end = tokio::spawn(async move { events.message().await });
        tokio::task::spawn_blocking(move || agent.stop()).await??;
        anyhow::Ok(end.await?)
    })?;
    let refused = end.err().context("it ended as if all were told")?;
    let why = (refused.code(), reason(&refused), retry_delay(&refused).is_some());
    assert_eq!(why, (Code::Unavailable, Some("STOPPING".to_owned()), true));
    Ok(())
}
