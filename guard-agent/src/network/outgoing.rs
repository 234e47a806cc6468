//! What leaves a bridge by its host side: frames that macvlans over it send, and that are no port's.

use std::{io, io::Read as _, net::IpAddr, time::Duration};

use bytemuck::Zeroable as _;
use guard_core::mac::Mac;
use guard_ebpf::{
    abi::{Port, STRENGTH_TENTATIVE},
    frame::parse,
};
use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::{io::unix::AsyncFd, time::sleep};

use super::probe::address;

/// All that is read of a frame: more than ARP and neighbour discovery need.
const LEN: usize = 256;
/// So many frames are read at once, and no more for so long: a flood gets no more of the agent.
const BATCH: usize = 64;
const PAUSE: Duration = Duration::from_millis(20);

/// A packet socket (packet(7)) that gets the ARP and ICMPv6 frames which leave a device without a tag.
#[derive(Debug)]
pub(crate) struct Outgoing(AsyncFd<Socket>);

impl Outgoing {
    /// Listens to a device.
    ///
    /// # Errors
    /// The device is gone, or `CAP_NET_RAW` is missing.
    pub(crate) fn open(device: u32) -> io::Result<Self> {
        let device = device.try_into().map_err(io::Error::other)?;
        // It gets nothing before it is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&filter())?;
        // Only who listens to every protocol gets what leaves.
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        socket.bind(&address(device, all))?;
        #[expect(unsafe_code, reason = "the kernel tells of frames by the socket's descriptor")]
        // SAFETY: a `Socket` owns its descriptor, gives the same one always, and keeps it open until it
        // is dropped.
        let registered = unsafe { AsyncFd::register(socket) };
        registered.map(Self).map_err(Into::into)
    }

    /// What the next frames claim: the Ethernet source and the address of each. Probes claim nothing.
    ///
    /// # Errors
    /// The kernel's, once the device is down among them.
    pub(crate) async fn claims(&self) -> io::Result<Vec<(Mac, IpAddr)>> {
        let mut frame = [0; LEN];
        let mut claims = Vec::new();
        let mut ready = self.0.readable().await?;
        for _ in 0..BATCH {
            match ready.try_io(|socket| socket.get_ref().read(&mut frame)) {
                Ok(len) => claims.extend(frame.get(..len?).and_then(claim)),
                Err(_) => break,
            }
        }
        sleep(PAUSE).await;
        claims.sort_unstable();
        claims.dedup();
        Ok(claims)
    }
}

/// In the segment of the device that it left.
fn claim(frame: &[u8]) -> Option<(Mac, IpAddr)> {
    let parsed = parse(frame, &Port::zeroed());
    let claim = parsed.claim().filter(|claim| claim.strength != STRENGTH_TENTATIVE)?;
    Some((Mac(claim.eth_src), claim.key.ip()))
}

/// `ether outgoing and not vlan and (arp or icmp6)`.
fn filter() -> Vec<SockFilter> {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const IS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // What the kernel has beside the frame (`SKF_AD_OFF` in linux/filter.h): how it goes, and whether a
    // tag was taken out of it.
    const WAY: u32 = 0xffff_f004;
    const HAS_TAG: u32 = 0xffff_f030;
    const OUTGOING: u32 = 4;
    const ETHERTYPE: u32 = 12;
    const NEXT_HEADER: u32 = 14 + 6;
    let load = |how, at| SockFilter::new(how, 0, 0, at);
    // `yes` and `no`: how many instructions are left out.
    let is = |what, yes, no| SockFilter::new(IS, yes, no, what);
    let all = u32::try_from(LEN).unwrap_or(u32::MAX);
    vec![
        load(LOAD_WORD, WAY),
        is(OUTGOING, 0, 8),
        load(LOAD_WORD, HAS_TAG),
        is(0, 0, 6),
        load(LOAD_HALF, ETHERTYPE),
        is(0x0806, 3, 0),
        is(0x86dd, 0, 3),
        load(LOAD_BYTE, NEXT_HEADER),
        is(58, 0, 1),
        load(RETURN, all),
        load(RETURN, 0),
    ]
}
