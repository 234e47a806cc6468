//! What a pool's configuration takes out of it.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::number;

/// An address, a range or a prefix that is not handed out, kept as its first and last address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exclusion {
    first: IpAddr,
    last: IpAddr,
}

/// The text is not an exclusion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExclusionError {
    /// Neither an address, nor a range, nor a prefix.
    #[error("{0:?} is no address, range (first-last) or prefix")]
    Malformed(String),
    /// The range's ends are of two families, or in the wrong order.
    #[error("{0:?} is no range: write the lower address first, both of one family")]
    Order(String),
}

impl Exclusion {
    /// The first address that is taken out.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address that is taken out.
    pub fn last(&self) -> IpAddr {
        self.last
    }
}

impl FromStr for Exclusion {
    type Err = ExclusionError;

    fn from_str(text: &str) -> Result<Self, ExclusionError> {
        let malformed = || ExclusionError::Malformed(text.to_owned());
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| malformed());
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (address(first)?, address(last)?);
            if first.is_ipv4() != last.is_ipv4() || number::of(first) > number::of(last) {
                return Err(ExclusionError::Order(text.to_owned()));
            }
            return Ok(Self { first, last });
        }
        if text.contains('/') {
            return text.trim().parse::<IpNet>().map(Self::from).map_err(|_| malformed());
        }
        address(text).map(Self::from)
    }
}

impl From<IpAddr> for Exclusion {
    fn from(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }
}

impl From<IpNet> for Exclusion {
    fn from(prefix: IpNet) -> Self {
        Self { first: prefix.network(), last: prefix.broadcast() }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl<'de> serde::Deserialize<'de> for Exclusion {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Exclusion {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_ranges_and_prefixes() {
        for (text, shown) in [
            ("10.0.0.9", "10.0.0.9"),
            ("10.0.0.9-10.0.0.12", "10.0.0.9-10.0.0.12"),
            ("10.0.0.8/30", "10.0.0.8-10.0.0.11"),
            ("fd00::5/127", "fd00::4-fd00::5"),
        ] {
            assert_eq!(text.parse::<Exclusion>().unwrap().to_string(), shown);
        }
        for text in
            ["", "10.0.0", "10.0.0.9-", "10.0.0.9-10.0.0.8", "10.0.0.1-fd00::1", "1.2.3.4/33"]
        {
            assert!(text.parse::<Exclusion>().is_err(), "{text:?}");
        }
    }
}
