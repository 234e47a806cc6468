//! Streams: a JSON document a line.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::{reaper::Reaper, wait::TIMEOUT};

/// A stream that is being followed. Dropping it ends it.
#[derive(Debug)]
pub struct Stream {
    process: Child,
    documents: Receiver<(Instant, Result<Value>)>,
}

impl Stream {
    pub(crate) fn start(command: Command, reaper: &Reaper) -> Result<Self> {
        Self::read(command, reaper, |line| {
            serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))
        })
    }

    /// With each line as a string, whatever it is.
    pub(crate) fn of_text(command: Command, reaper: &Reaper) -> Result<Self> {
        Self::read(command, reaper, |line| Ok(Value::String(line.to_owned())))
    }

    fn read(
        mut command: Command,
        reaper: &Reaper,
        parse: fn(&str) -> Result<Value>,
    ) -> Result<Self> {
        command.stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        reaper.pid(process.id())?;
        let stdout = process.stdout.take().context("a stream without output")?;
        let (sender, documents) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let at = Instant::now();
                let document = line.context("reading a stream").and_then(|line| parse(&line));
                if sender.send((at, document)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, documents })
    }

    /// Waits for the next document that is `wanted`, passing over the others, and says when it
    /// came.
    ///
    /// # Errors
    /// The stream ended or printed something else than JSON, or time passed.
    pub fn next(&self, wanted: impl Fn(&Value) -> bool) -> Result<(Instant, Value)> {
        let deadline = Instant::now() + TIMEOUT;
        let mut passed = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.documents.recv_timeout(left) {
                Ok((at, Ok(document))) if wanted(&document) => return Ok((at, document)),
                Ok((_, Ok(document))) => passed.push(document),
                Ok((_, Err(error))) => return Err(error),
                Err(error) => {
                    let error = anyhow!(error).context("waiting for a document of a stream");
                    bail!("{error:#}; others came: {passed:?}");
                }
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
