//! A network's definition: as a client sent it ([`NetworkDraft`]), validated ([`NewNetwork`]) and decided
//! ([`NetworkSpec`]).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{BridgeName, GatewaySubnet, Ipv4Subnet, Metadata, Mtu, NetworkName, VlanId, Vni};

/// A network as a client sends it, not yet validated.
///
/// Type `bridge` requires `bridge_name`; its `subnet` and `gateway` belong to egress `nat` and to DHCP. Type `overlay`
/// requires `subnet`, and takes only `egress`, `dhcp`, `dns`, `allow_spoofing` and, with egress `nat` or DHCP,
/// `gateway` besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkDraft {
    /// 1 to 255 characters, trimmed, without `/` and control characters, not of the form of a UUID; unique among the
    /// cluster's networks, without regard to case.
    pub name: String,
    /// `bridge` (default) or `overlay`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The bridge on each node: 1 to 15 of `A-Za-z0-9_-`, beginning with a letter, not reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_name: Option<String>,
    /// Whether otherix creates, repairs and removes the bridge (default: no, it only checks that it exists).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
    /// `none` (default) or `nat`, which needs a managed bridge or an overlay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// An IPv4 prefix of length 8 to 30, such as `10.20.0.0/24`; host bits are masked off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The nodes' IPv4 address in the subnet (default: its first host address). For an overlay, only with egress
    /// `nat` or DHCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Whether the network assigns addresses of the subnet to its guests, which get them by DHCP (default: no). Needs a
    /// managed bridge or an overlay, and a subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Whether the gateway resolves names (default: as `dhcp`, which it needs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<bool>,
    /// Whether guests may send from other MAC and IP addresses than those of their NICs, as virtual machines and
    /// containers inside them do (default: no).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_spoofing: Option<bool>,
    /// MTU in bytes, 68 to 9216 (default: 1500).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// VLAN id on the bridge, 1 to 4094 (default: untagged).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i64>,
    /// What it is for: 1 to 512 characters on one line. It has no effect on nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// At most 32, with keys of 1 to 63 of `a-z0-9./-` and values of at most 63 of `A-Za-z0-9._/-`. They have no
    /// effect on nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The type of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// A bridge on each node.
    Bridge,
    /// A VXLAN segment that spans the nodes.
    Overlay,
}

/// A text that names no type of network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `bridge` or `overlay`, not `{0}`")]
pub struct NetworkKindError(String);

impl NetworkKind {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Overlay => "overlay",
        }
    }
}

impl std::str::FromStr for NetworkKind {
    type Err = NetworkKindError;
    fn from_str(text: &str) -> Result<Self, NetworkKindError> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "overlay" => Ok(Self::Overlay),
            other => Err(NetworkKindError(other.to_owned())),
        }
    }
}

impl std::fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A validated network, which can be created unless it conflicts with an existing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNetwork {
    pub name: NetworkName,
    pub spec: NewNetworkSpec,
    pub metadata: Metadata,
}

/// The spec of a network that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewNetworkSpec {
    Bridge(BridgeSpec),
    /// An overlay, whose VNI and MTU are assigned when it is decided.
    Overlay {
        subnet: Ipv4Subnet,
        egress: Egress,
        dhcp: Option<Dhcp>,
        allow_spoofing: bool,
    },
}

/// The spec of a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetworkSpec {
    Bridge(BridgeSpec),
    Overlay(OverlaySpec),
}

/// The spec of a network of type `bridge`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BridgeSpec {
    pub bridge_name: BridgeName,
    pub ownership: Ownership,
    pub mtu: Mtu,
    /// The network's VLAN on the bridge; `None` is untagged.
    pub vlan: Option<VlanId>,
    /// Only for managed bridges; its subnet is that of NAT egress, if the network has it.
    pub dhcp: Option<Dhcp>,
    /// Whether guests may send from other addresses than those of their NICs.
    pub allow_spoofing: bool,
}

/// Addresses that are assigned to guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dhcp {
    /// The subnet of the guests' addresses, and the address from which each node answers its guests.
    pub subnet: GatewaySubnet,
    /// Whether the gateway resolves names.
    pub dns: bool,
}

