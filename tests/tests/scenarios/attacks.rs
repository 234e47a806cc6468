//! Short attacks: each ends, and the agent hands out addresses meanwhile and after.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_api::proto::{
    self, AckHoldRequest, ConfirmRequest, IgnoreSourceRequest, ListLeasesRequest,
    QuarantineRequest, ReleaseRequest, ReserveSubnetRequest, SilenceRequest, TraceRequest,
    WatchRequest, WhyRequest, release_request::Which,
};
use guard_tests::{Agent, Lab, POOL, binary, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::access::call_as;
use super::controllers::call;

/// No answer takes longer on any machine.
const SOON: Duration = Duration::from_secs(5);

/// It hands out an address, and soon.
fn serves(agent: &Agent, sandbox: &str) -> Result<()> {
    let asked = Instant::now();
    agent.allocate(sandbox)?;
    ensure!(asked.elapsed() < SOON, "{sandbox}: {:?}", asked.elapsed());
    Ok(())
}

/// How a program ends that is to end by itself, and soon.
fn ends(command: &mut Command) -> Result<(Option<i32>, String)> {
    let (began, mut child) = (Instant::now(), command.stderr(Stdio::piped()).spawn()?);
    while child.try_wait()?.is_none() {
        if began.elapsed() > SOON * 2 {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("{command:?} does not end");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), said + &String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn a_pipe_in_the_place_of_the_configuration_keeps_nobody_waiting() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (config, kept) = (lab.dir().join("agent.toml"), lab.dir().join("kept"));
    fs::rename(&config, &kept)?;
    run("mkfifo", &[&config.to_string_lossy()])?;
    ensure!(fs::metadata(&config)?.file_type().is_fifo());
    let mut check = Command::new(binary("guard-agent")?);
    let (code, said) = ends(check.arg("check-config").arg(&config))?;
    ensure!(code == Some(1) && said.contains("not a regular file"), "{code:?}: {said}");
    kill(Pid::from_raw(agent.pid().try_into()?), Signal::SIGHUP)?;
    agent.journal().await_line(&["the configuration is wrong", "not a regular file"])?;
    serves(&agent, "beside-a-pipe")?;
    // Its twin: what a link leads to is read, as Kubernetes mounts it.
    fs::remove_file(&config)?;
    symlink(&kept, &config)?;
    kill(Pid::from_raw(agent.pid().try_into()?), Signal::SIGHUP)?;
    agent.journal().await_line(&["configuration read anew"])?;
    agent.check()
}

#[test]
fn many_thousand_bridges_are_refused_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let many: String = (0..30_000).map(|at| format!("[[bridge]]\nname = \"b{at}\"\n")).collect();
    fs::write(lab.dir().join("many.toml"), many)?;
    let mut check = Command::new(binary("guard-agent")?);
    let (code, said) = ends(check.arg("check-config").arg(lab.dir().join("many.toml")))?;
    ensure!(code == Some(1) && said.contains("64"), "{code:?}: {said}");
    Ok(())
}

#[test]
fn a_storm_of_signals_to_read_the_configuration_stops_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (pid, before) = (Pid::from_raw(agent.pid().try_into()?), agent.resident_kib()?);
    for number in 0..10 {
        for _ in 0..500 {
            kill(pid, Signal::SIGHUP)?;
        }
        serves(&agent, &format!("in-a-storm-{number}"))?;
    }
    let grown = agent.resident_kib()?.saturating_sub(before);
    ensure!(grown < 32 << 10, "{grown} KiB more");
    agent.check()
}

