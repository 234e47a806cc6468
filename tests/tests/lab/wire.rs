//! Frames from port to port.

use std::net::Ipv4Addr;

use anyhow::Result;
use guard_tests::{Arp, GATEWAY, Lab, Mac, TIMEOUT, ipv4_udp};

const A: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
const B: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 3);

#[test]
fn a_raw_frame_crosses_the_bridge_as_it_was_sent() -> Result<()> {
    let lab = Lab::new()?;
    let (a, b) = (lab.sandbox("a")?, lab.sandbox("b")?);
    let receiver = b.raw_socket()?;
    let frames = [
        Arp::request(a.mac(), A, B).frame(),
        Arp::probe(a.mac(), B).frame(),
        Arp::announcement(a.mac(), A).frame(),
        Arp::gratuitous_reply(a.mac(), A).frame(),
        Arp { sha: Mac::numbered(0x99), ..Arp::reply(a.mac(), A, b.mac(), B) }.frame(),
        ipv4_udp((a.mac(), b.mac()), A, B)?,
    ];
    let sender = a.raw_socket()?;
    for frame in &frames {
        sender.send(frame)?;
        receiver.receive(TIMEOUT, |received| (received == frame).then_some(()))?;
    }
    Ok(())
}

#[test]
fn the_kernel_of_a_sandbox_answers_for_its_address_only() -> Result<()> {
    let lab = Lab::new()?;
    let (a, b) = (lab.sandbox("a")?, lab.sandbox("b")?);
    b.add_address(B)?;
    let socket = a.raw_socket()?;
    for (asked, mac) in [(B, b.mac()), (GATEWAY, lab.bridge_mac("rt0"))] {
        socket.send(&Arp::request(a.mac(), A, asked).frame())?;
        let reply = socket.receive(TIMEOUT, |frame| {
            Arp::parse(frame).filter(|arp| arp.eth_dst == a.mac() && arp.spa == asked)
        })?;
        assert_eq!((reply.sha, reply.tpa), (mac, A));
    }
    Ok(())
}

#[test]
fn a_name_may_be_used_again_once_the_sandbox_is_deleted() -> Result<()> {
    let lab = Lab::new()?;
    for _ in 0..3 {
        let sandbox = lab.sandbox("a")?;
        let open = sandbox.raw_socket()?;
        sandbox.delete()?;
        assert!(open.send(&Arp::probe(Mac::numbered(1), A).frame()).is_err());
    }
    Ok(())
}

#[test]
fn macs_are_written_in_lower_case_with_colons() -> Result<()> {
    assert_eq!(Mac::numbered(0x0a).to_string(), "02:00:00:00:00:0a");
    assert_eq!("02:00:00:00:AB:0a".parse::<Mac>()?.to_string(), "02:00:00:00:ab:0a");
    Ok(())
}
