//! Clients that ask as fast as they are answered.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guard_tests::{Client, POOL};
use tokio::task::JoinSet;

/// What a round of allocations came to.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// From the call to its answer, of each.
    pub latencies: Vec<Duration>,
    /// From the first call to the last answer.
    pub elapsed: Duration,
    /// What was given.
    pub generations: Vec<u64>,
}

/// A connection for each of so many clients.
///
/// # Errors
/// The agent does not take them.
pub(crate) async fn connect(socket: &Path, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(Client::connect(socket).await?);
    }
    Ok(clients)
}

/// Allocates `count` addresses for sandboxes whose names begin with `prefix`, each client one
/// after the other.
///
/// # Errors
/// One was refused.
pub(crate) async fn allocate(clients: &[Client], count: usize, prefix: &str) -> Result<Round> {
    let next = Arc::new(AtomicUsize::new(0));
    let prefix: Arc<str> = Arc::from(prefix);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        let (mut client, next, prefix) = (client.clone(), Arc::clone(&next), Arc::clone(&prefix));
        tasks.spawn(async move {
            let mut given = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(given);
                }
                let sandbox = format!("{prefix}-{number}");
                let asked = Instant::now();
                let lease = client.allocate(POOL, &sandbox).await?;
                given.push((asked.elapsed(), lease.generation));
            }
        });
    }
    let mut round = Round::default();
    while let Some(given) = tasks.join_next().await {
        for (latency, generation) in given.context("a client panicked")?? {
            round.latencies.push(latency);
            round.generations.push(generation);
        }
    }
    round.elapsed = start.elapsed();
    Ok(round)
}

/// Gives all of them back.
///
/// # Errors
/// One was refused.
pub(crate) async fn release(clients: &[Client], generations: Vec<u64>) -> Result<()> {
    let mut tasks = JoinSet::new();
    let share = generations.len().div_ceil(clients.len()).max(1);
    for (client, share) in clients.iter().zip(generations.chunks(share)) {
        let (mut client, share) = (client.clone(), share.to_vec());
        tasks.spawn(async move {
            for generation in share {
                client.give_back(generation).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a client panicked")??;
    }
    Ok(())
}
