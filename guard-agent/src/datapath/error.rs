//! Why the program does not run.

use std::{error::Error, io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel was built without `CONFIG_DEBUG_INFO_BTF`.
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux is missing); run a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// The pin path is not on a BPF file system.
    #[error(
        "{path}: not on a BPF file system; mount one (mount -t bpf -o mode=0700 bpf /sys/fs/bpf) or set `bpffs`"
    )]
    NoBpffs {
        /// The path as configured.
        path: PathBuf,
    },
    /// Another agent has its maps here.
    #[error(
        "{path}: another agent has this directory; stop that one, or give each its own `bpffs` and its own \
         bridges"
    )]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// Others could put maps of theirs in the place of ours.
    #[error(
        "{path} belongs to uid {owner}, and the agent runs as uid {own}; give it to the agent, or set \
         `bpffs` to another directory"
    )]
    NotOurs {
        /// Which one.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who the agent is.
        own: u32,
    },
    /// The same.
    #[error(
        "{path} can be written by others (mode {mode:04o}); mount it with mode=0700, or set `bpffs` to a \
         directory in it"
    )]
    Open {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A directory or a pin cannot be made or read.
    #[error("{path}: {source}")]
    Pin {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The verifier or the kernel refused it.
    #[error("the kernel refused the program: {0}")]
    Load(#[from] EbpfError),
    /// The program cannot be attached.
    #[error("{interface}: cannot attach the program: {}", chain(&**source))]
    Attach {
        /// To which port.
        interface: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The program cannot be taken off.
    #[error("{interface}: cannot take the program off: {source}")]
    Detach {
        /// Which port.
        interface: String,
        /// Why not.
        source: Box<ProgramError>,
    },
    /// The program cannot be loaded.
    #[error("the kernel refused the program: {0}")]
    Program(#[from] ProgramError),
    /// A map is not what this agent expects.
    #[error("map {name}: {source}")]
    Map {
        /// Which one.
        name: &'static str,
        /// What is wrong.
        source: MapError,
    },
    /// The object file lacks something: agent and program were not built together.
    #[error("the embedded program has no {0}; the build is broken")]
    Missing(&'static str),
}

/// An error and what caused it: the system call alone says little.
fn chain(error: &(dyn Error + Send + Sync)) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
