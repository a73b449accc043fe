//! Encoded changes decode to the same, however many messages they take; the decoder never panics; and planned changes
//! make a device what a config describes, with as few changes as possible.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use otherix_mesh::config::{AllowedIp, WgPeerStatus, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;
use otherix_netlink::generic::GENERIC_HEADER_LEN;
use otherix_netlink::{Attribute, MalformedAttribute, Message, attributes};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::constants::*;
use super::plan::{DeviceChange, PeerChange, SetPeer};
use super::*;

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

fn preshared_key() -> impl Strategy<Value = Option<WgPresharedKey>> {
    prop::option::of(any::<[u8; 32]>()).prop_map(|bytes| WgPresharedKey::from_bytes(&Zeroizing::new(bytes?)))
}

fn private_key() -> impl Strategy<Value = Option<WgPrivateKey>> {
    prop::option::of(any::<[u8; 32]>()).prop_map(|bytes| WgPrivateKey::from_bytes(&Zeroizing::new(bytes?)))
}

prop_compose! {
    fn set_peer()(
        preshared_key in prop::option::of(preshared_key()),
        endpoint in prop::option::of(endpoint()),
        keepalive in any::<Option<u16>>(),
        allowed_ips in prop::collection::vec(prefix(), 0..40),
        exceeds_message in prop::bool::weighted(0.1),
        (update_only, replace_allowed_ips) in any::<(bool, bool)>(),
    ) -> SetPeer {
        let allowed_ips = if exceeds_message { allowed_ips.repeat(60) } else { allowed_ips };
        let public_key = key(0);
        SetPeer { public_key, update_only, preshared_key, endpoint, keepalive, replace_allowed_ips, allowed_ips }
    }
}

prop_compose! {
    fn change()(
        private_key in prop::option::of(private_key()),
        (listen_port, fwmark) in any::<(Option<u16>, Option<u32>)>(),
        peers in prop::collection::vec(set_peer(), 0..200),
    ) -> DeviceChange {
        let numbered = peers.into_iter().zip(0..);
        let peers = numbered.map(|(peer, number)| PeerChange::Set(SetPeer { public_key: key(number), ..peer }));
        DeviceChange { private_key, listen_port, fwmark, peers: peers.collect() }
    }
}

fn decode(messages: &[Message]) -> WgDeviceStatus {
    let mut decoder = StatusDecoder::default();
    messages.iter().for_each(|message| decoder.add(message.payload()).unwrap());
    decoder.finish()
}

fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).map(Result::unwrap).find(|attribute| attribute.kind == kind)
}

/// The flags of each peer of each message.
fn flags(messages: &[Message]) -> Vec<Vec<u32>> {
    let of_peer = |peer: Result<Attribute<'_>, MalformedAttribute>| {
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
    fn encoded_changes_decode_to_the_same(change in change()) {
        let messages = encode::set(FAMILY_ID, "otwg0", &change);
        for message in &messages {
            prop_assert!(message.len() <= 32 << 10 && message.capacity() == 32 << 10, "the buffer has grown");
        }
        let WgDeviceStatus { private_key, listen_port, fwmark, peers } = decode(&messages);
        prop_assert_eq!(private_key, change.private_key.flatten());
        prop_assert_eq!((listen_port, fwmark), (change.listen_port.unwrap_or(0), change.fwmark.unwrap_or(0)));
        prop_assert_eq!(peers.len(), change.peers.len());
        for (peer, change) in peers.into_iter().zip(change.peers) {
            let PeerChange::Set(change) = change else { unreachable!() };
            let expected = WgPeerStatus {
                public_key: change.public_key,
                preshared_key: change.preshared_key.flatten(),
                endpoint: change.endpoint,
                last_handshake: None,
                rx_bytes: 0,
                tx_bytes: 0,
                keepalive: change.keepalive.unwrap_or(0),
                allowed_ips: change.allowed_ips,
                has_old_clock: false,
            };
            prop_assert_eq!(peer, expected);
        }
    }
}

