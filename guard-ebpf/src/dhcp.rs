//! DHCP (RFC 2131): whether a client declines an address, because another has it (claims.md D09).

use crate::{
    claim::{NEXT_NOTHING, Parsed, is_martian_v4},
    frame::Frame,
};

/// The operation of a client's message (RFC 2131 §2).
const REQUEST: u8 = 1;
/// Where the options begin, behind the fixed part: with the cookie that says what they are (RFC 2131
/// §3).
const COOKIE_AT: u32 = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Options (RFC 2132 §3.1, §3.2, §9.1, §9.6).
const PAD: u8 = 0;
const END: u8 = 255;
const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
/// The message's type by which a client says that the address is another's.
pub(crate) const DECLINE: u32 = 4;
/// The most options that are read.
const MAX_OPTIONS: usize = 16;

/// Reads the message at [`Packet::at`](crate::claim::Packet::at): its type, and the address that it
/// is about. A BPF subprogram.
#[inline(never)]
pub(crate) fn parse<F: Frame + ?Sized>(frame: &F, parsed: &mut Parsed) {
    parsed.packet.next = NEXT_NOTHING;
    let operation = frame.load::<1>(parsed.packet.at as usize);
    parsed.packet.at += COOKIE_AT;
    let cookie = frame.load::<4>(parsed.packet.at as usize);
    if operation != Some([REQUEST]) || cookie != Some(COOKIE) {
        return;
    }
    parsed.packet.at += 4;
    for _ in 0..MAX_OPTIONS {
        let at = parsed.packet.at as usize;
        let Some([kind, len]) = frame.load::<2>(at) else { break };
        match (kind, len) {
            (END, _) => break,
            (PAD, _) => {
                parsed.packet.at += 1;
                continue;
            }
            (MESSAGE_TYPE, 1) => {
                if let Some([message]) = frame.load::<1>(at + 2) {
                    parsed.dhcp.message = u32::from(message);
                }
            }
            (REQUESTED_ADDRESS, 4) => {
                if let Some(address) = frame.load::<4>(at + 2).filter(|it| !is_martian_v4(*it)) {
                    parsed.dhcp.address = u32::from_ne_bytes(address);
                }
            }
            _ => {}
        }
        parsed.packet.at += u32::from(len) + 2;
    }
}
