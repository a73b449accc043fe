//! Events of networks, and the shapes in which they are stored.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BridgeSpec, Dhcp, Egress, NetworkKind, NetworkSpec, OverlaySpec, Ownership};
use crate::event::{
    Assigned, DomainEvent, Event, EventDeclaration, EventProvenance, EventVisitor, Family, StoredError, StoredShape,
    StreamId,
};
use crate::id::NetworkId;
use crate::value::{Description, GatewaySubnet, Ipv4Subnet, Labels, Metadata, Mtu, NetworkName, VlanId, Vni};

/// Every stored shape of a network's events.
pub(crate) const EVENTS: &[EventDeclaration] = &[
    EventDeclaration::of::<NetworkCreatedV1>(),
    EventDeclaration::of::<NetworkCreatedV2>(),
    EventDeclaration::of::<NetworkChangedV1>(),
    EventDeclaration::of::<NetworkDeletedV1>(),
];

/// An event of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    Created(NetworkCreated),
    Changed(NetworkChanged),
    Deleted(NetworkDeleted),
}

impl NetworkEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Created(event) => visitor.visit(event),
            Self::Changed(event) => visitor.visit(event),
            Self::Deleted(event) => visitor.visit(event),
        }
    }
}

/// A network was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkCreated {
    pub network_id: NetworkId,
    pub name: NetworkName,
    pub spec: NetworkSpec,
}

/// A network was changed, or described: this is all of its definition. Type, bridge and VNI are as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkChanged {
    pub network_id: NetworkId,
    /// Repeated for consumers that see only this event.
    pub name: NetworkName,
    pub spec: NetworkSpec,
    pub metadata: Metadata,
}

/// A network was deleted: nodes remove what they have of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkDeleted {
    pub network_id: NetworkId,
    /// Repeated for consumers that see only this event.
    pub name: NetworkName,
}

impl DomainEvent for NetworkCreated {
    type Stored = NetworkCreatedV2;

    fn stream_id(&self) -> StreamId {
        StreamId::Network(self.network_id)
    }

    fn to_stored(&self) -> NetworkCreatedV2 {
        let Self { network_id, name, spec } = self;
        NetworkCreatedV2 {
            network_id: *network_id,
            name: name.clone(),
            kind: spec.kind(),
            bridge_name: spec.bridge_name(),
            managed: spec.managed(),
            egress: if spec.nat().is_some() { EgressV1::Nat } else { EgressV1::None },
            subnet: spec.subnet(),
            gateway: spec.gateway_subnet().map(GatewaySubnet::gateway),
            dhcp: spec.dhcp().is_some(),
            dns: spec.dhcp().is_some_and(|dhcp| dhcp.dns),
            allow_spoofing: spec.allows_spoofing(),
            mtu: spec.mtu(),
            vlan: spec.vlan(),
            vni: spec.vni(),
        }
    }

    fn assigned(&self) -> Assigned {
        Assigned { vni: self.spec.vni(), ..Assigned::default() }
    }

    fn into_event(self) -> Event {
        Event::Network(NetworkEvent::Created(self))
    }
}

impl DomainEvent for NetworkChanged {
    type Stored = NetworkChangedV1;

    fn stream_id(&self) -> StreamId {
        StreamId::Network(self.network_id)
    }

    fn to_stored(&self) -> NetworkChangedV1 {
        let Self { network_id, name, spec, metadata } = self.clone();
        let Metadata { description, labels } = metadata;
        let network = NetworkCreated { network_id, name, spec }.to_stored();
        let NetworkCreatedV2 { network_id, name, kind, bridge_name, managed, egress, subnet, gateway, .. } = network;
        let NetworkCreatedV2 { dhcp, dns, allow_spoofing, mtu, vlan, vni, .. } = network;
        NetworkChangedV1 {
            network_id,
            name,
            kind,
            bridge_name,
            managed,
            egress,
            subnet,
            gateway,
            dhcp,
            dns,
            allow_spoofing,
            mtu,
            vlan,
            vni,
            description,
            labels,
        }
    }

    fn into_event(self) -> Event {
        Event::Network(NetworkEvent::Changed(self))
    }
}

impl DomainEvent for NetworkDeleted {
    type Stored = NetworkDeletedV1;

    fn stream_id(&self) -> StreamId {
        StreamId::Network(self.network_id)
    }

    fn to_stored(&self) -> NetworkDeletedV1 {
        let Self { network_id, name } = self.clone();
        NetworkDeletedV1 { network_id, name }
    }

