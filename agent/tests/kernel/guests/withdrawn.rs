//! Guests of a network with NAT egress that was withdrawn: its bridge and its taps remain.

use otherix_agent::model::link_group::LinkGroup;
use otherix_agent::model::withdrawal::Withdrawal;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::netns::{link, sh};

use super::node_services::datagrams_received;
use super::{Server, attack};
use crate::nat::{REMOTE, guest, has_gateway, nat, node_with_uplink};
use crate::node::{REPAIR, network};
use crate::taps::{attach_nic, nic};

/// Whether the link is in this group.
fn is_in(name: &str, group: LinkGroup) -> bool {
    let number = group.number().to_string();
    link(name).unwrap()["group"] == number.as_str()
}

#[tokio::test]
async fn a_network_that_was_withdrawn_leads_to_nothing_of_the_node() {
    let (mut node, _outside) = node_with_uplink();
    sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
    node.set_desired(1, nat(1));
    let tap = attach_nic(&mut node, 1, 1);
    assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
    let (guest, _server) = (guest(1, 5), Server::start(None, "8022"));
    assert!(guest.reaches(REMOTE) && is_in("br-1", LinkGroup::GatewayBridge) && is_in(&tap, LinkGroup::GatewayTap));
    let mac = link("br-1").unwrap()["address"].as_str().unwrap().to_owned();
    guest.sh(&format!("ip neighbour replace 10.20.1.1 lladdr {mac} dev eth0"));

    let withdrawal = Withdrawal { generation: Position::new(7), reason: "198.51.100.10 is not reached".to_owned() };
    node.withdrawn.insert(network(1), withdrawal);
    node.keep_withdrawn();
    node.expect_failure(1, &["198.51.100.10"]).await;
    assert!(!has_gateway());
    let reaches_node = || {
        let before = datagrams_received();
        attack(&guest, "udp 192.0.2.7 8022 10.20.1.5");
        attack(&guest, "udp 10.20.1.255 8022 10.20.1.5");
        datagrams_received() != before || attack(&guest, "arp eth0 10.20.1.5 192.0.2.7")
    };
    assert!(!reaches_node());
    assert!(is_in("br-1", LinkGroup::IsolatedBridge) && is_in(&tap, LinkGroup::IsolatedTap));
    sh("ip link set br-1 group default");
    assert!(reaches_node(), "in another group");
    node.run_until(REPAIR, || is_in("br-1", LinkGroup::IsolatedBridge)).await;
    assert!(!reaches_node());

    node.withdrawn.clear();
    node.keep_withdrawn();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(is_in("br-1", LinkGroup::GatewayBridge) && is_in(&tap, LinkGroup::GatewayTap));
    assert!(guest.reaches("10.20.1.1") && guest.reaches(REMOTE));
}
