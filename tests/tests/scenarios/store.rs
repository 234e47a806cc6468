//! A store that is lost, damaged or cannot be written: nothing is handed out twice, nothing is lost
//! unnoticed, and service goes on when the fault ends.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Lab, Lease, POOL, Sandbox, eventually};

/// A lab with a sandbox that runs, one that was only given an address, and a backup.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) agent: Agent,
    pub(crate) sandbox: Sandbox,
    pub(crate) running: Lease,
    pub(crate) held: Lease,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let agent = lab.agent()?;
        let sandbox = lab.sandbox("runs")?;
        let running = agent.admit(&sandbox)?;
        let held = agent.allocate("flipped")?;
        Ok(Self { lab, agent, sandbox, running, held })
    }

    fn wal(&self) -> PathBuf {
        let mut path = self.agent.store().into_os_string();
        path.push("-wal");
        path.into()
    }

    /// The agent is up, says what is wrong, and hands nothing out.
    pub(crate) fn is_lost(&self) -> Result<()> {
        let agent = &self.agent;
        let body = agent.await_readyz(503)?;
        ensure!(body.contains("store"), "{body}");
        ensure!(agent.http("/healthz")?.status == 200, "a restart would not help");
        let ask = ["allocate", "--pool", POOL, "--sandbox", "new"];
        let refusal = agent.ctl(&ask)?.refusal()?;
        ensure!((&*refusal.status, &*refusal.reason) == ("UNAVAILABLE", "STORE_DAMAGED"));
        ensure!(refusal.message.contains("guardctl recover"), "{}", refusal.message);
        // An empty list would be a wrong answer.
        ensure!(agent.ctl(&["leases"])?.refusal()?.reason == "STORE_DAMAGED");
        ensure!(agent.ctl(&["check"])?.refusal()?.reason == "STORE_DAMAGED");
        let release = ["release", "--generation", &self.running.generation.to_string()];
        ensure!(agent.ctl(&release)?.refusal()?.reason == "STORE_DAMAGED");
        let status = agent.json(&["status", "--live"])?;
        ensure!(status["ready"] == false && status["store"] != "ok", "{status}");
        ensure!(status["degraded"].to_string().contains("guardctl recover"), "{status}");
        // It goes on observing.
        self.sandbox.announce(self.running.address)?;
        let address = self.running.address.to_string();
        eventually("the sandbox in the live set", || {
            let live = agent.list(&["live"], "live")?;
            Ok(live.iter().any(|live| live["address"] == address.as_str()).then_some(()))
        })
    }

    /// A recovery brings the service back, with the running sandbox's address kept from others.
    pub(crate) fn recovers(&self, args: &[&str], state: &str) -> Result<()> {
        let agent = &self.agent;
        let dry = agent.json(&[&["recover", "--dry-run"], args].concat())?;
        ensure!(dry["moved_to"].is_null() && dry["dry_run"] == true, "{dry}");
        self.is_lost()?;
        let done = agent.json(&[&["recover", "--yes"], args].concat())?;
        for field in ["kept", "from_backup", "quarantined", "lost"] {
            ensure!(dry[field] == done[field], "{field}: {dry} {done}");
        }
        agent.await_readyz(200)?;
        let entry = agent.entry(self.running.address)?.context("counts as free")?;
        ensure!(entry["state"] == state, "{entry}");
        let new = agent.allocate("new")?;
        ensure!(new.address != self.running.address && new.address != self.held.address);
        ensure!(new.generation > self.held.generation, "a generation came twice");
        agent.check()
    }
}

#[test]
fn a_missing_store_is_not_started_empty_and_comes_back_from_its_backup() -> Result<()> {
    let mut scene = Scene::new()?;
    let backup = scene.lab.dir().join("backup").to_string_lossy().into_owned();
    scene.agent.json(&["backup", &backup])?;
    scene.agent.stop()?;
    std::fs::remove_file(scene.agent.store())?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    scene.recovers(&["--from", &backup], "active")?;
    scene.agent.stop()?;
    scene.agent.start_again()?;
    scene.agent.check()
}

