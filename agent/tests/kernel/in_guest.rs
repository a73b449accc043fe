//! VLANs, in a guest whose kernel has VLAN filtering, which this machine's may lack.

use std::future::Future;
use std::time::Duration;

use otherix_agent::model::desired::{DesiredBridge, Want};
use otherix_schemas::network::{BridgeSpec, NetworkSpec};
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::TapDevice;
use otherix_vmtest::in_guest;
use serde_json::{Value, json};

use crate::changes::{Follower, bridge, index};
use crate::host::Host;
use crate::nat::{REMOTE, nat, node_with_uplink_here};
use crate::node::Node;
use crate::taps::{attach_nic, bridge_json, frame, mac, nic, received};

/// How long a repair may take: emulated processors are slow.
const REPAIR: Duration = Duration::from_secs(4);

fn run<F: Future<Output = ()>>(body: impl FnOnce() -> F) {
    in_guest(|| {
        enter_new();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body());
    });
}

/// Returns a bridge with a VLAN.
fn tagged(name: &str, vlan: i64, want: impl FnOnce(DesiredBridge) -> Want) -> Want {
    let vlan = Some(vlan.try_into().unwrap());
    want(DesiredBridge { name: name.into(), mtu: 1400, mac: None, vlan, nat: None, allow_spoofing: false, dns: false })
}

/// Returns the VLANs of a port as `bridge -j vlan` shows them.
fn vlans(port: &str) -> Value {
    let ports = bridge_json("vlan show");
    ports.into_iter().find(|entry| entry["ifname"] == port).map_or(json!([]), |mut entry| entry["vlans"].take())
}

/// The VLANs of an access port.
fn access(vlan: u16) -> Value {
    json!([{ "vlan": vlan, "flags": ["PVID", "Egress Untagged"] }])
}

/// Sends frames until `witness` receives one, and returns whether `to` received one too.
fn receives(from: (&TapDevice, u16), witness: &TapDevice, to: &TapDevice, number: u8) -> bool {
    let mut numbers = Vec::new();
    wait_for_blocking(Duration::from_secs(20), "a frame", || {
        from.0.write(&frame(mac(from.1), number)).unwrap();
        numbers.extend(received(witness));
        numbers.contains(&number)
    });
    received(to).contains(&number)
}

#[test]
fn networks_on_one_bridge_are_connected_only_if_they_have_the_same_vlan() {
    run(|| async {
        sh("ip link add br-trunk mtu 1400 type bridge\nip link set br-trunk up");
        let mut node = Node::new();
        for (network, vlan) in [(1, 10), (2, 20), (3, 10)] {
            node.set_desired(network, tagged("br-trunk", vlan, Want::Unmanaged));
        }
        node.expect_failure(1, &["br-trunk", "vlan_filtering"]).await;
        sh("ip link set br-trunk type bridge vlan_filtering 1");
        node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
        let before = link("br-trunk");
        let taps = [(1, 1), (2, 1), (3, 2), (4, 3)].map(|(number, network)| attach_nic(&mut node, number, network));
        for number in 1..=4 {
            assert_eq!(node.nic_outcome(nic(number)).await, Outcome::Ready);
        }
        let [one, two, three, four] = &taps;
        assert_eq!([one, two, four].map(|tap| vlans(tap)), [access(10), access(10), access(10)]);
        assert_eq!(vlans(three), access(20));
        let settings =
            |link: Option<Value>| link.map(|mut link| link["linkinfo"]["info_data"]["vlan_filtering"].take());
        assert_eq!(settings(link("br-trunk")), settings(before), "the operator's bridge is not changed");

        let [a, b, c, d] = taps.each_ref().map(|tap| TapDevice::attach(tap).unwrap());
        // A port forwards shortly after a process attaches.
        wait_for_blocking(Duration::from_secs(20), "all ports to forward", || {
            let ports = bridge_json("link show");
            taps.iter().all(|tap| ports.iter().any(|port| port["ifname"] == **tap && port["state"] == "forwarding"))
        });
        assert!(receives((&a, 1), &b, &d, 1), "the same VLAN of another network");
        assert!(!receives((&a, 1), &b, &c, 2), "another VLAN");
        assert!(receives((&d, 4), &a, &b, 3));

        // A guest of VLAN 10 sends frames with tags: of another VLAN, of its own, and with a priority only.
        let attack = || {
            for (vlan, number) in [(20, 4), (10, 5), (0, 6)] {
                let frame = frame(mac(1), number);
                a.write(&[&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat()).unwrap();
            }
        };
        attack();
        let mut numbers = Vec::new();
        let mut receives_until = |number| {
            wait_for_blocking(Duration::from_secs(20), "the last frame", || {
                a.write(&frame(mac(1), number)).unwrap();
                numbers.extend(received(&b));
                numbers.contains(&number)
            });
            numbers.extend(received(&c));
            numbers.iter().filter(|number| (4..7).contains(*number)).count()
        };
        assert_eq!(receives_until(7), 0);
        sh("nft delete table bridge otherix_guests");
        attack();
        assert!(receives_until(8) > 0, "without the tables");
        node.settle().await;

        for change in [
            "bridge vlan del dev TAP vid 10",
            "bridge vlan add dev TAP vid 20",
            "bridge vlan add dev TAP vid 20 pvid untagged",
            "bridge vlan add dev TAP vid 2-4000",
        ] {
            sh(&change.replace("TAP", one));
            node.run_until(REPAIR, || vlans(one) == access(10)).await;
            assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready, "{change}");
        }
        assert!(!receives((&a, 1), &b, &c, 9));
        sh("ip link set br-trunk type bridge vlan_filtering 0");
        node.run_until(REPAIR, || true).await;
        node.expect_failure(1, &["br-trunk", "vlan_filtering"]).await;
    });
}

