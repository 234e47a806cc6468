//! The belief rule: whatever an attacker sends, nothing that others believe of an owner moves
//! without an incident. Linux says what is believed.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use guard_api::proto::ConflictKind;
use guard_tests::{
    Agent, Arp, BRIDGE, Client, Crowd, Lab, Launch, Mac, POOL, Sandbox, TIMEOUT, run,
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::{
    ONE_AT_A_TIME, asked,
    attack::{Station, frame},
};

/// How many frames, instead of the share.
const VARIABLE: &str = "GUARD_SOAK_BELIEF";
const FRAMES: usize = 2 * LAB * BATCH;

/// Batches in one lab: its incidents stay open for as long as it is there.
const LAB: usize = 4;

/// Frames, and owners that each is about, before one looks. The kernel's neighbour tables have
/// room for 1,024 entries of each family, on the whole machine.
const BATCH: usize = THIEVES * EACH;

/// Ports that attack. One that claimed more than sixteen addresses would be one incident (claims.md A19b):
/// an owner has two.
const THIEVES: usize = 36;
const EACH: usize = 7;

/// The pool of IPv6 addresses.
const SIX: &str = "six";

#[test]
fn nothing_that_is_believed_moves_without_an_incident() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let batches = asked(VARIABLE)?.unwrap_or(FRAMES).div_ceil(BATCH);
    let mut moved = Moved::default();
    for (number, first) in (0..batches).step_by(LAB).enumerate() {
        let lab = Lab::with_prefix(20)?;
        set_up_bridge(&lab, BRIDGES[number % BRIDGES.len()])?;
        let config = lab.config()?.with(&format!(
            "[[pool]]\nname = {POOL:?}\nbridge = {BRIDGE:?}\nprefix = \"{}\"\n\
             [[pool]]\nname = {SIX:?}\nbridge = {BRIDGE:?}\nprefix = \"2001:db8::/64\"\n",
            lab.prefix().trunc()
        ))?;
        let agent = lab.agent_with(Launch::config(&config)?)?;
        let world = World::new(&lab, &agent)?;
        for number in first..batches.min(first + LAB) {
            world.batch(number, &mut moved)?;
        }
    }
    let frames = batches * BATCH;
    eprintln!("{frames} frames moved {moved:?}");
    // Where nothing is believed, any rule would hold.
    for count in [moved.ipv4, moved.ipv6, moved.macs] {
        ensure!(count * 50 > frames, "{frames} frames moved hardly anything: {moved:?}");
    }
    Ok(())
}

/// Whether the bridge filters VLANs, and shows its frames to netfilter, by which some never arrive.
const BRIDGES: [(bool, bool); 4] = [(false, false), (true, true), (true, false), (false, true)];

fn set_up_bridge(lab: &Lab, (filters, netfilter): (bool, bool)) -> Result<()> {
    let filters = u8::from(filters);
    if let Err(error) =
        lab.host().ip(&format!("link set {BRIDGE} type bridge vlan_filtering {filters}"))
    {
        ensure!(format!("{error:#}").contains("not supported"), "{error:#}");
        eprintln!("this kernel's bridges filter no VLANs");
    }
    lab.host().run(|| {
        for what in ["arptables", "iptables", "ip6tables"] {
            let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{what}");
            if std::path::Path::new(&setting).exists() {
                std::fs::write(&setting, u8::from(netfilter).to_string())?;
            }
        }
        anyhow::Ok(())
    })?
}

/// How many entries have moved.
#[derive(Debug, Default)]
struct Moved {
    ipv4: usize,
    ipv6: usize,
    macs: usize,
}

struct World<'a> {
    lab: &'a Lab,
    agent: &'a Agent,
    runtime: Runtime,
    /// Has the port of all owners.
    owner: Sandbox,
    victim: Sandbox,
    /// What the victim is known by.
    target: Station,
}

