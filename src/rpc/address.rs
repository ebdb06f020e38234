//! Where controllers listen: `unix:PATH`, or `HOST:PORT` under mutual TLS.

use core::fmt;
use core::str::FromStr;
use std::path::PathBuf;

/// Controllers of one cluster at most.
const ADDRESSES_MAX: usize = 16;

/// Where one controller listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket of this host.
    Unix(PathBuf),
    /// A TCP socket, `HOST:PORT`, always under mutual TLS.
    Tls(String),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no controller's address: {why}; write `unix:/run/dvr/controller.sock` or `HOST:PORT`")]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = |why| Err(BadAddress { text: text.to_owned(), why });
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { bad("the path is not absolute") };
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        if text.starts_with("http://") {
            return bad("nothing is spoken in the clear over TCP");
        }
        let place = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let Some((host, port)) = place.rsplit_once(':') else { return bad("it has no port") };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_ipv6 = bare.parse::<core::net::Ipv6Addr>().is_ok();
        if bare.is_empty() || !(is_ipv6 || host.chars().all(legal)) {
            return bad("the host is neither a name nor an IP address");
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return bad("the port is none of 1 to 65535");
        }
        Ok(Self::Tls(if is_ipv6 { format!("[{bare}]:{port}") } else { place.to_owned() }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Tls(place) => out.write_str(place),
        }
    }
}

/// The controllers of one cluster, any of which will do: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

impl Addresses {
    /// All of them, in the order given.
    #[must_use]
    pub fn all(&self) -> &[Address] {
        &self.0
    }

    /// The address after `turn` others, round and round.
    #[must_use]
    pub fn turn(&self, turn: usize) -> &Address {
        &self.0[turn % self.0.len()]
    }

    /// Whether any is reached over TCP, for which certificates are needed.
    #[must_use]
    pub fn need_tls(&self) -> bool {
        self.0.iter().any(|address| matches!(address, Address::Tls(_)))
    }
}

impl From<Address> for Addresses {
    fn from(address: Address) -> Self {
        Self(vec![address])
    }
}

impl FromStr for Addresses {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let all = text.split(',').map(Address::from_str).collect::<Result<Vec<_>, _>>()?;
        if all.len() > ADDRESSES_MAX {
            return Err(BadAddress { text: text.to_owned(), why: "a cluster has at most 16 controllers" });
        }
        Ok(Self(all))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            write!(out, "{}{address}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        for (text, told) in [
            ("unix:/run/dvr/controller.sock", "unix:/run/dvr/controller.sock"),
            ("unix:///run/c.sock", "unix:/run/c.sock"),
            ("/run/c.sock", "unix:/run/c.sock"),
            ("10.0.0.1:7443", "10.0.0.1:7443"),
            ("https://c1.example:7443/", "c1.example:7443"),
            ("[fd00::1]:7443", "[fd00::1]:7443"),
            ("https://a:1,https://b:2", "a:1,b:2"),
        ] {
            assert_eq!(text.parse::<Addresses>().map(|all| all.to_string()), Ok(told.to_owned()));
        }
        for text in ["", "unix:run", "http://a:1", "a", "a:0", "a:70000", "a b:1", ":1", "a:1,", "a/b:1"] {
            assert!(text.parse::<Addresses>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn turns_go_round() {
        let all: Addresses = "a:1,b:2".parse().expect("two addresses");
        let turns: Vec<String> = (0..3).map(|turn| all.turn(turn).to_string()).collect();
        assert_eq!(turns, ["a:1", "b:2", "a:1"]);
        assert!(all.need_tls());
        assert!(!"/run/c.sock".parse::<Addresses>().expect("one").need_tls());
    }
}