#[test]
fn a_managed_bridge_and_its_gateway_are_in_its_vlan() {
    run(|| async {
        let (mut node, _outside) = node_with_uplink_here();
        let Want::Bridge(bridge) = nat(1) else { unreachable!() };
        node.set_desired(1, Want::Bridge(DesiredBridge { vlan: Some(7.try_into().unwrap()), ..bridge }));
        node.set_desired(2, tagged("br-plain", 8, Want::Bridge));
        assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
        let tap = attach_nic(&mut node, 1, 1);
        assert_eq!(node.nic_outcome(nic(1)).await, Outcome::Ready);
        let filters = || {
            let data = link("br-1").unwrap()["linkinfo"]["info_data"].clone();
            (data["vlan_filtering"].clone(), data["vlan_default_pvid"].clone()) == (json!(1), json!(0))
        };
        let is_complete = || filters() && vlans("br-1") == access(7) && vlans(&tap) == access(7);
        assert!(is_complete(), "{} {}", vlans("br-1"), vlans(&tap));
        assert_eq!(vlans("br-plain"), json!([]), "a bridge without a gateway is in no VLAN");

        let guest = Host::new("g1");
        sh("ip link set g1 master br-1");
        guest.sh("ip address add 10.20.1.5/24 dev eth0; ip route add default via 10.20.1.1");
        assert!(guest.cannot_reach("10.20.1.1"), "the guest's port is in no VLAN yet");
        sh("bridge vlan add dev g1 vid 7 pvid untagged");
        let reaches = |address: &str| (0..5).any(|_| guest.reaches(address));
        assert!(reaches("10.20.1.1") && reaches(REMOTE));
        for change in [
            "bridge vlan del dev br-1 vid 7 self",
            "bridge vlan add dev br-1 vid 9 self",
            "ip link set br-1 type bridge vlan_filtering 0",
            "ip link set br-1 type bridge vlan_filtering 0 vlan_default_pvid 5 vlan_filtering 1",
        ] {
            sh(change);
            node.run_until(REPAIR, is_complete).await;
            assert_eq!(node.outcome(1).await, Outcome::Ready, "{change}");
            // A new default PVID replaces that of the guest's port, which is foreign.
            sh("bridge vlan add dev g1 vid 7 pvid untagged");
            assert!(reaches(REMOTE), "{change}");
        }
    });
}

#[tokio::test]
async fn without_vlan_filtering_in_the_kernel_a_network_with_a_vlan_fails() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, tagged("br-app", 7, Want::Bridge));
    let has_vlans = sh("ip link add probe type bridge vlan_filtering 1 2>/dev/null && echo yes || echo no");
    if has_vlans.trim() == "yes" {
        assert_eq!(node.outcome(1).await, Outcome::Ready);
    } else {
        node.expect_failure(1, &["no VLAN filtering"]).await;
        assert!(link("br-app").is_none());
    }
}

#[test]
fn a_vlan_comes_and_goes_and_the_tap_stays() {
    run(|| async { vlan_changes().await });
}

async fn vlan_changes() {
    let mut follower = Follower::new(Node::new());
    let vlan =
        |id: Option<i64>| NetworkSpec::Bridge(BridgeSpec { vlan: id.map(|id| id.try_into().unwrap()), ..bridge(1) });
    follower.create(1, vlan(None)).await;
    let tap = follower.attach(1, 1).await;
    let before = (index("br-1"), index(&tap));
    let entries = || -> Vec<Option<u64>> {
        let entries = bridge_json(&format!("fdb show brport {tap}"));
        let ours = entries.iter().filter(|entry| entry["mac"] == mac(1).to_string() && entry["state"] == "static");
        ours.map(|entry| entry["vlan"].as_u64()).collect()
    };
    let filters = || link("br-1").unwrap()["linkinfo"]["info_data"]["vlan_filtering"].clone();
    for id in [Some(12), Some(13), None, Some(12), None] {
        follower.change(1, vlan(id)).await;
        assert_eq!(follower.nic_outcome(1).await, Outcome::Ready);
        assert!(entries().contains(&id.map(i64::cast_unsigned)), "{id:?}: {:?}", entries());
        assert_eq!(filters(), u64::from(id.is_some()));
        assert_eq!((index("br-1"), index(&tap)), before);
        if let Some(id) = id {
            let port = bridge_json(&format!("vlan show dev {tap}"));
            let vlans: Vec<_> = port[0]["vlans"].as_array().unwrap().iter().map(|vlan| vlan["vlan"].clone()).collect();
            assert_eq!(vlans, [id]);
        }
    }
}