/// Who creates and removes a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// The node's administrator: otherix only checks that the bridge exists.
    Unmanaged,
    /// otherix creates, repairs and removes the bridge.
    Managed(Egress),
}

/// How guests of a managed bridge or an overlay reach addresses outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Egress {
    None,
    /// Source NAT to the node's address.
    Nat(GatewaySubnet),
}

/// The spec of a network of type `overlay`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OverlaySpec {
    /// Never assigned to another overlay, even after this one is deleted.
    pub vni: Vni,
    /// The subnet that the guests share.
    pub subnet: Ipv4Subnet,
    /// Each node lets its own guests out.
    pub egress: Egress,
    /// The underlay's MTU less the overhead of the mesh and VXLAN ([`Mtu::of_overlay`]).
    pub mtu: Mtu,
    /// Its subnet is that of the overlay.
    pub dhcp: Option<Dhcp>,
    /// Whether guests may send from other addresses than those of their NICs.
    pub allow_spoofing: bool,
}

impl NetworkSpec {
    pub fn kind(&self) -> NetworkKind {
        match self {
            Self::Bridge(_) => NetworkKind::Bridge,
            Self::Overlay(_) => NetworkKind::Overlay,
        }
    }

    /// The bridge on each node.
    pub fn bridge_name(&self) -> String {
        match self {
            Self::Bridge(bridge) => bridge.bridge_name.to_string(),
            Self::Overlay(overlay) => BridgeName::of_overlay(overlay.vni),
        }
    }

    /// Whether otherix creates and removes the bridge.
    pub fn managed(&self) -> bool {
        match self {
            Self::Bridge(bridge) => bridge.ownership != Ownership::Unmanaged,
            Self::Overlay(_) => true,
        }
    }

    /// The subnet and gateway of a network with NAT egress.
    pub fn nat(&self) -> Option<GatewaySubnet> {
        match self {
            Self::Bridge(BridgeSpec { ownership: Ownership::Managed(Egress::Nat(nat)), .. })
            | Self::Overlay(OverlaySpec { egress: Egress::Nat(nat), .. }) => Some(*nat),
            Self::Bridge(_) | Self::Overlay(_) => None,
        }
    }

    /// The addresses that the network assigns.
    pub fn dhcp(&self) -> Option<Dhcp> {
        match self {
            Self::Bridge(bridge) => bridge.dhcp,
            Self::Overlay(overlay) => overlay.dhcp,
        }
    }

    /// Whether guests may send from other addresses than those of their NICs.
    pub fn allows_spoofing(&self) -> bool {
        match self {
            Self::Bridge(bridge) => bridge.allow_spoofing,
            Self::Overlay(overlay) => overlay.allow_spoofing,
        }
    }

    /// The subnet, and the nodes' address in it, of a network with NAT egress or DHCP.
    pub fn gateway_subnet(&self) -> Option<GatewaySubnet> {
        self.nat().or_else(|| self.dhcp().map(|dhcp| dhcp.subnet))
    }

    /// The subnet; bridges with neither NAT egress nor DHCP have none.
    pub fn subnet(&self) -> Option<Ipv4Subnet> {
        match self {
            Self::Bridge(_) => self.gateway_subnet().map(GatewaySubnet::subnet),
            Self::Overlay(overlay) => Some(overlay.subnet),
        }
    }

    pub fn mtu(&self) -> Mtu {
        match self {
            Self::Bridge(bridge) => bridge.mtu,
            Self::Overlay(overlay) => overlay.mtu,
        }
    }

    /// The VLAN on the bridge.
    pub fn vlan(&self) -> Option<VlanId> {
        match self {
            Self::Bridge(bridge) => bridge.vlan,
            Self::Overlay(_) => None,
        }
    }

    /// The VNI of an overlay.
    pub fn vni(&self) -> Option<Vni> {
        match self {
            Self::Bridge(_) => None,
            Self::Overlay(overlay) => Some(overlay.vni),
        }
    }
}
