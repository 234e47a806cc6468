//! Whether a request means this agent: a page in somebody's browser can have its own name stand for
//! 127.0.0.1, and then read what is served there (DNS rebinding).

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::config::HttpAddress;

/// Passes on a request that names loopback where that is where it is served, and refuses others.
/// Elsewhere it is the network that says who comes near, and by which name.
pub(super) async fn check(
    State(http): State<HttpAddress>,
    request: Request,
    next: Next,
) -> Response {
    match http {
        HttpAddress::Tcp(address)
            if address.ip().is_loopback() && !is_loopback(request.uri(), request.headers()) =>
        {
            let why = format!("ask for {address}: nothing else is served here\n");
            (StatusCode::MISDIRECTED_REQUEST, why).into_response()
        }
        _ => next.run(request).await,
    }
}

/// No browser leaves the name out.
fn is_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::HOST).iter().map(|host| {
        let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
        authority.is_some_and(|authority| names_loopback(authority.host()))
    });
    named.all(|good| good) && uri.authority().is_none_or(|uri| names_loopback(uri.host()))
}

fn names_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_names_and_addresses_and_nothing_else_is_it() {
        let asked = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_loopback(&Uri::from_static("/metrics"), &headers)
        };
        for host in ["localhost", "LOCALHOST:9477", "127.0.0.1:9477", "127.9.9.9", "[::1]:9477"] {
            assert!(asked(host), "{host}");
        }
        for host in ["evil.example:9477", "localhost.evil.example", "10.8.64.1", "", "a b"] {
            assert!(!asked(host), "{host}");
        }
        assert!(is_loopback(&Uri::from_static("/metrics"), &HeaderMap::new()));
        assert!(!is_loopback(&Uri::from_static("http://evil.example/"), &HeaderMap::new()));
    }
}
