//! The demo: the incident that guard exists for, first without guard and then with it, on a real
//! bridge that it makes and removes again.

mod conflict;
mod release;
mod screen;
mod squatter;
mod theft;
mod watch;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use guard_tests::{Agent, Lab, require_root};
use serde::Serialize;

use screen::Screen;

/// How many connections each client makes to see who answers.
const CONNECTIONS: u64 = 64;

/// Length of the prefix of the demo's bridge: five addresses beside the gateway's, few enough to
/// see the end of them.
const PREFIX_LEN: u8 = 29;

/// Shows what happens to an address that is released while it is still in use, without guard and
/// with it. Needs root; takes a few seconds.
#[derive(Parser)]
#[command(name = "guard-demo", version)]
struct Args {
    /// Print one line of JSON on standard output, and the rest on standard error.
    #[arg(long)]
    json: bool,
}

/// What was measured. Nothing in it is assumed.
#[derive(Debug, Default, Serialize)]
struct Measured {
    connections_without_guard: u64,
    misdelivered_without_guard: u64,
    connections_with_guard: u64,
    misdelivered_with_guard: u64,
    duplicates_handed_out: u64,
    release_while_live: String,
    quarantined: u64,
    conflicts_flagged: u64,
    conflicts_flagged_without_a_pool: u64,
    detection_latency_us: u64,
    misdelivered_observe: u64,
    misdelivered_enforce: u64,
    frames_dropped: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut screen = Screen::new(args.json);
    let mut measured = Measured::default();
    let outcome = run(&mut screen, &mut measured);
    if let Err(error) = &outcome {
        screen.broken(&format!("{error:#}"));
    }
    if args.json {
        match serde_json::to_string(&measured) {
            Ok(line) => println!("{line}"),
            Err(error) => screen.broken(&error.to_string()),
        }
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(screen: &mut Screen, measured: &mut Measured) -> Result<()> {
    require_root()?;
    screen.title("guard: who may have an address, and who has it");

    screen.part(1, "Without guard: host-local, with a range of one address");
    release::without_guard(screen, measured)?;

    let lab = Lab::with_prefix(PREFIX_LEN)?;
    let agent = lab.agent()?;
    screen.part(2, "With guard: the same steps");
    let sandboxes = release::with_guard(screen, measured, &lab, &agent)?;
    screen.part(3, "A squatter takes an address that is free");
    let third = squatter::take_free_address(screen, measured, &lab, &agent, &sandboxes)?;
    screen.part(4, "A sandbox takes its neighbour's address");
    conflict::take_neighbours_address(screen, measured, &agent, &third, &sandboxes.beta)?;
    agent.stop()?;
    screen.part(5, "Two lines of configuration, where another allocator is in charge");
    watch::without_a_pool(screen, measured)?;
    screen.part(6, "The same theft, where guard watches and where it enforces");
    theft::in_observe_and_in_enforce(screen, measured)?;

    judge(screen, measured)
}

/// Compares what was measured with what guard promises.
fn judge(screen: &mut Screen, measured: &Measured) -> Result<()> {
    screen.part(7, "What was measured");
    let m = measured;
    let rows = [
        (
            format!(
                "without guard, {} of {} connections landed at the wrong sandbox",
                m.misdelivered_without_guard, m.connections_without_guard
            ),
            m.misdelivered_without_guard > 0,
        ),
        (
            format!("with guard, {} of {}", m.misdelivered_with_guard, m.connections_with_guard),
            m.misdelivered_with_guard == 0
                && m.connections_with_guard == m.connections_without_guard,
        ),
        (
            format!("{} addresses handed out that were in use", m.duplicates_handed_out),
            m.duplicates_handed_out == 0,
        ),
        (
            format!("the address released while in use: {}", m.release_while_live),
            m.release_while_live == "releasing",
        ),
        (format!("addresses in quarantine: {}", m.quarantined), m.quarantined == 1),
        (
            format!(
                "incidents of two on one address: {}, the alert {:.1} ms after the first frame",
                m.conflicts_flagged,
                f64::from(u32::try_from(m.detection_latency_us).unwrap_or(u32::MAX)) / 1000.0
            ),
            m.conflicts_flagged == 1,
        ),
        (
            format!("and where guard leases nothing: {}", m.conflicts_flagged_without_a_pool),
            m.conflicts_flagged_without_a_pool == 1,
        ),
        (
            format!(
                "a theft sends {} connections astray in observe, and {} in enforce",
                m.misdelivered_observe, m.misdelivered_enforce
            ),
            m.misdelivered_observe > 0 && m.misdelivered_enforce == 0 && m.frames_dropped > 0,
        ),
    ];
    for (text, holds) in &rows {
        if *holds { screen.good(text) } else { screen.broken(text) }
    }
    if rows.iter().any(|(_, holds)| !holds) {
        bail!("guard does not hold what it promises");
    }
    Ok(())
}

/// Notes a hand-out, against the addresses that are in use.
fn note_hand_out(
    measured: &mut Measured,
    agent: &Agent,
    sandbox: &str,
    in_use: &[std::net::Ipv4Addr],
) -> Result<guard_tests::Lease> {
    let lease = agent.allocate(sandbox)?;
    measured.duplicates_handed_out += u64::from(in_use.contains(&lease.address));
    Ok(lease)
}
