//! A program of somebody else's on a port: it sees each frame, and says whether those behind it do.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, ProgramInfo};

use crate::{Lab, bpf, run};

/// What it says of each frame.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// `TC_ACT_OK`: nobody behind it sees the frame.
    Ends = 0,
    /// `TCX_NEXT`.
    PassesOn = -1,
}

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before what is on the port.
    Before,
    /// Behind it.
    Behind,
}

/// The program on a port. It leaves when this is dropped.
#[derive(Debug)]
pub struct Foreign {
    link: Option<FdLink>,
    filter: Option<(String, String, String)>,
    pin: PathBuf,
}

static LOADED: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Puts a program with this name on a port.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn foreign(
        &self,
        name: &str,
        verdict: Verdict,
        side: Side,
        interface: &str,
    ) -> Result<Foreign> {
        let number = LOADED.fetch_add(1, Ordering::Relaxed);
        let pin = self.dir().join(format!("bpf/{name}-{number}"));
        bpf::load(&pin, name, verdict as i32)?;
        let mut foreign = Foreign { link: None, filter: None, pin };
        if self.attach()? == "tcx" {
            let order =
                if side == Side::Before { LinkOrder::first() } else { LinkOrder::default() };
            let mut program = SchedClassifier::from_pin(&foreign.pin)?;
            foreign.link = Some(self.host().run(|| -> Result<FdLink> {
                let options = TcAttachOptions::TcxOrder(order);
                let id = program.attach_with_options(interface, TcAttachType::Ingress, options)?;
                Ok(program.take_link(id)?.try_into()?)
            })??);
        } else {
            // Of one priority, the last one is the first.
            let priority = if side == Side::Before { "1" } else { "2" }.to_owned();
            let host = self.host().name().to_owned();
            let path = foreign.pin.to_string_lossy().into_owned();
            let place = ["dev", interface, "ingress", "prio", &priority, "protocol", "all"];
            let add = [&["-n", &host, "filter", "add"], &place[..]].concat();
            run("tc", &[&add[..], &["bpf", "da", "object-pinned", &path]].concat())?;
            foreign.filter = Some((host, interface.to_owned(), priority));
        }
        Ok(foreign)
    }
}

impl Foreign {
    /// Its number, by which everyone knows it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn id(&self) -> Result<u32> {
        Ok(ProgramInfo::from_pin(&self.pin)?.id())
    }

    /// Pins its link, where it has one. Returns whether it has.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn pin_link(&mut self, path: &Path) -> Result<bool> {
        let Some(link) = self.link.take() else { return Ok(false) };
        self.link = Some(link.pin(path)?.into());
        Ok(true)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        drop(self.link.take());
        if let Some((host, interface, priority)) = self.filter.take() {
            // Unless the port is gone, or it is somebody else's priority too by now.
            let shown = ["-n", &host, "filter", "show", "dev", &interface, "ingress"];
            let name = self.pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let handle = run("tc", &shown).ok().and_then(|shown| handle_of(&shown, &name));
            if let Some(handle) = handle {
                let del = ["-n", &host, "filter", "del", "dev", &interface, "ingress"];
                let which = ["prio", &priority, "handle", &handle, "bpf"];
                let _ = run("tc", &[&del[..], &which[..]].concat());
            }
        }
        let _ = std::fs::remove_file(&self.pin);
    }
}

/// The handle of the filter whose object was pinned under a name.
fn handle_of(shown: &str, name: &str) -> Option<String> {
    let line = shown.lines().find(|line| line.contains(name))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "handle");
    words.nth(1).map(str::to_owned)
}
