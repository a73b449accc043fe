//! A single device: its creation, configuration and status.

use std::collections::BTreeSet;
use std::thread;
use std::time::UNIX_EPOCH;

use otherix_agent::kernel::Kernel;
use otherix_agent::wireguard::kernel::{self, KernelDevice, WireGuardError};
use otherix_mesh::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;
use otherix_schemas::error::Causes;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use otherix_vmtest::in_guest;

use super::node::{ALIAS, MTU, NAME, absent_peer};

fn link_names() -> Vec<String> {
    let links = ip_json(&["link"]);
    let mut names: Vec<_> =
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Returns the error of a creation.
fn creation_error(name: &str, mtu: u32) -> String {
    Causes(&kernel::create(name, ALIAS, mtu).unwrap_err()).to_string()
}

#[test]
fn it_is_created_as_requested_and_a_failed_creation_leaves_nothing() {
    in_guest(|| {
        sh("rmmod wireguard; ! grep -q ^wireguard /proc/modules");
        enter_new();
        assert!(kernel::is_supported(), "the kernel loads the module");
        assert_eq!(link_names(), ["lo"]);
        kernel::create(NAME, ALIAS, MTU).unwrap();
        let created = link(NAME).unwrap();
        assert_eq!((&created["linkinfo"]["info_kind"], &created["mtu"]), (&"wireguard".into(), &MTU.into()));
        assert_eq!((&created["ifalias"], &created["operstate"]), (&ALIAS.into(), &"DOWN".into()));
        assert!(!created["flags"].as_array().unwrap().contains(&"UP".into()), "{created}");
        assert_eq!(link_names(), ["lo", NAME]);

        // A failed creation leaves nothing, and existing devices stay.
        sh("ip link add other type dummy; ip link property add dev other altname otwg1");
        let index = link(NAME).unwrap()["ifindex"].clone();
        for name in [NAME, "otwg1", "lo"] {
            assert_eq!(creation_error(name, MTU), format!("cannot create `{name}`: another device has this name"));
        }
        assert!(creation_error("otwg2", u32::MAX).contains("Invalid argument"));
        assert!(creation_error("a/b", MTU).contains("Invalid argument"));
        assert!(
            creation_error("a-name-too-long-for-a-link", MTU).contains("cannot create `a-name-too-long-for-a-link`")
        );
        assert_eq!(link_names(), ["lo", "other", NAME]);
        assert_eq!(link(NAME).unwrap()["ifindex"], index);
    });
}

#[test]
fn after_a_kill_at_any_message_the_next_creation_succeeds() {
    in_guest(|| {
        enter_new();
        let mut temporary = None;
        for messages in 0.. {
            let mut kernel = Kernel::open().unwrap();
            kernel.fail_after(messages);
            let created = kernel.create_wireguard(NAME, ALIAS, MTU);
            temporary = temporary.or(link_names().into_iter().find(|name| name.starts_with("ot.")));
            if created.is_ok() {
                assert!(messages >= 3, "{messages}");
                break;
            }
            kernel::create(NAME, ALIAS, MTU).unwrap();
            assert_eq!(link_names(), ["lo", NAME], "after {messages} messages");
            sh("ip link del otwg0");
        }
        sh("ip link del otwg0");
        // A device with the temporary name that is no WireGuard device is foreign.
        let temporary = temporary.unwrap();
        sh(&format!("ip link add {temporary} type dummy"));
        assert!(creation_error(NAME, MTU).contains("File exists"));
        assert_eq!(link_names(), ["lo".to_owned(), temporary]);
    });
}

/// Formats a status as `wg show dump` does.
fn wg_dump(status: &WgDeviceStatus) -> String {
    let or = |text: Option<String>, none: &str| text.unwrap_or_else(|| none.to_owned());
    let mark = if status.fwmark == 0 { "off".to_owned() } else { format!("{:#x}", status.fwmark) };
    let private = status.private_key.as_ref();
    let mut text = format!(
        "{}\t{}\t{}\t{mark}\n",
        or(private.map(|key| key.to_base64().to_string()), "(none)"),
        or(private.map(|key| key.public().to_base64()), "(none)"),
        status.listen_port,
    );
    for peer in &status.peers {
        // A preshared key has the same text form as a public one.
        let preshared =
            peer.preshared_key.as_ref().map(|key| WgPublicKey::from_hex(&key.to_hex()).unwrap().to_base64());
        let allowed: Vec<_> = peer.allowed_ips.iter().map(Prefix::to_string).collect();
        let handshake = peer.last_handshake.map_or(0, |time| time.duration_since(UNIX_EPOCH).unwrap().as_secs());
        text += &format!(
            "{}\t{}\t{}\t{}\t{handshake}\t{}\t{}\t{}\n",
            peer.public_key,
            or(preshared, "(none)"),
            or(peer.endpoint.map(|endpoint| endpoint.to_string()), "(none)"),
            or(Some(allowed.join(",")).filter(|text| !text.is_empty()), "(none)"),
            peer.rx_bytes,
            peer.tx_bytes,
            or(Some(peer.keepalive).filter(|seconds| *seconds != 0).map(|seconds| seconds.to_string()), "off"),
        );
    }
    text
}

/// Changes the device, and returns its status.
#[track_caller]
fn set(config: &WgDeviceUpdate) -> WgDeviceStatus {
    KernelDevice::new(NAME).set(config).unwrap();
    get()
}

/// Returns the status of the device, and asserts that `wg` shows the same.
#[track_caller]
fn get() -> WgDeviceStatus {
    let status = KernelDevice::new(NAME).get().unwrap();
    assert_eq!(wg_dump(&status), sh("wg show otwg0 dump"));
    status
}

fn prefixes(peer: &WgPeerUpdate) -> Vec<Prefix> {
    peer.allowed_ips.iter().map(|allowed| allowed.prefix).collect()
}

#[test]
fn its_status_is_as_configured_and_as_wg_shows_it() {
    in_guest(|| {
        enter_new();
        kernel::create(NAME, ALIAS, MTU).unwrap();
        let empty = get();
        assert_eq!((empty.private_key, empty.listen_port, empty.peers.len()), (None, 0, 0));
        let key = WgPrivateKey::generate().unwrap();
        let own = WgDeviceUpdate {
            private_key: Some(Some(key.clone())),
            listen_port: Some(51820),
            fwmark: Some(0x1234_5678),
            ..WgDeviceUpdate::default()
        };
        let status = set(&own);
        assert_eq!((status.private_key, status.listen_port, status.fwmark), (Some(key), 51820, 0x1234_5678));

        let with_peer = |peer: WgPeerUpdate| WgDeviceUpdate { peers: vec![peer], ..WgDeviceUpdate::default() };
        let preshared_key = WgPresharedKey::from_hex(&"5".repeat(64)).unwrap();
        let peer = WgPeerUpdate { preshared_key: Some(preshared_key.clone()), ..absent_peer(1) };
        let status = &set(&with_peer(peer.clone())).peers[0];
        assert_eq!((status.public_key, &status.preshared_key, status.keepalive), (peer.public_key, &preshared_key, 1));
        assert_eq!((status.endpoint, status.last_handshake), (peer.endpoint, None));
        assert_eq!(status.allowed_ips, prefixes(&peer));

        // Settings that a change does not contain stay.
        let endpoint_only =
            WgPeerUpdate { endpoint: Some("[2001:db8::1]:7".parse().unwrap()), ..WgPeerUpdate::new(peer.public_key) };
        let status = &set(&with_peer(endpoint_only)).peers[0];
        assert_eq!(status.endpoint.unwrap().to_string(), "[2001:db8::1]:7");
        assert_eq!((&status.preshared_key, status.keepalive, status.allowed_ips.len()), (&preshared_key, 1, 2));
        let reset =
            WgPeerUpdate { preshared_key: Some(None), keepalive: Some(0), ..WgPeerUpdate::new(peer.public_key) };
        let status = &set(&with_peer(reset)).peers[0];
        assert_eq!((&status.preshared_key, status.keepalive, status.allowed_ips.len()), (&None, 0, 2));

        // Allowed IPs are added and removed singly and all at once, and moved from one peer to another.
        let allowed = |prefix: &str, remove| AllowedIp { prefix: prefix.parse().unwrap(), remove };
        let change = vec![allowed("10.99.0.1/32", true), allowed("10.98.0.0/16", false)];
        let status = set(&with_peer(WgPeerUpdate { allowed_ips: change, ..WgPeerUpdate::new(peer.public_key) }));
        let texts = |status: &WgDeviceStatus, index: usize| -> Vec<String> {
            status.peers[index].allowed_ips.iter().map(Prefix::to_string).collect()
        };
        assert_eq!(texts(&status, 0), ["10.98.0.0/16", "fd42::1:0:0:0/80"]);
        let other = WgPeerUpdate {
            allowed_ips: vec![allowed("10.98.0.0/16", false)],
            ..WgPeerUpdate::new(absent_peer(2).public_key)
        };
        let status = set(&with_peer(other));
        assert_eq!(
            (texts(&status, 0), texts(&status, 1)),
            (vec!["fd42::1:0:0:0/80".into()], vec!["10.98.0.0/16".into()])
        );
        let none = WgPeerUpdate { replace_allowed_ips: true, ..WgPeerUpdate::new(peer.public_key) };
        assert!(texts(&set(&with_peer(none)), 0).is_empty());

        // So are peers; one that does not exist is neither changed nor removed.
        assert_eq!(set(&with_peer(WgPeerUpdate { update_only: true, ..absent_peer(3) })).peers.len(), 2);
        assert_eq!(set(&with_peer(WgPeerUpdate { remove: true, ..absent_peer(3) })).peers.len(), 2);
        assert_eq!(set(&with_peer(WgPeerUpdate { remove: true, ..absent_peer(2) })).peers.len(), 1);
        let all = WgDeviceUpdate { replace_peers: true, peers: vec![absent_peer(4)], ..WgDeviceUpdate::default() };
        assert_eq!(set(&all).peers[0].public_key, absent_peer(4).public_key);
        let nothing = WgDeviceUpdate {
            private_key: Some(None),
            fwmark: Some(0),
            replace_peers: true,
            ..WgDeviceUpdate::default()
        };
        let status = set(&nothing);
        assert_eq!((status.private_key, status.listen_port, status.fwmark, status.peers.len()), (None, 51820, 0, 0));

        sh("wg set otwg0 fwmark 7 peer CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk= allowed-ips 10.0.0.0/8,::/0");
        assert_eq!(texts(&get(), 0), ["10.0.0.0/8", "::/0"]);
    });
}

#[test]
fn a_refusal_by_the_kernel_is_an_error() {
    in_guest(|| {
        enter_new();
        let text = |error: Option<WireGuardError>| Causes(&error.unwrap()).to_string();
        let device = KernelDevice::new(NAME);
        let config = WgDeviceUpdate { replace_peers: true, ..WgDeviceUpdate::default() };
        assert!(text(device.get().err()).starts_with("cannot read the WireGuard device `otwg0`: No such device"));
        assert!(
            text(device.set(&config).err()).starts_with("cannot read the WireGuard device `otwg0`: No such device")
        );
        let change = text(device.set(&WgDeviceUpdate::default()).err());
        assert!(change.starts_with("cannot change the WireGuard device `otwg0`: No such device"), "{change}");
        sh("ip link add otwg0 type dummy");
        assert!(text(device.get().err()).contains("not supported"));
        sh("ip link del otwg0");
        kernel::create(NAME, ALIAS, MTU).unwrap();
        sh("ip link set otwg0 up");
        let _listener = std::net::UdpSocket::bind("0.0.0.0:5").unwrap();
        let config = WgDeviceUpdate { listen_port: Some(5), ..WgDeviceUpdate::default() };
        assert!(text(device.set(&config).err()).contains("Address already in use"));
        let config = WgDeviceUpdate { listen_port: Some(6), ..WgDeviceUpdate::default() };
        assert_eq!(set(&config).listen_port, 6);
    });
}

#[test]
fn a_thousand_peers_and_three_thousand_allowed_ips_of_a_peer_are_set_and_read() {
    in_guest(|| {
        enter_new();
        kernel::create(NAME, ALIAS, MTU).unwrap();
        let peers: Vec<WgPeerUpdate> = (1..=1000).map(absent_peer).collect();
        let config = WgDeviceUpdate {
            private_key: Some(Some(WgPrivateKey::generate().unwrap())),
            replace_peers: true,
            peers: peers.clone(),
            ..WgDeviceUpdate::default()
        };
        // The second change has nothing left to do.
        KernelDevice::new(NAME).set(&config).unwrap();
        let status = set(&config);
        assert_eq!(status.peers.len(), 1000);
        let mut statuses = status.peers;
        statuses.sort_by_key(|peer| peer.public_key);
        for (peer, status) in peers.iter().zip(&statuses) {
            assert_eq!(
                (status.public_key, status.endpoint, Some(status.keepalive)),
                (peer.public_key, peer.endpoint, peer.keepalive)
            );
            assert_eq!(status.allowed_ips, prefixes(peer));
        }

        let allowed_ips = (0..3000_u16).map(|number| {
            let [high, low] = number.to_be_bytes();
            AllowedIp::from(Prefix::new([10, 50, high, low].into(), 32).unwrap())
        });
        let allowed_ips = allowed_ips.collect();
        let peer = WgPeerUpdate { replace_allowed_ips: true, allowed_ips, ..WgPeerUpdate::new(peers[500].public_key) };
        let status = set(&WgDeviceUpdate { peers: vec![peer.clone()], ..WgDeviceUpdate::default() });
        assert_eq!(status.peers.len(), 1000);
        let mut actual =
            status.peers.into_iter().find(|other| other.public_key == peer.public_key).unwrap().allowed_ips;
        actual.sort();
        assert_eq!(actual, prefixes(&peer));
        let two = WgDeviceUpdate { replace_peers: true, peers: peers[..2].to_vec(), ..WgDeviceUpdate::default() };
        assert_eq!(set(&two).peers.len(), 2);
    });
}

#[test]
fn a_read_during_changes_has_every_peer_exactly_once() {
    in_guest(|| {
        enter_new();
        kernel::create(NAME, ALIAS, MTU).unwrap();
        let device = KernelDevice::new(NAME);
        let peers: Vec<WgPeerUpdate> = (1..=1000).map(absent_peer).collect();
        device.set(&WgDeviceUpdate { peers, ..WgDeviceUpdate::default() }).unwrap();
        thread::scope(|scope| {
            // The kernel dumps peers in the order in which they were added: this moves each from the front to the end.
            let writer = scope.spawn(|| {
                for number in 1..=1000 {
                    let peers = vec![
                        WgPeerUpdate { remove: true, ..absent_peer(number) },
                        WgPeerUpdate { replace_allowed_ips: false, ..absent_peer(number) },
                    ];
                    KernelDevice::new(NAME).set(&WgDeviceUpdate { peers, ..WgDeviceUpdate::default() }).unwrap();
                }
            });
            loop {
                let is_last = writer.is_finished();
                match device.get() {
                    Ok(WgDeviceStatus { peers, .. }) => {
                        let keys: BTreeSet<_> = peers.iter().map(|peer| peer.public_key).collect();
                        assert_eq!((peers.len(), keys.len()), (1000, 1000));
                        if is_last {
                            break;
                        }
                    }
                    Err(error) => assert!(matches!(error, WireGuardError::Interrupted(_)), "{error:?}"),
                }
            }
        });
    });
}
