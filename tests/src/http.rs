//! The agent's HTTP: metrics, health and readiness.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{
    agent::Agent,
    wait::{TIMEOUT, eventually},
};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// It is what somebody else was given a moment ago.
    pub cached: bool,
    /// The body.
    pub body: String,
}

/// A line of the metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// What is between the braces, as it stands there.
    pub labels: String,
    /// The value.
    pub value: f64,
}

impl Agent {
    /// Gets a path.
    ///
    /// # Errors
    /// Nobody answers, or not in HTTP.
    pub fn http(&self, path: &str) -> Result<Response> {
        self.http_as(path, "*/*")
    }

    /// Gets a path in a form that the caller takes.
    ///
    /// # Errors
    /// As [`Agent::http`].
    pub fn http_as(&self, path: &str, accept: &str) -> Result<Response> {
        self.get(path, "localhost", accept)
    }

    /// Gets a path from a server of another name.
    ///
    /// # Errors
    /// As [`Agent::http`].
    pub fn http_named(&self, name: &str, path: &str) -> Result<Response> {
        self.get(path, name, "*/*")
    }

    /// Gets a path over a Unix socket.
    ///
    /// # Errors
    /// As [`Agent::http`].
    pub fn http_over(&self, socket: &Path, path: &str) -> Result<Response> {
        let stream = UnixStream::connect(socket).context("connecting")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        get(stream, path, "localhost", "*/*").with_context(|| format!("getting {path}"))
    }

    fn get(&self, path: &str, name: &str, accept: &str) -> Result<Response> {
        let got = self.host().run(|| {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9477))?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            get(stream, path, name, accept)
        })?;
        got.with_context(|| format!("getting {path}"))
    }

    /// Everything in `/metrics`, as it is now.
    ///
    /// # Errors
    /// Nobody answers, or not in the text format.
    pub fn metrics(&self) -> Result<Vec<Sample>> {
        let body = eventually("metrics of now", || {
            let answer = self.http("/metrics")?;
            Ok((!answer.cached).then_some(answer.body))
        })?;
        body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse).collect()
    }

    /// The sum of a metric over all lines that have each of these labels; `None` where there is no
    /// such line.
    ///
    /// # Errors
    /// As [`Agent::metrics`].
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<Option<f64>> {
        let wanted: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let mut values = self.metrics()?;
        values.retain(|sample| {
            let has = |label: &String| sample.labels.split(',').any(|own| own == label);
            sample.name == name && wanted.iter().all(has)
        });
        Ok((!values.is_empty()).then(|| values.iter().map(|sample| sample.value).sum()))
    }
}

/// In HTTP 1.0, where the body ends with the connection.
fn get(mut stream: impl Read + Write, path: &str, name: &str, accept: &str) -> Result<Response> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {name}\r\nAccept: {accept}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?;
    let status = status.parse().context("the status")?;
    let cached = head.to_ascii_lowercase().contains("cache-status: guard-agent; hit");
    Ok(Response { status, cached, body: body.to_owned() })
}

fn parse(line: &str) -> Result<Sample> {
    let (series, value) = line.rsplit_once(' ').with_context(|| format!("no value: {line}"))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value = value.parse().with_context(|| format!("not a number: {line}"))?;
    let labels = labels.trim_end_matches('}').to_owned();
    Ok(Sample { name: name.to_owned(), labels, value })
}
