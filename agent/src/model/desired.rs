//! What must be on this node for the networks of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::id::{ClusterId, NetworkId};
use otherix_schemas::network::{BridgeSpec, Egress, NetworkSpec, Ownership};
use otherix_schemas::position::Position;
use serde::{Deserialize, Serialize};

use super::owner::Owner;
use super::view::{Life, Network, View};

/// What must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The cluster, whose devices alone are ours.
    pub cluster: ClusterId,
    /// For each network that is known.
    pub networks: BTreeMap<NetworkId, DesiredNetwork>,
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
pub struct DesiredBridge {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl Desired {
    /// The alias of the network's devices.
    pub fn owner(&self, network: NetworkId) -> Owner {
        Owner { cluster: self.cluster, network }
    }

    /// The names of the bridges that are wanted.
    pub fn names(&self) -> BTreeSet<String> {
        let names = self.networks.values().filter_map(|network| match &network.want {
            Want::Bridge(bridge) | Want::Unmanaged(bridge) => Some(bridge.name.clone()),
            Want::Unsupported(_) | Want::Nothing => None,
        });
        names.collect()
    }
}

/// What must be on a node of `cluster` for what was decided.
pub fn desired(view: &View, cluster: ClusterId) -> Desired {
    let networks = view.networks().map(|(id, network)| {
        let Network { name: _, generation, life } = network;
        let want = match life {
            Life::Defined(spec) => want(spec),
            Life::Deleted => Want::Nothing,
        };
        (id, DesiredNetwork { generation: *generation, want })
    });
    Desired { cluster, networks: networks.collect() }
}

fn want(spec: &NetworkSpec) -> Want {
    let bridge = match spec {
        NetworkSpec::Overlay(_) => return unsupported("overlay networks"),
        NetworkSpec::Bridge(bridge) => bridge,
    };
    let BridgeSpec { bridge_name, ownership, mtu, vlan } = bridge;
    let bridge = DesiredBridge { name: bridge_name.to_string(), mtu: mtu.get().into() };
    match (ownership, vlan) {
        (Ownership::Managed(Egress::Nat(_)), _) => unsupported("egress `nat`"),
        (Ownership::Managed(Egress::None) | Ownership::Unmanaged, Some(_)) => unsupported("VLANs"),
        (Ownership::Managed(Egress::None), None) => Want::Bridge(bridge),
        (Ownership::Unmanaged, None) => Want::Unmanaged(bridge),
    }
}

fn unsupported(what: &str) -> Want {
    Want::Unsupported(format!("this version of otherix-agent does not realise {what}; nothing was made on this node"))
}

#[cfg(test)]
mod tests {
    use otherix_schemas::event::{Event, NetworkCreated};
    use otherix_schemas::network::OverlaySpec;
    use otherix_schemas::value::{Mtu, Nat};

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
        let mut desired = desired(&view, ClusterId::new(uuid::Uuid::nil()));
        desired.networks.remove(&network_id).unwrap().want
    }

    #[test]
    fn bridges_are_realised() {
        let wanted = DesiredBridge { name: "br-app".into(), mtu: 9000 };
        assert_eq!(of(bridge(Ownership::Managed(Egress::None), None)), Want::Bridge(wanted.clone()));
        assert_eq!(of(bridge(Ownership::Unmanaged, None)), Want::Unmanaged(wanted));
    }

    #[test]
    fn what_is_not_realised_says_so() {
        let subnet = "10.1.0.0/24".parse().unwrap();
        let overlay = OverlaySpec { vni: 1000.try_into().unwrap(), subnet, mtu: Mtu::DEFAULT };
        let nat = Ownership::Managed(Egress::Nat(Nat::new(subnet, None).unwrap()));
        let cases = [
            (NetworkSpec::Overlay(overlay), "overlay"),
            (bridge(Ownership::Unmanaged, Some(7)), "VLAN"),
            (bridge(nat, None), "nat"),
            (bridge(Ownership::Managed(Egress::None), Some(7)), "VLAN"),
        ];
        for (spec, word) in cases {
            let want = of(spec);
            assert!(matches!(&want, Want::Unsupported(text) if text.contains(word)), "{want:?}");
        }
    }
}
