//! What is written reads back as it was, however many messages it takes; what is read never makes the reader panic; and what the kernel
//! is told makes of a device what the config says, by as little as possible.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use otherix_netlink::generic::GENERIC_HEADER_LEN;
use otherix_netlink::{Attribute, Malformed, Message, attributes};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::plan::{Change, PeerChange, Put};
use super::wire::*;
use super::*;
use otherix_mesh::config::{AllowedIp, WgPeerStatus, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;

const FAMILY_ID: u16 = 31;

fn key(number: u32) -> WgPublicKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_ne_bytes());
    WgPublicKey::from_bytes(bytes)
}

fn endpoint() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![any::<([u8; 4], u16)>().prop_map(SocketAddr::from), any::<([u16; 8], u16)>().prop_map(SocketAddr::from)]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(address, length)| Prefix::new(address.into(), length).unwrap()),
        (any::<[u16; 8]>(), 0u8..=128).prop_map(|(address, length)| Prefix::new(address.into(), length).unwrap()),
    ]
}

fn preshared() -> impl Strategy<Value = Option<WgPresharedKey>> {
    prop::option::of(any::<[u8; 32]>()).prop_map(|bytes| WgPresharedKey::from_bytes(&Zeroizing::new(bytes?)))
}

fn private() -> impl Strategy<Value = Option<WgPrivateKey>> {
    prop::option::of(any::<[u8; 32]>()).prop_map(|bytes| WgPrivateKey::from_bytes(&Zeroizing::new(bytes?)))
}

prop_compose! {
    fn put()(
        preshared_key in prop::option::of(preshared()),
        endpoint in prop::option::of(endpoint()),
        keepalive in any::<Option<u16>>(),
        allowed_ips in prop::collection::vec(prefix(), 0..40),
        many in prop::bool::weighted(0.1),
        (update_only, replace) in any::<(bool, bool)>(),
    ) -> Put {
        // More than a message holds.
        let allowed_ips = if many { allowed_ips.repeat(60) } else { allowed_ips };
        Put { public_key: key(0), update_only, preshared_key, endpoint, keepalive, replace, allowed_ips }
    }
}

prop_compose! {
    fn change()(
        private_key in prop::option::of(private()),
        (listen_port, fwmark) in any::<(Option<u16>, Option<u32>)>(),
        puts in prop::collection::vec(put(), 0..200),
    ) -> Change {
        let peers = puts.into_iter().zip(0..).map(|(put, number)| PeerChange::Put(Put { public_key: key(number), ..put }));
        Change { private_key, listen_port, fwmark, peers: peers.collect() }
    }
}

fn read(messages: &[Message]) -> WgDeviceStatus {
    let mut reading = Reading::default();
    messages.iter().for_each(|message| reading.take(message.payload()).unwrap());
    reading.into_status()
}

/// The attribute of this kind.
fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).map(Result::unwrap).find(|attribute| attribute.kind == kind)
}