#[test]
fn numbers_at_the_end_of_what_there_is_end_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let most = u64::MAX;
    let length = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let silence = |duration| SilenceRequest { id: most.to_string(), duration };
    let ignore =
        |duration| IgnoreSourceRequest { name: "containerd".to_owned(), duration, dry_run: false };
    let subscriber = "\u{202e}\0".to_owned();
    let mut calls = vec![
        call("Leases/Confirm", &ConfirmRequest { generation: most }),
        call(
            "Leases/Release",
            &ReleaseRequest {
                which: Some(Which::Generation(most)),
                only_if_gone: true,
                cut: false,
            },
        ),
        call("Leases/AckHold", &AckHoldRequest { generation: most, subscriber }),
        call("Leases/Watch", &WatchRequest { after_seq: Some(most), ..Default::default() }),
        call(
            "Leases/Watch",
            &WatchRequest {
                after_seq: Some(most - 1),
                subscriber: "x".repeat(60_000),
                ..Default::default()
            },
        ),
        call("Guard/Trace", &TraceRequest { interface: "\0".repeat(300) }),
        call(
            "Guard/Why",
            &WhyRequest {
                address: "fe80::1%99999999999999999999".to_owned(),
                ..WhyRequest::default()
            },
        ),
        call("Leases/List", &ListLeasesRequest { page_size: i32::MIN, ..Default::default() }),
        call(
            "Leases/List",
            &ListLeasesRequest { pool: "\u{feff}".repeat(9000), ..Default::default() },
        ),
    ];
    for (pool, length, prefix) in [
        (POOL, u32::MAX, ""),
        (POOL, 0, "10.8.64.0/0"),
        (POOL, 33, "10.8.64.0/33"),
        (POOL, 128, "ffff:ffff::/128"),
        ("\0", 28, ""),
    ] {
        let (pool, prefix, id) = (pool.to_owned(), prefix.to_owned(), "x".to_owned());
        calls.push(call(
            "Subnets/Reserve",
            &ReserveSubnetRequest { pool, id, length, prefix, dry_run: false },
        ));
    }
    for duration in [
        length(i64::MAX, i32::MAX),
        length(i64::MIN, i32::MIN),
        length(0, -1),
        length(-1, 1),
        length(315_576_000_000, 999_999_999),
        None,
    ] {
        calls.push(call("Guard/Silence", &silence(duration)));
        calls.push(call("Admin/IgnoreSource", &ignore(duration)));
    }
    for address in ["255.255.255.255", "::", "::ffff:10.8.64.9", "10.8.64.9\0"] {
        let add = proto::QuarantineAction::Add.into();
        let (pool, address) = (POOL.to_owned(), address.to_owned());
        let request = QuarantineRequest { action: add, pool, address, ..Default::default() };
        calls.push(call("Admin/Quarantine", &request));
    }
    let answers = call_as(&agent, 0, "", &calls)?;
    ensure!(!answers.values().any(|answer| answer.contains("INTERNAL")), "{answers:#?}");
    serves(&agent, "after-all-numbers")?;
    agent.check()
}

#[test]
fn connections_that_send_a_byte_now_and_then_are_let_go() -> Result<()> {
    let lab = Lab::new()?;
    let agent = super::access::start(&lab, "[access]\nreader_gids = [7]\n")?;
    let mut slow: Vec<_> =
        (0..200).map(|_| UnixStream::connect(agent.socket())).collect::<Result<_, _>>()?;
    let (began, preface) = (Instant::now(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut bytes = preface.iter().cycle();
    // Each is closed by the agent, however often it says a little more.
    while !slow.is_empty() {
        ensure!(began.elapsed() < SOON * 4, "{} are open still", slow.len());
        let byte = bytes.next().context("a byte")?;
        slow.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        std::thread::park_timeout(Duration::from_millis(400));
        serves(&agent, "beside-slow-ones")?;
    }
    Ok(())
}

#[test]
fn what_a_plugin_is_given_without_an_end_or_a_bottom_is_refused() -> Result<()> {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
    let (dir, plugin) = (tempfile::tempdir()?, binary("guard-ipam")?);
    for (name, content) in [
        ("deep", deep.as_bytes()),
        ("nul", b"{\"cniVersion\":\"1.0.0\",\"name\":\"a\\u0000b\",\"ipam\":{}}".as_slice()),
        ("bytes", b"{\"cniVersion\":\"1.0.0\",\"name\":\"\xff\xfe\",\"ipam\":{}}".as_slice()),
        ("number", b"{\"cniVersion\":1e999999,\"name\":1}".as_slice()),
    ] {
        fs::write(dir.path().join(name), content)?;
    }
    symlink("/dev/zero", dir.path().join("zero"))?;
    for name in ["deep", "nul", "bytes", "number", "zero"] {
        let mut add = Command::new(&plugin);
        add.env_clear().envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/nowhere"),
        ]);
        let input = fs::File::open(dir.path().join(name))?;
        let (code, said) = ends(add.stdin(input).stdout(Stdio::piped()))?;
        ensure!(code == Some(1), "{name}: {code:?}: {said}");
        ensure!(said.contains("\"code\""), "{name}: {said}");
    }
    Ok(())
}
