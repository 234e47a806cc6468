//! The package and its service under a real systemd: installed, started, killed, stuck, upgraded,
//! stopped and purged.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use guard_tests::{BRIDGE, Lab, Machine, POOL, Sandbox, binary, checked, eventually};
use serde_json::Value;

const UNIT: &str = "guard-agent";

/// The package of the build under test.
pub(crate) fn package(dir: &Path, revision: u32) -> Result<PathBuf> {
    let mut xtask = Command::new(binary("xtask")?);
    xtask.args(["package", "--dev", "--revision", &revision.to_string(), "--out"]).arg(dir);
    checked(&mut xtask, b"")?;
    let mut found = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = format!("-{revision}_");
    found.find(|path| path.to_string_lossy().contains(&ours)).context("no package")
}

fn config(lab: &Lab) -> String {
    // Room for a squatter that takes an address every few milliseconds.
    format!(
        "[quota]\naddresses_per_port = 4096\nnd_per_second = 100000\n\
         [[bridge]]\nname = {BRIDGE:?}\n\
         [[pool]]\nname = {POOL:?}\nbridge = {BRIDGE:?}\nprefix = \"{}\"\n",
        lab.prefix().trunc()
    )
}

fn ctl(machine: &Machine, arguments: &str) -> Result<Value> {
    serde_json::from_str(&machine.sh(&format!("guardctl {arguments} -o json"))?).context("JSON")
}

fn await_property(machine: &Machine, name: &str, wanted: &str) -> Result<()> {
    eventually(&format!("{name}={wanted}"), || {
        Ok((machine.property(UNIT, name)? == wanted).then_some(()))
    })
}

fn await_ready(machine: &Machine) -> Result<()> {
    eventually("a ready agent", || {
        let status = ctl(machine, "status").ok();
        Ok(status.filter(|status| status["ready"] == true).map(drop))
    })
}

#[test]
fn lintian_has_nothing_to_say_about_the_package() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let package = package(dir.path(), 1)?;
    let mut lintian = Command::new("lintian");
    // It leaves files of its own.
    lintian.env("TMPDIR", dir.path());
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    // Debian's own archive would want to know why there is a new package.
    lintian.args(["--suppress-tags", "initial-upload-closes-no-bugs"]);
    assert_eq!(checked(lintian.arg(package), b"")?, "");
    Ok(())
}

#[test]
fn the_service_lives_as_its_users_expect() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let packages = (package(dir.path(), 1)?, package(dir.path(), 2)?);
    let lab = Lab::new()?;
    let machine = lab.machine()?;
    installs_and_starts_nothing(&machine, &packages.0)?;
    starts(&lab, &machine)?;
    let (owner, squatter) = (lab.sandbox("owner")?, lab.sandbox("squatter")?);
    let generation = admits(&machine, &owner)?;
    restarts_after_a_crash(&lab, &machine, generation)?;
    restarts_when_it_is_stuck(&machine)?;
    upgrades_without_a_gap(&lab, &machine, &squatter, &packages.1)?;
    stops(&lab, &machine, &owner)?;
    goes(&lab, &machine)
}

fn installs_and_starts_nothing(machine: &Machine, package: &Path) -> Result<()> {
    let package = machine.share(package)?;
    machine.sh(&format!("dpkg --install {package}"))?;
    assert_eq!(machine.property(UNIT, "ActiveState")?, "inactive");
    assert_eq!(machine.property(UNIT, "UnitFileState")?, "disabled");
    machine.sh("guardctl --version && guard-agent --version && test -x /usr/lib/cni/guard-ipam")?;
    // As it is shipped it names no bridge: the service says so, and does not try for ever.
    machine.sh(&format!("! systemctl start {UNIT}"))?;
    await_property(machine, "ActiveState", "failed")?;
    assert_eq!(machine.property(UNIT, "ExecMainStatus")?, "78");
    assert_eq!(machine.property(UNIT, "NRestarts")?, "0");
    machine.sh(&format!("systemctl stop guard-agent.socket && systemctl reset-failed {UNIT}"))?;
    Ok(())
}

fn starts(lab: &Lab, machine: &Machine) -> Result<()> {
    let file = lab.dir().join("agent.toml");
    fs::write(&file, config(lab))?;
    let file = machine.share(&file)?;
    machine.sh(&format!("cat {file} >/etc/guard/agent.toml"))?;
    // It returns when the agent has said that it is ready.
    machine.sh(&format!("systemctl enable --now {UNIT}"))?;
    await_ready(machine)?;
    let pid = machine.property(UNIT, "MainPID")?;
    let status = machine.sh(&format!("cat /proc/{pid}/status"))?;
    assert!(!status.contains("\nUid:\t0\t") && status.contains("\nNoNewPrivs:\t1"), "{status}");
    // CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF, by their bits.
    let four = format!("{:016x}", 1u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39);
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert!(status.contains(&format!("{set}:\t{four}")), "{set} in {status}");
    }
    let entry = machine.sh(&format!(
        "journalctl --unit={UNIT} --output=json GUARD_SOCKET=/run/guard/guard.sock"
    ))?;
    let entry: Value = serde_json::from_str(&entry).context("one entry")?;
    assert_eq!(entry["PRIORITY"], "6", "{entry}");
    let text = entry["MESSAGE"].as_str().context("no text")?;
    assert!(text.starts_with("serving socket=/run/guard/guard.sock"), "{text}");
    Ok(())
}

fn admits(machine: &Machine, owner: &Sandbox) -> Result<u64> {
    let (name, mac, port) = (owner.name(), owner.mac(), owner.port());
    let lease = ctl(machine, &format!("allocate --pool {POOL} --sandbox {name}"))?;
    let generation = lease["generation"].as_u64().context("no generation")?;
    machine
        .sh(&format!("guardctl bind --generation {generation} --mac {mac} --interface {port}"))?;
    Ok(generation)
}

