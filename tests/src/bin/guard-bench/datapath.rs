//! `datapath`: what a frame costs, by the path that it takes through the program that the agent has
//! put on a port, over an empty program in the same run; next to that of one look-up, which a program
//! that asked for the owner of each frame could not do without. A station's frames follow each other
//! here: the program asks once for each tick of the clock.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use etherparse::PacketBuilder;
use guard_ebpf::abi::AddressKey;
use guard_ebpf::address::Segment;
use guard_tests::{
    Agent, Arp, BRIDGE, Client, Lab, Launch, Mac, NOBODY, POOL, Sandbox, TIMEOUT, ipv4_udp,
};
use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use crate::{bpf::Classifier, report::line};

/// Runs in a batch, and batches: the least of them is what the path costs, since whatever else the
/// machine does only adds to it.
const RUNS: u32 = 10_000;
const BATCHES: usize = 1_000;

/// How often two CPUs take turns with the program and the empty one, each time for its part of the
/// batches.
const TURNS: usize = 20;

/// Runs of the other CPU, as often as a batch lasts: a batch counts where most of its time had them.
const ROUND: u32 = 1_000;

/// What is no path of the program's, but the least that one could be that asks for each frame.
const LOOK_UP: &str = "look_up";

#[derive(Serialize)]
struct Point {
    bench: &'static str,
    path: &'static str,
    empty_ns: u32,
    net_ns: u32,
    /// The cost on two CPUs with the same key, to that on one; null on a machine with one.
    two_cpu_ratio: Option<f64>,
}

/// Runs the benchmark.
pub(crate) fn run(json: bool) -> Result<()> {
    let lab = Lab::new()?;
    let pools = format!(
        "[[pool]]\nname = {POOL:?}\nbridge = {BRIDGE:?}\nprefix = \"{}\"\n\
         [[pool]]\nname = \"six\"\nbridge = {BRIDGE:?}\nprefix = \"2001:db8::/64\"\n",
        lab.prefix().trunc()
    );
    let agent = lab.agent_with(Launch::config(&lab.config()?.with(&pools)?)?)?;
    let sender = lab.sandbox("sender")?;
    let (ipv4, ipv6) = lease(&agent, &sender)?;
    let paths = paths(sender.mac(), ipv4, ipv6)?;
    let program = *lab.programs_on(sender.port())?.first().context("no program on the port")?;
    let (guard, empty) = (Classifier::of_id(program)?, Classifier::empty()?);
    let segment =
        Segment { bridge: lab.host().run(|| if_nametoindex(BRIDGE))??, vlan: 0, inner_vlan: 0 };
    let look_up = Classifier::look_up(program, AddressKey::v4(segment, ipv4.octets()))?;
    if !json {
        println!("{:<14} {:>9} {:>9} {:>9}", "path", "empty", "net", "two CPUs");
    }
    for (path, frame) in paths {
        eprintln!("{path}");
        let measure = || -> Result<Point> {
            let ifindex = if_nametoindex(sender.port())?;
            let program = if path == LOOK_UP { &look_up } else { &guard };
            let Cost { empty_ns, net_ns, two_cpu_ratio } = cost(program, &empty, &frame, ifindex)?;
            Ok(Point { bench: "datapath", path, empty_ns, net_ns, two_cpu_ratio })
        };
        let point = lab.host().run(measure)?.with_context(|| path)?;
        if json {
            line(&point)?;
        } else {
            let ratio = point.two_cpu_ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2} ×"));
            println!("{path:<14} {:>6} ns {:>6} ns {ratio:>9}", point.empty_ns, point.net_ns);
        }
    }
    agent.stop()
}

/// One address of each family, the sender's own.
fn lease(agent: &Agent, sender: &Sandbox) -> Result<(Ipv4Addr, Ipv6Addr)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let leases = runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        let (mac, port) = (sender.mac(), sender.port());
        anyhow::Ok(client.allocate_bound(&[POOL, "six"], ("sender", ""), mac, port).await?)
    })?;
    let [ipv4, ipv6] = &*leases else { anyhow::bail!("{} leases", leases.len()) };
    Ok((ipv4.address.parse()?, ipv6.address.parse()?))
}

