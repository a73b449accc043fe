//! Networks: as asked for ([`NetworkDraft`]), as checked ([`NewNetwork`]) and as decided ([`NetworkSpec`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{BridgeName, Ipv4Subnet, Mtu, Nat, NetworkName, VlanId, Vni};

/// A network as somebody asks for it: nothing is checked yet. [`crate::rules::check`] does that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkDraft {
    /// The name; see [`NetworkName`].
    pub name: String,
    /// `bridge` (when absent) or `overlay`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The bridge on every node; see [`BridgeName`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_name: Option<String>,
    /// Whether the control plane owns the bridge's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
    /// `none` (when absent) or `nat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// An IPv4 subnet; see [`Ipv4Subnet`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The node's address in the subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// In bytes; see [`Mtu`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<i64>,
    /// See [`VlanId`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i64>,
}

/// The two kinds of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// A bridge on each node.
    Bridge,
    /// A VXLAN segment that spans the nodes.
    Overlay,
}

/// A text that names no kind of network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `bridge` or `overlay`, not `{0}`")]
pub struct KindError(String);

impl NetworkKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Overlay => "overlay",
        }
    }
}

impl std::str::FromStr for NetworkKind {
    type Err = KindError;
    fn from_str(text: &str) -> Result<Self, KindError> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "overlay" => Ok(Self::Overlay),
            other => Err(KindError(other.to_owned())),
        }
    }
}

impl std::fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A network that may be created, unless it conflicts with one that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNetwork {
    /// The name.
    pub name: NetworkName,
    /// What it is to be.
    pub spec: NewSpec,
}

/// What a new network is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSpec {
    /// A bridge, as it will be.
    Bridge(BridgeSpec),
    /// An overlay, which still needs its VNI.
    Overlay {
        /// The subnet its guests share.
        subnet: Ipv4Subnet,
    },
}

/// What a network is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetworkSpec {
    /// A bridge on each node.
    Bridge(BridgeSpec),
    /// A VXLAN segment.
    Overlay(OverlaySpec),
}

/// A network of kind bridge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BridgeSpec {
    /// The bridge on each node.
    pub bridge_name: BridgeName,
    /// Whose the bridge is.
    pub ownership: Ownership,
    /// The bridge's MTU.
    pub mtu: Mtu,
    /// The VLAN of the network on the bridge; untagged when absent.
    pub vlan: Option<VlanId>,
}

/// Whose a bridge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// Somebody else's: it is only checked that it exists.
    Unmanaged,
    /// Ours: created, repaired and removed, with a way out of it.
    Managed(Egress),
}

/// The way out of a managed bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Egress {
    /// None.
    None,
    /// Through the node, with its address.
    Nat(Nat),
}

/// A network of kind overlay.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OverlaySpec {
    /// Its id on the wire, its own for ever.
    pub vni: Vni,
    /// The subnet its guests share.
    pub subnet: Ipv4Subnet,
    /// What the underlay and the mesh leave of the MTU.
    pub mtu: Mtu,
}

impl NetworkSpec {
    /// The kind.
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

    /// Whether the bridge is ours.
    pub fn managed(&self) -> bool {
        match self {
            Self::Bridge(bridge) => bridge.ownership != Ownership::Unmanaged,
            Self::Overlay(_) => true,
        }
    }

    /// The subnet and gateway, when the network has NAT egress.
    pub fn nat(&self) -> Option<Nat> {
        match self {
            Self::Bridge(BridgeSpec { ownership: Ownership::Managed(Egress::Nat(nat)), .. }) => Some(*nat),
            Self::Bridge(_) | Self::Overlay(_) => None,
        }
    }

    /// The subnet, when the network has one.
    pub fn subnet(&self) -> Option<Ipv4Subnet> {
        match self {
            Self::Bridge(_) => self.nat().map(Nat::subnet),
            Self::Overlay(overlay) => Some(overlay.subnet),
        }
    }

    /// The MTU.
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
