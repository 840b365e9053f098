//! Addresses of servers, where one that is written as an address is not looked up.
//!
//! The system's look-up knows no time limit, so the library's resolver starts a thread for each one. For a server that is
//! named by its address there is nothing to wait for, and the thread would cost as much as the rest of the request.

use std::net::{IpAddr, SocketAddr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The library's resolver for everything but addresses.
#[derive(Debug, Default)]
pub(super) struct NamesOnly(DefaultResolver);

impl Resolver for NamesOnly {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        match written(uri) {
            Some(address) => {
                let mut addresses = self.empty();
                addresses.push(address);
                Ok(addresses)
            }
            None => self.0.resolve(uri, config, timeout),
        }
    }
}

/// The address and port that a URL of http or https is written with, if its host is an address.
fn written(uri: &Uri) -> Option<SocketAddr> {
    let host: IpAddr = uri.host()?.trim_matches(['[', ']']).parse().ok()?;
    let usual = match uri.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some(SocketAddr::new(host, uri.port_u16().unwrap_or(usual)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_look_up_and_a_name_does() {
        for (uri, address) in [
            ("http://192.0.2.7/pkix/", Some("192.0.2.7:80")),
            ("http://127.0.0.1:8080/", Some("127.0.0.1:8080")),
            ("https://[2001:db8::1]/cmp?x=y", Some("[2001:db8::1]:443")),
            ("https://[::1]:829/", Some("[::1]:829")),
            ("http://ca.example:8080/", None),
            ("http://localhost/", None),
            ("socks5://192.0.2.7:1080", None),
        ] {
            let written = written(&uri.parse().unwrap()).map(|address| address.to_string());
            assert_eq!(written.as_deref(), address, "{uri}");
        }
    }
}
