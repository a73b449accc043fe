//! What must be on this node for the networks and NICs of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::{ClusterId, NetworkId, NicId, NodeId};
use otherix_schemas::network::{BridgeSpec, Egress, NetworkSpec, Ownership};
use otherix_schemas::position::Position;
use otherix_schemas::value::{Ipv4Subnet, MacAddress, Nat, VlanId};
use otherix_schemas::vm::tap_name;
use serde::{Deserialize, Serialize};

use super::ip::Address;
use super::view::{Life, Network, Nic, View};

/// What must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The cluster, whose devices alone are ours.
    pub cluster: ClusterId,
    /// For each network that is known.
    pub networks: BTreeMap<NetworkId, DesiredNetwork>,
    /// For each NIC that is on this node, or was.
    #[serde(default)]
    pub nics: BTreeMap<NicId, DesiredNic>,
    /// The node is no longer part of this cluster. Nothing is said of the packet filter then: its table is the present one's.
    #[serde(default)]
    pub is_former: bool,
}

/// What must be for one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNetwork {
    /// Which decision asks for it.
    pub generation: Position,
    /// What it asks for.
    pub want: Want,
}

/// What a network asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// A bridge of ours.
    Bridge(DesiredBridge),
    /// A bridge that the operator makes and keeps; it is looked at, and never touched.
    Unmanaged(DesiredBridge),
    /// Something that this version does not do; the text says what. Nothing is made of it, not even half.
    Unsupported(String),
    /// That nothing is left: it is deleted.
    Nothing,
}

/// A bridge. One of ours is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredBridge {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its hardware address, which guests know the gateway by; any will do when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The VLAN of the network's NICs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// The node's place in it, if guests reach the outside through the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Gateway>,
}

/// The node's address in a network whose guests reach the outside through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The address.
    pub address: Ipv4Addr,
    /// The network's subnet, which the address is in.
    pub subnet: Ipv4Subnet,
}

impl Gateway {
    /// What a bridge with this address is the gateway of.
    pub fn on(address: Address) -> Option<Self> {
        let Address { address, prefix } = address;
        Some(Self { address, subnet: Ipv4Subnet::new(address, prefix).ok()? })
    }

    /// The address as the bridge has it.
    pub fn on_bridge(self) -> Address {
        Address { address: self.address, prefix: self.subnet.prefix() }
    }
}

impl From<Nat> for Gateway {
    fn from(nat: Nat) -> Self {
        Self { address: nat.gateway(), subnet: nat.subnet() }
    }
}

/// What must be for one NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNic {
    /// Which decision asks for it.
    pub generation: Position,
    /// Its tap; none if the NIC is detached.
    pub tap: Option<DesiredTap>,
}

/// A tap: a port of its network's bridge, that a hypervisor plugs a VM into. It is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredTap {
    /// Its name.
    pub name: String,
    /// The network whose bridge it is a port of.
    pub network: NetworkId,
    /// The NIC's address: frames from others are not let in.
    pub mac: MacAddress,
}

impl Desired {
    /// The names of the devices that are wanted.
    pub fn names(&self) -> BTreeSet<String> {
        let bridges = self.networks.values().filter_map(|network| network.want.bridge());
        let taps = self.nics.values().filter_map(|nic| nic.tap.as_ref());
        bridges.map(|bridge| &bridge.name).chain(taps.map(|tap| &tap.name)).cloned().collect()
    }
}

impl Want {
    /// The bridge, whosesoever.
    pub fn bridge(&self) -> Option<&DesiredBridge> {
        match self {
            Self::Bridge(bridge) | Self::Unmanaged(bridge) => Some(bridge),
            Self::Unsupported(_) | Self::Nothing => None,
        }
    }
}

/// What must be on `node`, which is one of `cluster`, for what was decided.
pub fn desired(view: &View, cluster: ClusterId, node: NodeId) -> Desired {
    let networks = view.networks().map(|(id, network)| {
        let Network { name: _, generation, life } = network;
        let want = match life {
            Life::Defined(spec) => want(spec, bridge_mac(id, node)),
            Life::Deleted => Want::Nothing,
        };
        (id, DesiredNetwork { generation: *generation, want })
    });
    let here = view.nics().filter(|(_, nic)| nic.node() == Some(node));
    let nics = here.map(|(id, nic)| (id, DesiredNic { generation: nic.generation(), tap: tap(id, nic) }));
    Desired { cluster, networks: networks.collect(), nics: nics.collect(), is_former: false }
}

fn want(spec: &NetworkSpec, mac: Option<MacAddress>) -> Want {
    let bridge = match spec {
        NetworkSpec::Overlay(_) => return unsupported("overlay networks"),
        NetworkSpec::Bridge(bridge) => bridge,
    };
    let BridgeSpec { bridge_name, ownership, mtu, vlan } = bridge;
    let bridge = DesiredBridge {
        name: bridge_name.to_string(),
        mtu: mtu.get().into(),
        mac,
        vlan: *vlan,
        nat: spec.nat().map(Gateway::from),
    };
    match ownership {
        Ownership::Managed(Egress::None | Egress::Nat(_)) => Want::Bridge(bridge),
        Ownership::Unmanaged => Want::Unmanaged(DesiredBridge { mac: None, ..bridge }),
    }
}

