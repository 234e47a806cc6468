//! What is asked of the kernel about one interface, whatever netlink has reported so far.

use super::ask::is_running;

/// Whether an interface with this ifindex exists now, whatever netlink has told so far.
pub(crate) fn exists(ifindex: u32) -> bool {
    // Its name may be anything but a text. One that is being removed has none any more.
    nix::net::if_::if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}

/// Whether an interface has its carrier now, whatever netlink has told so far: it is asked when a
/// port is believed to be down, since the notice that it is up again may be on its way.
pub(crate) fn has_carrier(ifindex: u32) -> bool {
    // One that is gone has none. One that cannot be asked is believed to be there.
    is_running(ifindex).unwrap_or_else(|_| exists(ifindex))
}

/// The name of an interface now, if it is a text.
pub(crate) fn name(ifindex: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}
