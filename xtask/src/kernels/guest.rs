//! One guest: started, listened to, and turned off.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::initramfs;
use super::report::{Plan, Report};
use crate::process;
use crate::setup::Kernel;
use crate::terminal::Task;

/// Far more than a guest needs, also on a loaded machine.
const GUEST_TIMEOUT: Duration = Duration::from_secs(1200);

/// Runs all tests in a guest, to its end.
pub(super) fn run(task: &Task, kernel: &Kernel, plan: Plan, userland: &[u8]) -> Result<Report> {
    let mut initrd = userland.to_vec();
    // Archives in a row begin at multiples of four (early_userspace/buffer-format in the kernel's
    // documentation).
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(initramfs::modules(kernel)?);
    let file = tempfile::Builder::new().prefix("guard-initrd-").tempfile()?;
    fs::write(file.path(), &initrd).context("could not write a guest's archive")?;

    let mut qemu = process::tool("qemu-system-x86_64");
    // Emulated, because a CI's machine is often a guest itself. Without cmpxchg16b: Debian 12's
    // qemu gets it wrong now and then, and the guest panics.
    qemu.args(["-accel", "tcg", "-cpu", "max,-cx16", "-m", "1024", "-nographic", "-no-reboot"])
        .args(["-nodefaults", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(file.path())
        .args(["-append", "console=ttyS0 rdinit=/init quiet loglevel=1 panic=-1 mitigations=off"]);
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("could not run `{}`", process::describe(&qemu)))?;
    // Cargo may have been told of another one than this, which is not there then.
    let target = crate::top().join("target");
    fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    let log = target.join(format!("kernels-{}.log", kernel.release));
    let console = listen(task, &mut child, &log);
    // It has turned itself off, or it never will.
    let _ = child.kill();
    child.wait()?;
    Report::of(kernel, plan, &console?, log)
}

/// What the guest says until it is off, which a log has as it comes.
fn listen(task: &Task, child: &mut Child, log: &Path) -> Result<String> {
    let mut file = File::create(log).with_context(|| log.display().to_string())?;
    let stdout = child.stdout.take().context("qemu has no standard output")?;
    let (lines, said) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + GUEST_TIMEOUT;
    let mut console = String::new();
    loop {
        match said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                task.progress(&line);
                writeln!(file, "{line}").with_context(|| log.display().to_string())?;
                console.push_str(&line);
                console.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(console),
            Err(RecvTimeoutError::Timeout) => {
                task.note(&format!("{} is not done after {GUEST_TIMEOUT:?}", log.display()));
                return Ok(console);
            }
        }
    }
}
