//! The peer: `host-local`, a process for each call, as a container runtime starts it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use guard_tests::{HostLocal, Lab};

/// It reads all its files for each call, so that a full one takes minutes for what others do in a
/// second: it is asked for this long, and not for a number of allocations.
const LASTS: Duration = Duration::from_secs(2);

/// Fills the plugin's store with `rows` leases, as it would write them itself.
///
/// # Errors
/// The plugin is missing, or the disk is full.
pub(crate) fn fill(lab: &Lab, dir: &Path, rows: usize) -> Result<HostLocal> {
    let peer = HostLocal::with_prefix(lab, dir)?;
    let store = peer.store();
    fs::create_dir_all(&store).with_context(|| store.display().to_string())?;
    let mut last = None;
    for (number, address) in lab.prefix().hosts().take(rows).enumerate() {
        fs::write(store.join(address.to_string()), format!("filled-{number}\r\neth0"))?;
        last = Some(address);
    }
    if let Some(last) = last {
        fs::write(store.join("last_reserved_ip.0"), last.to_string())?;
    }
    Ok(peer)
}

/// Calls it from so many clients at once, and returns how many allocations a second it made.
///
/// # Errors
/// It refused one.
pub(crate) fn per_second(peer: &HostLocal, lab: &Lab, clients: usize, tag: &str) -> Result<f64> {
    let (netns, next) = (lab.host().path(), AtomicUsize::new(0));
    let start = Instant::now();
    let calls: usize = std::thread::scope(|scope| {
        let client = || -> Result<usize> {
            let mut calls = 0;
            while start.elapsed() < LASTS {
                let number = next.fetch_add(1, Ordering::Relaxed);
                peer.add_container(&format!("{tag}-{number}"), &netns)?;
                calls += 1;
            }
            Ok(calls)
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let joined = clients.into_iter().map(|c| c.join().map_err(|_| anyhow!("a panic"))?);
        joined.sum::<Result<usize>>()
    })?;
    #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
    let calls = calls as f64;
    Ok(calls / start.elapsed().as_secs_f64())
}
