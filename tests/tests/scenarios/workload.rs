//! A controller whose workload has an address of its own: one run of it after the other.

use anyhow::{Context, Result};
use guard_api::proto::{
    AllocateRequest, Event, Lease, LeaseState, Outcome, Owner, ReleaseRequest, event,
    release_request::Which,
};
use guard_tests::{Client, Lab, POOL};
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

/// One run of the sandbox "web", which asks for its address.
fn web(lifecycle: &str) -> AllocateRequest {
    AllocateRequest {
        pools: vec![POOL.to_owned()],
        owner: Some(owner(lifecycle)),
        address: "10.8.64.20".to_owned(),
        workload: "web".to_owned(),
        ..AllocateRequest::default()
    }
}

fn owner(lifecycle: &str) -> Owner {
    Owner { sandbox: "web".to_owned(), lifecycle: lifecycle.to_owned() }
}

fn reason(refused: &Status) -> String {
    refused.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn next(events: &mut Streaming<Event>) -> Result<(String, String)> {
    let event = events.message().await?.context("the stream has ended")?;
    let Some(event::Subject::Lease(Lease { lifecycle, .. })) = event.subject else {
        anyhow::bail!("not of a lease: {event:?}");
    };
    Ok((event.r#type, lifecycle))
}

#[test]
fn the_next_run_of_a_workload_ends_the_last_one_and_both_are_told_in_order() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        let mut events = client.watch("", None).await?;
        let first = client.ask(web("1")).await?.remove(0);
        // Another sandbox, which is of no workload or of another.
        for workload in ["", "web-2"] {
            let stranger = AllocateRequest { workload: workload.to_owned(), ..web("2") };
            let refused = client.ask(stranger).await.err().context("a stranger got it")?;
            assert_eq!(reason(&refused), "ADDRESS_HELD", "{refused}");
        }
        let second = client.ask(web("2")).await?.remove(0);
        assert!(second.generation > first.generation && second.address == first.address);
        assert_eq!(client.confirm(first.generation).await?, Outcome::Stale);
        assert_eq!(client.release(first.generation).await?, Outcome::Stale);
        assert_eq!(client.confirm(second.generation).await?, Outcome::Done);
        for told in [("held", "1"), ("cooling", "1"), ("held", "2"), ("active", "2")] {
            let (kind, lifecycle) = next(&mut events).await?;
            assert_eq!(
                (kind.as_str(), lifecycle.as_str()),
                (&*format!("lease.{}", told.0), told.1)
            );
        }
        let leases = client.leases().await?;
        let label = leases[0].labels.get("guard.v1/workload");
        assert_eq!((leases.len(), label.map(String::as_str)), (1, Some("web")), "{leases:?}");
        // Without a wish, the workload is a label.
        let anywhere = AllocateRequest { address: String::new(), ..web("3") };
        assert_ne!(client.ask(anywhere).await?[0].address, first.address);
        anyhow::Ok(())
    })?;
    agent.check()
}

#[test]
fn odd_workloads_and_releases_are_refused_and_change_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        let long = "w".repeat(512);
        client.ask(AllocateRequest { workload: long.clone(), ..web("1") }).await?;
        let lease = client.ask(AllocateRequest { workload: long, ..web("2") }).await?.remove(0);
        for odd in ["w".repeat(513), "a b".to_owned(), "a\n".to_owned(), "wéb".to_owned()] {
            let ask = AllocateRequest { workload: odd, ..web("3") };
            let refused = client.ask(ask).await.err().context("it passed")?;
            assert_eq!(reason(&refused), "OWNER_MALFORMED", "{refused}");
        }
        let gone = |which| ReleaseRequest { which, only_if_gone: true, cut: false };
        for which in [None, Some(Which::Owner(owner("2")))] {
            let refused = client.end(gone(which)).await.err().context("it passed")?;
            assert_eq!(reason(&refused), "REQUEST_MALFORMED", "{refused}");
        }
        assert_eq!(client.leases().await?[0].state(), LeaseState::Held);
        let by_generation = |generation| gone(Some(Which::Generation(generation)));
        assert_eq!(client.end(by_generation(1)).await?, Outcome::NotFound);
        assert_eq!(client.end(by_generation(lease.generation - 1)).await?, Outcome::Stale);
        assert_eq!(client.end(by_generation(lease.generation)).await?, Outcome::Cooling);
        assert_eq!(client.end(by_generation(lease.generation)).await?, Outcome::Stale);
        anyhow::Ok(())
    })?;
    agent.check()
}
