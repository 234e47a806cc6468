//! Whether a link is the one of before, over a restart of the agent.
//!
//! The program on it says so. Where a link ended, another got its number and the program, and the agent
//! was killed before the ledger's commit, that would be wrong: the lease would follow to the new link.
//! So the ends of links that leases are bound to are noted below the pins until the store has them.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Whether a link is the one that had its ifindex before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    /// The program is on it.
    Yes,
    /// It is not, and nothing else tells them apart.
    Unproven,
    /// Another link has the number.
    No,
}

impl Same {
    /// `ours`: the program is on the link. `gone`: what stands for the program says that its device is
    /// gone. `ended`: an end with this number may not have reached the store. `other`: what is stored
    /// of the link is not what it is now.
    pub(super) fn judge(ours: bool, gone: impl FnOnce() -> bool, ended: bool, other: bool) -> Self {
        match ours {
            true if ended && other => Self::No,
            true => Self::Yes,
            false if other || gone() => Self::No,
            false => Self::Unproven,
        }
    }
}

/// What the name of a note begins with; the ifindex follows.
const PREFIX: &str = "ended-";

/// The notes of ends, each a directory of its own: a BPF file system has no other files.
pub(super) struct Ends {
    pins: PathBuf,
    noted: BTreeSet<u32>,
}

impl Ends {
    /// Takes over what an earlier agent has noted.
    pub(super) fn open(pins: &Path) -> Self {
        let noted = fs::read_dir(pins).into_iter().flatten().filter_map(Result::ok);
        let noted = noted.filter_map(|entry| port_of(entry.file_name().to_str()?)).collect();
        Self { pins: pins.to_owned(), noted }
    }

    /// The numbers of those that are noted.
    pub(super) fn into_noted(self) -> BTreeSet<u32> {
        self.noted
    }

    /// Whether the end of a link with this number may have been lost.
    pub(super) fn has(&self, ifindex: u32) -> bool {
        self.noted.contains(&ifindex)
    }

    /// A link has ended, and the store does not have that yet.
    pub(super) fn note(&mut self, ifindex: u32) {
        if self.noted.insert(ifindex)
            && let Err(error) = fs::create_dir(self.pins.join(name(ifindex)))
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(ifindex, %error, "cannot note the end of a link");
        }
    }

    /// Keeps those notes whose end the store does not have.
    pub(super) fn retain(&mut self, is_pending: impl Fn(u32) -> bool) {
        let pins = &self.pins;
        self.noted.retain(|ifindex| {
            let keep = is_pending(*ifindex);
            if !keep {
                // Where it stays, the next start compares the device and finds the same one.
                let _ = fs::remove_dir(pins.join(name(*ifindex)));
            }
            keep
        });
    }
}

fn name(ifindex: u32) -> String {
    format!("{PREFIX}{ifindex}")
}

fn port_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_tells_unless_an_end_was_lost() {
        let judge = |ours, gone, ended, other| Same::judge(ours, || gone, ended, other);
        assert_eq!(judge(true, false, false, true), Same::Yes, "its other end was moved");
        assert_eq!(judge(true, false, true, false), Same::Yes, "it was bound since");
        assert_eq!(judge(true, false, true, true), Same::No);
        assert_eq!(judge(false, false, false, false), Same::Unproven);
        assert_eq!(judge(false, true, false, false), Same::No);
        assert_eq!(judge(false, false, false, true), Same::No);
    }

    #[test]
    fn a_note_outlives_the_agent_until_the_store_has_the_end() {
        let pins = tempfile::tempdir().unwrap();
        let mut ends = Ends::open(pins.path());
        ends.note(7);
        ends.note(8);
        ends.note(8);
        ends.retain(|ifindex| ifindex == 8);
        assert!(!ends.has(7));
        let mut next = Ends::open(pins.path());
        assert!(next.has(8) && !next.has(7));
        next.retain(|_| false);
        assert!(!Ends::open(pins.path()).has(8));
    }
}
