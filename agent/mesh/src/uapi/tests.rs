//! Decoding restores what was encoded, and does not panic on any input.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::config::{AllowedIp, WgDeviceStatus, WgPeerStatus, WgPeerUpdate};
use crate::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use crate::prefix::Prefix;

fn hex() -> impl Strategy<Value = String> {
    "[0-9a-f]{64}"
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
    prop_oneof![Just(None), hex().prop_map(|text| WgPresharedKey::from_hex(&text).unwrap())]
}

fn private_key() -> impl Strategy<Value = Option<WgPrivateKey>> {
    prop_oneof![Just(None), hex().prop_map(|text| WgPrivateKey::from_hex(&text).unwrap())]
}

prop_compose! {
    fn peer()(
        key in any::<[u8; 32]>(),
        flags in any::<[bool; 3]>(),
        preshared_key in prop::option::of(preshared_key()),
        endpoint in prop::option::of(endpoint()),
        keepalive in any::<Option<u16>>(),
        allowed in prop::collection::vec((prefix(), any::<bool>()), 0..5),
    ) -> WgPeerUpdate {
        WgPeerUpdate {
            public_key: WgPublicKey::from_bytes(key),
            remove: flags[0],
            update_only: flags[1],
            preshared_key,
            endpoint,
            keepalive,
            replace_allowed_ips: flags[2],
            allowed_ips: allowed.into_iter().map(|(prefix, remove)| AllowedIp { prefix, remove }).collect(),
        }
    }
}

prop_compose! {
    fn update()(
        private_key in prop::option::of(private_key()),
        listen_port in any::<Option<u16>>(),
        fwmark in any::<Option<u32>>(),
        replace_peers in any::<bool>(),
        peers in prop::collection::vec(peer(), 0..5),
    ) -> WgDeviceUpdate {
        WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers }
    }
}

prop_compose! {
    fn peer_status()(
        key in any::<[u8; 32]>(),
        preshared_key in preshared_key(),
        endpoint in prop::option::of(endpoint()),
        handshake in prop::option::of((0u64..1 << 40, 1u32..1_000_000_000)),
        bytes in any::<(u64, u64)>(),
        keepalive in any::<u16>(),
        allowed_ips in prop::collection::vec(prefix(), 0..5),
        has_old_clock in any::<bool>(),
    ) -> WgPeerStatus {
        WgPeerStatus {
            public_key: WgPublicKey::from_bytes(key),
            preshared_key,
            endpoint,
            last_handshake: handshake.map(|(seconds, nanos)| UNIX_EPOCH + Duration::new(seconds, nanos)),
            rx_bytes: bytes.0,
            tx_bytes: bytes.1,
            keepalive,
            allowed_ips,
            has_old_clock,
        }
    }
}

/// Random bytes, lines of known keys with random values, and requests with a byte changed.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let line = (
        "(private_key|public_key|endpoint|fwmark|listen_port|allowed_ip|errno|last_handshake_time_sec|\
                 last_handshake_time_nsec|persistent_keepalive_interval|set|get|[a-z_]{0,8})=?",
        ".{0,80}",
    )
        .prop_map(|(key, value)| format!("{key}{value}\n"));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(line, 0..8).prop_map(|lines| format!("set=1\n{}\n", lines.concat()).into_bytes()),
        (update(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(update, at, byte)| {
            let mut bytes = encode_set_request(&update).as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

proptest! {
    #[test]
    fn decoding_restores_a_set_request(update in update()) {
        let text = encode_set_request(&update);
        prop_assert_eq!(message_end(text.as_bytes(), 0), Some(text.len()));
        prop_assert_eq!(decode_request(text.as_bytes()), Ok(UapiRequest::Set(update)));
    }

    #[test]
    fn decoding_restores_a_status(
        private_key in private_key(),
        listen_port in any::<u16>(),
        fwmark in any::<u32>(),
        peers in prop::collection::vec(peer_status(), 0..5),
    ) {
        let status = WgDeviceStatus { private_key, listen_port, fwmark, peers };
        let text = encode_status(&status);
        prop_assert_eq!(message_end(text.as_bytes(), 0), Some(text.len()));
        prop_assert_eq!(decode_status(&text), Ok(status));
    }

    #[test]
    fn decoding_garbage_does_not_panic(bytes in garbage()) {
        let _request_or_error = decode_request(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _answers_or_errors = (decode_status(&text), decode_set_answer(&text));
    }

    #[test]
    fn the_end_is_found_in_any_fragmentation(bytes in "[a\n]{0,20}", cut in any::<prop::sample::Index>()) {
        let at = cut.index(bytes.len() + 1);
        let at_once = message_end(bytes.as_bytes(), 0);
        let in_parts = message_end(&bytes.as_bytes()[..at], 0).or_else(|| message_end(bytes.as_bytes(), at));
        prop_assert_eq!(in_parts, at_once);
    }
}

#[test]
fn the_request_of_wg_is_decoded() {
    // As sent by `wg set` of wireguard-tools 1.0.
    let zeros = "0".repeat(64);
    let text = format!(
        "set=1\nprivate_key={zeros}\nlisten_port=51820\nfwmark=0\nreplace_peers=true\npublic_key={zeros}\n\
         preshared_key={zeros}\nendpoint=[fe80::1]:7\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\n\
         allowed_ip=10.42.0.1/32\nallowed_ip=-10.42.0.2/32\n\n"
    );
    let Ok(UapiRequest::Set(update)) = decode_request(text.as_bytes()) else { panic!("refused") };
    assert_eq!((update.private_key, update.fwmark, update.peers[0].keepalive), (Some(None), Some(0), Some(25)));
    assert_eq!(update.peers[0].allowed_ips.iter().map(|ip| ip.remove).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn errors_contain_the_line_number_and_not_the_value() {
    let key = "1".repeat(64);
    for (text, error) in [
        ("".to_owned(), UapiRequestError::Unknown),
        ("\n\n".to_owned(), UapiRequestError::Unknown),
        ("set=2\n\n".to_owned(), UapiRequestError::Unknown),
        ("get=1\nset=1\n\n".to_owned(), UapiRequestError::Key(2)),
        ("set=1\nprivate_key=secret\n\n".to_owned(), UapiRequestError::Value(2)),
        ("set=1\nlisten_port=65536\n\n".to_owned(), UapiRequestError::Value(2)),
        ("set=1\nlisten_port=+1\n\n".to_owned(), UapiRequestError::Value(2)),
        ("set=1\nendpoint=10.0.0.1:1\n\n".to_owned(), UapiRequestError::Key(2)),
        ("set=1\nno key\n\n".to_owned(), UapiRequestError::Key(2)),
        (format!("set=1\npublic_key={key}\nlisten_port=1\n\n"), UapiRequestError::Key(3)),
        (format!("set=1\npublic_key={key}\nprotocol_version=2\n\n"), UapiRequestError::Value(3)),
        (format!("set=1\npublic_key={key}\nremove=false\n\n"), UapiRequestError::Value(3)),
        (format!("set=1\npublic_key={key}\nendpoint=host:1\n\n"), UapiRequestError::Value(3)),
    ] {
        assert_eq!(decode_request(text.as_bytes()), Err(error.clone()), "{text}");
        assert!(!error.to_string().contains("secret"));
    }
    assert_eq!(decode_set_answer("errno=0\n\n"), Ok(()));
    assert_eq!(decode_set_answer("errno=-22\n\n"), Err(UapiAnswerError::Refused(-22)));
    assert_eq!(decode_status("listen_port=1\n\n"), Err(UapiAnswerError::Unfinished));
}