fn restarts_after_a_crash(lab: &Lab, machine: &Machine, generation: u64) -> Result<()> {
    machine.sh(&format!("systemctl kill --signal=KILL {UNIT}"))?;
    // Nobody can take its port meanwhile, and who calls waits for the next one.
    let taken = lab.host().run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 9477)).is_ok())?;
    ensure!(!taken, "a stranger has the port of an agent that is started again");
    assert_eq!(ctl(machine, "status")?["version"], env!("CARGO_PKG_VERSION"));
    await_property(machine, "NRestarts", "1")?;
    await_ready(machine)?;
    let leases = ctl(machine, "leases")?;
    let kept = leases["leases"].as_array().context("no list")?;
    let ours = kept.iter().find(|lease| lease["generation"] == generation);
    assert_eq!(ours.context("lost")?["state"], "active", "{leases}");
    Ok(())
}

/// The observer stands still; systemd hears nothing any more, and ends what is of no use.
fn restarts_when_it_is_stuck(machine: &Machine) -> Result<()> {
    let drop_in = format!("/run/systemd/system/{UNIT}.service.d");
    machine.sh(&format!(
        "mkdir -p {drop_in}; \
         printf '[Service]\\nWatchdogSec=2s\\nEnvironment=GUARD_FAILPOINT=observer_round=1\\n' \
         >{drop_in}/stuck.conf; \
         systemctl daemon-reload; systemctl restart {UNIT}; systemctl reset-failed {UNIT}; \
         rm {drop_in}/stuck.conf; systemctl daemon-reload"
    ))?;
    let stuck = machine.property(UNIT, "MainPID")?;
    eventually("the end of an agent that is stuck", || {
        let pid = machine.property(UNIT, "MainPID")?;
        Ok((pid != stuck && pid != "0").then_some(()))
    })?;
    let log = machine.sh(&format!("journalctl --unit={UNIT} --output=cat"))?;
    assert!(log.contains("observer\" why=\"it has not come round"), "{log}");
    assert!(log.contains("Watchdog timeout"), "{log}");
    await_ready(machine)
}

/// All that is claimed while the package is replaced is known afterwards.
fn upgrades_without_a_gap(
    lab: &Lab,
    machine: &Machine,
    squatter: &Sandbox,
    package: &Path,
) -> Result<()> {
    eventually("the squatter's port", || {
        let ports = ctl(machine, "ports")?;
        let ports = ports["ports"].as_array().context("no list")?.clone();
        Ok(ports.iter().any(|port| port["interface"] == squatter.port()).then_some(()))
    })?;
    let programs = lab.programs_on(squatter.port())?;
    ensure!(!programs.is_empty(), "no program on {}", squatter.port());
    let before = machine.property(UNIT, "MainPID")?;
    let package = machine.share(package)?;
    let done = AtomicBool::new(false);
    let claimed = thread::scope(|scope| {
        let claiming = scope.spawn(|| -> Result<Vec<Ipv4Addr>> {
            let mut claimed = Vec::new();
            for last in 10..=250 {
                let address = Ipv4Addr::new(10, 8, 64, last);
                squatter.announce(address)?;
                claimed.push(address);
                if done.load(Ordering::Relaxed) {
                    break;
                }
                thread::park_timeout(std::time::Duration::from_millis(20));
            }
            Ok(claimed)
        });
        let upgraded = machine.sh(&format!("dpkg --install {package}"));
        done.store(true, Ordering::Relaxed);
        let claimed = claiming.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        upgraded.map(|_| claimed)
    })?;
    ensure!(claimed.len() > 10, "only {} claims in the meantime", claimed.len());
    await_ready(machine)?;
    assert_ne!(machine.property(UNIT, "MainPID")?, before, "the new agent runs");
    assert!(machine.sh("dpkg --status guard")?.contains("-2\n"), "the version");
    let live = ctl(machine, "live")?.to_string();
    let missed: Vec<_> =
        claimed.iter().filter(|address| !live.contains(&format!("\"{address}\""))).collect();
    assert!(missed.is_empty(), "{missed:?} of {} claims went unseen", claimed.len());
    println!("{} claims while the package was replaced, all of them seen", claimed.len());
    assert!(machine.sh("cat /etc/guard/agent.toml")?.contains("addresses_per_port"));
    Ok(())
}

fn stops(lab: &Lab, machine: &Machine, owner: &Sandbox) -> Result<()> {
    machine.sh(&format!("systemctl stop {UNIT}.socket {UNIT}"))?;
    assert_eq!(machine.property(UNIT, "Result")?, "success");
    ensure!(!lab.programs_on(owner.port())?.is_empty(), "the program is to go on watching");
    machine.sh("test ! -e /run/guard/guard.sock")?;
    Ok(())
}

fn goes(lab: &Lab, machine: &Machine) -> Result<()> {
    machine.sh(&format!("systemctl start {UNIT}; dpkg --remove guard"))?;
    assert_eq!(machine.property(UNIT, "ActiveState")?, "inactive");
    assert_eq!(lab.programs_on("veth-owner")?, Vec::<u32>::new());
    machine.sh("test -e /var/lib/guard/leases.db && test -e /etc/guard/agent.toml")?;
    machine.sh("dpkg --purge guard")?;
    let left = machine
        .sh("find / -xdev -name '*guard*' -not -path '/proc/*' -not -path '/sys/*' \
         -not -path '/shared/*' -not -path '/var/log/*'")?;
    assert_eq!(left, "", "left behind");
    assert_eq!(lab.pinned()?, Vec::<PathBuf>::new());
    Ok(())
}