    fn into_event(self) -> Event {
        Event::Network(NetworkEvent::Deleted(self))
    }
}

/// A network was created. Superseded by version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreatedV1 {
    pub network_id: NetworkId,
    /// Unique among the cluster's networks, without regard to case.
    pub name: NetworkName,
    #[serde(rename = "type")]
    pub kind: NetworkKind,
    /// The bridge on each node; `otb<vni>` for an overlay.
    pub bridge_name: String,
    /// Whether otherix creates, repairs and removes the bridge; if not, it only checks that it exists.
    pub managed: bool,
    pub egress: EgressV1,
    /// Present with egress `nat` and for overlays.
    pub subnet: Option<Ipv4Subnet>,
    /// The nodes' address in the subnet; present with egress `nat`.
    pub gateway: Option<Ipv4Addr>,
    pub mtu: Mtu,
    /// The VLAN on the bridge; null is untagged.
    pub vlan: Option<VlanId>,
    /// Present for overlays; never assigned to another one.
    pub vni: Option<Vni>,
}

/// A network was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreatedV2 {
    pub network_id: NetworkId,
    /// Unique among the cluster's networks, without regard to case.
    pub name: NetworkName,
    #[serde(rename = "type")]
    pub kind: NetworkKind,
    /// The bridge on each node; `otb<vni>` for an overlay.
    pub bridge_name: String,
    /// Whether otherix creates, repairs and removes the bridge; if not, it only checks that it exists.
    pub managed: bool,
    pub egress: EgressV1,
    /// Present with egress `nat`, with DHCP, and for overlays.
    pub subnet: Option<Ipv4Subnet>,
    /// The nodes' address in the subnet; present with egress `nat` and with DHCP.
    pub gateway: Option<Ipv4Addr>,
    /// Whether the network assigns addresses of the subnet to its guests: `ip` of `nic.attached`.
    pub dhcp: bool,
    /// Whether the gateway resolves names; only with DHCP.
    pub dns: bool,
    /// Whether guests may send from other addresses than those of their NICs.
    pub allow_spoofing: bool,
    pub mtu: Mtu,
    /// The VLAN on the bridge; null is untagged.
    pub vlan: Option<VlanId>,
    /// Present for overlays; never assigned to another one.
    pub vni: Option<Vni>,
}

/// A network was changed, or described: this is all of its definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkChangedV1 {
    pub network_id: NetworkId,
    pub name: NetworkName,
    /// As before.
    #[serde(rename = "type")]
    pub kind: NetworkKind,
    /// As before.
    pub bridge_name: String,
    /// As before.
    pub managed: bool,
    pub egress: EgressV1,
    /// Present with egress `nat`, with DHCP, and for overlays.
    pub subnet: Option<Ipv4Subnet>,
    /// The nodes' address in the subnet; present with egress `nat` and with DHCP.
    pub gateway: Option<Ipv4Addr>,
    /// Whether the network assigns addresses of the subnet to its guests: `ip` of `nic.attached`.
    pub dhcp: bool,
    /// Whether the gateway resolves names; only with DHCP.
    pub dns: bool,
    /// Whether guests may send from other addresses than those of their NICs.
    pub allow_spoofing: bool,
    pub mtu: Mtu,
    /// The VLAN on the bridge; null is untagged.
    pub vlan: Option<VlanId>,
    /// As before; present for overlays.
    pub vni: Option<Vni>,
    /// What the network is for; it has no effect on nodes.
    pub description: Option<Description>,
    /// They have no effect on nodes.
    pub labels: Labels,
}

/// How guests of a network reach addresses outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressV1 {
    /// Not at all.
    None,
    /// Source NAT to the node's address.
    Nat,
}

/// A network was deleted: nodes remove what they have of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkDeletedV1 {
    pub network_id: NetworkId,
    pub name: NetworkName,
}

impl StoredShape for NetworkCreatedV1 {
    const TYPE: &'static str = "dev.otherix.network.created.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A network was created";
    const PROVENANCE: EventProvenance = EventProvenance::SUPERSEDED;
    type Event = NetworkCreated;

    fn upcast(self) -> Result<NetworkCreated, StoredError> {
        let Self { network_id, name, kind, bridge_name, managed, egress, subnet, gateway, mtu, vlan, vni } = self;
        // Version 1 predates the assignment of addresses, and the MAC address was always that of the NIC.
        let (dhcp, dns, allow_spoofing) = (false, false, false);
        NetworkCreatedV2 {
            network_id,
            name,
            kind,
            bridge_name,
            managed,
            egress,
            subnet,
            gateway,
            dhcp,
            dns,
            allow_spoofing,
            mtu,
            vlan,
            vni,
        }
        .upcast()
    }
}

