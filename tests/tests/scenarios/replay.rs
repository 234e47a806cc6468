//! `guardctl replay` on what tcpdump has captured on a real bridge.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use guard_tests::{BRIDGE, Capture, Lab, binary};
use serde_json::Value;

fn replay(file: &Path, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("guardctl")?);
    // Nobody listens there, and nobody is asked.
    command.arg("replay").arg(file).args(args).args(["--socket", "/nonexistent/guard.sock"]);
    command.output().context("guardctl replay")
}

/// Two who announce one address, captured on the bridge; the file.
fn incident(lab: &Lab) -> Result<(PathBuf, [String; 2], String)> {
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let address = "10.8.64.9".parse()?;
    let capture = Capture::start(lab, BRIDGE)?;
    owner.announce(address)?;
    thief.announce(address)?;
    owner.announce(address)?;
    let file = capture.of_frames(3)?;
    Ok((file, [owner.mac().to_string(), thief.mac().to_string()], address.to_string()))
}

#[test]
fn a_duplicate_in_a_capture_is_found_without_an_agent() -> Result<()> {
    let lab = Lab::new()?;
    let (file, macs, address) = incident(&lab)?;
    let output = replay(&file, &["-o", "json", "--prefix", "10.8.64.0/24", "--port", BRIDGE])?;
    ensure!(output.status.code() == Some(0) && output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["damage"].is_null() && report["ports"][0] == BRIDGE, "{report}");
    let conflicts = report["conflicts"].as_array().context("no list")?;
    ensure!(conflicts.len() == 1 && conflicts[0]["kind"] == "duplicate", "{report}");
    ensure!(conflicts[0]["address"] == address.as_str(), "{report}");
    for (claimant, mac) in [0, 1].map(|at| &conflicts[0]["claimants"][at]).iter().zip(&macs) {
        ensure!(claimant["mac"] == mac.as_str() && claimant["interface"] == BRIDGE, "{report}");
    }
    let claims = report["claims"].as_array().context("no list")?;
    let of = |mac: &String| claims.iter().any(|claim| claim["mac"] == mac.as_str());
    ensure!(macs.iter().all(of), "{report}");

    let gateway = replay(&file, &["--gateway", &address, "-o", "json"])?;
    let report: Value = serde_json::from_slice(&gateway.stdout)?;
    ensure!(report["conflicts"][0]["severity"] == "critical", "{report}");
    let table = String::from_utf8(replay(&file, &[])?.stdout)?;
    ensure!(table.contains(&macs[1]) && table.contains("duplicate"), "{table}");
    Ok(())
}

#[test]
fn a_capture_that_is_cut_off_or_none_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let (file, macs, _) = incident(&lab)?;
    let bytes = std::fs::read(&file)?;
    let cut = lab.dir().join("cut.pcap");
    std::fs::write(&cut, &bytes[..bytes.len() - 7])?;
    let output = replay(&cut, &["-o", "json"])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && said.contains("in the middle of a block"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["damage"].is_string(), "{report}");
    ensure!(report["claims"][0]["mac"] == macs[0].as_str(), "what is before the cut: {report}");

    let garbage = lab.dir().join("garbage.pcap");
    std::fs::write(&garbage, "neither one nor the other ".repeat(9))?;
    let output = replay(&garbage, &[])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty());
    ensure!(said.contains("neither a pcap nor a pcapng file"), "{said}");
    Ok(())
}

#[test]
fn what_is_asked_of_a_capture_and_cannot_be_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let (file, ..) = incident(&lab)?;
    for (args, code, says) in [
        (&["--ingress", "--port", BRIDGE, "--uplink", "NOPE"][..], 2, "no interface \"NOPE\""),
        (&["--ingress", "--uplink", ""], 2, "--uplink"),
        (&["--port", ""], 2, "--port"),
        (&["--prefix", "10.8.64.5/24"], 2, "10.8.64.0/24"),
        // The twins.
        (&["--ingress", "--port", BRIDGE, "--uplink", BRIDGE], 0, ""),
        (&["--prefix", "10.8.64.0/24"], 0, ""),
    ] {
        let output = replay(&file, args)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code) && said.contains(says), "{args:?}: {said}");
        ensure!(output.stdout.is_empty() == (code != 0), "{args:?}");
    }
    let output = replay(lab.dir(), &[])?;
    let said = String::from_utf8(output.stderr)?.to_lowercase();
    ensure!(output.status.code() == Some(1) && said.contains("is a directory"), "{said}");
    Ok(())
}
