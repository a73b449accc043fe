//! Compact forms of values in a state snapshot. They are not part of the contract: `store::snapshot::FORMAT` is raised
//! when one of them changes.

use std::net::Ipv4Addr;

use otherix_schemas::network::{BridgeSpec, Dhcp, Egress, NetworkSpec, OverlaySpec, Ownership};
use otherix_schemas::node::MeshPeer;
use otherix_schemas::value::{BridgeName, GatewaySubnet, Ipv4Subnet, MeshEndpoint, MeshPublicKey, Mtu, VlanId, Vni};
use serde::{Deserialize, Serialize};

/// A time as microseconds since 1970.
pub(super) mod micros {
    use otherix_schemas::timestamp::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::domain) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        time.unix_micros().serialize(serializer)
    }

    pub(in crate::domain) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::from_unix_micros(i64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An optional time as microseconds since 1970.
pub(super) mod optional_micros {
    use otherix_schemas::timestamp::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::domain) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Timestamp::unix_micros).serialize(serializer)
    }

    pub(in crate::domain) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let micros = Option::<i64>::deserialize(deserializer)?;
        micros.map(Timestamp::from_unix_micros).transpose().map_err(D::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "NetworkSpec")]
pub(super) enum SpecForm {
    Bridge(#[serde(with = "BridgeForm")] BridgeSpec),
    Overlay(#[serde(with = "OverlayForm")] OverlaySpec),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BridgeSpec")]
struct BridgeForm {
    bridge_name: BridgeName,
    #[serde(with = "OwnershipForm")]
    ownership: Ownership,
    mtu: Mtu,
    vlan: Option<VlanId>,
    #[serde(with = "optional_dhcp")]
    dhcp: Option<Dhcp>,
    allow_spoofing: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ownership")]
enum OwnershipForm {
    Unmanaged,
    Managed(#[serde(with = "EgressForm")] Egress),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Egress")]
enum EgressForm {
    None,
    Nat(#[serde(with = "nat")] GatewaySubnet),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OverlaySpec")]
struct OverlayForm {
    vni: Vni,
    #[serde(with = "subnet")]
    subnet: Ipv4Subnet,
    #[serde(with = "EgressForm")]
    egress: Egress,
    mtu: Mtu,
    #[serde(with = "optional_dhcp")]
    dhcp: Option<Dhcp>,
    allow_spoofing: bool,
}

mod optional_dhcp {
    use otherix_schemas::network::Dhcp;
    use otherix_schemas::value::GatewaySubnet;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Form {
        #[serde(with = "super::nat")]
        subnet: GatewaySubnet,
        dns: bool,
    }

    pub(super) fn serialize<S: Serializer>(dhcp: &Option<Dhcp>, serializer: S) -> Result<S::Ok, S::Error> {
        dhcp.map(|Dhcp { subnet, dns }| Form { subnet, dns }).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Dhcp>, D::Error> {
        let form = Option::<Form>::deserialize(deserializer)?;
        Ok(form.map(|Form { subnet, dns }| Dhcp { subnet, dns }))
    }
}

mod subnet {
    use otherix_schemas::value::Ipv4Subnet;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::net::Ipv4Addr;

    pub(super) fn serialize<S: Serializer>(subnet: &Ipv4Subnet, serializer: S) -> Result<S::Ok, S::Error> {
        (subnet.network(), subnet.prefix()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv4Subnet, D::Error> {
        let (network, prefix) = <(Ipv4Addr, u8)>::deserialize(deserializer)?;
        Ipv4Subnet::new(network, prefix).map_err(D::Error::custom)
    }
}

mod nat {
    use otherix_schemas::value::{GatewaySubnet, Ipv4Subnet};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::net::Ipv4Addr;

    pub(super) fn serialize<S: Serializer>(nat: &GatewaySubnet, serializer: S) -> Result<S::Ok, S::Error> {
        (nat.subnet().prefix(), nat.gateway()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GatewaySubnet, D::Error> {
        let (prefix, gateway) = <(u8, Ipv4Addr)>::deserialize(deserializer)?;
        let subnet = Ipv4Subnet::new(gateway, prefix).map_err(D::Error::custom)?;
        GatewaySubnet::new(subnet, Some(gateway)).map_err(D::Error::custom)
    }
}

/// A node's membership in the mesh, if it has one.
pub(super) mod optional_mesh {
    use super::{Deserialize, Ipv4Addr, MeshEndpoint, MeshPeer, MeshPublicKey, Serialize};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Form {
        address: Ipv4Addr,
        public_key: MeshPublicKey,
        endpoint: MeshEndpoint,
    }

    pub(in crate::domain) fn serialize<S: Serializer>(
        peer: &Option<MeshPeer>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let form = peer.map(|MeshPeer { address, public_key, endpoint }| Form { address, public_key, endpoint });
        form.serialize(serializer)
    }

    pub(in crate::domain) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<MeshPeer>, D::Error> {
        let form = Option::<Form>::deserialize(deserializer)?;
        Ok(form.map(|Form { address, public_key, endpoint }| MeshPeer { address, public_key, endpoint }))
    }
}
