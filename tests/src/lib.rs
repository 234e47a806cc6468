//! The lab: real bridges, veth ports and raw frames in namespaces of their own, with the built
//! programs running in them; and nothing of the agent's private parts.
//!
//! A [`Lab`] is one host: a network namespace with a bridge, a bpffs, a state directory and a
//! socket. A [`Sandbox`] is a namespace whose `eth0` is a port of that bridge, and an [`Agent`] is
//! `guard-agent` running in the host's namespace. What tests say about the agent, they say through
//! what its users hold in their hands: `guardctl`, the API, HTTP, the log and frames.
//!
//! Whatever a lab makes is taken away again by its [`reaper`](Lab), a process that outlives the
//! test by as long as that takes, also when the test is killed.

mod agent;
mod api;
mod bpf;
mod capture;
mod clocks;
mod cni;
mod command;
mod config;
mod containerd;
mod crowd;
mod ctl;
mod ctr_cni;
mod directory;
mod fake_containerd;
mod filled;
mod flood;
mod foreign;
mod frame;
mod go;
mod host_local;
mod http;
mod journal;
mod lab;
mod launch;
mod machine;
mod name_server;
mod netns;
mod peer;
mod process;
mod prometheus;
mod raw_socket;
mod reaper;
mod sandbox;
mod serve;
mod stream;
mod terminal;
mod user;
mod wait;
mod watch;

pub use agent::{Agent, Exit};
pub use api::{Client, reason, retry_delay};
pub use bpf::FullMap;
pub use capture::Capture;
pub use cni::{Attachment, Plugin, Refused};
pub use command::{binary, require_root, run};
pub use config::Config;
pub use containerd::{Containerd, Frozen};
pub use crowd::Crowd;
pub use ctl::{CtlOutput, Lease, Refusal, names};
pub use ctr_cni::CtrCni;
pub use directory::{Directory, Said};
pub use fake_containerd::{FakeContainerd, Listed, listed_container};
pub use flood::{Flood, NOBODY};
pub use foreign::{Foreign, Side, Verdict};
pub use frame::{Arp, Mac, ipv4_udp, neighbour_advertisement, router_advertisement};
pub use go::go_example;
pub use host_local::HostLocal;
pub use http::{Response, Sample};
pub use journal::{Journal, Line};
pub use lab::{BRIDGE, GATEWAY, Lab, POOL};
pub use launch::Launch;
pub use machine::Machine;
pub use name_server::{Answers, NameServer, ask};
pub use netns::Netns;
pub use peer::{Peer, peers_python};
pub use prometheus::{Prometheus, checked, dist};
pub use raw_socket::RawSocket;
pub use sandbox::{Port, Sandbox};
pub use stream::Stream;
pub use terminal::Terminal;
pub use user::{become_user, of_hex};
pub use wait::{TIMEOUT, eventually};
pub use watch::Watch;
