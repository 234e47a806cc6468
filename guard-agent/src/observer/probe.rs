//! Asking a holder whether it is still there: a unicast ARP request, straight to its port.

use std::{io, net::Ipv4Addr};

use bytes::{BufMut as _, Bytes, BytesMut};
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::mac::Mac;

/// IEEE 802.3, and RFC 826 for Ethernet and IPv4.
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
const HARDWARE_ETHERNET: u16 = 1;
const REQUEST: u16 = 1;
const FRAME_LEN: usize = 14 + 28;

/// An ARP probe (RFC 5227 §2.1.1) for `target`, to one station: its sender address is 0.0.0.0, so
/// that it claims nothing and moves nobody's neighbour entry. Linux answers it (`arp_process` in
/// net/ipv4/arp.c: "duplicate address detection packet").
pub fn arp_probe(from: Mac, to: Mac, target: Ipv4Addr) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_LEN);
    frame.put_slice(&to.0);
    frame.put_slice(&from.0);
    frame.put_u16(ETHERTYPE_ARP);
    frame.put_u16(HARDWARE_ETHERNET);
    frame.put_u16(ETHERTYPE_IPV4);
    frame.put_u8(6);
    frame.put_u8(4);
    frame.put_u16(REQUEST);
    frame.put_slice(&from.0);
    frame.put_slice(&Ipv4Addr::UNSPECIFIED.octets());
    frame.put_slice(&[0; 6]);
    frame.put_slice(&target.octets());
    frame.freeze()
}

/// Sends frames out of ports.
#[derive(Debug)]
pub struct Prober(Socket);

impl Prober {
    /// Opens a packet socket (packet(7)) that receives nothing.
    ///
    /// # Errors
    /// `CAP_NET_RAW` is missing.
    pub fn open() -> io::Result<Self> {
        // Protocol 0: the socket gets no frame of anyone's.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a frame out of a port, to whoever is behind it.
    ///
    /// # Errors
    /// The port is gone or down, or its queue is full.
    pub fn send(&self, ifindex: u32, frame: &Bytes) -> io::Result<()> {
        let ifindex = ifindex.try_into().map_err(io::Error::other)?;
        self.0.send_to(frame, &address(ifindex)).map(drop)
    }
}

fn address(ifindex: i32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    let len = size_of::<libc::sockaddr_ll>();
    #[expect(unsafe_code, reason = "socket2 knows no sockaddr_ll")]
    // SAFETY: a `sockaddr_ll` is plain data, fits into the storage, which is zeroed and aligned for
    // every socket address, and the length is its own.
    unsafe {
        let address = storage.view_as::<libc::sockaddr_ll>();
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_ifindex = ifindex;
        SockAddr::new(storage, libc::socklen_t::try_from(len).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use guard_ebpf::abi::Port;

    use super::*;

    #[test]
    fn a_probe_is_what_the_observer_reads_as_one() {
        let frame = arp_probe(
            Mac([2, 0, 0, 0, 0, 1]),
            Mac([2, 0, 0, 0, 0, 2]),
            Ipv4Addr::new(10, 8, 64, 2),
        );
        assert_eq!(frame.len(), FRAME_LEN);
        let port = <Port as bytemuck::Zeroable>::zeroed();
        let parsed = guard_ebpf::frame::parse(&frame[..], &port);
        let claim = parsed.claim().unwrap();
        assert_eq!(claim.strength, guard_ebpf::abi::STRENGTH_TENTATIVE);
        assert_eq!(claim.key.ip(), Ipv4Addr::new(10, 8, 64, 2));
    }
}
