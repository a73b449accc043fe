//! IPv6 of the node does not exist on bridges of ours.

use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use otherix_tun::TapDevice;

use super::{Server, attack, delete_tables};
use crate::host::Host;
use crate::node::{Node, REPAIR, bridge};
use crate::taps::attach_nic;

const ADVERTISE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/guests/advertise.py");

/// Returns the link-local address of a bridge, without which it has none.
fn link_local(device: &str) -> Option<String> {
    let addresses = ip_json(&["-6", "address", "show", "dev", device]);
    let addresses = addresses.as_array()?.first()?["addr_info"].as_array()?.clone();
    addresses.iter().find_map(|address| address["local"].as_str()).map(str::to_owned)
}

fn disabled(device: &str) -> bool {
    sh(&format!("cat /proc/sys/net/ipv6/conf/{device}/disable_ipv6")).trim() == "1"
}

#[tokio::test]
async fn ipv6_that_is_enabled_is_disabled_again() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.set_desired(2, crate::nat::nat(2));
    let tap = attach_nic(&mut node, 1, 1);
    node.settle().await;
    let guest = Host::new("guest");
    sh("ip link set guest master br-app");
    sh("ip link add port type veth peer name other\nip link set port master br-2");
    let _attached = TapDevice::attach(&tap).unwrap();
    for change in [
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=0",
        "sysctl -qw net.ipv6.conf.br-app.disable_ipv6=0",
        "sysctl -qw net.ipv6.conf.TAP.disable_ipv6=0",
        "sysctl -qw net.ipv6.conf.br-app.addr_gen_mode=1 net.ipv6.conf.br-app.disable_ipv6=0",
    ] {
        sh(&change.replace("TAP", &tap));
        node.run_until(REPAIR, || disabled("br-app") && disabled("br-2") && disabled(&tap)).await;
        let passes = node.passes;
        node.settle().await;
        assert_eq!(node.passes, passes + 1, "{change}");
    }
    drop(guest);
}

#[tokio::test]
async fn while_ipv6_is_enabled_guests_do_not_reach_it() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let (guest, _server) = (Host::new("guest"), Server::start(None, "8022"));
    sh("ip link set guest master br-app");
    // The agent is not running.
    sh("sysctl -qw net.ipv6.conf.br-app.accept_dad=0 net.ipv6.conf.br-app.disable_ipv6=0");
    let address = link_local("br-app").unwrap();
    let connect = format!("tcp {address}%eth0 8022");
    guest.sh("sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip link set eth0 down; ip link set eth0 up");
    assert!(!attack(&guest, &connect));
    let advertise = || guest.sh(&format!("python3 {ADVERTISE} eth0"));
    let has_route = || !ip_json(&["-6", "route", "show", "default"]).as_array().unwrap().is_empty();
    advertise();
    assert!(!has_route());

    delete_tables();
    assert!(attack(&guest, &connect), "without the tables");
    advertise();
    otherix_testkit::wait::wait_for_blocking(REPAIR, "a default route of a guest", has_route);
    assert!(link("br-app").is_some());
}
