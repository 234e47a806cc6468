//! The parts of the agent: tasks and threads that run until it stops. One that ends before, or
//! panics, ends the agent with its name, for the service manager to start it again: an agent that
//! lost a part would go on without anyone noticing.

use std::{any::Any, convert::Infallible, fmt::Display, io, panic::AssertUnwindSafe, thread};

use futures_util::FutureExt as _;
use tokio::{sync::mpsc, task::AbortHandle};

use crate::failpoint;

/// A part that has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part of the agent has ended, the {name}: {why}")]
pub struct PartEnded {
    /// The name of the part.
    pub name: &'static str,
    /// The reason.
    pub why: String,
}

/// Starts parts and reports the first that ends. Clones report to the same place.
#[derive(Clone, Debug)]
pub struct Supervisor(mpsc::Sender<PartEnded>);

impl Supervisor {
    /// A supervisor, and where it reports.
    pub fn new() -> (Self, mpsc::Receiver<PartEnded>) {
        // The first one ends the agent, so there is no second to remember.
        let (ended, first) = mpsc::channel(1);
        (Self(ended), first)
    }

    /// Starts a task that is to run until the agent stops.
    pub fn spawn(
        &self,
        name: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.spawn_fallible(name, part.map(Ok::<(), Infallible>))
    }

    /// As [`Self::spawn`], for a task that can fail.
    pub fn spawn_fallible<E: Display + Send + 'static>(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> AbortHandle {
        let supervisor = self.clone();
        let part = AssertUnwindSafe(failpoint::with_panic(name, part)).catch_unwind();
        let watched = async move {
            let why = match part.await {
                Ok(Ok(())) => returned(),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panicked(&*panic),
            };
            supervisor.report(PartEnded { name, why });
        };
        tokio::spawn(watched).abort_handle()
    }

    /// Starts a task that does its work once. Only a panic in it is reported.
    pub fn spawn_once(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let supervisor = self.clone();
        let work = AssertUnwindSafe(failpoint::with_panic(name, work)).catch_unwind();
        let watched = async move {
            if let Err(panic) = work.await {
                supervisor.report(PartEnded { name, why: panicked(&*panic) });
            }
        };
        tokio::spawn(watched).abort_handle()
    }

    /// As [`Self::spawn_once`], for work that blocks.
    pub fn spawn_blocking(&self, name: &'static str, work: impl FnOnce() + Send + 'static) {
        let supervisor = self.clone();
        drop(tokio::task::spawn_blocking(move || {
            if let Err(why) = caught(name, work) {
                supervisor.report(PartEnded { name, why });
            }
        }));
    }

    /// Starts a thread that is to run until the agent stops.
    ///
    /// # Errors
    /// The system has no room for one more thread.
    pub fn thread(
        &self,
        name: &'static str,
        part: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let supervisor = self.clone();
        let watched = move || {
            let why = caught(name, part).err().unwrap_or_else(returned);
            supervisor.report(PartEnded { name, why });
        };
        thread::Builder::new().name(name.to_owned()).spawn(watched).map(drop)
    }

    /// Nobody hears of it where one was reported before, or the agent has stopped.
    fn report(&self, ended: PartEnded) {
        let _ = self.0.try_send(ended);
    }
}

fn caught(name: &'static str, work: impl FnOnce()) -> Result<(), String> {
    let work = AssertUnwindSafe(|| {
        failpoint::panic_here(name);
        work();
    });
    std::panic::catch_unwind(work).map_err(|panic| panicked(&*panic))
}

fn returned() -> String {
    "it returned, though nothing had stopped it".to_owned()
}

/// What a panic said.
pub fn panicked(payload: &(dyn Any + Send)) -> String {
    let said = payload.downcast_ref::<&str>().copied();
    let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", said.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(name: &'static str, why: &str) -> Option<PartEnded> {
        Some(PartEnded { name, why: why.to_owned() })
    }

    #[tokio::test]
    async fn rule_13_a_part_that_ends_is_reported_with_its_name() {
        let (supervisor, mut first) = Supervisor::new();
        supervisor.spawn("returns", async {});
        let returned = "it returned, though nothing had stopped it";
        assert_eq!(first.recv().await, ended("returns", returned));
        supervisor.spawn("panics", async { panic!("at {}", 7) });
        assert_eq!(first.recv().await, ended("panics", "it panicked: at 7"));
        supervisor.spawn_fallible("fails", async { Err("the disk is gone") });
        assert_eq!(first.recv().await, ended("fails", "the disk is gone"));
        supervisor.thread("thread", || panic!("no luck")).unwrap();
        assert_eq!(first.recv().await, ended("thread", "it panicked: no luck"));
        supervisor.thread("thread", || {}).unwrap();
        assert_eq!(first.recv().await, ended("thread", returned));
    }

    #[tokio::test]
    async fn rule_13_work_that_is_done_once_is_reported_only_if_it_panics() {
        let (supervisor, mut first) = Supervisor::new();
        supervisor.spawn_once("well", async {});
        supervisor.spawn_blocking("well", || {});
        supervisor.spawn_once("panics", async { panic!("at once") });
        assert_eq!(first.recv().await, ended("panics", "it panicked: at once"));
        supervisor.spawn_blocking("blocks", || std::panic::panic_any(7));
        assert_eq!(first.recv().await, ended("blocks", "it panicked: without a message"));
        drop(supervisor);
        assert_eq!(first.recv().await, None);
    }

    #[tokio::test]
    async fn a_part_that_is_stopped_is_not_reported() {
        let (supervisor, mut first) = Supervisor::new();
        supervisor.spawn("stopped", std::future::pending()).abort();
        drop(supervisor);
        assert_eq!(first.recv().await, None);
    }
}