#[test]
fn without_a_backup_the_kernel_says_what_is_not_free() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.kill()?;
    std::fs::remove_file(scene.agent.store())?;
    let _ = std::fs::remove_file(scene.wal());
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    scene.recovers(&[], "quarantined")?;
    // Nobody is seen at it: it is the kernel's list of holders that keeps it.
    let held = scene.agent.entry(scene.held.address)?.context("counts as free")?;
    ensure!(held["reason"] == "recovered", "{held}");
    Ok(())
}

#[test]
fn a_flipped_value_is_noticed_and_its_address_quarantined() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.stop()?;
    flip(&scene.agent.store(), b"flipped")?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    scene.recovers(&[], "active")?;
    let flipped = scene.agent.entry(scene.held.address)?.context("counts as free")?;
    ensure!(flipped["state"] == "quarantined", "{flipped}");
    Ok(())
}

#[test]
fn a_cut_store_is_noticed() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.stop()?;
    let file = std::fs::OpenOptions::new().write(true).open(scene.agent.store())?;
    file.set_len(file.metadata()?.len() / 2)?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    scene.recovers(&[], "quarantined")
}

#[test]
fn a_missing_log_is_noticed() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.kill()?;
    std::fs::remove_file(scene.wal())?;
    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    scene.recovers(&[], "quarantined")
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.small_state(512)?;
    let mut agent = lab.agent()?;
    let released = agent.allocate("released")?;
    let filler = state.join("filler");
    // Until there is no room for one byte more.
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    let mut given = Vec::new();
    let refusal = (0..400)
        .find_map(|n| match agent.allocate(&format!("s{n}")) {
            Ok(lease) => {
                given.push(lease);
                None
            }
            Err(_) => Some(agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "again"])),
        })
        .context("it never filled up")??
        .refusal()?;
    ensure!((&*refusal.status, &*refusal.reason) == ("UNAVAILABLE", "STORE_UNWRITABLE"));
    let generation = released.generation.to_string();
    let release = agent.ctl(&["release", "--generation", &generation])?.refusal()?;
    ensure!(release.reason == "STORE_UNWRITABLE", "{release:?}");
    ensure!(agent.entry(released.address)?.context("gone")?["state"] == "held");
    std::fs::remove_file(&filler)?;
    agent.await_readyz(200)?;
    given.push(agent.allocate("again")?);
    ensure!(agent.release(&released)? == "cooling");
    agent.check()?;
    agent.kill()?;
    agent.start_again()?;
    for lease in &given {
        let entry = agent.entry(lease.address)?.context("an acknowledged lease is lost")?;
        ensure!(entry["generation"] == lease.generation, "{entry}");
    }
    agent.check()
}

#[test]
fn a_read_only_disk_is_waited_for() -> Result<()> {
    let lab = Lab::new()?;
    lab.small_state(4096)?;
    let mut agent = lab.agent()?;
    let lease = agent.allocate("a")?;
    agent.kill()?;
    lab.remount_state(false)?;
    agent.start_again_degraded()?;
    let body = agent.await_readyz(503)?;
    ensure!(body.contains("store"), "{body}");
    let refused = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "b"])?.refusal()?;
    ensure!((&*refused.status, &*refused.reason) == ("UNAVAILABLE", "STORE_UNWRITABLE"));
    lab.remount_state(true)?;
    agent.await_readyz(200)?;
    ensure!(agent.allocate("a")? == lease, "it has another lease now");
    agent.check()
}

#[test]
fn another_process_does_not_get_into_the_store() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let script = format!(
        "import sqlite3\nsqlite3.connect({:?}, timeout=0).execute('DELETE FROM lease')",
        agent.store().to_string_lossy()
    );
    let output = std::process::Command::new("python3").args(["-c", &script]).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && stderr.contains("locked"), "{stderr}");
    agent.allocate("b")?;
    agent.check()
}

