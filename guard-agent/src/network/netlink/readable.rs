//! Netlink's messages as the library that reads them can: of links and addresses only what is used, names
//! that are not UTF-8 escaped. It would drop a message as a whole for one name or alias, which are bytes
//! to the kernel, or for one attribute that a later kernel fills otherwise.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use netlink_packet_core::{NlaBuffer, NlasIterator, ParseableParametrized as _};
use netlink_packet_route::{AddressFamily, link::LinkAttribute};
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};

/// linux/netlink.h, linux/rtnetlink.h.
const HEADER: usize = 16;
const ALIGNED_TO: usize = 4;
const TYPE_MASK: u16 = 0x3fff;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
/// `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
/// linux/if_addr.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Stands for what was there and could not be read: the kernel has no attribute of this number.
pub(super) const UNREADABLE: u16 = TYPE_MASK;

/// A datagram of the kernel's, readable.
pub(in crate::network) fn readable(datagram: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(datagram.len());
    let mut rest = datagram;
    while let Some((message, after)) = split(rest) {
        rest = after;
        let kind = message.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        match kind {
            Some(RTM_NEWLINK | RTM_DELLINK) => rewrite(&mut out, message, LINK_HEADER, link),
            Some(RTM_NEWADDR | RTM_DELADDR) => rewrite(&mut out, message, ADDRESS_HEADER, address),
            _ => out.extend_from_slice(message),
        }
    }
    // What is no message is for the reader to refuse.
    out.extend_from_slice(rest);
    out
}

/// The first message of a datagram, and what follows it.
fn split(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = datagram.get(..4)?.try_into().ok().map(u32::from_ne_bytes)?;
    let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
    let message = datagram.get(..length)?;
    Some((message, datagram.get(length.next_multiple_of(ALIGNED_TO)..).unwrap_or_default()))
}

/// Writes a message whose attributes are given anew.
fn rewrite(
    out: &mut Vec<u8>,
    message: &[u8],
    header: usize,
    attribute: fn(&mut Vec<u8>, AddressFamily, &NlaBuffer<&[u8]>),
) {
    let (start, attributes) = (out.len(), HEADER + header);
    let (Some(head), Some(payload)) = (message.get(..attributes), message.get(attributes..)) else {
        return out.extend_from_slice(message);
    };
    out.extend_from_slice(head);
    let family = head.get(HEADER).copied().unwrap_or_default().into();
    for found in NlasIterator::new(payload) {
        match found {
            Ok(found) => attribute(out, family, &found),
            Err(_) => return put(out, UNREADABLE, &[]),
        }
    }
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

fn link(out: &mut Vec<u8>, family: AddressFamily, found: &NlaBuffer<&[u8]>) {
    let kind = found.kind() & TYPE_MASK;
    match kind {
        IFLA_IFNAME => put(out, kind, &name(found.value())),
        IFLA_PROP_LIST => {
            let names = NlasIterator::new(found.value()).flatten();
            let names = names.filter(|name| name.kind() & TYPE_MASK == IFLA_ALT_IFNAME);
            let mut list = Vec::new();
            for found in names {
                put(&mut list, IFLA_ALT_IFNAME, &name(found.value()));
            }
            put(out, kind, &list);
        }
        IFLA_ADDRESS | IFLA_LINK | IFLA_MASTER | IFLA_PROTINFO | IFLA_LINKINFO | IFLA_STATS64
        | IFLA_AF_SPEC | IFLA_LINK_NETNSID => {
            // What links have of each protocol is not used.
            if kind == IFLA_AF_SPEC && family != AddressFamily::Bridge {
                return;
            }
            match LinkAttribute::parse_with_param(found, family) {
                Ok(_) => put(out, found.kind(), found.value()),
                Err(_) => put(out, UNREADABLE, &[]),
            }
        }
        _ => {}
    }
}

fn address(out: &mut Vec<u8>, _: AddressFamily, found: &NlaBuffer<&[u8]>) {
    if matches!(found.kind() & TYPE_MASK, IFA_ADDRESS | IFA_LOCAL) {
        put(out, found.kind(), found.value());
    }
}

/// Writes one attribute.
fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // An attribute's length has 16 bits, and the escaped names of a link's list may have more.
    let Ok(length) = u16::try_from(4 + value.len()) else { return put(out, UNREADABLE, &[]) };
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(ALIGNED_TO), 0);
}

