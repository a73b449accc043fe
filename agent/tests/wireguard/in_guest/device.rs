//! One device: how it is made, what it is told and tells.

use std::collections::BTreeSet;
use std::thread;
use std::time::UNIX_EPOCH;

use otherix_agent::kernel::Kernel;
use otherix_agent::wireguard::kernel::{self, Device, WireGuardError};
use otherix_mesh::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;
use otherix_schemas::error::Causes;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use otherix_vmtest::in_guest;

use super::world::{ALIAS, MTU, NAME, stranger};

fn names() -> Vec<String> {
    let links = ip_json(&["link"]);
    let mut names: Vec<_> =
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn refused(name: &str, mtu: u32) -> String {
    Causes(&kernel::create(name, ALIAS, mtu).unwrap_err()).to_string()
}

#[test]
fn it_is_made_as_asked_and_left_down_with_nothing_beside_it() {
    in_guest(|| {
        sh("rmmod wireguard; ! grep -q ^wireguard /proc/modules");
        enter_new();
        assert!(kernel::is_supported(), "the module is loaded for it");
        assert_eq!(names(), ["lo"]);
        kernel::create(NAME, ALIAS, MTU).unwrap();
        let made = link(NAME).unwrap();
        assert_eq!((&made["linkinfo"]["info_kind"], &made["mtu"]), (&"wireguard".into(), &MTU.into()));
        assert_eq!((&made["ifalias"], &made["operstate"]), (&ALIAS.into(), &"DOWN".into()));
        assert!(!made["flags"].as_array().unwrap().contains(&"UP".into()), "{made}");
        assert_eq!(names(), ["lo", NAME]);

        // Whatever is refused, nothing is left of it, and what is there stays.
        sh("ip link add other type dummy; ip link property add dev other altname otwg1");
        let index = link(NAME).unwrap()["ifindex"].clone();
        for name in [NAME, "otwg1", "lo"] {
            assert_eq!(refused(name, MTU), format!("cannot create `{name}`: another device has this name"));
        }
        assert!(refused("otwg2", u32::MAX).contains("Invalid argument"));
        assert!(refused("a/b", MTU).contains("Invalid argument"));
        assert!(refused("a-name-too-long-for-a-link", MTU).contains("cannot create `a-name-too-long-for-a-link`"));
        assert_eq!(names(), ["lo", "other", NAME]);
        assert_eq!(link(NAME).unwrap()["ifindex"], index);
    });
}

#[test]
fn killed_at_any_message_it_is_made_the_next_time() {
    in_guest(|| {
        enter_new();
        let mut left_over = None;
        for messages in 0.. {
            let mut kernel = Kernel::open().unwrap();
            kernel.set_fuse(messages);
            let made = kernel.create_wireguard(NAME, ALIAS, MTU);
            left_over = left_over.or(names().into_iter().find(|name| name.starts_with("ot.")));
            if made.is_ok() {
                assert!(messages >= 3, "{messages}");
                break;
            }
            kernel::create(NAME, ALIAS, MTU).unwrap();
            assert_eq!(names(), ["lo", NAME], "after {messages} messages");
            sh("ip link del otwg0");
        }
        sh("ip link del otwg0");
        // What has the temporary name and is no WireGuard device is not ours.
        let left_over = left_over.unwrap();
        sh(&format!("ip link add {left_over} type dummy"));
        assert!(refused(NAME, MTU).contains("File exists"));
        assert_eq!(names(), ["lo".to_owned(), left_over]);
    });
}

/// As `wg show dump` has it.
fn as_wg(status: &WgDeviceStatus) -> String {
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
        // A preshared key is written as a public one is.
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

/// Changes the device, and gives what it is then, which is also what `wg` shows.
#[track_caller]
fn set(config: &WgDeviceUpdate) -> WgDeviceStatus {
    Device::new(NAME).set(config).unwrap();
    get()
}

#[track_caller]
fn get() -> WgDeviceStatus {
    let status = Device::new(NAME).get().unwrap();
    assert_eq!(as_wg(&status), sh("wg show otwg0 dump"));
    status
}

fn prefixes(peer: &WgPeerUpdate) -> Vec<Prefix> {
    peer.allowed_ips.iter().map(|allowed| allowed.prefix).collect()
}

#[test]
fn it_becomes_what_it_is_told_and_tells_what_wg_shows() {
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

        let one = |peer: WgPeerUpdate| WgDeviceUpdate { peers: vec![peer], ..WgDeviceUpdate::default() };
        let secret = WgPresharedKey::from_hex(&"5".repeat(64)).unwrap();
        let peer = WgPeerUpdate { preshared_key: Some(secret.clone()), ..stranger(1) };
        let told = &set(&one(peer.clone())).peers[0];
        assert_eq!((told.public_key, &told.preshared_key, told.keepalive), (peer.public_key, &secret, 1));
        assert_eq!((told.endpoint, told.last_handshake), (peer.endpoint, None));
        assert_eq!(told.allowed_ips, prefixes(&peer));

        // What is not mentioned stays.
        let same =
            WgPeerUpdate { endpoint: Some("[2001:db8::1]:7".parse().unwrap()), ..WgPeerUpdate::new(peer.public_key) };
        let told = &set(&one(same)).peers[0];
        assert_eq!(told.endpoint.unwrap().to_string(), "[2001:db8::1]:7");
        assert_eq!((&told.preshared_key, told.keepalive, told.allowed_ips.len()), (&secret, 1, 2));
        let less = WgPeerUpdate { preshared_key: Some(None), keepalive: Some(0), ..WgPeerUpdate::new(peer.public_key) };
        let told = &set(&one(less)).peers[0];
        assert_eq!((&told.preshared_key, told.keepalive, told.allowed_ips.len()), (&None, 0, 2));

        // Allowed IPs come and go, one by one and all at once, and from one peer to another.
        let allowed = |prefix: &str, remove| AllowedIp { prefix: prefix.parse().unwrap(), remove };
        let change = vec![allowed("10.99.0.1/32", true), allowed("10.98.0.0/16", false)];
        let told = set(&one(WgPeerUpdate { allowed_ips: change, ..WgPeerUpdate::new(peer.public_key) }));
        let texts = |status: &WgDeviceStatus, at: usize| -> Vec<String> {
            status.peers[at].allowed_ips.iter().map(Prefix::to_string).collect()
        };
        assert_eq!(texts(&told, 0), ["10.98.0.0/16", "fd42::1:0:0:0/80"]);
        let other = WgPeerUpdate {
            allowed_ips: vec![allowed("10.98.0.0/16", false)],
            ..WgPeerUpdate::new(stranger(2).public_key)
        };
        let told = set(&one(other));
        assert_eq!((texts(&told, 0), texts(&told, 1)), (vec!["fd42::1:0:0:0/80".into()], vec!["10.98.0.0/16".into()]));
        let none = WgPeerUpdate { replace_allowed_ips: true, ..WgPeerUpdate::new(peer.public_key) };
        assert!(texts(&set(&one(none)), 0).is_empty());

        // Peers too; one that is not there is neither changed nor removed.
        assert_eq!(set(&one(WgPeerUpdate { update_only: true, ..stranger(3) })).peers.len(), 2);
        assert_eq!(set(&one(WgPeerUpdate { remove: true, ..stranger(3) })).peers.len(), 2);
        assert_eq!(set(&one(WgPeerUpdate { remove: true, ..stranger(2) })).peers.len(), 1);
        let all = WgDeviceUpdate { replace_peers: true, peers: vec![stranger(4)], ..WgDeviceUpdate::default() };
        assert_eq!(set(&all).peers[0].public_key, stranger(4).public_key);
        let nothing = WgDeviceUpdate {
            private_key: Some(None),
            fwmark: Some(0),
            replace_peers: true,
            ..WgDeviceUpdate::default()
        };
        let told = set(&nothing);
        assert_eq!((told.private_key, told.listen_port, told.fwmark, told.peers.len()), (None, 51820, 0, 0));

        sh("wg set otwg0 fwmark 7 peer CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk= allowed-ips 10.0.0.0/8,::/0");
        assert_eq!(texts(&get(), 0), ["10.0.0.0/8", "::/0"]);
    });
}

