//! The groups of our links (`IFLA_GROUP`), by which the guest filter recognises them: its rules are the same however
//! many networks there are.

use serde::{Deserialize, Serialize};

/// What the guest filter does with packets of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkGroup {
    /// A bridge on which the node has no addresses, or must not keep its gateway's: neither packets nor ARP requests
    /// reach it.
    IsolatedBridge,
    /// A bridge of a network with NAT egress, whose gateway the node is. The rules of its network say what reaches it.
    GatewayBridge,
    /// A bridge without a gateway that someone gave an address of the node: IPv4 reaches it, but not from taps.
    HostBridge,
    /// A tap from which nothing reaches the node itself.
    IsolatedTap,
    /// As [`LinkGroup::IsolatedTap`], of a network that assigns addresses: what asks for one stays on the tap, and the
    /// guest can use no other address.
    AssignedTap,
    /// As [`LinkGroup::AssignedTap`], of a network whose guests may use any address but the gateway's.
    SpoofingTap,
    /// A tap on an unmanaged bridge.
    Tap,
    /// A tap of a network with NAT egress.
    GatewayTap,
    /// As [`LinkGroup::GatewayTap`], of a network that assigns addresses.
    AssignedGatewayTap,
    /// As [`LinkGroup::AssignedGatewayTap`], of a network whose guests may use any address but the gateway's.
    SpoofingGatewayTap,
    /// A VTEP: behind it are guests of other nodes, from which nothing reaches this node itself.
    Vtep,
    /// As [`LinkGroup::Vtep`], of a network with NAT egress, whose gateway is on every node: nothing from or to it
    /// passes.
    GatewayVtep,
}

impl LinkGroup {
    /// Selects what all of our groups have in common.
    pub const MASK: u32 = 0xffff_0000;
    /// What all of our groups have in common: a number that nobody else should use.
    pub const BASE: u32 = 0x6f74_0000;

    /// The number of the group.
    pub const fn number(self) -> u32 {
        let number = match self {
            Self::IsolatedBridge => 1,
            Self::GatewayBridge => 2,
            Self::HostBridge => 3,
            Self::IsolatedTap => 4,
            Self::Tap => 5,
            Self::GatewayTap => 6,
            Self::Vtep => 7,
            Self::AssignedTap => 8,
            Self::AssignedGatewayTap => 9,
            Self::SpoofingTap => 10,
            Self::SpoofingGatewayTap => 11,
            Self::GatewayVtep => 12,
        };
        Self::BASE | number
    }
}