fn tap(id: NicId, nic: &Nic) -> Option<DesiredTap> {
    let Nic { attached, attached_at: _, bound: _, detached_at } = nic;
    let tap = DesiredTap { name: tap_name(id), network: attached.network_id, mac: attached.mac };
    detached_at.is_none().then_some(tap)
}

fn unsupported(what: &str) -> Want {
    Want::Unsupported(format!("this version of otherix-agent does not realise {what}; nothing was made on this node"))
}

/// The address of a network's bridge on a node: locally administered, and made of the random ends of both ids, so that a
/// bridge that is made anew has the one that guests know, and no two on a wire have the same.
fn bridge_mac(network: NetworkId, node: NodeId) -> Option<MacAddress> {
    let mixed = network.uuid().as_u128() ^ node.uuid().as_u128();
    let [.., a, b, c, d, e] = mixed.to_be_bytes();
    MacAddress::try_from([0x02, a, b, c, d, e]).ok()
}

#[cfg(test)]
mod tests {
    use otherix_schemas::event::{Event, NetworkCreated, NicAttached, NicBound, NicDetached};
    use otherix_schemas::network::OverlaySpec;
    use otherix_schemas::value::Mtu;

    use super::*;

    fn bridge(ownership: Ownership, vlan: Option<i64>) -> NetworkSpec {
        NetworkSpec::Bridge(BridgeSpec {
            bridge_name: "br-app".parse().unwrap(),
            ownership,
            mtu: Mtu::try_from(9000).unwrap(),
            vlan: vlan.map(|number| number.try_into().unwrap()),
        })
    }

    fn of(spec: NetworkSpec) -> Want {
        let network_id = "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap();
        let mut view = View::default();
        let created = NetworkCreated { network_id, name: "net".parse().unwrap(), spec };
        view.apply(Position::new(3), Event::NetworkCreated(created));
        let mut desired = desired(&view, ClusterId::new(uuid::Uuid::nil()), NodeId::new(uuid::Uuid::nil()));
        desired.networks.remove(&network_id).unwrap().want
    }

    #[test]
    fn bridges_are_realised() {
        let mac = Some("02:02:09:9a:80:58".parse().unwrap());
        let wanted = DesiredBridge { name: "br-app".into(), mtu: 9000, mac, vlan: None, nat: None };
        assert_eq!(of(bridge(Ownership::Managed(Egress::None), None)), Want::Bridge(wanted.clone()));
        let vlan = Some(7.try_into().unwrap());
        let tagged = DesiredBridge { vlan, ..wanted.clone() };
        assert_eq!(of(bridge(Ownership::Managed(Egress::None), Some(7))), Want::Bridge(tagged.clone()));
        assert_eq!(of(bridge(Ownership::Unmanaged, Some(7))), Want::Unmanaged(DesiredBridge { mac: None, ..tagged }));
        let subnet = "10.1.0.0/24".parse().unwrap();
        let nat = Nat::new(subnet, None).unwrap();
        let wanted = DesiredBridge { nat: Some(Gateway { address: "10.1.0.1".parse().unwrap(), subnet }), ..wanted };
        assert_eq!(of(bridge(Ownership::Managed(Egress::Nat(nat)), None)), Want::Bridge(wanted));
    }

    #[test]
    fn what_is_not_realised_says_so() {
        let subnet = "10.1.0.0/24".parse().unwrap();
        let want = of(NetworkSpec::Overlay(OverlaySpec { vni: 1000.try_into().unwrap(), subnet, mtu: Mtu::DEFAULT }));
        assert!(matches!(&want, Want::Unsupported(text) if text.contains("overlay")), "{want:?}");
    }

    #[test]
    fn a_nic_has_its_tap_where_it_is_bound_and_nowhere_else() {
        let [network_id, vm_id, nic_id, here, there] = [1, 2, 3, 4, 5].map(uuid::Uuid::from_u128);
        let (network_id, nic_id, here) = (NetworkId::new(network_id), NicId::new(nic_id), NodeId::new(here));
        let vm_id = otherix_schemas::id::VmId::new(vm_id);
        let mac = MacAddress::given(1);
        let mut view = View::default();
        let nics = |view: &View| desired(view, ClusterId::new(uuid::Uuid::nil()), here).nics;
        view.apply(Position::new(1), Event::NicAttached(NicAttached { nic_id, vm_id, network_id, mac }));
        assert!(nics(&view).is_empty());
        view.apply(Position::new(2), Event::NicBound(NicBound { nic_id, node_id: NodeId::new(there) }));
        assert!(nics(&view).is_empty());
        view.apply(Position::new(3), Event::NicBound(NicBound { nic_id, node_id: here }));
        let tap = DesiredTap { name: tap_name(nic_id), network: network_id, mac };
        assert_eq!(nics(&view), [(nic_id, DesiredNic { generation: Position::new(3), tap: Some(tap) })].into());
        view.apply(Position::new(4), Event::NicDetached(NicDetached { nic_id, vm_id, network_id }));
        assert_eq!(nics(&view), [(nic_id, DesiredNic { generation: Position::new(4), tap: None })].into());
    }
}
