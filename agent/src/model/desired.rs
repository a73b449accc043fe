//! What must be on this node for the networks of the cluster.

use std::collections::BTreeMap;

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
    /// Something that this version does not do; the text says what. Nothing is made of it, not even half.
    Unsupported(String),
    /// That nothing is left: it is deleted.
    Nothing,
}

/// A bridge of ours. It is always up.
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
    match (ownership, vlan) {
        (Ownership::Unmanaged, _) => unsupported("unmanaged bridges"),
        (Ownership::Managed(Egress::Nat(_)), _) => unsupported("egress `nat`"),
        (Ownership::Managed(Egress::None), Some(_)) => unsupported("VLANs"),
        (Ownership::Managed(Egress::None), None) => {
            Want::Bridge(DesiredBridge { name: bridge_name.to_string(), mtu: mtu.get().into() })
        }
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
    fn a_managed_bridge_is_realised() {
        let want = of(bridge(Ownership::Managed(Egress::None), None));
        assert_eq!(want, Want::Bridge(DesiredBridge { name: "br-app".into(), mtu: 9000 }));
    }

    #[test]
    fn what_is_not_realised_says_so() {
        let subnet = "10.1.0.0/24".parse().unwrap();
        let overlay = OverlaySpec { vni: 1000.try_into().unwrap(), subnet, mtu: Mtu::DEFAULT };
        let nat = Ownership::Managed(Egress::Nat(Nat::new(subnet, None).unwrap()));
        let cases = [
            (NetworkSpec::Overlay(overlay), "overlay"),
            (bridge(Ownership::Unmanaged, None), "unmanaged"),
            (bridge(nat, None), "nat"),
            (bridge(Ownership::Managed(Egress::None), Some(7)), "VLAN"),
        ];
        for (spec, word) in cases {
            let want = of(spec);
            assert!(matches!(&want, Want::Unsupported(text) if text.contains(word)), "{want:?}");
        }
    }
}
