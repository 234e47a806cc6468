//! Part 4: somebody takes an address that is another's.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Arp, BRIDGE};

use crate::{Measured, release::Admitted, screen::Screen};

pub(crate) fn take_neighbours_address(
    screen: &mut Screen,
    measured: &mut Measured,
    agent: &Agent,
    thief: &Admitted,
    owner: &Admitted,
) -> Result<()> {
    let address = owner.lease.address;
    let (thief_mac, owner_mac) = (thief.sandbox.mac(), owner.sandbox.mac());
    thief.sandbox.add_address(address)?;
    let socket = thief.sandbox.raw_socket()?;
    let frame = Arp::announcement(thief_mac, address).frame();

    // The stream begins with what has been, and once that has come it is known to be followed.
    let events = agent.follow(&["events", "--from", "0"])?;
    let owners = owner.lease.generation;
    events.next(|event| event["lease"]["generation"] == owners)?;
    let before = Instant::now();
    socket.send(&frame)?;
    let text = address.to_string();
    let (seen, event) = events.next(|event| {
        event["type"] == "conflict.opened" && event["conflict"]["address"] == text.as_str()
    })?;
    let latency = seen.duration_since(before);
    measured.detection_latency_us = u64::try_from(latency.as_micros()).context("the latency")?;
    screen.step(
        thief.sandbox.name(),
        &format!("announces {address}, which is {}'s, with one frame", owner.sandbox.name()),
    );
    let incident = &event["conflict"];
    ensure!(incident["kind"] == "duplicate", "not a duplicate: {incident}");

    let (thief_mac, owner_mac) = (thief_mac.to_string(), owner_mac.to_string());
    let parts = ["WARN", &text, &thief_mac, &owner_mac, thief.sandbox.port(), owner.sandbox.port()];
    let line = agent.journal().await_line(&parts)?;
    screen.quote("the log", &line.text);
    let labels = [("bridge", BRIDGE), ("kind", "duplicate")];
    let metric = agent.metric("guard_conflicts_total", &labels)?.context("no such metric")?;
    screen.quote(
        "curl http://127.0.0.1:9477/metrics",
        &format!("guard_conflicts_total{{bridge=\"{BRIDGE}\",kind=\"duplicate\"}} {metric}"),
    );
    let shown = agent.ctl_in_columns(screen.columns(), &["conflicts"])?;
    ensure!(shown.code == 0 && shown.stdout.contains(&text), "guardctl conflicts: {shown:?}");
    screen.quote("guardctl conflicts", shown.stdout.trim_end());

    let incidents = agent.list(&["conflicts", "--all"], "conflicts")?;
    let duplicates = incidents.iter().filter(|incident| incident["kind"] == "duplicate").count();
    measured.conflicts_flagged = u64::try_from(duplicates).context("the number of incidents")?;
    ensure!(
        (metric - 1.0).abs() < f64::EPSILON && duplicates == 1,
        "guard_conflicts_total is {metric} and `guardctl conflicts` lists {duplicates}, not 1"
    );
    screen.good(&format!("flagged at the first frame, after {latency:.1?}"));
    Ok(())
}
