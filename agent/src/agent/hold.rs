//! Holds deletions that an operator has not released yet: the desired state without them. Pure.

use std::collections::BTreeSet;

use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};

use crate::ledger::Lineage;
use crate::model::desired::{Desired, DesiredNetwork, DesiredNic, Want};
use crate::model::owner::Owner;
use crate::release::{HeldDeletions, HeldDevice};

/// Removes deleted networks and detached NICs that still have devices from `desired`. Returns the held deletions, and
/// the outcomes of these resources. `ours` are the devices of ours, with their names; those of other clusters than
/// `clusters` are ignored.
pub(super) fn hold_deletions(
    desired: &mut Desired,
    lineage: Lineage,
    clusters: &BTreeSet<ClusterId>,
    ours: Vec<(Owner, String)>,
) -> (HeldDeletions, Vec<ResourceOutcome>) {
    let mut devices = BTreeSet::new();
    let mut outcomes = Vec::new();
    for (owner, name) in ours {
        let Owner { cluster, id } = owner;
        if !clusters.contains(&cluster) {
            continue;
        }
        if cluster == desired.cluster {
            let (network, nic) = (NetworkId::new(id), NicId::new(id));
            let deleted = match (desired.networks.get(&network), desired.nics.get(&nic)) {
                (Some(DesiredNetwork { generation, want: Want::Nothing }), _) => {
                    Some((ResourceRef::Network(network), *generation))
                }
                (None, Some(DesiredNic { generation, tap: None })) => Some((ResourceRef::Nic(nic), *generation)),
                (Some(_), _) | (None, Some(_)) => continue,
                (None, None) => None,
            };
            if let Some((resource, generation)) = deleted {
                desired.networks.remove(&network);
                desired.nics.remove(&nic);
                let reason = format!("removal of `{name}` is held back: {lineage} is not released on this node");
                outcomes.push(ResourceOutcome::new(resource, generation, Outcome::Pending(reason)));
            }
        }
        devices.insert(HeldDevice { name, owner: id, cluster });
    }
    (HeldDeletions { lineage, devices: devices.into_iter().collect() }, outcomes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use otherix_schemas::id::NetworkId;
    use otherix_schemas::position::{Epoch, Position};
    use uuid::Uuid;

    use super::*;
    use crate::model::desired::DesiredBridge;

    #[test]
    fn holds_deletions_and_nothing_else() {
        let cluster = |number| ClusterId::new(Uuid::from_u128(number));
        let network = |number| NetworkId::new(Uuid::from_u128(number));
        let generation = Position::new(9);
        let bridge = DesiredBridge {
            name: "br-1".into(),
            mtu: 1500,
            mac: None,
            vlan: None,
            nat: None,
            allow_spoofing: false,
            dns: false,
        };
        let networks = BTreeMap::from([
            (network(1), DesiredNetwork { generation, want: Want::Bridge(bridge) }),
            (network(2), DesiredNetwork { generation, want: Want::Nothing }),
            (network(3), DesiredNetwork { generation, want: Want::Nothing }),
        ]);
        let mut desired = Desired { networks, ..Desired::nothing(cluster(1), false) };
        let ours = [(1, 1), (1, 2), (1, 4), (2, 1), (3, 5)].map(|(of, number): (u128, u128)| {
            (Owner::of_network(cluster(of), network(number)), format!("br-{of}{number}"))
        });
        let lineage = Lineage { cluster: cluster(1), epoch: Epoch::new(2) };

        let (held, outcomes) =
            hold_deletions(&mut desired, lineage, &BTreeSet::from([cluster(1), cluster(2)]), ours.into());

        assert_eq!(held.names(), "br-12, br-14, br-21");
        assert_eq!(desired.networks.keys().copied().collect::<Vec<_>>(), [network(1), network(3)]);
        assert_eq!(outcomes.len(), 1);
        assert_eq!((outcomes[0].resource, outcomes[0].generation), (ResourceRef::Network(network(2)), generation));
    }
}
