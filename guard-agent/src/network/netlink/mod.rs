//! The kernel's links and addresses, as route netlink tells them (rtnetlink(7)).
//!
//! The subscription comes before the dump, so that nothing falls between the two; after a lost
//! message the dump is taken anew.

mod decode;
mod model;
pub(super) mod readable;

use std::{io, net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use guard_core::mac::Mac;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkExtentMask,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rtnetlink::{Handle, LinkGetRequest, MulticastGroup};
use tokio::time::{error::Elapsed, timeout};

pub(super) use self::decode::flow;
use self::decode::{address, link, notices, vlans};
pub(crate) use self::model::{Dump, Flow, Link, Notice, PortVlans, VlanFilter};
use self::readable::ReadableSocket;

/// How long the kernel may take to answer: a thousand ports are listed within a tenth of it.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to route netlink in the process's network namespace: one for questions, and one for
/// notices. On a single one, a burst of notices that fills the receive buffer can take the end of an
/// answer with it, and whoever waits for that waits for ever.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    questions: Handle,
    /// Keeps the notices coming.
    _notices: Handle,
}

/// Why route netlink does not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// No socket.
    #[error("cannot open a route netlink socket: {0}")]
    Open(#[from] io::Error),
    /// No answer.
    #[error("the kernel did not answer a route netlink request within {} s", KERNEL_TIMEOUT.as_secs())]
    Late(#[from] Elapsed),
    /// A request failed.
    #[error("the kernel refused a route netlink request: {0}")]
    Request(#[from] rtnetlink::Error),
}

impl Netlink {
    /// Subscribes to links and addresses.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub(crate) fn open() -> Result<(Self, BoxStream<'static, Notice>), NetlinkError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, told, messages) =
            rtnetlink::new_multicast_connection_with_socket::<ReadableSocket>(&groups)?;
        let (asking, questions, _) = rtnetlink::new_connection_with_socket::<ReadableSocket>()?;
        tokio::spawn(connection);
        tokio::spawn(asking);
        let notices = notices(messages.map(|(message, _)| message)).boxed();
        Ok((Self { questions, _notices: told }, notices))
    }

    /// Reads all links and addresses.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) async fn dump(&self) -> Result<Dump, NetlinkError> {
        timeout(KERNEL_TIMEOUT, self.read_all()).await?
    }

    async fn read_all(&self) -> Result<Dump, NetlinkError> {
        let Self { questions, .. } = self;
        let links = questions.link().get().execute().try_collect::<Vec<_>>().await?;
        let addresses = questions.address().get().execute().try_collect::<Vec<_>>().await?;
        let mask = vec![LinkExtentMask::BrvlanCompressed];
        let ports = questions.link().get().set_filter_mask(AddressFamily::Bridge, mask);
        let ports = ports.execute().try_collect::<Vec<_>>().await?;
        Ok(Dump {
            links: links.into_iter().filter_map(link).collect(),
            addresses: addresses.iter().filter_map(address).collect(),
            vlans: ports.iter().filter_map(vlans).collect(),
        })
    }

    /// Reads one link by name; none if there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        self.one(self.questions.link().get().match_name(name)).await
    }

    /// Reads one link by its number; none if there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) async fn link_at(&self, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
        self.one(self.questions.link().get().match_index(ifindex)).await
    }

    async fn one(&self, request: LinkGetRequest) -> Result<Option<Link>, NetlinkError> {
        let mut found = request.execute().boxed();
        match timeout(KERNEL_TIMEOUT, found.try_next()).await? {
            Ok(message) => Ok(message.and_then(link)),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -nix::libc::ENODEV =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a MAC in the place of another in the host's neighbour table. No entry is made: whom the
    /// host does not talk to it need not know. True if there was another.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) async fn renew_neighbour(
        &self,
        bridge: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<bool, NetlinkError> {
        let ask = RouteNetlinkMessage::GetNeighbour(neighbour(bridge, address));
        let Some(RouteNetlinkMessage::NewNeighbour(entry)) = self.request(ask, 0).await? else {
            return Ok(false);
        };
        if !is_outdated(&entry, mac) {
            return Ok(false);
        }
        let mut message = neighbour(bridge, address);
        // As after an announcement: believed, and looked at again when it is used.
        message.header.state = NeighbourState::Stale;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let replace = RouteNetlinkMessage::NewNeighbour(message);
        self.request(replace, NLM_F_ACK | NLM_F_REPLACE).await?;
        Ok(true)
    }

    /// One request with one answer; none where what it is about does not exist.
    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.questions.clone().request(request)?;
        match timeout(KERNEL_TIMEOUT, answers.next()).await?.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(answer)) => Ok(Some(answer)),
            Some(NetlinkPayload::Error(error)) if error.raw_code() == -nix::libc::ENOENT => {
                Ok(None)
            }
            Some(NetlinkPayload::Error(error)) if error.code.is_some() => {
                Err(rtnetlink::Error::NetlinkError(error).into())
            }
            _ => Ok(None),
        }
    }
}

/// The message about an entry of the host's neighbour table.
fn neighbour(bridge: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.header.ifindex = bridge;
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    message
}

/// Whether the host would talk to another MAC. What an operator has set is right as it is.
fn is_outdated(entry: &NeighbourMessage, mac: Mac) -> bool {
    let fixed = matches!(entry.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
    let is_it = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    !fixed && !entry.attributes.contains(&is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_replaced_unless_it_is_right_or_an_operators() {
        let entry = |state, mac: Mac| {
            let mut entry = neighbour(2, IpAddr::from([10, 8, 64, 2]));
            entry.header.state = state;
            entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
            entry
        };
        let (old, new) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Failed] {
            assert!(is_outdated(&entry(state, old), new));
            assert!(!is_outdated(&entry(state, new), new));
        }
        for state in [NeighbourState::Permanent, NeighbourState::Noarp] {
            assert!(!is_outdated(&entry(state, old), new));
        }
    }
}
