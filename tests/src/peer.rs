//! An independent client of the API: Python's gRPC, which shares no code with guard.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{agent::Agent, command::output, ctl::CtlOutput, stream::Stream};

/// The client, with its Python.
#[derive(Clone, Debug)]
pub struct Peer {
    python: PathBuf,
    socket: PathBuf,
}

impl Peer {
    /// A client of this agent.
    ///
    /// # Errors
    /// As [`peers_python`].
    pub fn new(agent: &Agent) -> Result<Self> {
        Ok(Self { python: peers_python()?, socket: agent.socket() })
    }

    /// The Python, with gRPC in it.
    #[must_use]
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// Runs one of its commands to the end and reads the document that it prints.
    ///
    /// # Errors
    /// It failed.
    pub fn call(&self, args: &[&str]) -> Result<Value> {
        let printed = output(&mut self.command(args))?;
        serde_json::from_str(&printed).with_context(|| format!("not JSON: {printed:?}"))
    }

    /// Makes the client of the documentation's example in a directory, by the command that the example
    /// names, and returns the example, ready for its arguments.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn example(&self, dir: &Path) -> Result<impl Fn(&[&str]) -> Result<CtlOutput> + use<>> {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let out = dir.display();
        let mut generate = Command::new(&self.python);
        generate.args(["-m", "grpc_tools.protoc", "--proto_path=guard-agent/proto"]);
        generate.args([format!("--python_out={out}"), format!("--grpc_python_out={out}")]);
        output(generate.arg("guard/v1/guard.proto").current_dir(&top))?;
        let (python, socket, dir) = (self.python.clone(), self.socket.clone(), dir.to_owned());
        Ok(move |args: &[&str]| {
            let mut command = Command::new(&python);
            command.env("PYTHONPATH", &dir).env("PYTHONDONTWRITEBYTECODE", "1");
            command.arg(top.join("docs/examples/controller.py")).arg("--socket").arg(&socket);
            CtlOutput::of(command.args(args))
        })
    }

    /// Starts one of its commands that print a document a line.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn follow(&self, agent: &Agent, args: &[&str]) -> Result<Stream> {
        Stream::start(self.command(args), agent.reaper())
    }

    fn command(&self, args: &[&str]) -> Command {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(&self.python);
        // What it makes there goes with the lab, also where it is killed.
        command.envs(self.socket.parent().map(|lab| ("TMPDIR", lab)));
        command.arg(package.join("peers/guard_peer.py"));
        command.arg("--proto").arg(package.join("../guard-agent/proto"));
        command.arg("--socket").arg(&self.socket).args(args);
        command
    }
}

/// The Python of the peers: `GUARD_PEERS_PYTHON`, which `cargo xtask test` sets, or the newest that
/// `cargo xtask setup` has made.
///
/// # Errors
/// There is none.
pub fn peers_python() -> Result<PathBuf> {
    let python = match std::env::var_os("GUARD_PEERS_PYTHON") {
        Some(path) => Some(PathBuf::from(path)),
        None => newest()?,
    };
    python.filter(|python| python.is_file()).context(
        "the Python of the peers is missing: `cargo xtask setup` makes it from \
         tests/peers/requirements.txt, or set GUARD_PEERS_PYTHON",
    )
}

/// The last virtual environment that was made; each is named after its pins.
fn newest() -> Result<Option<PathBuf>> {
    let home = std::env::home_dir().context("no home directory: set GUARD_PEERS_PYTHON")?;
    let Ok(entries) = std::fs::read_dir(home.join(".cache/guard")) else {
        return Ok(None);
    };
    let made = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let is_ours = entry.file_name().to_string_lossy().starts_with("peers");
        let python = entry.path().join("bin/python");
        (is_ours && python.is_file()).then_some((entry.metadata().ok()?.modified().ok()?, python))
    });
    Ok(made.max().map(|(_, python)| python))
}