#[test]
fn what_is_refused_is_said() {
    in_guest(|| {
        enter_new();
        let said = |error: Option<WireGuardError>| Causes(&error.unwrap()).to_string();
        let device = Device::new(NAME);
        let config = WgDeviceUpdate { replace_peers: true, ..WgDeviceUpdate::default() };
        assert!(said(device.get().err()).starts_with("cannot read the WireGuard device `otwg0`: No such device"));
        assert!(
            said(device.set(&config).err()).starts_with("cannot read the WireGuard device `otwg0`: No such device")
        );
        let change = said(device.set(&WgDeviceUpdate::default()).err());
        assert!(change.starts_with("cannot change the WireGuard device `otwg0`: No such device"), "{change}");
        sh("ip link add otwg0 type dummy");
        assert!(said(device.get().err()).contains("not supported"));
        sh("ip link del otwg0");
        kernel::create(NAME, ALIAS, MTU).unwrap();
        sh("ip link set otwg0 up");
        let _taken = std::net::UdpSocket::bind("0.0.0.0:5").unwrap();
        let config = WgDeviceUpdate { listen_port: Some(5), ..WgDeviceUpdate::default() };
        assert!(said(device.set(&config).err()).contains("Address already in use"));
        let config = WgDeviceUpdate { listen_port: Some(6), ..WgDeviceUpdate::default() };
        assert_eq!(set(&config).listen_port, 6);
    });
}