proptest! {
    #[test]
    fn the_decoder_never_panics_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _any = StatusDecoder::default().add(&bytes);
    }

    #[test]
    fn the_decoder_never_panics_on_damaged_replies(
        change in change(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        for message in encode::set(FAMILY_ID, "otwg0", &change) {
            let mut payload = message.payload().to_vec();
            for (index, byte) in &damages {
                let index = index.index(payload.len());
                payload[index] = *byte;
            }
            let _any = StatusDecoder::default().add(&payload);
            let length = damages[0].0.index(payload.len());
            let _any = StatusDecoder::default().add(&payload[..length]);
        }
    }
}

#[test]
fn only_the_first_message_of_a_split_peer_replaces_its_allowed_ips() {
    let allowed_ips = (0..3000u32).map(|number| Prefix::from(std::net::IpAddr::from(number.to_be_bytes()))).collect();
    let peer = SetPeer {
        public_key: key(1),
        update_only: true,
        preshared_key: None,
        endpoint: None,
        keepalive: None,
        replace_allowed_ips: true,
        allowed_ips,
    };
    let peers = vec![PeerChange::Remove(key(0)), PeerChange::Set(peer)];
    let change = DeviceChange { private_key: None, listen_port: None, fwmark: None, peers };
    let flags = flags(&encode::set(FAMILY_ID, "otwg0", &change));
    let (update, replace) = (WGPEER_F_UPDATE_ONLY, WGPEER_F_REPLACE_ALLOWEDIPS);
    assert_eq!(flags.len(), 3, "{flags:?}");
    assert_eq!(flags, [vec![WGPEER_F_REMOVE_ME, update | replace], vec![update], vec![update]]);
}