/// A frame for each path, of a sender who has these addresses.
fn paths(mac: Mac, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let peer = Mac::numbered(9);
    let builder = PacketBuilder::ethernet2(mac.octets(), peer.octets());
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    let mut packet = Vec::new();
    builder.ipv6(ipv6.octets(), other.octets(), 64).udp(40_000, 9).write(&mut packet, &[])?;

    // A neighbour advertisement behind more headers than anyone reads.
    let mut opaque = packet.get(..54).context("a header")?.to_vec();
    let headers = 20_u16;
    opaque[18..20].copy_from_slice(&(headers * 8 + 32).to_be_bytes());
    opaque[20] = 60;
    for header in 1..=headers {
        opaque.extend([if header == headers { 58 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    opaque.extend([136, 0, 0, 0, 0x20, 0, 0, 0]);
    opaque.extend(ipv6.octets());
    opaque.extend([2, 1]);
    opaque.extend(mac.octets());

    let known = ipv4_udp((mac, peer), ipv4, NOBODY)?;
    Ok(vec![
        (LOOK_UP, known.clone()),
        ("ipv4_known", known),
        ("ipv6_known", packet),
        ("arp_known", Arp::request(mac, ipv4, NOBODY).frame()),
        ("ipv4_unowned", ipv4_udp((mac, peer), [10, 8, 64, 200].into(), NOBODY)?),
        ("opaque", opaque),
    ])
}

/// What a frame costs.
pub(crate) struct Cost {
    /// The empty program's.
    pub(crate) empty_ns: u32,
    /// A program's, over that.
    pub(crate) net_ns: u32,
    /// The same on two CPUs, to that on one; `None` on a machine with one.
    pub(crate) two_cpu_ratio: Option<f64>,
}

/// Measures what a frame that comes in at an interface of the caller's namespace costs a program.
pub(crate) fn cost(
    program: &Classifier,
    empty: &Classifier,
    frame: &[u8],
    ifindex: u32,
) -> Result<Cost> {
    Bench { program, empty, frame, ifindex }.cost()
}

struct Bench<'a> {
    program: &'a Classifier,
    empty: &'a Classifier,
    frame: &'a [u8],
    ifindex: u32,
}

impl Bench<'_> {
    fn cost(&self) -> Result<Cost> {
        let cpus = cpus()?;
        let (mut empty_ns, mut path_ns) = (u32::MAX, u32::MAX);
        for _ in 0..BATCHES {
            empty_ns = empty_ns.min(self.run(self.empty)?);
            path_ns = path_ns.min(self.run(self.program)?);
        }
        let net_ns = path_ns.saturating_sub(empty_ns);
        let two_cpu_ratio = match *cpus {
            [first, second, ..] => {
                let pair = [first, second];
                let (mut empty, mut path) = (u32::MAX, u32::MAX);
                for _ in 0..TURNS {
                    empty = empty.min(self.on_two(self.empty, pair)?);
                    path = path.min(self.on_two(self.program, pair)?);
                }
                let net = path.saturating_sub(empty);
                Some((f64::from(net) / f64::from(net_ns.max(1)) * 100.0).round() / 100.0)
            }
            _ => None,
        };
        Ok(Cost { empty_ns, net_ns, two_cpu_ratio })
    }

    fn run(&self, program: &Classifier) -> Result<u32> {
        program.run(self.frame, self.ifindex, RUNS)
    }

    /// The least of the batches during which another CPU was at it as well.
    fn on_two(&self, program: &Classifier, [own, other]: [usize; 2]) -> Result<u32> {
        let (rounds, done) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let companion = scope.spawn(|| -> Result<()> {
                stay_on(other)?;
                while !done.load(Ordering::Relaxed) {
                    program.run(self.frame, self.ifindex, ROUND)?;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            let measured = scope.spawn(|| -> Result<u32> {
                stay_on(own)?;
                let deadline = Instant::now() + TIMEOUT;
                let (mut least, mut batches) = (u32::MAX, 0);
                while batches < BATCHES / TURNS && Instant::now() < deadline {
                    let before = rounds.load(Ordering::Relaxed);
                    let mean = self.run(program)?;
                    let met = rounds.load(Ordering::Relaxed).wrapping_sub(before) * ROUND;
                    if met >= RUNS - RUNS / 5 {
                        least = least.min(mean);
                        batches += 1;
                    }
                }
                ensure!(batches > 0, "two CPUs were never free at once");
                Ok(least)
            });
            let least = measured.join().map_err(|_| anyhow!("a panic"))?;
            done.store(true, Ordering::Relaxed);
            companion.join().map_err(|_| anyhow!("a panic"))??;
            least
        })
    }
}

/// Keeps the calling thread on one CPU.
fn stay_on(cpu: usize) -> Result<()> {
    let mut own = CpuSet::new();
    own.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &own).context("staying on one CPU")
}

/// Those that this process may run on.
fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}
