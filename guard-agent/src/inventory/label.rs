//! The value of a label or field, as far as it can be read.
//!
//! What a source says is the controller's text, and any text can be in it. A value that has one
//! reading is taken; one that has none is described, and cut where it is long.

use std::{net::IpAddr, sync::Arc};

use guard_core::{
    evidence::{Entry, Listing, Unreadable},
    owner::Owner,
};
use ipnet::IpNet;

/// The longest piece of a value that is shown to people.
const SHOWN: usize = 64;

/// As many things of one entry as are said to be unreadable: a thousand labels are no better known
/// for a thousand sentences.
const MOST: usize = 4;

/// No address in any notation is longer, its prefix length included.
const LONGEST_ADDRESS: usize = 64;

/// Why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// Any other text.
    #[error("is not an address")]
    Address,
    /// `10.8.64.0/24` is a network; no container has it as its address.
    #[error("is the address of a network, not of a container")]
    Network,
    /// Unspecified, multicast or broadcast.
    #[error("is not an address that a container can have")]
    Host,
    /// No lease can be held under such a name.
    #[error("is not a name of 1 to 253 printable ASCII characters without spaces")]
    Name,
}

/// The address that a value says: `10.8.64.5`, or `10.8.64.5/24` with the length of its prefix.
pub(super) fn address(value: &str) -> Result<IpAddr, Unread> {
    let value = value.trim();
    if value.len() > LONGEST_ADDRESS {
        return Err(Unread::Address);
    }
    let address = if value.contains('/') {
        let with_prefix: IpNet = value.parse().map_err(|_| Unread::Address)?;
        let hosts = with_prefix.max_prefix_len() - with_prefix.prefix_len();
        if hosts > 1 && with_prefix.addr() == with_prefix.network() {
            return Err(Unread::Network);
        }
        with_prefix.addr()
    } else {
        value.parse::<IpAddr>().map_err(|_| Unread::Address)?
    };
    let address = address.to_canonical();
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(Unread::Host);
    }
    Ok(address)
}

/// The name that a value says; the same that the API takes.
pub(super) fn name(value: &str) -> Result<Arc<str>, Unread> {
    let good = (1..=253).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(Arc::from(value)) } else { Err(Unread::Name) }
}

/// A value for people: quoted, and cut where it is long.
fn shown(value: &str) -> String {
    let cut = cut(value);
    if cut.len() == value.len() {
        format!("{value:?}")
    } else {
        format!("{cut:?}… ({} bytes)", value.len())
    }
}

/// The part of a value that is shown.
pub(super) fn cut(value: &str) -> &str {
    value.char_indices().nth(SHOWN).map_or(value, |(end, _)| &value[..end])
}

/// An entry while it is read, with what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Reading(Vec<String>);

impl Reading {
    /// Something is wrong.
    pub(super) fn fault(&mut self, why: impl Into<String>) {
        if self.0.len() < MOST {
            self.0.push(why.into());
        }
    }

    /// The name that a value says; none where it says nothing, or nothing that can be read.
    pub(super) fn name(&mut self, what: &str, value: &str) -> Option<Arc<str>> {
        if value.is_empty() {
            return None;
        }
        self.read(what, value, name(value))
    }

    /// The address that a value says.
    pub(super) fn address(&mut self, what: &str, value: &str) -> Option<IpAddr> {
        self.read(what, value, address(value))
    }

    fn read<T>(&mut self, what: &str, value: &str, read: Result<T, Unread>) -> Option<T> {
        let fault = |why| self.fault(format!("{what} says {}, which {why}", shown(value)));
        read.map_err(fault).ok()
    }

    /// Adds what was read to a listing, and what could not be.
    pub(super) fn end(self, what: &str, key: &str, entry: Entry, listing: &mut Listing) {
        self.note(what, key, Some(&entry.owner), listing);
        listing.entries.push(entry);
    }

    /// Adds only what could not be read.
    pub(super) fn note(self, what: &str, key: &str, owner: Option<&Owner>, listing: &mut Listing) {
        if self.0.is_empty() {
            return;
        }
        let name = if key.is_empty() {
            format!("a {what} without a name")
        } else {
            format!("{what} {}", cut(key).escape_debug())
        };
        listing.unreadable.push(Unreadable {
            entry: Arc::from(cut(key)),
            owner: owner.filter(|owner| !owner.sandbox.is_empty()).cloned(),
            why: Arc::from(format!("{name}: {}", self.0.join("; "))),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_an_address_has_one_reading_with_its_prefix_or_without() {
        for (value, reads) in [
            ("10.8.64.5", "10.8.64.5"),
            (" 10.8.64.5\n", "10.8.64.5"),
            ("10.8.64.5/24", "10.8.64.5"),
            ("10.8.64.5/32", "10.8.64.5"),
            ("10.8.64.4/31", "10.8.64.4"),
            ("fd00::5/64", "fd00::5"),
            ("FD00:0::5", "fd00::5"),
            ("::ffff:10.8.64.5", "10.8.64.5"),
        ] {
            assert_eq!(address(value), Ok(reads.parse().unwrap()), "{value:?}");
        }
    }

    #[test]
    fn rule_8_what_has_no_reading_is_no_address() {
        let long = "1".repeat(1 << 20);
        for (value, why) in [
            ("", Unread::Address),
            ("none", Unread::Address),
            ("10.8.64", Unread::Address),
            ("10.8.64.5/", Unread::Address),
            ("10.8.64.5/33", Unread::Address),
            ("10.8.64.05", Unread::Address),
            ("10.8.64.5,10.8.64.6", Unread::Address),
            ("fe80::1%eth0", Unread::Address),
            (&long, Unread::Address),
            ("10.8.64.0/24", Unread::Network),
            ("fd00::/64", Unread::Network),
            ("0.0.0.0", Unread::Host),
            ("0.0.0.0/32", Unread::Host),
            ("224.0.0.1", Unread::Host),
            ("255.255.255.255", Unread::Host),
            ("ff02::1", Unread::Host),
        ] {
            assert_eq!(address(value), Err(why), "{}", shown(value));
        }
    }

    #[test]
    fn a_long_value_is_cut_for_people_between_its_characters() {
        assert_eq!(shown("none\n"), r#""none\n""#);
        let long = "ä".repeat(1000);
        assert_eq!(shown(&long), format!("{:?}… (2000 bytes)", "ä".repeat(64)));
        assert_eq!(name("web-1").as_deref(), Ok("web-1"));
        for bad in ["", "a b", "ä", "a\n", &"a".repeat(254)] {
            assert_eq!(name(bad), Err(Unread::Name), "{bad:?}");
        }
    }
}
