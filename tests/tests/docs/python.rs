//! The Python in the documents, run as it stands but for the paths of the sockets.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use guard_tests::{BRIDGE, Lab, Launch, Mac, Peer, eventually};

use crate::{blocks, read, top};

/// The one block of Python in a document, in a directory with the stubs that it imports.
fn prepared(document: &str, proto: &str, sockets: (&str, String), peer: &Peer) -> Result<Program> {
    let mut found = blocks(&read(document)?);
    found.retain(|(info, _)| info == "python");
    let [(_, text)] = &found[..] else { anyhow::bail!("{} blocks of Python", found.len()) };
    let (socket, ours) = sockets;
    anyhow::ensure!(text.contains(socket), "{socket} is not in {text}");
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("program.py");
    std::fs::write(&file, text.replace(socket, &ours))?;
    let generate = ["-m", "grpc_tools.protoc", "--python_out=.", "--grpc_python_out=."];
    let status = Command::new(peer.python())
        .args(generate)
        .arg(format!("--proto_path={}", top().join("guard-agent/proto").canonicalize()?.display()))
        .arg(proto)
        .current_dir(dir.path())
        .status()?;
    anyhow::ensure!(status.success(), "protoc: {status}");
    Ok(Program { python: peer.python().to_owned(), file, dir })
}

struct Program {
    python: PathBuf,
    file: PathBuf,
    dir: tempfile::TempDir,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.file).current_dir(self.dir.path());
        command
    }
}

/// A server, until it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_controller_in_the_readme_allocates_binds_and_releases() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    // As the example has it.
    let _sandbox = lab.sandbox_with("web-1", BRIDGE, Mac::numbered(0x0a))?;
    let socket = agent.socket().display().to_string();
    let peer = Peer::new(&agent)?;
    let sockets = ("/run/guard/guard.sock", socket);
    let program = prepared("README.md", "guard/v1/guard.proto", sockets, &peer)?;
    let output = program.command().output()?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.starts_with("10.8.64."), "{stdout}{stderr}");
    let leases = agent.list(&["leases", "--sandbox", "web-1"], "leases")?;
    let lease = leases.first().context("no lease")?;
    assert_eq!((&lease["lifecycle"], &lease["interface"]), (&"7".into(), &"veth-web-1".into()));
    assert_eq!(lease["state"], "releasing", "its port is still there");
    Ok(())
}

#[test]
fn the_directory_in_the_guide_speaks_for_its_sandboxes() -> Result<()> {
    let lab = Lab::new()?;
    let socket = lab.dir().join("directory.sock");
    let config = lab.config()?.with(&format!("[directory]\nsocket = {socket:?}"))?;
    let agent = lab.agent_with(Launch::config(&config)?.degraded())?;
    let peer = Peer::new(&agent)?;
    let sockets = ("/run/controller/directory.sock", socket.display().to_string());
    let proto = "guard/directory/v1/directory.proto";
    let program = prepared("docs/guide.md", proto, sockets, &peer)?;
    let _server = Server(program.command().stdin(Stdio::null()).spawn()?);
    agent.await_readyz(200)?;
    let lease = agent.allocate("web-1")?;
    let address = lease.address.to_string();
    eventually("the controller's word", || {
        let why = agent.json(&["why", &address])?;
        let evidence = why["explanations"][0]["evidence"].as_array().cloned().unwrap_or_default();
        Ok(evidence.iter().any(|one| one["source"] == "controller").then_some(()))
    })
}
