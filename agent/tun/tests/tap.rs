//! TAP devices as `ip` shows them. Tests: a created device is a TAP device with a single queue and without packet
//! information; creating fails if the name is taken; attaching never creates a device; frames are carried unchanged in
//! both directions; reading and writing fail once the device was deleted.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::io::ErrorKind;
use std::time::Duration;

use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::{FRAME_MAX, TapDevice, TapError};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(10);

fn kind(name: &str) -> Option<Value> {
    link(name).map(|link| link["linkinfo"].clone())
}

fn has_carrier(name: &str) -> bool {
    link(name).unwrap()["flags"].as_array().unwrap().contains(&"LOWER_UP".into())
}

#[test]
fn only_a_persistent_device_remains_when_detached() {
    enter_new();
    let tap = TapDevice::create("ot0123456789ab").unwrap();
    tap.set_persistent(true).unwrap();
    tap.set_owner(4711).unwrap();
    drop(tap);
    let expected = json!({
        "info_kind": "tun",
        "info_data": {
            "type": "tap", "pi": false, "vnet_hdr": false, "multi_queue": false, "persist": true, "user": "4711",
        }
    });
    let mut shown = kind("ot0123456789ab").unwrap();
    let user = &mut shown["info_data"]["user"];
    *user = user.as_str().map_or_else(|| user.to_string(), str::to_owned).into();
    assert_eq!(shown, expected);

    let tap = TapDevice::create("other").unwrap();
    assert_eq!(kind("other").unwrap()["info_data"]["persist"], false);
    drop(tap);
    assert_eq!(kind("other"), None);

    TapDevice::attach("ot0123456789ab").unwrap().set_persistent(false).unwrap();
    assert_eq!(kind("ot0123456789ab"), None);
}

#[test]
fn creating_fails_if_the_device_exists_and_attaching_if_it_does_not() {
    enter_new();
    sh("ip tuntap add tap0 mode tap; ip tuntap add tun0 mode tun; ip link add br0 type bridge");
    for taken in ["tap0", "br0", "lo"] {
        assert!(matches!(TapDevice::create(taken), Err(TapError::Exists(name)) if name == taken), "{taken}");
    }
    assert!(matches!(TapDevice::attach("tap1"), Err(TapError::Absent(name)) if name == "tap1"));
    assert_eq!(link("tap1"), None);
    for other in ["br0", "tun0", "lo"] {
        assert!(matches!(TapDevice::attach(other), Err(TapError::NotTap(name)) if name == other), "{other}");
    }
    let first = TapDevice::attach("tap0").unwrap();
    assert!(matches!(TapDevice::attach("tap0"), Err(TapError::Busy(_))));
    drop(first);
    TapDevice::attach("tap0").unwrap();
    for invalid in ["", "sixteen-bytes-it", "tap%d", "a/b", "a b", "a:b", ".", "..", "a\0"] {
        assert!(matches!(TapDevice::create(invalid), Err(TapError::Name(_))), "{invalid:?}");
        assert!(matches!(TapDevice::attach(invalid), Err(TapError::Name(_))), "{invalid:?}");
    }
}

#[test]
fn frames_are_carried_unchanged_in_both_directions() {
    enter_new();
    // Two taps on a bridge that sends no frames of its own.
    sh("ip link add br0 type bridge mcast_snooping 0\nip link set br0 up\n\
        for tap in tap0 tap1; do ip tuntap add $tap mode tap; echo 1 > /proc/sys/net/ipv6/conf/$tap/disable_ipv6\n\
        ip link set $tap mtu 9216 master br0 up; done\necho 1 > /proc/sys/net/ipv6/conf/br0/disable_ipv6");
    assert!(!has_carrier("tap0"));
    let (a, b) = (TapDevice::attach("tap0").unwrap(), TapDevice::attach("tap1").unwrap());
    wait_for_blocking(DEADLINE, "carrier", || has_carrier("tap0") && has_carrier("tap1"));
    let mut buffer = vec![0; FRAME_MAX];
    let frame: Vec<u8> = [0xff; 6]
        .into_iter()
        .chain([2, 0, 0, 0, 0, 1, 0x88, 0xb5])
        .chain((0..9216).map(|byte| (byte % 251) as u8))
        .collect();
    for (from, to) in [(&a, &b), (&b, &a)] {
        // A port does not forward right after it came up.
        wait_for_blocking(DEADLINE, "frame received", || {
            from.write(&frame).unwrap();
            let mut next = || to.read(&mut buffer).map(|length| buffer[..length].to_vec()).ok();
            std::iter::from_fn(&mut next).any(|read| read == frame)
        });
    }
    assert!(
        std::iter::repeat_with(|| a.read(&mut buffer))
            .find_map(Result::err)
            .is_some_and(|e| e.kind() == ErrorKind::WouldBlock)
    );

    sh("ip link set tap0 down");
    assert_eq!(a.write(&frame).unwrap_err().raw_os_error(), Some(5), "EIO: the device is down");
    sh("ip link delete tap0");
    for error in [a.write(&frame).unwrap_err(), a.read(&mut buffer).unwrap_err()] {
        assert!(matches!(error.raw_os_error(), Some(14 | 77)), "EFAULT or EBADFD: {error}");
    }
    assert!(a.set_persistent(true).is_err());
    assert_eq!(a.name(), "tap0");
}
