//! The ABI's types as map keys and values for aya.

use crate::abi::{
    AddressKey, BridgeCounters, Challenger, ChallengerKey, DropKey, Drops, Event, Live, MacHolder,
    MacKey, Mode, Owned, Policy, Port, PortMac, PortState, Prefix, Vlans,
};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {$(
        #[expect(unsafe_code, reason = "aya's marker for plain data is an unsafe trait")]
        // SAFETY: bytemuck's derive has checked that the type is `repr(C)`, `Copy`, without padding
        // and valid for any bytes.
        unsafe impl aya::Pod for $name where $name: bytemuck::Pod {}
    )+};
}

pod!(AddressKey, BridgeCounters, Challenger, ChallengerKey, Event, Live, MacHolder, MacKey);
pod!(DropKey, Drops, Mode, Owned, Policy, Port, PortMac, PortState, Prefix, Vlans);