/// A name, with its zero byte. Where it is not UTF-8, what is not is written as `\xff`, and a backslash
/// as two.
fn name(bytes: &[u8]) -> Vec<u8> {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut text = String::new();
    if let Ok(whole) = str::from_utf8(bytes) {
        text.push_str(whole);
    } else {
        for chunk in bytes.utf8_chunks() {
            text.push_str(&chunk.valid().replace('\\', "\\\\"));
            text.push_str(&chunk.invalid().escape_ascii().to_string());
        }
    }
    text.push('\0');
    text.into_bytes()
}

/// A socket that receives readable datagrams.
pub(super) struct ReadableSocket(TokioSocket);

impl AsyncSocket for ReadableSocket {
    fn socket_ref(&self) -> &Socket {
        self.0.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.0.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        TokioSocket::new(protocol).map(Self)
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, buf)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        addr: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send_to(cx, buf, addr)
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buf).map_ok(drop)
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        let (datagram, from) = ready!(self.0.poll_recv_from_full(cx))?;
        buf.put_slice(&readable(&datagram));
        Poll::Ready(Ok(from))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        let (datagram, from) = ready!(self.0.poll_recv_from_full(cx))?;
        Poll::Ready(Ok((readable(&datagram), from)))
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::RouteNetlinkMessage;

    use super::super::{Link, decode};
    use super::*;

    /// A message of a link with these attributes.
    fn datagram(family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER + LINK_HEADER];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        message[HEADER] = family;
        message[HEADER + 4] = 9;
        for (kind, value) in attributes {
            put(&mut message, *kind, value);
        }
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message
    }

    fn read(datagram: &[u8]) -> Link {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&readable(datagram));
        match message.unwrap().payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                decode::link(link).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_bytes_and_are_shown_escaped() {
        let mut list = Vec::new();
        put(&mut list, IFLA_ALT_IFNAME, b"one\xfe\0");
        put(&mut list, IFLA_ALT_IFNAME, "zw\u{f6}i\0".as_bytes());
        let link = read(&datagram(
            0,
            &[
                (IFLA_IFNAME, b"a\\\xff\xc3b\0"),
                (20, b"an alias\xff\0"),
                (IFLA_MASTER, &2_u32.to_ne_bytes()),
                (IFLA_PROP_LIST | 0x8000, &list),
            ],
        ));
        assert_eq!((link.ifindex, link.controller), (9, Some(2)));
        assert_eq!(link.name, r"a\\\xff\xc3b");
        assert_eq!(link.alternative, [r"one\xfe", "zw\u{f6}i"]);
        assert!(!link.unreadable);
        assert_eq!(read(&datagram(0, &[(IFLA_IFNAME, b"a\\b\0")])).name, "a\\b");
    }

    #[test]
    fn what_cannot_be_read_is_noted_and_the_rest_is_read() {
        let master = 2_u32.to_ne_bytes();
        let given: [(u16, &[u8]); 3] =
            [(IFLA_IFNAME, b"a\0"), (IFLA_LINKINFO, &[9]), (IFLA_MASTER, &master)];
        let link = read(&datagram(0, &given));
        assert_eq!((link.controller, link.unreadable), (Some(2), true));
    }

    #[test]
    fn what_is_no_message_stays_as_it_is() {
        for odd in [&[][..], &[1, 2, 3], &[5, 0, 0, 0, 1], &[0xff; 40]] {
            assert_eq!(readable(odd), odd);
        }
        let mut cut = datagram(0, &[(IFLA_IFNAME, b"abc\0")]);
        cut.truncate(20);
        assert_eq!(readable(&cut), cut);
    }
}
