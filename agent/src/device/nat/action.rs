//! The actions on gateways, uplinks and the packet filter, as data.

use std::collections::BTreeSet;
use std::fmt;

use otherix_schemas::id::NetworkId;
use serde::Serialize;

use crate::model::firewall::Ruleset;
use crate::model::ip::Address;
use crate::model::route::Prefix;

/// The subject of our table of the packet filter.
pub const PACKET_FILTER: &str = "packet_filter";

/// Replaces our table of the packet filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WriteTable {
    #[serde(flatten)]
    pub ruleset: Ruleset,
    /// The subnets of networks that the table may not have protected so far: connections that began meanwhile have no
    /// NAT, and are deleted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub forget_connections: BTreeSet<Prefix>,
}

/// Turns on IPv4 forwarding on an uplink, and records that; or turns it off on a link that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForwardUplink {
    pub index: u32,
    pub name: String,
    pub on: bool,
}

/// Makes a bridge the gateway of its network, or turns forwarding off on a bridge without a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigureGateway {
    #[serde(skip)]
    pub network: NetworkId,
    pub index: u32,
    /// The address to add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The address to remove: with it the node would be cut off, or it is that of a former gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<Address>,
    /// The address whose connected routes to add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Address>,
    /// IPv4 forwarding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<bool>,
}

impl fmt::Display for WriteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ruleset, forget_connections } = self;
        let Ruleset { nat_networks, resolvers: _, vteps, vxlan_port: _, vnis, uplinks, cluster: _ } = ruleset;
        write!(f, "write the packet filter's table for {} networks with NAT", nat_networks.len())?;
        vteps.iter().try_for_each(|address| write!(f, " and VTEPs at {address} in {} blocks of VNIs", vnis.len()))?;
        uplinks.keys().try_for_each(|name| write!(f, " and the uplink {name}"))?;
        if forget_connections.is_empty() { Ok(()) } else { f.write_str("; delete connections without NAT") }
    }
}

impl fmt::Display for ForwardUplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, on } = self;
        let (state, which) = if *on { ("on", "uplink") } else { ("off", "former uplink") };
        write!(f, "turn {state} IPv4 forwarding on the {which} {name} ({index})")
    }
}

impl fmt::Display for ConfigureGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, index, address, remove, routes, forwarding } = self;
        write!(f, "configure the gateway of network {network} on bridge {index}:")?;
        address.iter().try_for_each(|address| write!(f, " inet {address}"))?;
        remove.iter().try_for_each(|address| write!(f, " without inet {address}"))?;
        routes.iter().try_for_each(|address| write!(f, " routes of {address}"))?;
        forwarding.iter().try_for_each(|on| write!(f, " forwarding {on}"))
    }
}
