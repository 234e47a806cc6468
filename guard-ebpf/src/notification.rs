//! What an event says, as it is worked out.

use bytemuck::Zeroable;

use crate::{
    abi::{AddressKey, MacKey, STRENGTH_NONE},
    address::Segment,
    claim::Claim,
    decide::{Holder, Report},
    mac::Mac,
};

/// No event.
pub(crate) const NOTHING: u8 = 0;

/// What an event says.
#[derive(Zeroable)]
pub(crate) struct Notification {
    pub(crate) key: AddressKey,
    /// What its challengers are counted by: the address, or none.
    pub(crate) of: AddressKey,
    pub(crate) mac: Mac,
    pub(crate) eth_src: Mac,
    pub(crate) holder: Holder,
    pub(crate) flags: u16,
    pub(crate) kind: u8,
    pub(crate) strength: u8,
    pub(crate) once: Once,
}

impl Notification {
    /// Makes it one about a claim, of which there is nothing to tell yet.
    #[inline(always)]
    pub(crate) fn be_of_claim(&mut self, claim: &Claim) {
        self.key = claim.key;
        self.of = claim.key;
        self.mac = claim.mac;
        self.eth_src = claim.eth_src;
        self.holder = Holder::NONE;
        self.flags = claim.flags;
        self.kind = NOTHING;
        self.strength = claim.strength;
        self.once = Once::Always;
    }

    /// Makes it one about a challenger.
    #[inline(always)]
    pub(crate) fn be(&mut self, report: &Report) {
        self.kind = report.kind;
        self.flags = report.flags;
        self.holder = report.holder;
        self.once = Once::Mac;
    }

    /// Makes it one about a MAC, whatever its frame claims. Written in place: the stack is short.
    #[inline(always)]
    pub(crate) fn be_of_mac(&mut self, &MacKey { bridge, vlan, mac, .. }: &MacKey) {
        self.of = AddressKey::none(Segment { bridge, vlan, inner_vlan: 0 });
        self.key = self.of;
        self.mac = mac;
        self.eth_src = mac;
        self.holder = Holder::NONE;
        self.flags = 0;
        self.strength = STRENGTH_NONE;
        self.once = Once::Mac;
    }
}

/// For whom it is reported once, and again every second while it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Zeroable)]
#[repr(u8)]
pub(crate) enum Once {
    /// It is a change, reported whenever it happens.
    Always,
    /// For the MAC.
    Mac,
    /// For the port.
    Port,
}
