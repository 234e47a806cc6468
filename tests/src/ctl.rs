//! `guardctl`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    agent::Agent, command::binary, frame::Mac, lab::POOL, sandbox::Sandbox, stream::Stream,
    wait::eventually,
};

/// What a call of `guardctl` came to.
#[derive(Clone, Debug)]
pub struct CtlOutput {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A refusal, taken apart: `STATUS/REASON: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status, such as `RESOURCE_EXHAUSTED`.
    pub status: String,
    /// The reason, such as `POOL_EXHAUSTED`.
    pub reason: String,
    /// The rest, for people.
    pub message: String,
}

/// Those fields of a lease that scripts use most.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in guardctl's JSON, where they are documented")]
pub struct Lease {
    pub address: std::net::Ipv4Addr,
    pub generation: u64,
    pub state: String,
    pub sandbox: Option<String>,
    pub mac: Option<String>,
    pub interface: Option<String>,
    pub reason: Option<String>,
}

impl CtlOutput {
    pub(crate) fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
        let Some(code) = output.status.code() else {
            bail!("{command:?}: {}", output.status);
        };
        Ok(Self {
            code,
            stdout: String::from_utf8(output.stdout).context("its output")?,
            stderr: String::from_utf8(output.stderr).context("its errors")?,
        })
    }

    /// Standard output, which must be one JSON document, of a call that was done.
    ///
    /// # Errors
    /// It was refused, or printed something else.
    pub fn json(&self) -> Result<Value> {
        ensure!(self.code == 0, "guardctl exited with {}: {}", self.code, self.stderr.trim());
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("not one JSON document: {:?}", self.stdout))
    }

    /// Standard error, which must be the refusal of a call that was refused.
    ///
    /// # Errors
    /// It was not refused, or not in that form.
    pub fn refusal(&self) -> Result<Refusal> {
        let stderr = self.stderr.trim();
        ensure!(self.code == 1, "guardctl exited with {}: {}{stderr}", self.code, self.stdout);
        let parts = stderr.split_once(": ").and_then(|(head, message)| {
            let (status, reason) = head.split_once('/')?;
            Some(Refusal {
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
            })
        });
        parts.with_context(|| format!("not STATUS/REASON: message: {stderr:?}"))
    }
}

impl Agent {
    /// Calls `guardctl`.
    ///
    /// # Errors
    /// It cannot be run at all; a refusal is in what it returns.
    pub fn ctl(&self, args: &[&str]) -> Result<CtlOutput> {
        CtlOutput::of(&mut self.guardctl(args)?)
    }

    /// As [`Agent::ctl`], for a screen with so many columns.
    ///
    /// # Errors
    /// As [`Agent::ctl`].
    pub fn ctl_in_columns(&self, columns: usize, args: &[&str]) -> Result<CtlOutput> {
        CtlOutput::of(self.guardctl(args)?.env("COLUMNS", columns.to_string()))
    }

    /// Calls `guardctl` with `-o json` and reads the document that it prints.
    ///
    /// # Errors
    /// It was refused.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        self.ctl(&[args, &["-o", "json"]].concat())?.json().with_context(|| args.join(" "))
    }

    /// The list named `key` in what `guardctl` prints.
    ///
    /// # Errors
    /// It was refused, or there is no such list.
    pub fn list(&self, args: &[&str], key: &str) -> Result<Vec<Value>> {
        match self.json(args)?.get_mut(key).map(Value::take) {
            Some(Value::Array(list)) => Ok(list),
            other => bail!("guardctl {}: {key:?} is {other:?}", args.join(" ")),
        }
    }

    /// Follows one of the streams, `conflicts --follow` or `events --follow`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn follow(&self, args: &[&str]) -> Result<Stream> {
        self.watch(&[args, &["--follow"]].concat())
    }

    /// As [`Agent::follow`], for a command that is a stream by itself.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn watch(&self, args: &[&str]) -> Result<Stream> {
        let mut command = self.guardctl(&[args, &["-o", "json"]].concat())?;
        command.stdin(Stdio::null());
        Stream::start(command, self.reaper())
    }

    /// As [`Agent::follow`] for people: each line is a string.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn follow_table(&self, args: &[&str]) -> Result<Stream> {
        let mut command = self.guardctl(&[args, &["--follow", "-o", "table"]].concat())?;
        command.stdin(Stdio::null());
        Stream::of_text(command, self.reaper())
    }

    /// Allocates from the lab's pool for a sandbox.
    ///
    /// # Errors
    /// It was refused.
    pub fn allocate(&self, sandbox: &str) -> Result<Lease> {
        self.lease(&["allocate", "--pool", POOL, "--sandbox", sandbox])
    }

    /// Allocates an address for a sandbox, and confirms that it is used.
    ///
    /// # Errors
    /// The agent refuses.
    pub fn confirmed(&self, sandbox: &str) -> Result<Lease> {
        let lease = self.allocate(sandbox)?;
        self.json(&["confirm", "--generation", &lease.generation.to_string()])?;
        Ok(lease)
    }

    /// As [`Agent::confirmed`], for one run of the sandbox.
    ///
    /// # Errors
    /// The agent refuses.
    pub fn confirmed_run(&self, sandbox: &str, lifecycle: &str) -> Result<Lease> {
        let ask = ["allocate", "--pool", POOL, "--sandbox", sandbox, "--lifecycle", lifecycle];
        let lease = self.lease(&ask)?;
        self.json(&["confirm", "--generation", &lease.generation.to_string()])?;
        Ok(lease)
    }

    /// Binds a lease to the MAC and the port of a sandbox, and confirms it.
    ///
    /// # Errors
    /// It was refused.
    pub fn bind(&self, lease: &Lease, sandbox: &Sandbox) -> Result<()> {
        let (generation, mac) = (lease.generation.to_string(), sandbox.mac().to_string());
        let args = ["--generation", &generation, "--mac", &mac, "--interface", sandbox.port()];
        self.json(&[&["bind"], args.as_slice()].concat())?;
        self.json(&["confirm", "--generation", &generation]).map(drop)
    }

    /// What a controller does to start a sandbox: allocates, sets the address, and binds.
    ///
    /// # Errors
    /// It was refused.
    pub fn admit(&self, sandbox: &Sandbox) -> Result<Lease> {
        let lease = self.allocate(sandbox.name())?;
        sandbox.add_address(lease.address)?;
        self.bind(&lease, sandbox)?;
        Ok(lease)
    }

    /// Releases a lease by its generation, and returns the outcome.
    ///
    /// # Errors
    /// It was refused.
    pub fn release(&self, lease: &Lease) -> Result<String> {
        let generation = lease.generation.to_string();
        let answer = self.json(&["release", "--generation", &generation])?;
        let outcome = answer.get("outcome").and_then(Value::as_str);
        outcome.map(str::to_owned).with_context(|| format!("no outcome in {answer}"))
    }

    /// The pool's entry for an address; `None` where it is free.
    ///
    /// # Errors
    /// It was refused.
    pub fn entry(&self, address: std::net::Ipv4Addr) -> Result<Option<Value>> {
        let leases = self.list(&["leases"], "leases")?;
        let address = address.to_string();
        Ok(leases.into_iter().find(|lease| lease["address"] == address.as_str()))
    }

    /// What has become of a lease's address; `free` where nobody has it.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn state(&self, lease: &Lease) -> Result<String> {
        let Some(entry) = self.entry(lease.address)? else { return Ok("free".to_owned()) };
        Ok(entry["state"].as_str().context("no state")?.to_owned())
    }

    /// Waits until that has become of it.
    ///
    /// # Errors
    /// It does not.
    pub fn await_state(&self, lease: &Lease, wanted: &str) -> Result<()> {
        eventually(&format!("{} {wanted}", lease.address), || {
            Ok((self.state(lease)? == wanted).then_some(()))
        })
    }

    /// A command whose output is a lease.
    ///
    /// # Errors
    /// It was refused.
    pub fn lease(&self, args: &[&str]) -> Result<Lease> {
        let json = self.json(args)?;
        Lease::deserialize(&json).with_context(|| format!("not a lease: {json}"))
    }

    fn guardctl(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("guardctl")?);
        command.args(args).arg("--socket").arg(self.socket());
        Ok(command)
    }
}

/// Whether an entry of `guardctl leases` names this MAC and this port, itself or in its evidence.
#[must_use]
pub fn names(entry: &Value, mac: Mac, port: &str) -> bool {
    let mac = mac.to_string();
    let is_it = |it: &Value| it["mac"] == mac.as_str() && it["interface"] == port;
    is_it(entry) || entry["evidence"].as_array().is_some_and(|evidence| evidence.iter().any(is_it))
}
