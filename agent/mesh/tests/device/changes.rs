//! Configuration changes while packets are sent.

use otherix_mesh::config::{AllowedIp, WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey};
use otherix_testkit::wait::wait_for_blocking;

use crate::node::{DEADLINE, PORT, mesh};

#[test]
fn changes_of_an_endpoint_lose_no_packets() {
    let nodes = mesh::<3>(&[]);
    let [one, other, third] = &nodes;
    other.sh("ip addr add 192.0.2.102/24 dev u0");
    one.reaches(&other.address());
    one.reaches(&third.address());
    let pings = [one.ping(&third.address(), 600), one.ping(&other.address(), 600)];
    for number in 0..100 {
        // Alternate between two addresses of the peer.
        let host = if number % 2 == 0 { 102 } else { 2 };
        let endpoint = Some(format!("192.0.2.{host}:{PORT}").parse().unwrap());
        one.change(WgPeerUpdate { endpoint, ..WgPeerUpdate::new(other.key.public()) });
    }
    for ping in pings {
        assert_eq!(ping.sent_and_lost(), (600, 0));
    }
}

#[test]
fn changes_of_other_settings_and_peers_lose_no_packets() {
    let nodes = mesh::<3>(&[]);
    let [one, other, third] = &nodes;
    one.reaches(&other.address());
    one.reaches(&third.address());
    let pings = [one.ping(&third.address(), 800), one.ping(&other.address(), 800)];
    let peer = || WgPeerUpdate::new(other.key.public());
    for number in 0..40_u16 {
        let stranger = WgPrivateKey::generate().unwrap().public();
        let prefix = format!("10.43.{number}.0/24").parse().unwrap();
        let allowed_ips = vec![AllowedIp { prefix, remove: false }];
        one.change(WgPeerUpdate { keepalive: Some(number + 1), allowed_ips: allowed_ips.clone(), ..peer() });
        one.change(WgPeerUpdate { replace_allowed_ips: true, ..other.as_peer() });
        // Another peer is added, takes over allowed IPs, and is removed.
        one.change(WgPeerUpdate {
            allowed_ips,
            endpoint: Some(([192, 0, 2, 99], 9).into()),
            ..WgPeerUpdate::new(stranger)
        });
        one.change(WgPeerUpdate { remove: true, ..WgPeerUpdate::new(stranger) });
        one.change(WgPeerUpdate { update_only: true, keepalive: Some(1), ..WgPeerUpdate::new(stranger) });
    }
    // Replace all settings, as `wg setconf` does.
    let peers = vec![other.as_peer(), third.as_peer()];
    one.client().set(&WgDeviceUpdate { replace_peers: true, peers, ..WgDeviceUpdate::default() }).unwrap();
    for ping in pings {
        assert_eq!(ping.sent_and_lost(), (800, 0));
    }
    assert_eq!(one.client().get().unwrap().peers.len(), 2);
}

#[test]
fn a_changed_preshared_key_loses_no_packets() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    let ping = one.ping(&other.address(), 600);
    let psk = WgPresharedKey::from_hex(&"5".repeat(64)).unwrap();
    let before = one.client().get().unwrap().peers[0].last_handshake;
    for (node, peer) in [(one, other), (other, one)] {
        node.change(WgPeerUpdate { preshared_key: Some(psk.clone()), ..WgPeerUpdate::new(peer.key.public()) });
    }
    assert_eq!(ping.sent_and_lost(), (600, 0));
    wait_for_blocking(DEADLINE, "a handshake with the new key", || {
        one.client().get().unwrap().peers[0].last_handshake > before
    });
    one.reaches(&other.address());
    let keys = one.sh("wg show otwg0 preshared-keys");
    assert!(keys.trim_end().ends_with("VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVU="), "{keys}");
}

#[test]
fn a_changed_private_key_interrupts_traffic_briefly() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    let pings = [one.ping(&other.address(), 600), other.ping(&one.address(), 600)];
    let key = WgPrivateKey::generate().unwrap();
    one.client().set(&WgDeviceUpdate { private_key: Some(Some(key.clone())), ..WgDeviceUpdate::default() }).unwrap();
    let old = WgPeerUpdate { remove: true, ..WgPeerUpdate::new(one.key.public()) };
    let new = WgPeerUpdate { public_key: key.public(), ..one.as_peer() };
    other.client().set(&WgDeviceUpdate { peers: vec![old, new], ..WgDeviceUpdate::default() }).unwrap();
    for ping in pings {
        // 20 pings take a tenth of a second.
        let (sent, lost) = ping.sent_and_lost();
        assert!(sent == 600 && lost <= 20, "{lost} of {sent} lost");
    }
    assert_eq!(one.sh("wg show otwg0 public-key").trim(), key.public().to_base64());
}

