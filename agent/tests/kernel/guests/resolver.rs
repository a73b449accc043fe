//! The gateway's port 53: only over TCP, only of a network that resolves names, and nothing else of the node.

use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_testkit::netns::sh;

use super::node_services::datagrams_received;
use super::{Server, attack, delete_tables};
use crate::nat::{guest, nat, node_with_uplink};
use crate::node::REPAIR;

fn resolving(number: u16) -> Want {
    let Want::Bridge(bridge) = nat(number) else { unreachable!() };
    Want::Bridge(DesiredBridge { dns: true, ..bridge })
}

/// What the guest of network 1 may not reach: the port over UDP, which the node's own programs would get, its other
/// ports, and the port at other addresses of the node.
const AGAINST_THE_NODE: [&str; 6] = [
    "udp 10.20.1.1 53 10.20.1.5",
    "tcp 10.20.1.1 54",
    "tcp 10.20.2.1 53",
    "tcp 192.0.2.7 53",
    "udp 192.0.2.7 53 10.20.1.5",
    "udp 10.20.2.1 53 10.20.1.5",
];

#[tokio::test]
async fn behind_nat_only_tcp_of_the_own_gateway_is_reached_where_it_resolves_names() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, resolving(1));
    node.set_desired(2, nat(2));
    node.settle().await;
    let (one, two, _server) = (guest(1, 5), guest(2, 5), Server::start(None, "53 54"));
    assert!(attack(&one, "tcp 10.20.1.1 53"), "names over TCP");
    assert!(!attack(&two, "tcp 10.20.2.1 53"), "its network resolves no names");
    let before = datagrams_received();
    for arguments in AGAINST_THE_NODE {
        assert!(!attack(&one, arguments), "{arguments}");
    }
    assert_eq!(datagrams_received(), before, "the node's own programs get nothing");

    delete_tables();
    for arguments in AGAINST_THE_NODE {
        assert!(attack(&one, arguments), "{arguments} without the tables");
    }
    assert!(attack(&two, "tcp 10.20.2.1 53"), "without the tables");
    node.run_until(REPAIR, || sh("nft list tables").contains("table ip otherix\n")).await;
    node.settle().await;
    assert!(attack(&one, "tcp 10.20.1.1 53") && !AGAINST_THE_NODE.iter().any(|arguments| attack(&one, arguments)));
    assert!(one.reaches("10.20.1.1"));
    let rules = || sh("nft list set ip otherix resolvers");
    assert!(rules().contains("\"br-1\" . 10.20.1.1") && !rules().contains("br-2"), "{}", rules());
    node.set_desired(1, nat(1));
    node.settle().await;
    assert!(!attack(&one, "tcp 10.20.1.1 53"));
}
