//! Work is limited, not calls: whoever may read does not keep others from their addresses, the
//! observer from its frames, or the machine from its memory.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_api::proto::{
    AllocateRequest, GetLeaseRequest, Owner, ReleaseRequest, release_request::Which,
};
use guard_tests::{Agent, Client, Lab, Launch, POOL, Sandbox, TIMEOUT, binary, eventually};

use super::access;
use super::controllers::call;

const READER: u32 = 61001;
const READERS: u32 = 61002;
const LEASES: u32 = 60_000;
/// All allocations but one of a hundred are done within so long, unless the agent is slow and other tests run.
const ADD: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });
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

fn agent_with(lab: &Lab, leases: u32) -> Result<Agent> {
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o711))?;
    lab.small_state(256 << 10)?;
    lab.fill(leases)?;
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
    let agent = agent_with(&lab, LEASES)?;
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
        // One list of these was seconds, and there were hundreds.
        ensure!(beside[1] <= ADD, "{manner}: an address took {beside:?}");
        ensure!(told < Duration::from_secs(2), "{manner}: an alert took {told:?}");
        ensure!(grown < 128 << 10, "{manner}: {grown} KiB more");
    }
    Ok(())
}

/// So much more does the agent take at most within some seconds.
fn grows(agent: &Agent, before: u64) -> Result<u64> {
    let (began, mut most) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(4) {
        most = most.max(agent.resident_kib()?.saturating_sub(before));
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(most)
}

#[test]
fn answers_that_nobody_reads_are_bounded_for_each_user() -> Result<()> {
    // So many of them are a MiB.
    const LEASES: usize = 50;
    let lab = Lab::new()?;
    let settings = format!(
        "[access]\ncontroller_uids = [{READER}]\n[[subscriber]]\nname = \"proxy\"\n\
         hold_deadline = \"1h\"\n"
    );
    let agent = access::start(&lab, &settings)?;
    let lease = |sandbox: &str, number: usize| AllocateRequest {
        pools: vec![POOL.to_owned()],
        owner: Some(Owner { sandbox: sandbox.to_owned(), ..Owner::default() }),
        key: number.to_string(),
        labels: (0..64).map(|number| (format!("{number:063}"), "x".repeat(253))).collect(),
        ..AllocateRequest::default()
    };
    let owner = Owner { sandbox: "many".to_owned(), ..Owner::default() };
    let release =
        ReleaseRequest { which: Some(Which::Owner(owner)), only_if_gone: false, cut: false };
    let mut calls: Vec<_> = (0..LEASES)
        .map(|number| call("Leases/Allocate", &lease("many", number)))
        .chain([call("Leases/Allocate", &lease("one", 0)), call("Leases/Release", &release)])
        .collect();
    for call in &calls {
        let said = access::call_as(&agent, READER, "", std::slice::from_ref(call))?;
        ensure!(said.values().all(|said| said == "OK"), "{said:?}");
    }
    let all = agent.list(&["leases", "--sandbox", "one"], "leases")?;
    let generation = all.first().context("no lease")?["generation"].as_u64().context("a number")?;
    let get = call("Leases/Get", &GetLeaseRequest { generation });
    let release = calls.pop().context("no call")?;
    let before = agent.resident_kib()?;
    for (manner, call, connections) in [("socket", get, 16), ("window", release, 2)] {
        let readers = readers(&agent, &format!("{manner}={call}"), connections)?;
        let grown = grows(&agent, before)?;
        let beside = allocations(&agent, manner, 20)?;
        drop(readers);
        eprintln!("{manner}: {grown} KiB more, {beside:?}");
        ensure!(grown < 120 << 10, "{manner}: {grown} KiB more");
        ensure!(beside[1] < Duration::from_millis(500), "{manner}: an address took {beside:?}");
    }
    agent.check()
}

#[test]
fn lists_that_nobody_reads_are_ended_and_leave_their_places_to_others() -> Result<()> {
    let lab = Lab::with_prefix(18)?;
    let agent = agent_with(&lab, 12_000)?;
    let stalled = readers(&agent, "stall", 2)?;
    // Another user has places of its own, and waits for none.
    ensure!(agent.list(&["leases"], "leases")?.len() == 12_000);
    eventually("their end", || {
        let ended = agent.metric("guard_refusals_total", &[("reason", "unread")])?;
        Ok((ended >= Some(2.0)).then_some(()))
    })?;
    agent.journal().await_line(&["does not read its answers", &format!("uid={READER} ")])?;
    drop(stalled);
    agent.check()
}

#[test]
fn a_socket_that_is_removed_is_made_anew() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    std::fs::remove_file(agent.socket())?;
    eventually("the socket", || Ok((agent.ctl(&["status"])?.code == 0).then_some(())))?;
    let mode = std::fs::metadata(agent.socket())?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    agent.journal().await_line(&["the socket was gone"])?;
    // What somebody else has put in its place stays, and is told.
    std::fs::remove_file(agent.socket())?;
    let other = std::os::unix::net::UnixListener::bind(agent.socket())?;
    agent.journal().await_line(&["the socket is gone", "another process listens"])?;
    agent.stop()?;
    ensure!(agent.socket().exists(), "it was not its own");
    drop(other);
    Ok(())
}

