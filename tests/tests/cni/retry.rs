//! An agent that restarts, starts for long, or does not come back.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use guard_tests::{Attachment, Lab, Launch, Plugin, eventually};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::{Value, json};

use crate::{chained, ipam, of};

/// How long the plugin waits, as the guide says.
const RETRIED_FOR: Duration = Duration::from_secs(20);

const NOBODY: &str = "/proc/self/ns/net";

type Waiting = thread::JoinHandle<Result<Value>>;

/// Calls it in a thread of its own.
fn call(plugin: &Plugin, command: &'static str, container: &'static str) -> Waiting {
    let plugin = plugin.clone();
    thread::spawn(move || plugin.done(command, Attachment::new(container, Path::new(NOBODY))))
}

fn done(waiting: Waiting) -> Result<Value> {
    waiting.join().map_err(|_| anyhow!("a panic"))?
}

#[test]
fn a_call_waits_for_an_agent_that_restarts_and_status_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let plugin = ipam(&agent, "1.1.0")?;
    let a = Attachment::new("a", Path::new(NOBODY));
    plugin.done("STATUS", a)?;
    let added = plugin.done("ADD", a)?;
    plugin.done("ADD", Attachment::new("goes", Path::new(NOBODY)))?;
    plugin.done("ADD", Attachment::new("gone", Path::new(NOBODY)))?;
    let sandbox = lab.sandbox("b")?;
    agent.await_port(&sandbox)?;
    plugin.done("ADD", Attachment::new("b", Path::new(NOBODY)))?;
    let veth = json!({ "cniVersion": "1.1.0", "interfaces": [
        { "name": sandbox.port() },
        { "name": "eth0", "mac": sandbox.mac().to_string(), "sandbox": NOBODY },
    ] });
    let chained = chained(&agent, "1.1.0", &veth)?;

    agent.kill()?;
    let refused = plugin.call("STATUS", a)?.err().context("STATUS of nobody")?;
    assert!(refused.code == 50 && refused.text.contains("is guard-agent running"), "{refused:?}");
    let valid = ["a", "b", "new"].map(|id| json!({ "containerID": id, "ifname": "eth0" }));
    let waiting = [
        call(&plugin, "ADD", "a"),
        call(&plugin, "ADD", "new"),
        call(&plugin, "DEL", "goes"),
        call(&plugin.with("prevResult", added.clone()), "CHECK", "a"),
        call(&plugin.with("cni.dev/valid-attachments", json!(valid)), "GC", ""),
        call(&chained, "ADD", "b"),
    ];
    agent.start_again()?;
    let [again, new, others @ ..] = waiting;
    assert_eq!(done(again)?, added);
    done(new)?;
    for waiting in others {
        done(waiting)?;
    }
    for (id, state) in
        [("goes", "cooling"), ("gone", "cooling"), ("a", "active"), ("new", "active")]
    {
        let leases = of(&agent, id)?;
        assert!(leases.len() == 1 && leases[0].0 == state, "{id}: {leases:?}");
    }
    assert_eq!(of(&agent, "b")?[0].1["interface"], sandbox.port());
    agent.check()
}

/// Connects until the kernel takes no more that wait to be let in.
fn fill_backlog(path: &Path) -> Result<Vec<OwnedFd>> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(16_384.min(hard)), hard)?;
    let address = UnixAddr::new(path)?;
    let mut all = Vec::new();
    loop {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => all.push(fd),
            Err(Errno::EAGAIN) => return Ok(all),
            Err(error) => return Err(error.into()),
        }
    }
}

#[test]
fn a_call_waits_where_too_many_wait_already() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.1.0")?;
    agent.freeze()?;
    let crowd = fill_backlog(&agent.socket())?;
    let waiting = call(&plugin, "ADD", "late");
    let (told, answer) = mpsc::channel();
    thread::spawn(move || told.send(done(waiting)));
    let early = answer.recv_timeout(Duration::from_millis(300));
    assert!(early.is_err(), "it did not wait: {early:?}");
    agent.thaw()?;
    // Those of one process leave places to others.
    answer.recv_timeout(RETRIED_FOR)??;
    drop(crowd);
    Ok(())
}

#[test]
fn a_call_waits_for_the_boot_pass_of_an_agent() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    containerd.freeze()?;
    let config = lab.config()?.with_containerd(&containerd)?;
    let agent = lab.agent_with(Launch::config(&config)?.degraded())?;
    let plugin = ipam(&agent, "1.1.0")?;
    let a = Attachment::new("a", Path::new(NOBODY));
    let refused = plugin.call("STATUS", a)?.err().context("STATUS while it starts")?;
    assert_eq!(refused.code, 50, "{refused:?}");
    let waiting = call(&plugin, "ADD", "a");
    let refusals = || agent.metric("guard_allocations_total", &[("result", "UNAVAILABLE")]);
    eventually("a refusal", || Ok(refusals()?.filter(|count| *count > 0.0)))?;
    assert_eq!(of(&agent, "a")?, []);
    containerd.thaw()?;
    done(waiting)?;
    assert_eq!(of(&agent, "a")?.len(), 1);
    Ok(())
}

#[test]
fn a_call_gives_up_on_an_agent_that_does_not_come_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.1.0")?;
    agent.kill()?;
    let start = Instant::now();
    let nobody = Attachment::new("a", Path::new(NOBODY));
    let refused = plugin.call("ADD", nobody)?.err().context("ADD of nobody")?;
    let waited = start.elapsed();
    assert!(refused.code == 11 && refused.text.contains("is guard-agent running"), "{refused:?}");
    assert!(waited >= RETRIED_FOR && waited < 2 * RETRIED_FOR, "{waited:?}");
    Ok(())
}