impl StoredShape for NetworkCreatedV2 {
    const TYPE: &'static str = "dev.otherix.network.created.v2";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A network was created";
    const PROVENANCE: EventProvenance =
        EventProvenance { when: "A network is created.", requests: &["network.create", "network.apply"], causes: &[] };
    type Event = NetworkCreated;

    fn upcast(self) -> Result<NetworkCreated, StoredError> {
        let inconsistent = || StoredError::InconsistentNetwork(self.network_id);
        let gateway_subnet = match (self.subnet, self.gateway) {
            (Some(subnet), Some(gateway)) => {
                Some(GatewaySubnet::new(subnet, Some(gateway)).map_err(|_| inconsistent())?)
            }
            (Some(_), None) | (None, _) => None,
        };
        let dhcp = gateway_subnet.filter(|_| self.dhcp).map(|subnet| Dhcp { subnet, dns: self.dns });
        let allow_spoofing = self.allow_spoofing;
        let spec = match (self.kind, self.vni, self.subnet) {
            (NetworkKind::Overlay, Some(vni), Some(subnet)) => {
                let egress = match (self.egress, gateway_subnet) {
                    (EgressV1::None, _) => Egress::None,
                    (EgressV1::Nat, Some(nat)) => Egress::Nat(nat),
                    (EgressV1::Nat, None) => return Err(inconsistent()),
                };
                NetworkSpec::Overlay(OverlaySpec { vni, subnet, egress, mtu: self.mtu, dhcp, allow_spoofing })
            }
            (NetworkKind::Bridge, None, _) => NetworkSpec::Bridge(BridgeSpec {
                bridge_name: self.bridge_name.parse().map_err(|_| inconsistent())?,
                ownership: match (self.managed, self.egress, gateway_subnet) {
                    (false, EgressV1::None, None) => Ownership::Unmanaged,
                    (true, EgressV1::None, _) => Ownership::Managed(Egress::None),
                    (true, EgressV1::Nat, Some(nat)) => Ownership::Managed(Egress::Nat(nat)),
                    _ => return Err(inconsistent()),
                },
                mtu: self.mtu,
                vlan: self.vlan,
                dhcp,
                allow_spoofing,
            }),
            _ => return Err(inconsistent()),
        };
        let event = NetworkCreated { network_id: self.network_id, name: self.name.clone(), spec };
        // The shape can express more than the spec, such as an overlay's egress: such fields must have the derived
        // value.
        if event.to_stored() == self { Ok(event) } else { Err(inconsistent()) }
    }
}

impl StoredShape for NetworkChangedV1 {
    const TYPE: &'static str = "dev.otherix.network.changed.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A network was changed";
    const PROVENANCE: EventProvenance = EventProvenance {
        when: "A network is changed, or is created with a description or labels.",
        requests: &["network.change", "network.apply", "network.create"],
        causes: &["network.created"],
    };
    type Event = NetworkChanged;

    fn upcast(self) -> Result<NetworkChanged, StoredError> {
        let Self { network_id, name, kind, bridge_name, managed, egress, subnet, gateway, .. } = self;
        let Self { dhcp, dns, allow_spoofing, mtu, vlan, vni, description, labels, .. } = self;
        let network = NetworkCreatedV2 {
            network_id,
            name,
            kind,
            bridge_name,
            managed,
            egress,
            subnet,
            gateway,
            dhcp,
            dns,
            allow_spoofing,
            mtu,
            vlan,
            vni,
        };
        let NetworkCreated { network_id, name, spec } = network.upcast()?;
        Ok(NetworkChanged { network_id, name, spec, metadata: Metadata { description, labels } })
    }
}

impl StoredShape for NetworkDeletedV1 {
    const TYPE: &'static str = "dev.otherix.network.deleted.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A network was deleted";
    const PROVENANCE: EventProvenance = EventProvenance {
        when: "A network is deleted. Nodes report its removal in `node.reconciled`.",
        requests: &["network.delete"],
        causes: &[],
    };
    type Event = NetworkDeleted;

    fn upcast(self) -> Result<NetworkDeleted, StoredError> {
        let Self { network_id, name } = self;
        Ok(NetworkDeleted { network_id, name })
    }
}