#[test]
fn a_thousand_peers_and_three_thousand_allowed_ips_of_one_are_set_and_read_back() {
    in_guest(|| {
        enter_new();
        kernel::create(NAME, ALIAS, MTU).unwrap();
        let peers: Vec<WgPeerUpdate> = (1..=1000).map(stranger).collect();
        let config = WgDeviceUpdate {
            private_key: Some(Some(WgPrivateKey::generate().unwrap())),
            replace_peers: true,
            peers: peers.clone(),
            ..WgDeviceUpdate::default()
        };
        // The second time only what it was not yet.
        Device::new(NAME).set(&config).unwrap();
        let status = set(&config);
        assert_eq!(status.peers.len(), 1000);
        let mut told = status.peers;
        told.sort_by_key(|peer| peer.public_key);
        for (peer, told) in peers.iter().zip(&told) {
            assert_eq!(
                (told.public_key, told.endpoint, Some(told.keepalive)),
                (peer.public_key, peer.endpoint, peer.keepalive)
            );
            assert_eq!(told.allowed_ips, prefixes(peer));
        }

        let many = (0..3000_u16).map(|number| {
            let [high, low] = number.to_be_bytes();
            AllowedIp::from(Prefix::new([10, 50, high, low].into(), 32).unwrap())
        });
        let rich = WgPeerUpdate {
            replace_allowed_ips: true,
            allowed_ips: many.collect(),
            ..WgPeerUpdate::new(peers[500].public_key)
        };
        let status = set(&WgDeviceUpdate { peers: vec![rich.clone()], ..WgDeviceUpdate::default() });
        assert_eq!(status.peers.len(), 1000);
        let mut told = status.peers.into_iter().find(|peer| peer.public_key == rich.public_key).unwrap().allowed_ips;
        told.sort();
        assert_eq!(told, prefixes(&rich));
        let few = WgDeviceUpdate { replace_peers: true, peers: peers[..2].to_vec(), ..WgDeviceUpdate::default() };
        assert_eq!(set(&few).peers.len(), 2);
    });
}

#[test]
fn a_reading_that_changes_disturb_tells_of_nobody_twice_and_forgets_nobody() {
    in_guest(|| {
        enter_new();
        kernel::create(NAME, ALIAS, MTU).unwrap();
        let device = Device::new(NAME);
        let peers: Vec<WgPeerUpdate> = (1..=1000).map(stranger).collect();
        device.set(&WgDeviceUpdate { peers, ..WgDeviceUpdate::default() }).unwrap();
        thread::scope(|scope| {
            // The kernel tells of peers in the order in which they came: each goes from the first place to the last.
            let writer = scope.spawn(|| {
                for number in 1..=1000 {
                    let peers = vec![
                        WgPeerUpdate { remove: true, ..stranger(number) },
                        WgPeerUpdate { replace_allowed_ips: false, ..stranger(number) },
                    ];
                    Device::new(NAME).set(&WgDeviceUpdate { peers, ..WgDeviceUpdate::default() }).unwrap();
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
                    Err(error) => assert!(matches!(error, WireGuardError::Restless(_)), "{error:?}"),
                }
            }
        });
    });
}