#[test]
fn encodes_as_specified_by_linux_wireguard_h() {
    let peer = SetPeer {
        public_key: key(1),
        update_only: false,
        preshared_key: None,
        endpoint: Some(([192, 0, 2, 1], 51820).into()),
        keepalive: Some(25),
        replace_allowed_ips: false,
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
    };
    let peers = vec![PeerChange::Set(peer)];
    let change = DeviceChange { private_key: None, listen_port: Some(7), fwmark: None, peers };
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

/// Applies a change to the peers of a device, literally as [`WgDeviceUpdate`] describes it.
fn apply_config(mut peers: Vec<WgPeerStatus>, config: &WgDeviceUpdate) -> Vec<WgPeerStatus> {
    if config.replace_peers {
        let kept: BTreeSet<_> = config.peers.iter().map(|peer| peer.public_key).collect();
        peers.retain(|peer| kept.contains(&peer.public_key));
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
        let change = SetPeer {
            public_key: *public_key,
            update_only: *update_only,
            preshared_key: preshared_key.clone(),
            endpoint: *endpoint,
            keepalive: *keepalive,
            replace_allowed_ips: *replace_allowed_ips,
            allowed_ips: allowed_ips.iter().filter(|allowed| !allowed.remove).map(|allowed| allowed.prefix).collect(),
        };
        let change = if *remove { PeerChange::Remove(*public_key) } else { PeerChange::Set(change) };
        apply_as_kernel(&mut peers, &change);
        if let Some(peer) = peers.iter_mut().find(|peer| peer.public_key == *public_key) {
            peer.allowed_ips.retain(|prefix| !allowed_ips.contains(&AllowedIp { prefix: *prefix, remove: true }));
        }
    }
    sorted(peers)
}

/// Applies a change to the peers of a device as the kernel does.
fn apply_as_kernel(peers: &mut Vec<WgPeerStatus>, change: &PeerChange) {
    let change = match change {
        PeerChange::Remove(key) => return peers.retain(|peer| peer.public_key != *key),
        PeerChange::Set(change) => change,
    };
    if !peers.iter().any(|peer| peer.public_key == change.public_key) {
        if change.update_only {
            return;
        }
        peers.push(WgPeerStatus::new(change.public_key));
    }
    for peer in peers {
        if peer.public_key != change.public_key {
            peer.allowed_ips.retain(|prefix| !change.allowed_ips.contains(prefix));
            continue;
        }
        peer.preshared_key = change.preshared_key.clone().unwrap_or(peer.preshared_key.take());
        peer.endpoint = change.endpoint.or(peer.endpoint);
        peer.keepalive = change.keepalive.unwrap_or(peer.keepalive);
        if change.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        peer.allowed_ips.extend(&change.allowed_ips);
    }
}

fn sorted(mut peers: Vec<WgPeerStatus>) -> Vec<WgPeerStatus> {
    for peer in &mut peers {
        peer.allowed_ips = peer.allowed_ips.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    }
    peers.sort_by_key(|peer| peer.public_key);
    peers
}

/// One of a few prefixes, so that peers share some.
fn common_prefix() -> impl Strategy<Value = Prefix> {
    (0u8..6).prop_map(|number| Prefix::new([10, number, 0, 0].into(), 16).unwrap())
}

prop_compose! {
    fn peer()(
        number in 0u32..5,
        (remove, update_only, replace_allowed_ips) in
            (prop::bool::weighted(0.2), prop::bool::weighted(0.3), any::<bool>()),
        preshared_key in prop::option::of(preshared_key()),
        keepalive in any::<Option<u16>>(),
        endpoint in prop::option::of(endpoint()),
        // Whether to remove each of these prefixes.
        allowed_ips in prop::collection::btree_map(common_prefix(), prop::bool::weighted(0.3), 0..4),
    ) -> WgPeerUpdate {
        let allowed_ips = allowed_ips.into_iter().map(|(prefix, remove)| AllowedIp { prefix, remove }).collect();
        let public_key = key(number);
        WgPeerUpdate {
            public_key, remove, update_only, preshared_key, endpoint, keepalive, replace_allowed_ips, allowed_ips,
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
    fn a_planned_change_makes_the_device_what_the_config_describes(before in config(), config in config()) {
        let peers = apply_config(Vec::new(), &before);
        let status = WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: peers.clone() };
        let change = plan::plan(&config, plan::needs_status(&config).then_some(&status));
        let mut actual = peers.clone();
        change.peers.iter().for_each(|change| apply_as_kernel(&mut actual, change));
        prop_assert_eq!(sorted(actual), apply_config(peers, &config));
    }

    #[test]
    fn allowed_ips_that_stay_are_not_sent(before in config()) {
        let peers = apply_config(Vec::new(), &before);
        let status = WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: peers.clone() };
        let same = peers.into_iter().map(|peer| WgPeerUpdate {
            replace_allowed_ips: true,
            allowed_ips: peer.allowed_ips.into_iter().map(AllowedIp::from).collect(),
            ..WgPeerUpdate::new(peer.public_key)
        });
        let config = WgDeviceUpdate { replace_peers: true, peers: same.collect(), ..WgDeviceUpdate::default() };
        for change in plan::plan(&config, Some(&status)).peers {
            let PeerChange::Set(change) = change else { panic!("{change:?}") };
            prop_assert!(!change.replace_allowed_ips && change.allowed_ips.is_empty(), "{change:?}");
        }
    }
}

#[test]
fn a_peer_with_the_key_of_the_device_is_ignored() {
    let own = WgPrivateKey::generate().unwrap();
    let peers = vec![WgPeerUpdate::new(own.public()), WgPeerUpdate::new(key(1))];
    let status = WgDeviceStatus { private_key: Some(own.clone()), listen_port: 0, fwmark: 0, peers: Vec::new() };
    let with_key = WgDeviceUpdate { private_key: Some(Some(own)), peers: peers.clone(), ..WgDeviceUpdate::default() };
    let without_key = WgDeviceUpdate { peers, replace_peers: true, ..WgDeviceUpdate::default() };
    for change in [plan::plan(&with_key, None), plan::plan(&without_key, Some(&status))] {
        assert_eq!(change.peers.len(), 1, "{change:?}");
    }
}
