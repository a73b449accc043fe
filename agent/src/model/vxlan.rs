//! VXLAN on the node: how a VTEP is, and where it sends frames.

use std::net::Ipv4Addr;

use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

/// The kind of a VTEP, as the kernel calls it.
pub const VXLAN: &str = "vxlan";

/// The UDP port of VXLAN (RFC 7348).
pub const PORT: u16 = 4789;

/// The name of our VTEP with this VNI.
pub fn vtep_name(vni: u32) -> String {
    format!("otvx{vni}")
}

/// What cannot be changed about a VTEP in place, or must not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vxlan {
    /// Its id; 0 if it has none of its own.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The address that it sends from.
    #[serde(default)]
    pub local: Option<Ipv4Addr>,
    /// Whether it learns from which node a MAC is heard.
    #[serde(default)]
    pub learning: bool,
    /// It sends by one device only, or to one more node or group.
    #[serde(default)]
    pub bound: bool,
}

impl Vxlan {
    /// How a VTEP of ours is.
    pub fn ours(vni: u32, local: Ipv4Addr) -> Self {
        Self { vni, port: PORT, local: Some(local), learning: false, bound: false }
    }
}

/// Which frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    /// Those that no other entry is about: broadcasts, multicasts, unknown addresses (`00:00:00:00:00:00`).
    Flood,
    /// Those to this station.
    Station(MacAddress),
    /// Those to this group of stations.
    Group([u8; 6]),
}

impl Frames {
    /// The address in the forwarding database.
    pub fn octets(self) -> [u8; 6] {
        match self {
            Self::Flood => [0; 6],
            Self::Station(mac) => mac.octets(),
            Self::Group(octets) => octets,
        }
    }
}

impl From<[u8; 6]> for Frames {
    fn from(octets: [u8; 6]) -> Self {
        let other = if octets == [0; 6] { Self::Flood } else { Self::Group(octets) };
        MacAddress::try_from(octets).map_or(other, Self::Station)
    }
}

/// An entry of a VTEP's own forwarding database: some frames go to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// Which.
    pub frames: Frames,
    /// The node's address. None is a group of next hops; in a removal it is all that the address has.
    pub node: Option<Ipv4Addr>,
    /// It is not as ours are: it goes by another port, VNI or device, or is forgotten in time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub odd: bool,
}

impl Remote {
    /// An entry as ours are.
    pub fn new(frames: Frames, node: Ipv4Addr) -> Self {
        Self { frames, node: Some(node), odd: false }
    }

    /// All entries of an address.
    pub fn all(frames: Frames) -> Self {
        Self { frames, node: None, odd: false }
    }
}
