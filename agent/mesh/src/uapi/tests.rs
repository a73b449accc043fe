//! What is written reads back as it was, whatever it is; nothing that is read makes the reader panic.

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
    prop_oneof![any::<([u8; 4], u16)>().prop_map(SocketAddr::from), any::<([u16; 8], u16)>().prop_map(SocketAddr::from),]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(address, length)| Prefix::new(address.into(), length).unwrap()),
        (any::<[u16; 8]>(), 0u8..=128).prop_map(|(address, length)| Prefix::new(address.into(), length).unwrap()),
    ]
}

fn psk() -> impl Strategy<Value = Option<WgPresharedKey>> {
    prop_oneof![Just(None), hex().prop_map(|text| WgPresharedKey::from_hex(&text).unwrap())]
}

fn private() -> impl Strategy<Value = Option<WgPrivateKey>> {
    prop_oneof![Just(None), hex().prop_map(|text| WgPrivateKey::from_hex(&text).unwrap())]
}

prop_compose! {
    fn peer()(
        key in any::<[u8; 32]>(),
        flags in any::<[bool; 3]>(),
        preshared_key in prop::option::of(psk()),
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
    fn config()(
        private_key in prop::option::of(private()),
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
        preshared_key in psk(),
        endpoint in prop::option::of(endpoint()),
        handshake in prop::option::of((0u64..1 << 40, 1u32..1_000_000_000)),
        bytes in any::<(u64, u64)>(),
        keepalive in any::<u16>(),
        allowed_ips in prop::collection::vec(prefix(), 0..5),
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
        }
    }
}

/// Bytes, lines of known keys with any values, and requests with bytes changed in them.
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
        (config(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(config, at, byte)| {
            let mut bytes = set(&config).as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

proptest! {
    #[test]
    fn a_set_reads_as_it_was_written(config in config()) {
        let text = set(&config);
        prop_assert_eq!(end(text.as_bytes(), 0), Some(text.len()));
        prop_assert_eq!(request(text.as_bytes()), Ok(UapiRequest::Set(config)));
    }

    #[test]
    fn a_status_reads_as_it_was_written(
        private_key in private(),
        listen_port in any::<u16>(),
        fwmark in any::<u32>(),
        peers in prop::collection::vec(peer_status(), 0..5),
    ) {
        let given = WgDeviceStatus { private_key, listen_port, fwmark, peers };
        let text = encode_status(&given);
        prop_assert_eq!(end(text.as_bytes(), 0), Some(text.len()));
        prop_assert_eq!(status(&text), Ok(given));
    }

    #[test]
    fn nothing_that_is_read_makes_it_panic(bytes in garbage()) {
        let _any = request(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _any = (status(&text), set_answer(&text));
    }

    #[test]
    fn the_end_is_found_however_the_bytes_come(bytes in "[a\n]{0,20}", cut in any::<prop::sample::Index>()) {
        let at = cut.index(bytes.len() + 1);
        let whole = end(bytes.as_bytes(), 0);
        let parts = end(&bytes.as_bytes()[..at], 0).or_else(|| end(bytes.as_bytes(), at));
        prop_assert_eq!(parts, whole);
    }
}

#[test]
fn what_wg_writes_is_understood() {
    // As `wg set` of wireguard-tools 1.0 sends it.
    let zeros = "0".repeat(64);
    let text = format!(
        "set=1\nprivate_key={zeros}\nlisten_port=51820\nfwmark=0\nreplace_peers=true\npublic_key={zeros}\n\
         preshared_key={zeros}\nendpoint=[fe80::1]:7\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\n\
         allowed_ip=10.42.0.1/32\nallowed_ip=-10.42.0.2/32\n\n"
    );
    let Ok(UapiRequest::Set(config)) = request(text.as_bytes()) else { panic!("refused") };
    assert_eq!((config.private_key, config.fwmark, config.peers[0].keepalive), (Some(None), Some(0), Some(25)));
    assert_eq!(config.peers[0].allowed_ips.iter().map(|ip| ip.remove).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_is_wrong_is_named_by_its_line_and_not_by_its_value() {
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
        assert_eq!(request(text.as_bytes()), Err(error.clone()), "{text}");
        assert!(!error.to_string().contains("secret"));
    }
    assert_eq!(set_answer("errno=0\n\n"), Ok(()));
    assert_eq!(set_answer("errno=-22\n\n"), Err(UapiAnswerError::Refused(-22)));
    assert_eq!(status("listen_port=1\n\n"), Err(UapiAnswerError::Unfinished));
}
