//! Addresses of VMs that are created at the same time.

use std::collections::BTreeSet;

use futures::future::join_all;
use otherix_commands::domain::Rejection;
use otherix_commands::store::replay;
use otherix_commands::writer::{CommandRequest, Refusal};
use otherix_schemas::command::Command;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{BridgeSpec, Dhcp, Egress, NetworkCommand, NewNetwork, NewNetworkSpec, Ownership};
use otherix_schemas::value::{GatewaySubnet, Metadata, Mtu};
use uuid::Uuid;

use super::support::{JournalFolder, RunningWriter, create_vm, join, request};

/// VMs that are created at once.
const AT_ONCE: usize = 300;

/// The addresses that guests can have in 10.20.0.0/24.
const ADDRESSES: usize = 253;

fn network(network_id: NetworkId) -> CommandRequest {
    let subnet = GatewaySubnet::new("10.20.0.0/24".parse().unwrap(), None).unwrap();
    let bridge = BridgeSpec {
        bridge_name: "br-a".parse().unwrap(),
        ownership: Ownership::Managed(Egress::Nat(subnet)),
        mtu: Mtu::DEFAULT,
        vlan: None,
        dhcp: Some(Dhcp { subnet, dns: true }),
        allow_spoofing: false,
    };
    let network = NewNetwork {
        name: "net".parse().unwrap(),
        spec: NewNetworkSpec::Bridge(bridge),
        metadata: Metadata::default(),
    };
    request(Command::Network(NetworkCommand::Create { network_id, network }))
}

#[tokio::test]
async fn vms_that_are_created_at_once_get_different_addresses() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    writer.execute(join("node-1")).await.unwrap();
    let network_id = NetworkId::new(Uuid::now_v7());
    writer.execute(network(network_id)).await.unwrap();
    let creations = (0..AT_ONCE).map(|number| writer.begin(create_vm(number, network_id))).collect::<Vec<_>>();
    let mut addresses = BTreeSet::new();
    let mut refused = 0;
    for answer in join_all(creations).await {
        match answer.unwrap() {
            Ok(answer) => {
                let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
                let ip: std::net::Ipv4Addr = answer["data"]["nic"]["ip"].as_str().unwrap().parse().unwrap();
                assert!(addresses.insert(ip), "{ip} was given twice");
            }
            Err(Refusal::Rejected(Rejection::AddressesUsedUp { addresses: 253, used: ADDRESSES, .. })) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((addresses.len(), refused), (ADDRESSES, AT_ONCE - ADDRESSES));
    let journal = writer.stop().await;
    let state = replay(journal.as_ref()).await.unwrap().state;
    assert_eq!(state.nics().count_of_network(network_id), ADDRESSES);
}
