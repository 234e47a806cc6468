//! Work is limited, not calls: whoever may read does not keep others from their addresses, the
//! observer from its frames, or the machine from its memory.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Client, Lab, Launch, POOL, Sandbox, binary};

const READER: u32 = 61001;
const READERS: u32 = 61002;
const LEASES: u32 = 60_000;
/// As many calls as one caller may have.
const LISTS: usize = 512;

/// A process that asks for all leases, many times at once, until it is dropped.
struct Readers(Child);

impl Drop for Readers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn readers(agent: &Agent, manner: &str, count: usize) -> Result<Readers> {
    let mut command = Command::new(binary("read-as")?);
    let (uid, gid) = (READER.to_string(), READERS.to_string());
    command.arg(agent.socket()).args([&*uid, &*gid, "", manner, &count.to_string()]);
    let mut readers = Readers(command.stdout(Stdio::piped()).spawn().context("read-as")?);
    let stdout = readers.0.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "begun\n", "{line}");
    Ok(readers)
}

fn full_agent(lab: &Lab) -> Result<Agent> {
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o711))?;
    lab.small_state(256 << 10)?;
    lab.fill(LEASES)?;
    let access = format!("[access]\nreader_gids = [{READERS}]\n");
    lab.agent_with(Launch::config(&lab.config()?.with(&access)?)?)
}

/// How long allocations take, one after the other: half of them, all but one of a hundred, and all.
fn allocations(agent: &Agent, prefix: &str, count: usize) -> Result<[Duration; 3]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        let mut took = Vec::with_capacity(count);
        for number in 0..count {
            let asked = Instant::now();
            client.allocate(POOL, &format!("{prefix}-{number}")).await?;
            took.push(asked.elapsed());
        }
        took.sort_unstable();
        let at =
            |share: usize| took.get((count - 1) * share / 100).copied().context("no latencies");
        Ok([at(50)?, at(99)?, at(100)?])
    })
}

/// How long it takes the observer to tell of what nobody has, for each of these addresses.
fn detections(agent: &Agent, sandbox: &Sandbox, addresses: Range<u8>) -> Result<Duration> {
    let mut worst = Duration::ZERO;
    for last in addresses {
        let address = Ipv4Addr::new(10, 9, 200, last);
        let claimed = Instant::now();
        sandbox.announce(address)?;
        agent.journal().await_line(&["conflict", &format!("address={address} ")])?;
        worst = worst.max(claimed.elapsed());
    }
    Ok(worst)
}

#[test]
fn lists_of_sixty_thousand_leases_keep_nobody_from_an_address_or_an_alert() -> Result<()> {
    let lab = Lab::with_prefix(15)?;
    let agent = full_agent(&lab)?;
    let sandbox = lab.sandbox("alien")?;
    agent.await_port(&sandbox)?;
    let alone = allocations(&agent, "alone", 200)?;
    let before = agent.resident_kib()?;
    eprintln!("alone: {alone:?}, {before} KiB");
    for (manner, count, addresses) in [("loop", LISTS, 1..5), ("stall", LISTS, 5..9)] {
        let readers = readers(&agent, manner, count)?;
        let beside = allocations(&agent, &format!("{manner}-{count}"), 200)?;
        let told = detections(&agent, &sandbox, addresses)?;
        let grown = agent.resident_kib()?.saturating_sub(before);
        drop(readers);
        eprintln!("{manner} {count}: {beside:?}, told in {told:?}, {grown} KiB more");
        // Some milliseconds; one list of these was seconds, and there were hundreds.
        ensure!(beside[1] < Duration::from_millis(500), "{manner}: an address took {beside:?}");
        ensure!(told < Duration::from_secs(2), "{manner}: an alert took {told:?}");
        ensure!(grown < 128 << 10, "{manner}: {grown} KiB more");
    }
    Ok(())
}
