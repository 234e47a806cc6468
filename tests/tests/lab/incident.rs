//! What guard exists for, without guard.

use std::net::Ipv4Addr;

use anyhow::Result;
use guard_tests::{HostLocal, Lab, NameServer, ask};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);

#[test]
fn two_sandboxes_with_one_address_take_each_others_connections() -> Result<()> {
    let lab = Lab::new()?;
    let sandboxes = [lab.sandbox("first")?, lab.sandbox("second")?];
    let _servers = [NameServer::start(&sandboxes[0])?, NameServer::start(&sandboxes[1])?];
    for sandbox in &sandboxes {
        sandbox.add_address(ADDRESS)?;
        sandbox.announce(ADDRESS)?;
        let answers = ask(lab.host(), ADDRESS, 10)?;
        assert_eq!(answers.by_name.get(sandbox.name()), Some(&10), "{answers:?}");
        assert_eq!(
            (answers.total(), answers.misdelivered("first")),
            (10, { if sandbox.name() == "first" { 0 } else { 10 } })
        );
    }
    Ok(())
}

#[test]
fn connections_to_nobody_fail() -> Result<()> {
    let lab = Lab::new()?;
    let sandbox = lab.sandbox("only")?;
    sandbox.add_address(ADDRESS)?;
    let answers = ask(lab.host(), ADDRESS, 3)?;
    assert_eq!((answers.failed, answers.total(), answers.misdelivered("only")), (3, 3, 0));
    Ok(())
}

#[test]
fn host_local_hands_out_what_was_released_whoever_still_uses_it() -> Result<()> {
    let lab = Lab::new()?;
    let (first, second) = (lab.sandbox("first")?, lab.sandbox("second")?);
    let ipam = HostLocal::with_one_address(&lab, ADDRESS)?;
    assert_eq!(ipam.add(&first)?, ADDRESS);
    let full = ipam.add(&second).unwrap_err().to_string();
    assert!(full.contains("no IP addresses available"), "{full}");
    assert!(ipam.store().join(ADDRESS.to_string()).exists());
    ipam.del(&first)?;
    assert_eq!(ipam.add(&second)?, ADDRESS);
    Ok(())
}
