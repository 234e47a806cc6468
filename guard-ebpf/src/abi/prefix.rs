//! What the agent says of prefixes.

use bytemuck::{Pod, Zeroable};

/// What is known of a prefix of a segment. Rules are numbered within their bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Prefix {
    /// [`ON_LINK`], [`OFF_LINK`], or 0 where the segment has no prefix of the family on the link.
    pub on_link: u32,
    /// The rules by which a port may claim an address in it, whoever has it, with any MAC.
    pub allow: u32,
    /// The rules by which it may with a virtual router's MAC.
    pub allow_virtual: u32,
    /// The rules that leave it to those whom they name: for anyone else it is as if it were theirs.
    pub declared: u32,
    /// Those of [`Self::allow`] and [`Self::allow_virtual`] that hold where another has declared the address,
    /// too.
    pub over_owners: u32,
    /// [`GOVERNED`], [`FIRST_COME`], or 0.
    pub governed: u32,
}

/// Addresses in it are handed out: nobody has one who was not given it.
pub const GOVERNED: u32 = 1;
/// Who comes first has the address.
pub const FIRST_COME: u32 = 2;

/// The prefix is on the link: an address in it is claimed by being used, too.
pub const ON_LINK: u32 = 1;
/// It is not, and others of its family are.
pub const OFF_LINK: u32 = 2;