/// The flags of every mention of a peer, message by message.
fn flags(messages: &[Message]) -> Vec<Vec<u32>> {
    let of_peer = |peer: Result<Attribute<'_>, Malformed>| {
        let peer = peer.unwrap();
        let flags = find(peer.value, WGPEER_A_FLAGS);
        flags.map_or(0, |flags| u32::from_ne_bytes(flags.value.try_into().unwrap()))
    };
    let of_message = |message: &Message| {
        let list = find(&message.payload()[GENERIC_HEADER_LEN..], WGDEVICE_A_PEERS).unwrap();
        attributes(list.value).map(of_peer).collect()
    };
    messages.iter().map(of_message).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_reads_back(change in change()) {
        let messages = encode::set(FAMILY_ID, "otwg0", &change);
        for message in &messages {
            prop_assert!(message.len() <= 32 << 10 && message.capacity() == 32 << 10, "it has not grown");
        }
        let WgDeviceStatus { private_key, listen_port, fwmark, peers } = read(&messages);
        prop_assert_eq!(private_key, change.private_key.flatten());
        prop_assert_eq!((listen_port, fwmark), (change.listen_port.unwrap_or(0), change.fwmark.unwrap_or(0)));
        prop_assert_eq!(peers.len(), change.peers.len());
        for (peer, change) in peers.into_iter().zip(change.peers) {
            let PeerChange::Put(put) = change else { unreachable!() };
            let expected = WgPeerStatus {
                public_key: put.public_key,
                preshared_key: put.preshared_key.flatten(),
                endpoint: put.endpoint,
                last_handshake: None,
                rx_bytes: 0,
                tx_bytes: 0,
                keepalive: put.keepalive.unwrap_or(0),
                allowed_ips: put.allowed_ips,
            };
            prop_assert_eq!(peer, expected);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _any = Reading::default().take(&bytes);
    }

    #[test]
    fn no_answer_that_was_damaged_is_too_strange(
        change in change(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        for message in encode::set(FAMILY_ID, "otwg0", &change) {
            let mut payload = message.payload().to_vec();
            for (at, byte) in &damage {
                let at = at.index(payload.len());
                payload[at] = *byte;
            }
            let _any = Reading::default().take(&payload);
            let cut = damage[0].0.index(payload.len());
            let _any = Reading::default().take(&payload[..cut]);
        }
    }
}

#[test]
fn a_peer_that_is_continued_is_replaced_once_and_never_added_again() {
    let allowed_ips = (0..3000u32).map(|number| Prefix::from(std::net::IpAddr::from(number.to_be_bytes()))).collect();
    let put = Put {
        public_key: key(1),
        update_only: true,
        preshared_key: None,
        endpoint: None,
        keepalive: None,
        replace: true,
        allowed_ips,
    };
    let peers = vec![PeerChange::Remove(key(0)), PeerChange::Put(put)];
    let change = Change { private_key: None, listen_port: None, fwmark: None, peers };
    let flags = flags(&encode::set(FAMILY_ID, "otwg0", &change));
    let (update, replace) = (WGPEER_F_UPDATE_ONLY, WGPEER_F_REPLACE_ALLOWEDIPS);
    assert_eq!(flags.len(), 3, "{flags:?}");
    assert_eq!(flags, [vec![WGPEER_F_REMOVE_ME, update | replace], vec![update], vec![update]]);
}

#[test]
fn bytes_are_as_linux_wireguard_h_has_them() {
    let put = Put {
        public_key: key(1),
        update_only: false,
        preshared_key: None,
        endpoint: Some(([192, 0, 2, 1], 51820).into()),
        keepalive: Some(25),
        replace: false,
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
    };
    let peers = vec![PeerChange::Put(put)];
    let change = Change { private_key: None, listen_port: Some(7), fwmark: None, peers };
    let [message]: [Message; 1] = encode::set(FAMILY_ID, "wg0", &change).try_into().unwrap();
    let mut expected = vec![1, 1, 0, 0]; // WG_CMD_SET_DEVICE, version 1
    expected.extend(*b"\x08\0\x02\0wg0\0");
    expected.extend([6, 0, 6, 0, 7, 0, 0, 0]);
    expected.extend([104, 0, 8, 0x80, 100, 0, 0, 0x80, 36, 0, 1, 0]);
    expected.extend(key(1).as_bytes());
    expected.extend([20, 0, 4, 0, 2, 0, 0xca, 0x6c, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([6, 0, 5, 0, 25, 0, 0, 0]);
    expected.extend([32, 0, 9, 0x80, 28, 0, 0, 0x80]);
    expected.extend([6, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 0, 5, 0, 3, 0, 8, 0, 0, 0]);
    assert_eq!(message.payload(), expected);
}

/// A device as far as a config is about its peers: what [`WgDeviceUpdate`] says, word for word.
fn by_the_config(mut peers: Vec<WgPeerStatus>, config: &WgDeviceUpdate) -> Vec<WgPeerStatus> {
    if config.replace_peers {
        let named: BTreeSet<_> = config.peers.iter().map(|peer| peer.public_key).collect();
        peers.retain(|peer| named.contains(&peer.public_key));
        for peer in &mut peers {
            (peer.keepalive, peer.preshared_key) = (0, None);
            peer.allowed_ips.clear();
        }
    }
    for WgPeerUpdate {
        public_key,
        remove,
        update_only,
        preshared_key,
        endpoint,
        keepalive,
        replace_allowed_ips,
        allowed_ips,
    } in &config.peers
    {
        let put = Put {
            public_key: *public_key,
            update_only: *update_only,
            preshared_key: preshared_key.clone(),
            endpoint: *endpoint,
            keepalive: *keepalive,
            replace: *replace_allowed_ips,
            allowed_ips: allowed_ips.iter().filter(|allowed| !allowed.remove).map(|allowed| allowed.prefix).collect(),
        };
        by_the_kernel(&mut peers, &if *remove { PeerChange::Remove(*public_key) } else { PeerChange::Put(put) });
        if let Some(peer) = peers.iter_mut().find(|peer| peer.public_key == *public_key) {
            peer.allowed_ips.retain(|prefix| !allowed_ips.contains(&AllowedIp { prefix: *prefix, remove: true }));
        }
    }
    sorted(peers)
}

/// What the kernel makes of what it is told.
fn by_the_kernel(peers: &mut Vec<WgPeerStatus>, change: &PeerChange) {
    let put = match change {
        PeerChange::Remove(key) => return peers.retain(|peer| peer.public_key != *key),
        PeerChange::Put(put) => put,
    };
    if !peers.iter().any(|peer| peer.public_key == put.public_key) {
        if put.update_only {
            return;
        }
        peers.push(WgPeerStatus::new(put.public_key));
    }
    for peer in peers {
        if peer.public_key != put.public_key {
            peer.allowed_ips.retain(|prefix| !put.allowed_ips.contains(prefix));
            continue;
        }
        peer.preshared_key = put.preshared_key.clone().unwrap_or(peer.preshared_key.take());
        peer.endpoint = put.endpoint.or(peer.endpoint);
        peer.keepalive = put.keepalive.unwrap_or(peer.keepalive);
        if put.replace {
            peer.allowed_ips.clear();
        }
        peer.allowed_ips.extend(&put.allowed_ips);
    }
}

fn sorted(mut peers: Vec<WgPeerStatus>) -> Vec<WgPeerStatus> {
    for peer in &mut peers {
        peer.allowed_ips = peer.allowed_ips.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    }
    peers.sort_by_key(|peer| peer.public_key);
    peers
}

/// One of few, so that they meet.
fn few() -> impl Strategy<Value = Prefix> {
    (0u8..6).prop_map(|number| Prefix::new([10, number, 0, 0].into(), 16).unwrap())
}

prop_compose! {
    fn peer()(
        number in 0u32..5,
        (remove, update_only, replace_allowed_ips) in
            (prop::bool::weighted(0.2), prop::bool::weighted(0.3), any::<bool>()),
        preshared_key in prop::option::of(preshared()),
        keepalive in any::<Option<u16>>(),
        endpoint in prop::option::of(endpoint()),
        // Of a prefix it is said once what becomes of it.
        allowed_ips in prop::collection::btree_map(few(), prop::bool::weighted(0.3), 0..4),
    ) -> WgPeerUpdate {
        let allowed_ips = allowed_ips.into_iter().map(|(prefix, remove)| AllowedIp { prefix, remove }).collect();
        WgPeerUpdate {
            public_key: key(number), remove, update_only, preshared_key, endpoint, keepalive, replace_allowed_ips, allowed_ips,
        }
    }
}

prop_compose! {
    fn config()(replace_peers in any::<bool>(), peers in prop::collection::vec(peer(), 0..6)) -> WgDeviceUpdate {
        WgDeviceUpdate { replace_peers, peers, ..WgDeviceUpdate::default() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_device_becomes_what_the_config_says(before in config(), config in config()) {
        let peers = by_the_config(Vec::new(), &before);
        let now = WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: peers.clone() };
        let now = plan::needs_status(&config).then_some(&now);
        let change = plan::plan(&config, now);
        let mut made = peers.clone();
        change.peers.iter().for_each(|change| by_the_kernel(&mut made, change));
        prop_assert_eq!(sorted(made), by_the_config(peers, &config));
    }

    #[test]
    fn who_keeps_his_allowed_ips_keeps_them_all_the_time(before in config()) {
        let peers = by_the_config(Vec::new(), &before);
        let now = WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: peers.clone() };
        let again = peers.into_iter().map(|peer| WgPeerUpdate {
            replace_allowed_ips: true,
            allowed_ips: peer.allowed_ips.into_iter().map(AllowedIp::from).collect(),
            ..WgPeerUpdate::new(peer.public_key)
        });
        let config = WgDeviceUpdate { replace_peers: true, peers: again.collect(), ..WgDeviceUpdate::default() };
        for change in plan::plan(&config, Some(&now)).peers {
            let PeerChange::Put(put) = change else { panic!("{change:?}") };
            prop_assert!(!put.replace && put.allowed_ips.is_empty(), "{put:?}");
        }
    }
}

#[test]
fn a_device_is_no_peer_of_its_own() {
    let own = WgPrivateKey::generate().unwrap();
    let peers = vec![WgPeerUpdate::new(own.public()), WgPeerUpdate::new(key(1))];
    let known = WgDeviceStatus { private_key: Some(own.clone()), listen_port: 0, fwmark: 0, peers: Vec::new() };
    let told = WgDeviceUpdate { private_key: Some(Some(own)), peers: peers.clone(), ..WgDeviceUpdate::default() };
    let silent = WgDeviceUpdate { peers, replace_peers: true, ..WgDeviceUpdate::default() };
    for change in [plan::plan(&told, None), plan::plan(&silent, Some(&known))] {
        assert_eq!(change.peers.len(), 1, "{change:?}");
    }
}