#[test]
fn packets_of_a_removed_peer_are_rejected() {
    let nodes = mesh::<3>(&[]);
    let [one, other, third] = &nodes;
    one.reaches(&other.address());
    one.reaches(&third.address());
    one.change(WgPeerUpdate { remove: true, ..WgPeerUpdate::new(other.key.public()) });
    let before = one.received();
    // It keeps sending with its session, and then attempts handshakes.
    assert_eq!(other.ping(&one.address(), 200).sent_and_lost(), (200, 200));
    other.change(WgPeerUpdate { remove: true, ..WgPeerUpdate::new(one.key.public()) });
    other.change(one.as_peer());
    assert_eq!(other.ping(&one.address(), 50).sent_and_lost(), (50, 50));
    assert_eq!(one.received(), before);
    assert!(!one.sh("wg show otwg0 peers").contains(&other.key.public().to_base64()));
    one.reaches(&third.address());
    one.change(other.as_peer());
    one.reaches(&other.address());
}

#[test]
fn a_source_address_of_another_peer_is_rejected() {
    let nodes = mesh::<3>(&[]);
    let [one, other, third] = &nodes;
    one.reaches(&other.address());
    one.reaches(&third.address());
    other.sh(&format!("ip addr add {}/32 dev otwg0", third.address()));
    let before = one.received();
    let forged = format!("! ping -n -q -c 20 -i 0.01 -W 1 -I {} {}", third.address(), one.address());
    other.sh(&forged);
    assert_eq!(one.received(), before);
}

#[test]
fn the_endpoint_follows_a_peer_that_moves() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    assert_eq!(one.dump(other)[2], "192.0.2.2:51820");
    // Change both address and port.
    other.sh("ip addr del 192.0.2.2/24 dev u0; ip addr add 192.0.2.77/24 dev u0; wg set otwg0 listen-port 7777");
    other.reaches(&one.address());
    assert_eq!(one.dump(other)[2], "192.0.2.77:7777");
    let ping = one.ping(&other.address(), 100);
    assert_eq!(ping.sent_and_lost(), (100, 0));
}

#[test]
fn wg_configures_the_device() {
    let nodes = mesh::<3>(&[]);
    let [one, other, third] = &nodes;
    one.reaches(&other.address());
    one.reaches(&third.address());
    let ping = one.ping(&third.address(), 300);
    // The second peer is removed, an unknown one added, the third unchanged.
    let stranger = WgPrivateKey::generate().unwrap().public();
    let config = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n[Peer]\nPublicKey = {stranger}\nAllowedIPs = 10.50.0.0/16\n\
         Endpoint = 192.0.2.9:9\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/32, fd42::3/128\nEndpoint = {}:{PORT}\n\
         PersistentKeepalive = 25\n",
        one.key.to_base64().as_str(),
        third.key.public(),
        third.address(),
        third.underlay()
    );
    std::fs::write(one.folder().join("conf"), config).unwrap();
    for command in ["syncconf", "setconf"] {
        one.sh(&format!("wg {command} otwg0 /run/wireguard/conf"));
        let mut peers: Vec<String> = one.sh("wg show otwg0 peers").lines().map(str::to_owned).collect();
        let mut expected = vec![stranger.to_base64(), third.key.public().to_base64()];
        peers.sort();
        expected.sort();
        assert_eq!(peers, expected);
    }
    assert_eq!(ping.sent_and_lost(), (300, 0));
    assert_eq!(one.sh("wg show otwg0 public-key").trim(), one.key.public().to_base64());
    assert_eq!(one.sh("wg show otwg0 fwmark").trim(), "off");
    one.sh("wg set otwg0 fwmark 0x20");
    assert_eq!(one.sh("wg show otwg0 fwmark").trim(), "0x20");
    one.reaches(&third.address());
    // A port that is in use is refused, and the present one is kept.
    let taken = "import socket, time; s = socket.socket(2, 2); s.bind(('', 5)); print(flush=True); time.sleep(60)";
    let mut command = one.command(&["/usr/bin/python3", "-c", taken]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    one.sh("! wg set otwg0 listen-port 5 2>/dev/null");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(one.sh("wg show otwg0 listen-port").trim(), "51820");
    one.reaches(&third.address());
}
