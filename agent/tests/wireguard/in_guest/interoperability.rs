//! The kernel's WireGuard and the userspace device as peers.

use std::time::Duration;

use otherix_mesh::config::{WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey};
use otherix_testkit::wait::wait_for_blocking;

use super::node::{Implementation, Node, in_guest, nodes};

const BYTES: u32 = 2 << 20;

/// Returns `node` as a peer without an endpoint.
fn without_endpoint(node: &Node) -> WgPeerUpdate {
    WgPeerUpdate { endpoint: None, ..node.as_peer() }
}

#[test]
fn either_implementation_can_initiate_the_session() {
    in_guest(|| {
        use Implementation::{Kernel, Userspace};
        let [kernel, userspace, second_kernel, second_userspace] = &nodes([Kernel, Userspace, Kernel, Userspace]);
        let preshared_key = WgPresharedKey::from_hex(&"7".repeat(64)).unwrap();
        // In each pair the first initiates: the other does not know its endpoint.
        for (first, second) in [(kernel, userspace), (second_userspace, second_kernel)] {
            let with_preshared =
                |peer: WgPeerUpdate| WgPeerUpdate { preshared_key: Some(preshared_key.clone()), ..peer };
            second.set_peers([with_preshared(without_endpoint(first))]);
            first.set_peers([with_preshared(second.as_peer())]);
            assert_eq!((first.last_handshake(second), second.last_handshake(first)), (None, None));
            first.reaches(second);
            second.reaches(first);
            assert_eq!(second.peer(first).endpoint, first.as_peer().endpoint);
            first.transfer(second, BYTES);
            second.transfer(first, BYTES);
            for (node, other) in [(first, second), (second, first)] {
                let status = node.peer(other);
                assert!(status.last_handshake.is_some(), "{status:?}");
                assert!(status.rx_bytes > u64::from(BYTES) && status.tx_bytes > u64::from(BYTES), "{status:?}");
            }
            assert_eq!(first.ping(second, 100).sent_and_lost(), (100, 0));
        }
    });
}

#[test]
fn a_new_key_of_the_kernel_device_causes_a_handshake_and_the_same_key_does_not() {
    in_guest(|| {
        let mut nodes = nodes([Implementation::Kernel, Implementation::Userspace]);
        let [kernel, userspace] = &mut nodes;
        kernel.set_peers([userspace.as_peer()]);
        userspace.set_peers([kernel.as_peer()]);
        kernel.reaches(userspace);
        let before = kernel.last_handshake(userspace);
        let with_key =
            |key: &WgPrivateKey| WgDeviceUpdate { private_key: Some(Some(key.clone())), ..WgDeviceUpdate::default() };
        kernel.set(&with_key(&kernel.key));
        assert_eq!(kernel.ping(userspace, 50).sent_and_lost(), (50, 0));
        assert_eq!(kernel.last_handshake(userspace), before, "the key has not changed");

        let old = WgPeerUpdate { remove: true, ..WgPeerUpdate::new(kernel.key.public()) };
        kernel.key = WgPrivateKey::generate().unwrap();
        kernel.set(&with_key(&kernel.key));
        userspace.set_peers([old, kernel.as_peer()]);
        for (node, other) in [(&*kernel, &*userspace), (&*userspace, &*kernel)] {
            node.reaches(other);
        }
        wait_for_blocking(Duration::from_secs(10), "a handshake with the new key", || {
            kernel.last_handshake(userspace) > before && userspace.last_handshake(kernel) > before
        });
        assert_eq!(kernel.dump().split('\t').nth(1).unwrap(), kernel.key.public().to_base64());
        kernel.transfer(userspace, BYTES);
        userspace.transfer(kernel, BYTES);
    });
}
