//! The log: whoever reads it, or does not, and whatever callers do, the agent goes on.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Lab, Launch, binary, eventually};

const STRANGER: &str = "61001";

/// An agent whose standard error a shell has made something else, and which says all that it can.
fn agent(lab: &Lab, redirection: &str) -> Result<Agent> {
    let script = format!("exec \"$@\" {redirection}");
    let launch = Launch::config(&lab.config()?)?;
    lab.agent_with(launch.under(&["env", "RUST_LOG=trace", "bash", "-c", &script, "bash"]))
}

/// It hands out addresses, sees a conflict, and ends when it is to.
fn goes_on(lab: &Lab, agent: &Agent) -> Result<()> {
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    // Each makes lines: more of them than a pipe has room for.
    for number in 0..30 {
        agent.allocate(&format!("more-{number}"))?;
    }
    owner.announce(lease.address)?;
    thief.announce(lease.address)?;
    eventually("the conflict", || {
        Ok((agent.list(&["conflicts"], "conflicts")?.len() == 1).then_some(()))
    })?;
    agent.stop()
}

fn has_dropped(agent: &Agent) -> Result<()> {
    let dropped = agent.metric("guard_log_lines_dropped_total", &[])?;
    ensure!(dropped > Some(0.0), "{dropped:?} lines dropped");
    Ok(())
}

#[test]
fn a_reader_of_the_log_that_stands_still_stops_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let fifo = lab.dir().join("log");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    // Open for both, so that there is a reader, which never reads.
    let agent = agent(&lab, &format!("2<>{}", fifo.display()))?;
    goes_on(&lab, &agent)
}

#[test]
fn a_journald_that_does_not_read_stops_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let (fifo, socket) = (lab.dir().join("log"), lab.dir().join("journal"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let _journald = UnixDatagram::bind(&socket)?;
    // In a /run of its own, where journald is this one, and with what systemd says of standard error.
    let script = format!(
        "mount -t tmpfs none /run; mkdir -p /run/systemd/journal; \
         ln -s {} /run/systemd/journal/socket; exec 2<>{}; \
         JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) RUST_LOG=trace exec \"$@\"",
        socket.display(),
        fifo.display()
    );
    let launch = Launch::config(&lab.config()?)?;
    let wrapper = ["unshare", "--mount", "sh", "-ec", &script, "sh"];
    let agent = lab.agent_with(launch.under(&wrapper))?;
    goes_on(&lab, &agent)
}

#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab, "2> >(exec true)")?;
    has_dropped(&agent)?;
    goes_on(&lab, &agent)
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab, "2>/dev/full")?;
    has_dropped(&agent)?;
    goes_on(&lab, &agent)
}

#[test]
fn refusals_of_a_stranger_are_counted_and_make_a_line_a_minute() -> Result<()> {
    const CALLS: u32 = 300;
    let lab = Lab::new()?;
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o711))?;
    let agent =
        lab.agent_with(Launch::config(&lab.config()?.with("[access]\nreader_gids = [7]")?)?)?;
    let before = agent.journal().lines().len();
    let mut stranger = Command::new(binary("call-as")?);
    stranger.arg(agent.socket()).args([STRANGER, STRANGER, ""]);
    stranger.args(vec!["/guard.v1.Guard/Status"; CALLS as usize]).stdout(Stdio::piped());
    let began = Instant::now();
    let output = stranger.output()?;
    // The first 64 at once, and then 50 a second.
    ensure!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Connections, too: so many at a time that most are closed, time and again.
    for _ in 0..100 {
        let many: Vec<_> = (0..300).map(|_| UnixStream::connect(agent.socket())).collect();
        drop(many);
    }
    let counted = agent.metric("guard_refusals_total", &[("reason", "role")])?;
    ensure!(counted == Some(f64::from(CALLS)), "{counted:?}");
    eventually("the connections that were refused", || {
        let counted = agent.metric("guard_refusals_total", &[("reason", "connections")])?;
        Ok(counted.filter(|&counted| counted > 0.0))
    })?;
    let lines = agent.journal().lines().len() - before;
    ensure!(lines <= 10, "{lines} lines:\n{}", agent.journal().text());
    agent.journal().await_line(&["a caller is refused", "role", &format!("uid={STRANGER}")])?;
    Ok(())
}

/// A stream that is opened and reset at once, in HTTP/2.
fn reset(stream: u32) -> Vec<u8> {
    // POST, http, /, and an authority of one letter, by HPACK's static table.
    let headers = [0x83, 0x86, 0x84, 0x41, 0x01, b'a'];
    let frame = |kind: u8, flags: u8, body: &[u8]| {
        let len = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
        let mut frame = len[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(body);
        frame
    };
    [frame(1, 0b100, &headers), frame(3, 0, &8_u32.to_be_bytes())].concat()
}

#[test]
fn twenty_thousand_resets_make_at_most_ten_lines() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let before = agent.journal().lines().len();
    let burst: Vec<u8> = (0..100).flat_map(|number| reset(2 * number + 1)).collect();
    for _ in 0..200 {
        let mut stream = UnixStream::connect(agent.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // The preface, and settings that say nothing.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        // The agent closes a connection that does so.
        let _ = stream.write_all(&burst);
        let _ = stream.read_to_end(&mut Vec::new()).context("reading");
    }
    let lines = agent.journal().lines().len() - before;
    ensure!(lines <= 10, "{lines} lines:\n{}", agent.journal().text());
    agent.allocate("a").map(drop)
}
