//! Ethernet addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An EUI-48, written in lower case with colons, as Linux tools write it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

/// The text is not an EUI-48.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address; write it as 02:00:00:00:00:0a")]
pub struct MacError(String);

impl Mac {
    /// Whether a host can have it: neither multicast (nor broadcast) nor zero.
    pub fn is_host(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        parse(text.as_bytes()).map(Self).ok_or_else(|| MacError(text.to_owned()))
    }
}

/// Six bytes in hexadecimal, with the same separator between them, or none.
fn parse(mut text: &[u8]) -> Option<[u8; 6]> {
    let (mut mac, mut separator) = ([0; 6], None);
    for byte in &mut mac {
        if let [first @ (b':' | b'-' | b'.'), rest @ ..] = text
            && *separator.get_or_insert(*first) == *first
        {
            text = rest;
        }
        let [high, low, rest @ ..] = text else { return None };
        let digit = |of: u8| char::from(of).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        text = rest;
    }
    text.is_empty().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_in_lower_case() {
        let mac: Mac = "02:00:00:00:00:0A".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:00:00:0a");
        assert!("02:00:00:00:00".parse::<Mac>().is_err());
        for same in ["02-00-00-00-00-0A", "0200.0000.000a", "02000000000a"] {
            assert_eq!(same.parse(), Ok(mac), "{same}");
        }
        for other in ["", "02:00:00:00:00:0", "02:00-00:00:00:0a", "02:00:00:00:00:0a:0b", "0x:"] {
            assert!(other.parse::<Mac>().is_err(), "{other}");
        }
    }

    #[test]
    fn no_host_has_a_group_address() {
        assert!(!Mac([0xff; 6]).is_host());
        assert!(!Mac([3, 0xbf, 0, 0, 0, 1]).is_host());
        assert!(!Mac::default().is_host());
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_host());
    }
}
