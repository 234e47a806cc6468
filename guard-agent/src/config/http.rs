//! Where metrics and health are served: a port, or a Unix socket.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

/// `127.0.0.1:9477`, or `unix:/run/guard/http.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum HttpAddress {
    /// An address of this host, and a port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

/// The text is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an address with a port, such as \"127.0.0.1:9477\", nor an absolute path behind \
     \"unix:\", such as \"unix:/run/guard/http.sock\""
)]
pub struct HttpAddressError(String);

impl FromStr for HttpAddress {
    type Err = HttpAddressError;

    fn from_str(text: &str) -> Result<Self, HttpAddressError> {
        let parsed = match text.strip_prefix(UNIX).map(PathBuf::from) {
            Some(path) => path.is_absolute().then_some(Self::Unix(path)),
            None => text.parse().ok().map(Self::Tcp),
        };
        parsed.ok_or_else(|| HttpAddressError(text.to_owned()))
    }
}

impl TryFrom<String> for HttpAddress {
    type Error = HttpAddressError;

    fn try_from(text: String) -> Result<Self, HttpAddressError> {
        text.parse()
    }
}

impl From<HttpAddress> for String {
    fn from(address: HttpAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for text in ["127.0.0.1:9477", "[::1]:9477", "unix:/run/guard/http.sock"] {
            assert_eq!(text.parse::<HttpAddress>().unwrap().to_string(), text);
        }
        for text in ["", "9477", "127.0.0.1", "localhost:9477", "unix:", "unix:http.sock", "/run/a"]
        {
            assert_eq!(text.parse::<HttpAddress>(), Err(HttpAddressError(text.to_owned())));
        }
    }
}
