//! A crowd of clients, with an operator's commands beside them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use guard_api::proto::{LeaseState, Outcome};
use guard_tests::{Agent, Client, Lab, POOL};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

const CLIENTS: usize = 32;
const LEASES: usize = 1000;

/// What becomes of a client's leases: of ten, one stays as it was given, one is confirmed and
/// stays, and the others are confirmed and given back.
type Model = BTreeMap<String, (u64, LeaseState)>;

#[test]
fn thirty_two_clients_and_an_operator_get_what_they_ask_for() -> Result<()> {
    let lab = Lab::with_prefix(16)?;
    let agent = lab.agent()?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let over = AtomicBool::new(false);
    let (model, calls) = std::thread::scope(|scope| -> Result<_> {
        let operator = scope.spawn(|| operate(&agent, &over));
        let model = runtime.block_on(async {
            let mut clients = JoinSet::new();
            for id in 0..CLIENTS {
                clients.spawn(client(Client::connect(&agent.socket()).await?, id));
            }
            let mut model = Model::new();
            while let Some(ended) = clients.join_next().await {
                for (address, end) in ended.context("a client panicked")?? {
                    let twice = model.insert(address.clone(), end);
                    ensure!(twice.is_none(), "{address} was given twice");
                }
            }
            Ok(model)
        });
        over.store(true, Ordering::Relaxed);
        let calls = operator.join().map_err(|_| anyhow!("the operator panicked"))??;
        Ok((model?, calls))
    })?;
    assert!(calls > 3, "{calls} commands of an operator say nothing");
    assert_eq!(model.len(), CLIENTS * LEASES);

    let listed = runtime.block_on(async {
        Client::connect(&agent.socket()).await?.leases().await.context("all leases")
    })?;
    let state = |lease: &guard_api::proto::Lease| (lease.generation, lease.state());
    let listed: Model = listed.into_iter().map(|l| (l.address.clone(), state(&l))).collect();
    let differs = listed.iter().find(|(address, is)| model.get(*address) != Some(is));
    assert_eq!(differs, None, "the model says otherwise");
    assert_eq!(listed.len(), model.len());
    agent.stop()
}

/// Every address is used once, as there are more of them than leases: never-used ones go first.
async fn client(mut client: Client, id: usize) -> Result<Model> {
    let mut model = Model::new();
    for number in 0..LEASES {
        let lease = client.allocate(POOL, &format!("c{id}-{number}")).await?;
        let generation = lease.generation;
        let end = match number % 10 {
            0 => LeaseState::Held,
            1 => {
                ensure!(client.confirm(generation).await? == Outcome::Done, "{generation}");
                LeaseState::Active
            }
            _ => {
                ensure!(client.confirm(generation).await? == Outcome::Done, "{generation}");
                client.give_back(generation).await?;
                LeaseState::Cooling
            }
        };
        let twice = model.insert(lease.address.clone(), (generation, end));
        ensure!(twice.is_none(), "{} was given twice", lease.address);
    }
    Ok(model)
}

/// What an operator does meanwhile; each command must be answered.
fn operate(agent: &Agent, over: &AtomicBool) -> Result<usize> {
    let commands: [&[&str]; 4] =
        [&["pools"], &["status", "--live"], &["leases", "--sandbox", "c7-10"], &["conflicts"]];
    let mut calls = 0;
    while !over.load(Ordering::Relaxed) {
        for command in commands {
            agent.json(command)?;
            calls += 1;
        }
        let sandbox = format!("operator-{calls}");
        let args = ["allocate", "--pool", POOL, "--sandbox", &sandbox, "--address", "10.9.0.1"];
        let refusal = agent.ctl(&args)?.refusal()?;
        ensure!(refusal.reason == "ADDRESS_OUTSIDE_POOL", "{refusal:?}");
    }
    Ok(calls)
}
