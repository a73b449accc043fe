//! VXLAN on the node: the attributes of a VTEP, and the entries of its forwarding database.

use std::net::Ipv4Addr;

use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

/// The UDP port that IANA assigned to VXLAN (RFC 7348), which VTEPs use unless the agent is started with another.
pub const PORT: u16 = 4789;

/// Returns the name of our VTEP with this VNI.
pub fn vtep_name(vni: u32) -> String {
    format!("otvx{vni}")
}

/// The attributes of a VXLAN device that cannot be changed, or that no program should have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vxlan {
    /// 0 if the device has none, because it is externally controlled.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The source address.
    #[serde(default)]
    pub local: Option<Ipv4Addr>,
    /// Whether it learns the remote address of a MAC address from received frames.
    #[serde(default)]
    pub learning: bool,
    /// Whether it is bound to a device, or has a default remote or multicast group.
    #[serde(default)]
    pub bound: bool,
}

impl Vxlan {
    /// The attributes of a VTEP of ours.
    pub fn ours(vni: u32, port: u16, local: Ipv4Addr) -> Self {
        Self { vni, port, local: Some(local), learning: false, bound: false }
    }
}

/// The destination MAC addresses that an entry of a VTEP's forwarding database applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    /// `00:00:00:00:00:00`: frames that no other entry applies to, which are broadcast, multicast and unknown unicast.
    Flood,
    Unicast(MacAddress),
    Multicast([u8; 6]),
}

impl Frames {
    /// The MAC address in the forwarding database.
    pub fn octets(self) -> [u8; 6] {
        match self {
            Self::Flood => [0; 6],
            Self::Unicast(mac) => mac.octets(),
            Self::Multicast(octets) => octets,
        }
    }
}

impl From<[u8; 6]> for Frames {
    fn from(octets: [u8; 6]) -> Self {
        let other = if octets == [0; 6] { Self::Flood } else { Self::Multicast(octets) };
        MacAddress::try_from(octets).map_or(other, Self::Unicast)
    }
}

/// An entry of a VTEP's own forwarding database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteEntry {
    pub frames: Frames,
    /// The address of the remote VTEP. `None` is a next-hop group; in a removal, all entries of the MAC address.
    pub node: Option<Ipv4Addr>,
    /// It has another port, VNI or device than entries of ours, or it ages.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub altered: bool,
}

impl RemoteEntry {
    /// Returns the entry that the agent creates.
    pub fn new(frames: Frames, node: Ipv4Addr) -> Self {
        Self { frames, node: Some(node), altered: false }
    }

    /// Returns what stands for all entries of a MAC address in a removal.
    pub fn all(frames: Frames) -> Self {
        Self { frames, node: None, altered: false }
    }
}
