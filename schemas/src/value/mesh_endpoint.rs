//! Endpoints of nodes in the mesh.

use std::net::{Ipv4Addr, SocketAddrV4};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A WireGuard endpoint: a unicast IPv4 address and a UDP port, such as `10.0.0.1:51820`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}:[1-9][0-9]{0,4}$"))]
pub struct MeshEndpoint(SocketAddrV4);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshEndpointError {
    #[error("must be an IPv4 address and a UDP port such as `10.0.0.1:51820`, not `{0}`")]
    Syntax(String),
    #[error("must have a unicast address, not `{0}`")]
    Address(Ipv4Addr),
    #[error("must have a port of 1 to 65535, not 0")]
    Port,
}

impl MeshEndpoint {
    pub const fn socket_addr(self) -> SocketAddrV4 {
        self.0
    }
}

impl TryFrom<SocketAddrV4> for MeshEndpoint {
    type Error = MeshEndpointError;
    fn try_from(socket: SocketAddrV4) -> Result<Self, MeshEndpointError> {
        let address = *socket.ip();
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err(MeshEndpointError::Address(address));
        }
        if socket.port() == 0 { Err(MeshEndpointError::Port) } else { Ok(Self(socket)) }
    }
}

impl std::fmt::Display for MeshEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for MeshEndpoint {
    type Err = MeshEndpointError;
    fn from_str(text: &str) -> Result<Self, MeshEndpointError> {
        let syntax = || MeshEndpointError::Syntax(text.to_owned());
        let (address, port) = text.split_once(':').ok_or_else(syntax)?;
        // `u16::from_str` accepts a sign and leading zeros.
        if port.is_empty()
            || !port.bytes().all(|byte| byte.is_ascii_digit())
            || (port.len() > 1 && port.starts_with('0'))
        {
            return Err(syntax());
        }
        let address = address.parse().map_err(|_| syntax())?;
        Self::try_from(SocketAddrV4::new(address, port.parse().map_err(|_| syntax())?))
    }
}

impl TryFrom<String> for MeshEndpoint {
    type Error = MeshEndpointError;
    fn try_from(text: String) -> Result<Self, MeshEndpointError> {
        text.parse()
    }
}

impl From<MeshEndpoint> for String {
    fn from(endpoint: MeshEndpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for good in ["10.0.0.1:51820", "127.0.0.1:1", "203.0.113.255:65535", "1.0.0.0:9"] {
            assert_eq!(good.parse::<MeshEndpoint>().unwrap().to_string(), good);
        }
        let endpoint: MeshEndpoint = "10.0.0.1:51820".parse().unwrap();
        assert_eq!(endpoint.socket_addr(), SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 51820));
        assert_eq!(serde_json::to_string(&endpoint).unwrap(), "\"10.0.0.1:51820\"");
    }

    #[test]
    fn rejects_malformed_and_non_unicast_endpoints() {
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.1:",
            ":51820",
            "10.0.0.1:+1",
            "10.0.0.1:01",
            "10.0.0.1:65536",
            "10.0.0.1:1:2",
            "10.0.0.01:1",
            "node-1:51820",
            "[fd00::1]:51820",
            " 10.0.0.1:1",
        ] {
            assert_eq!(bad.parse::<MeshEndpoint>(), Err(MeshEndpointError::Syntax(bad.to_owned())));
        }
        for bad in ["0.0.0.0", "224.0.0.1", "239.255.255.255", "255.255.255.255"] {
            let address = bad.parse().unwrap();
            assert_eq!(format!("{bad}:51820").parse::<MeshEndpoint>(), Err(MeshEndpointError::Address(address)));
        }
        assert_eq!("10.0.0.1:0".parse::<MeshEndpoint>(), Err(MeshEndpointError::Port));
    }
}