#[test]
fn damage_while_it_runs_is_found_by_a_check_and_written_anew_from_memory() -> Result<()> {
    let scene = Scene::new()?;
    let agent = &scene.agent;
    let in_file = flip(&agent.store(), b"flipped").is_ok();
    ensure!(flip(&scene.wal(), b"flipped").is_ok() || in_file, "it is on no disk");
    let found = agent.ctl(&["check"])?.refusal()?;
    ensure!(found.reason == "STORE_DAMAGED" && found.message.contains("in memory"), "{found:?}");
    agent.await_readyz(503)?;
    let status = agent.json(&["status", "--live"])?;
    ensure!(status["degraded"].to_string().contains("guardctl recover"), "{status}");
    let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "new"])?.refusal()?;
    ensure!((&*refusal.status, &*refusal.reason) == ("UNAVAILABLE", "STORE_DAMAGED"));
    // It is not on disk, and known all the same.
    ensure!(agent.entry(scene.held.address)?.context("gone")?["sandbox"] == "flipped");
    let done = agent.json(&["recover", "--yes"])?;
    ensure!(done["quarantined"].as_array().is_some_and(Vec::is_empty), "{done}");
    agent.await_readyz(200)?;
    let held = agent.entry(scene.held.address)?.context("counts as free")?;
    ensure!(held["generation"] == scene.held.generation && held["state"] == "held", "{held}");
    agent.check()
}

#[test]
fn an_older_copy_of_the_store_is_noticed_and_no_generation_comes_twice() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.agent.stop()?;
    let state = scene.agent.store().with_file_name("");
    let copy = scene.lab.dir().join("copy");
    guard_tests::run("cp", &["-r", &state.to_string_lossy(), &copy.to_string_lossy()])?;
    scene.agent.start_again()?;
    scene.agent.release(&scene.held)?;
    let later = scene.agent.allocate("later")?;
    scene.agent.stop()?;
    std::fs::remove_dir_all(&state)?;
    std::fs::rename(&copy, &state)?;

    scene.agent.start_again_degraded()?;
    scene.is_lost()?;
    let why = scene.agent.json(&["status", "--live"])?["store"].to_string();
    ensure!(why.contains("older copy") && why.contains(&later.generation.to_string()), "{why}");
    scene.held = later;
    scene.recovers(&[], "active")?;
    let entry = scene.agent.entry(scene.held.address)?.context("counts as free")?;
    ensure!((&entry["state"], &entry["reason"]) == (&"quarantined".into(), &"recovered".into()));
    // What the copy knows is what is known from now on.
    scene.agent.stop()?;
    scene.agent.start_again()?;
    scene.agent.check()
}

#[test]
fn a_healthy_store_is_not_recovered_but_takes_what_a_backup_has_besides() -> Result<()> {
    let scene = Scene::new()?;
    let agent = &scene.agent;
    let refusal = agent.ctl(&["recover", "--yes"])?.refusal()?;
    ensure!((&*refusal.status, &*refusal.reason) == ("FAILED_PRECONDITION", "STORE_HEALTHY"));
    let backup = scene.lab.dir().join("backup").to_string_lossy().into_owned();
    agent.json(&["backup", &backup])?;
    let nonsense = scene.lab.dir().join("nonsense");
    std::fs::write(&nonsense, "no store at all ".repeat(99))?;
    let nonsense = nonsense.to_string_lossy().into_owned();
    let refusal = agent.ctl(&["recover", "--yes", "--from", &nonsense])?.refusal()?;
    ensure!(refusal.reason == "NOT_A_STORE", "{refusal:?}");
    let done = agent.json(&["recover", "--yes", "--from", &backup])?;
    ensure!(done["from_backup"] == 0 && done["quarantined"] == serde_json::json!([]), "{done}");
    agent.await_readyz(200)?;
    for lease in [&scene.running, &scene.held] {
        let entry = agent.entry(lease.address)?.context("counts as free")?;
        ensure!(entry["generation"] == lease.generation, "{entry}");
    }
    agent.check()
}

/// Changes one byte of the text `what`, wherever it stands.
pub(crate) fn flip(file: &Path, what: &[u8]) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    let at: Vec<_> =
        (0..bytes.len() - what.len()).filter(|at| bytes[*at..].starts_with(what)).collect();
    ensure!(!at.is_empty(), "it is not in the file");
    for at in at {
        bytes[at] ^= 1;
    }
    std::fs::write(file, bytes).context("writing the store")
}
