//! The kernel's WireGuard on one node and our own on the other.

use otherix_mesh::config::{WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey};
use otherix_testkit::wait::wait_for_blocking;

use super::world::{Engine, Node, in_guest, nodes};

const BYTES: u32 = 2 << 20;

/// A peer of which nobody says where it is.
fn unlocated(node: &Node) -> WgPeerUpdate {
    WgPeerUpdate { endpoint: None, ..node.as_peer() }
}

#[test]
fn they_are_peers_whoever_begins() {
    in_guest(|| {
        let [kernel, own, kernel_too, own_too] = &nodes([Engine::Kernel, Engine::Own, Engine::Kernel, Engine::Own]);
        let secret = WgPresharedKey::from_hex(&"7".repeat(64)).unwrap();
        // In each pair the first begins: the other does not know where it is.
        for (first, second) in [(kernel, own), (own_too, kernel_too)] {
            let with = |peer: WgPeerUpdate| WgPeerUpdate { preshared_key: Some(secret.clone()), ..peer };
            second.change([with(unlocated(first))]);
            first.change([with(second.as_peer())]);
            assert_eq!((first.handshake(second), second.handshake(first)), (None, None));
            first.reaches(second);
            second.reaches(first);
            assert_eq!(second.peer(first).endpoint, first.as_peer().endpoint);
            first.transfer(second, BYTES);
            second.transfer(first, BYTES);
            for (node, other) in [(first, second), (second, first)] {
                let seen = node.peer(other);
                assert!(seen.last_handshake.is_some(), "{seen:?}");
                assert!(seen.rx_bytes > u64::from(BYTES) && seen.tx_bytes > u64::from(BYTES), "{seen:?}");
            }
            assert_eq!(first.ping(second, 100).lost(), (100, 0));
        }
    });
}

#[test]
fn another_key_of_the_kernel_s_makes_another_session_and_the_same_key_none() {
    in_guest(|| {
        let mut nodes = nodes([Engine::Kernel, Engine::Own]);
        let [kernel, own] = &mut nodes;
        kernel.change([own.as_peer()]);
        own.change([kernel.as_peer()]);
        kernel.reaches(own);
        let before = kernel.handshake(own);
        let key =
            |key: &WgPrivateKey| WgDeviceUpdate { private_key: Some(Some(key.clone())), ..WgDeviceUpdate::default() };
        kernel.set(&key(&kernel.key));
        assert_eq!(kernel.ping(own, 50).lost(), (50, 0));
        assert_eq!(kernel.handshake(own), before, "the same key is no change");

        let old = WgPeerUpdate { remove: true, ..WgPeerUpdate::new(kernel.key.public()) };
        kernel.key = WgPrivateKey::generate().unwrap();
        kernel.set(&key(&kernel.key));
        own.change([old, kernel.as_peer()]);
        for (node, other) in [(&*kernel, &*own), (&*own, &*kernel)] {
            node.reaches(other);
        }
        wait_for_blocking(std::time::Duration::from_secs(10), "a handshake with the new key", || {
            kernel.handshake(own) > before && own.handshake(kernel) > before
        });
        assert_eq!(kernel.dump().split('\t').nth(1).unwrap(), kernel.key.public().to_base64());
        kernel.transfer(own, BYTES);
        own.transfer(kernel, BYTES);
    });
}