impl<'a> World<'a> {
    fn new(lab: &'a Lab, agent: &'a Agent) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (owner, victim) = (lab.sandbox("owner")?, lab.sandbox("victim")?);
        let mut client = runtime.block_on(Client::connect(&agent.socket()))?;
        let target =
            runtime.block_on(station(&mut client, ("victim", ""), victim.mac(), victim.port()))?;
        victim.netns().run(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0")?;
            // An entry may move again at once.
            std::fs::write("/proc/sys/net/ipv4/neigh/eth0/locktime", "0")
        })??;
        victim.netns().ip(&format!(
            "address add {}/20 dev eth0\naddress add {}/64 dev eth0 nodad",
            target.ipv4, target.ipv6
        ))?;
        Ok(Self { lab, agent, runtime, owner, victim, target })
    }

    /// Has each owner attacked by a frame, and looks what became of it.
    fn batch(&self, number: usize, moved: &mut Moved) -> Result<()> {
        let owners = self.owners(number)?;
        let (markers, owners) = owners.split_at(THIEVES);
        self.introduce(owners)?;
        let thieves = self.thieves(number)?;
        let watch = self.agent.incidents()?;
        let mut frames = Vec::new();
        let mut seeds = u64::try_from(number * BATCH)?..;
        for ((thief, own), marker) in thieves.iter().zip(owners.chunks(EACH)).zip(markers) {
            let socket = thief.raw_socket()?;
            for (owner, seed) in own.iter().zip(&mut seeds) {
                let mut chance = fastrand::Rng::with_seed(seed);
                let bytes = frame(&mut chance, thief.mac(), owner, &self.target);
                socket.send(&bytes)?;
                frames.push((thief.port(), bytes));
            }
            // Frames of a port are seen in their order, and so are the incidents.
            socket.send(&Arp::announcement(thief.mac(), marker.ipv4).frame())?;
        }
        let mut awaited: HashSet<_> =
            markers.iter().map(|marker| marker.ipv4.to_string()).collect();
        let (mut addresses, mut macs, mut opaque) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        while !awaited.is_empty() {
            let (_, conflict) = watch.next(TIMEOUT)?.context("no incident of the marker")?;
            let is_theirs = |port: &str| thieves.iter().any(|thief| thief.port() == port);
            if conflict.kind() == ConflictKind::Opaque {
                opaque.extend(conflict.claimants.into_iter().map(|claimant| claimant.interface));
            } else if conflict.claimants.iter().any(|claimant| is_theirs(&claimant.interface)) {
                macs.extend(conflict.claimants.iter().map(|claimant| claimant.mac.clone()));
                addresses.insert(conflict.address.clone());
            }
            awaited.remove(&conflict.address);
        }

        let (neighbours, stations) = (self.neighbours()?, self.stations()?);
        for ((number, owner), (thief, frame)) in owners.iter().enumerate().zip(&frames) {
            let (mac, port) = (owner.mac.to_string(), self.owner.port());
            for (address, count) in
                [(IpAddr::from(owner.ipv4), &mut moved.ipv4), (owner.ipv6.into(), &mut moved.ipv6)]
            {
                if neighbours.get(&address.to_string()) != Some(&mac) {
                    *count += 1;
                    // What cannot be read to its end is told of its port.
                    let told = addresses.contains(&address.to_string()) || opaque.contains(*thief);
                    ensure!(told, "{address} moved by {frame:02x?}, and nobody was told");
                }
            }
            let elsewhere = |at: &String| at != port;
            if stations.get(&mac).map_or(has_spoken(number), elsewhere) {
                moved.macs += 1;
                ensure!(macs.contains(&mac), "{mac} moved by {frame:02x?}, and nobody was told");
            }
        }
        drop(frames);
        thieves.into_iter().try_for_each(Sandbox::delete)
    }

    fn thieves(&self, batch: usize) -> Result<Vec<Sandbox>> {
        let thief = |number| self.lab.sandbox(&format!("t{batch}-{number}"));
        let thieves: Vec<_> = (0..THIEVES).map(thief).collect::<Result<_>>()?;
        thieves.iter().try_for_each(|thief| self.agent.await_port(thief))?;
        Ok(thieves)
    }

    /// So many that no frame of the batch is about the same, after a marker for each thief.
    fn owners(&self, batch: usize) -> Result<Vec<Station>> {
        self.runtime.block_on(async {
            let mut client = Client::connect(&self.agent.socket()).await?;
            const ALL: usize = THIEVES + BATCH;
            let mut owners = Vec::with_capacity(ALL);
            for number in (batch * ALL..).take(ALL) {
                // A port speaks for one sandbox; that may have many addresses.
                let (asker, mac) = (("owner", &*number.to_string()), Crowd::mac(number)?);
                owners.push(station(&mut client, asker, mac, self.owner.port()).await?);
            }
            Ok(owners)
        })
    }

    /// Lets the bridge and the victim know who is where.
    fn introduce(&self, owners: &[Station]) -> Result<()> {
        let socket = self.owner.raw_socket()?;
        let mut entries = "neigh flush dev eth0\n".to_owned();
        for (number, Station { mac, ipv4, ipv6 }) in owners.iter().enumerate() {
            if has_spoken(number) {
                socket.send(&Arp::announcement(*mac, *ipv4).frame())?;
            }
            writeln!(entries, "neigh replace {ipv4} lladdr {mac} dev eth0 nud stale")?;
            writeln!(entries, "neigh replace {ipv6} lladdr {mac} dev eth0 nud stale")?;
        }
        self.victim.netns().ip(&entries)?;
        let (neighbours, stations) = (self.neighbours()?, self.stations()?);
        for (number, Station { mac, ipv4, ipv6 }) in owners.iter().enumerate() {
            let mac = mac.to_string();
            for address in [ipv4.to_string(), ipv6.to_string()] {
                ensure!(neighbours.get(&address) == Some(&mac), "{address} is not known");
            }
            let port = stations.get(&mac).map(String::as_str);
            let known = has_spoken(number).then(|| self.owner.port());
            ensure!(port == known, "{mac} is at {port:?}");
        }
        Ok(())
    }

    /// The victim's neighbour entries: the MAC of each address.
    fn neighbours(&self) -> Result<HashMap<String, String>> {
        let netns = self.victim.netns().name();
        pairs(&run("ip", &["-n", netns, "-j", "neigh", "show", "dev", "eth0"])?, "dst", "lladdr")
    }

    /// The bridge's entries: the port of each MAC.
    fn stations(&self) -> Result<HashMap<String, String>> {
        let netns = self.lab.host().name();
        pairs(&run("bridge", &["-n", netns, "-j", "fdb", "show", "br", BRIDGE])?, "mac", "ifname")
    }
}

/// Every second owner is silent: the bridge does not know its MAC, and its binding alone speaks for it.
fn has_spoken(number: usize) -> bool {
    number.is_multiple_of(2)
}

async fn station(
    client: &mut Client,
    asker: (&str, &str),
    mac: Mac,
    port: &str,
) -> Result<Station> {
    let leases = client.allocate_bound(&[POOL, SIX], asker, mac, port).await?;
    let [ipv4, ipv6] = &*leases else { anyhow::bail!("{} leases", leases.len()) };
    Ok(Station { mac, ipv4: ipv4.address.parse()?, ipv6: ipv6.address.parse()? })
}

/// Two fields of each entry of a list.
fn pairs(json: &str, key: &str, value: &str) -> Result<HashMap<String, String>> {
    let entries: Vec<Value> = serde_json::from_str(json).context("iproute2's JSON")?;
    let field = |entry: &Value, name| Some(entry.get(name)?.as_str()?.to_owned());
    Ok(entries
        .iter()
        .filter_map(|entry| Some((field(entry, key)?, field(entry, value)?)))
        .collect())
}