#[test]
fn a_role_that_is_taken_away_ends_its_streams() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut events = runtime.block_on(async {
        anyhow::Ok(Client::connect(&agent.socket()).await?.watch("", None).await?)
    })?;
    agent.reload(&config.with("[access]\nadmin_uids = [61004]\n")?.text()?)?;
    let status = runtime.block_on(async {
        let next = tokio::time::timeout(TIMEOUT, events.message());
        next.await.context("it goes on")?.err().context("it ended without a word")
    })?;
    let reason = guard_tests::reason(&status);
    ensure!(reason.as_deref() == Some("ROLE_REQUIRED"), "{status}");
    Ok(())
}

#[test]
fn too_much_of_something_is_refused_by_name() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let request = AllocateRequest {
        pools: vec![POOL.to_owned()],
        owner: Some(Owner { sandbox: "a".to_owned(), ..Owner::default() }),
        ..AllocateRequest::default()
    };
    let labels = |count: usize, bytes: usize| AllocateRequest {
        labels: (0..count).map(|number| (number.to_string(), "x".repeat(bytes))).collect(),
        ..request.clone()
    };
    let pools = (0..33).map(|number| format!("p{number}")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        for (request, says) in [
            (AllocateRequest { pools, ..request.clone() }, "the allocation: more than 32 pools"),
            (labels(65, 1), "the lease: more than 64 labels"),
            (labels(1, 254), "the label \"0\": more than 253 bytes"),
        ] {
            let refused = client.ask(request).await.err().context("it is taken")?;
            ensure!(refused.message() == says, "{refused}");
        }
        client.ask(labels(64, 253)).await?;
        anyhow::Ok(())
    })?;
    // Files that somebody names.
    let large = lab.dir().join("net");
    std::fs::create_dir(&large)?;
    std::fs::write(large.join("10.8.64.77"), "x".repeat(5000))?;
    let adopt = ["adopt", "--from-host-local", &large.to_string_lossy()].map(str::to_owned);
    let adopted = agent.ctl(&adopt.each_ref().map(String::as_str))?;
    ensure!(adopted.stderr.contains("10.8.64.77: the file: more than 4096 bytes"), "{adopted:?}");
    std::fs::write(lab.dir().join("large.toml"), "#".repeat((1 << 20) + 1))?;
    let mut check = Command::new(binary("guard-agent")?);
    let checked = check.arg("check-config").arg(lab.dir().join("large.toml")).output()?;
    let said = String::from_utf8(checked.stderr)?;
    ensure!(said.contains("large.toml: the file: more than 1048576 bytes"), "{said}");
    Ok(())
}
