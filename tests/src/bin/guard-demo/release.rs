//! Parts 1 and 2: an address is released while its sandbox still runs.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use guard_tests::{Agent, Answers, HostLocal, Lab, Lease, NameServer, Sandbox, ask};

use crate::{CONNECTIONS, Measured, PREFIX_LEN, note_hand_out, screen::Screen};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

/// The two sandboxes of part 2, still running, with their addresses.
pub(crate) struct Sandboxes {
    pub(crate) alpha: Admitted,
    pub(crate) beta: Admitted,
}

/// A sandbox that serves at an address.
pub(crate) struct Admitted {
    pub(crate) sandbox: Sandbox,
    pub(crate) lease: Lease,
    _server: NameServer,
}

pub(crate) fn without_guard(screen: &mut Screen, measured: &mut Measured) -> Result<()> {
    let lab = Lab::with_prefix(PREFIX_LEN)?;
    let (alpha, beta) = (lab.sandbox("alpha")?, lab.sandbox("beta")?);
    let _servers = [NameServer::start(&alpha)?, NameServer::start(&beta)?];
    let ipam = HostLocal::with_one_address(&lab, ADDRESS)?;

    let first = ipam.add(&alpha)?;
    serve(&alpha, first)?;
    screen.step("alpha", &format!("starts with {first}, behind {}", alpha.port()));
    let before = ask(lab.host(), first, 1)?;
    ensure!(before.misdelivered("alpha") + before.failed == 0, "alpha is not served: {before:?}");

    ipam.del(&alpha)?;
    screen.step("host-local", &format!("releases {first}, while alpha still runs"));
    let second = ipam.add(&beta)?;
    serve(&beta, second)?;
    screen.step("beta", &format!("starts with {second}, behind {}", beta.port()));

    let answers = ask(lab.host(), first, CONNECTIONS)?;
    measured.connections_without_guard = answers.total();
    measured.misdelivered_without_guard = answers.misdelivered("alpha");
    screen.step("a client", &format!("connects to alpha at {first}: {}", told(&answers)));
    screen.bad(&format!(
        "{} of {} connections land at the wrong sandbox, and nothing says so",
        measured.misdelivered_without_guard, measured.connections_without_guard
    ));
    Ok(())
}

pub(crate) fn with_guard(
    screen: &mut Screen,
    measured: &mut Measured,
    lab: &Lab,
    agent: &Agent,
) -> Result<Sandboxes> {
    let alpha = admit(screen, measured, lab, agent, "alpha", &[])?;
    let address = alpha.lease.address;
    let before = ask(lab.host(), address, 1)?;
    ensure!(before.misdelivered("alpha") + before.failed == 0, "alpha is not served: {before:?}");

    measured.release_while_live = agent.release(&alpha.lease)?;
    screen.step(
        "guard",
        &format!("is told to release {address}; the answer is: {}", measured.release_while_live),
    );
    let shown = agent.ctl_in_columns(screen.columns(), &["leases", "--sandbox", "alpha"])?;
    screen.quote("guardctl leases --sandbox alpha", shown.stdout.trim_end());

    let beta = admit(screen, measured, lab, agent, "beta", &[address])?;
    let answers = ask(lab.host(), address, CONNECTIONS)?;
    measured.connections_with_guard = answers.total();
    measured.misdelivered_with_guard = answers.misdelivered("alpha");
    screen.step("a client", &format!("connects to alpha at {address}: {}", told(&answers)));
    ensure!(answers.failed == 0, "nobody answered {} times at {address}", answers.failed);

    let others = ask(lab.host(), beta.lease.address, 1)?;
    ensure!(others.misdelivered("beta") + others.failed == 0, "beta is not served: {others:?}");
    if beta.lease.address == address {
        screen.broken(&format!("beta got {address} too"));
    } else {
        screen.good(&format!(
            "{address} is held back while it is in use; beta has {} and its own connections",
            beta.lease.address
        ));
    }
    Ok(Sandboxes { alpha, beta })
}

/// Starts a sandbox as a controller does: the address first, then its binding, then its first
/// frame.
pub(crate) fn admit(
    screen: &mut Screen,
    measured: &mut Measured,
    lab: &Lab,
    agent: &Agent,
    name: &str,
    in_use: &[Ipv4Addr],
) -> Result<Admitted> {
    let sandbox = lab.sandbox(name)?;
    let lease = note_hand_out(measured, agent, name, in_use)?;
    agent.bind(&lease, &sandbox)?;
    let server = NameServer::start(&sandbox)?;
    serve(&sandbox, lease.address)?;
    screen.step(name, &format!("starts with {}, behind {}", lease.address, sandbox.port()));
    Ok(Admitted { sandbox, lease, _server: server })
}

/// Sets the address and announces it, as CNI plugins do.
fn serve(sandbox: &Sandbox, address: Ipv4Addr) -> Result<()> {
    sandbox.add_address(address)?;
    sandbox.announce(address)
}

fn told(answers: &Answers) -> String {
    let mut parts: Vec<_> =
        answers.by_name.iter().map(|(name, count)| format!("{name} answers {count}")).collect();
    if answers.failed > 0 {
        parts.push(format!("nobody {}", answers.failed));
    }
    parts.join(", ")
}
