//! A DHCP client that finds the address it was given to be another's (claims.md D09).

use std::{
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Lab, POOL, Sandbox, ipv4_udp};

/// What a server hands out, though another has it.
const TAKEN: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 50);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 60);

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).context("starting it")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The incident, and that the address is handed out to nobody.
fn told(agent: &Agent, client: &Sandbox, reason: &str) -> Result<()> {
    let conflicts = agent.follow(&["conflicts"])?;
    let (_, told) = conflicts.next(|found| found["kind"] == "declined")?;
    assert_eq!(told["address"], TAKEN.to_string().as_str(), "{told}");
    assert_eq!(told["severity"], "warning", "{told}");
    assert!(told.to_string().contains(client.port()), "{told}");
    let address = TAKEN.to_string();
    let ask = ["allocate", "--pool", POOL, "--sandbox", "asker", "--address", &address];
    let refusal = agent.ctl(&ask)?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("FAILED_PRECONDITION", reason));
    Ok(())
}

#[test]
fn d09_a_client_that_declines_an_address_is_an_incident_about_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (server, holder, client) =
        (lab.sandbox("server")?, lab.sandbox("holder")?, lab.sandbox("client")?);
    for sandbox in [&server, &holder, &client] {
        agent.await_port(sandbox)?;
    }
    server.add_address(SERVER)?;
    holder.add_address(TAKEN)?;
    // A lease that is fixed is handed out whoever answers for it.
    let dir = tempfile::tempdir()?;
    let (config, leases) = (dir.path().join("udhcpd.conf"), dir.path().join("leases"));
    fs::write(&leases, "")?;
    fs::write(
        &config,
        format!(
            "start {TAKEN}\nend {TAKEN}\ninterface eth0\nlease_file {}\npidfile {}\n\
             static_lease {} {TAKEN}\noption subnet 255.255.255.0\n",
            leases.display(),
            dir.path().join("pid").display(),
            client.mac(),
        ),
    )?;
    let mut serve = server.netns().command("busybox");
    serve.args(["udhcpd", "-f"]).arg(&config);
    let _server = Running::start(serve)?;
    let mut ask = client.netns().command("busybox");
    ask.args(["udhcpc", "-f", "-a", "-i", "eth0", "-s", "/bin/true"]);
    let _client = Running::start(ask)?;
    // Its holder has no lease for it.
    told(&agent, &client, "ADDRESS_QUARANTINED")?;
    agent.stop()
}

#[test]
fn d09_one_frame_says_it_and_a_request_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let client = lab.sandbox("client")?;
    agent.await_port(&client)?;
    let socket = client.raw_socket()?;
    let ask = |kind: u8, address: Ipv4Addr| -> Result<Vec<u8>> {
        let mac = client.mac();
        let mut frame = ipv4_udp(
            (mac, guard_tests::Mac::BROADCAST),
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
        )?;
        ensure!(frame.len() >= 42, "a UDP header");
        frame.truncate(42);
        frame[34..38].copy_from_slice(&[0, 68, 0, 67]);
        let mut message = vec![0; 236];
        message[0] = 1;
        message.extend([99, 130, 83, 99, 53, 1, kind, 50, 4]);
        message.extend(address.octets());
        message.push(255);
        frame.extend(message);
        Ok(frame)
    };
    socket.send(&ask(3, Ipv4Addr::new(10, 8, 64, 51))?)?;
    socket.send(&ask(4, TAKEN)?)?;
    told(&agent, &client, "ADDRESS_LIVE")?;
    let all = agent.list(&["conflicts", "--all"], "conflicts")?;
    assert_eq!(all.len(), 1, "{all:?}");
    agent.stop()
}
