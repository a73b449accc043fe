//! Start, exit and restart of the process, and what remains of its device.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use otherix_mesh::KEY_FILE;
use otherix_netlink::{Protocol, Subscription, find};
use otherix_testkit::netns::enter_new;
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for_blocking;
use rustix::process::Signal;

use crate::node::{BINARY, DEADLINE, mesh, nodes};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_tun_device_remains_when_the_process_is_killed() {
    let mut nodes = mesh::<2>(&[]);
    nodes[0].reaches("10.42.0.2");
    nodes[0].sh("ip route add 10.77.0.0/16 dev otwg0; ip link set otwg0 mtu 1400");
    nodes[0].signal(Signal::KILL);
    let link =
        "ip -j -d addr show otwg0 | jq -c '[.[0].mtu, .[0].linkinfo.info_data.persist, [.[0].addr_info[].local]]'";
    let before = nodes[0].sh(link);
    assert!(before.contains("1400") && before.contains("10.42.0.1") && before.contains("true"), "{before}");
    assert!(nodes[0].sh("ip route").contains("10.77.0.0/16 dev otwg0"));
    // A new process replaces the leftover socket, and must be configured again.
    assert!(nodes[0].folder().join("otwg0.sock").exists());
    nodes[0].start(&[]);
    assert_eq!(nodes[0].client().get().unwrap().private_key, None);
    nodes[0].configure(&nodes);
    nodes[0].reaches("10.42.0.2");
    assert_eq!(nodes[0].sh(link), before);
}

#[test]
fn the_process_stops_on_signals_and_the_tun_device_remains() {
    let mut nodes = mesh::<1>(&[]);
    for signal in [Signal::TERM, Signal::INT] {
        assert!(nodes[0].signal(signal).success());
        assert!(!nodes[0].folder().join("otwg0.sock").exists());
        assert!(nodes[0].sh("ip addr show otwg0").contains("10.42.0.1"));
        nodes[0].start(&[]);
    }
}

#[test]
fn a_removed_socket_is_created_again() {
    let nodes = mesh::<2>(&[]);
    // The socket alone, and with the lock file.
    for removed in ["otwg0.sock", "otwg0.sock otwg0.lock"] {
        nodes[0].sh(&format!("cd /run/wireguard && rm {removed}"));
        let status = wait_for_blocking(DEADLINE, "the socket", || nodes[0].client().get());
        assert_eq!((status.private_key, status.peers.len()), (Some(nodes[0].key.clone()), 1));
        let mode = fs::metadata(nodes[0].folder().join("otwg0.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o177, 0);
        let second = nodes[0].second(&["--socket-dir", "/run/wireguard"]);
        let errors = stderr(&second);
        assert!(errors.contains("another process serves"), "{errors}");
        nodes[0].reaches("10.42.0.2");
    }
}

#[test]
fn a_second_process_is_refused_and_the_first_continues() {
    let mut nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    let refused = |options: &[&str], expected: &str| {
        let output = one.second(options);
        let errors = stderr(&output);
        assert!(!output.status.success() && errors.contains(expected), "{errors}");
    };
    refused(&["--socket-dir", "/run/wireguard"], "another process serves `/run/wireguard/otwg0.sock`");
    refused(&["--socket-dir", "/run/elsewhere", "--port", "0"], "the device `otwg0` belongs to another process");
    refused(&["--socket-dir", "/run/wireguard", "--name", "otwg1"], "cannot listen on UDP port 51820");
    refused(&["--socket-dir", "/run/wireguard", "--name", "u0", "--port", "0"], "not a TUN device");
    refused(&["--socket-dir", "/run/wireguard", "--name", "a/b", "--port", "0"], "a/b");
    one.reaches(&other.address());
    // A socket of another program, and a file that is not a socket.
    nodes[0].signal(Signal::TERM);
    let path = nodes[0].folder().join("otwg0.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(stderr(&nodes[0].second(&["--socket-dir", "/run/wireguard"])).contains("another process serves"));
    drop(listener);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "content").unwrap();
    assert!(stderr(&nodes[0].second(&["--socket-dir", "/run/wireguard"])).contains("is not a socket"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    fs::remove_file(&path).unwrap();
    nodes[0].start(&[]);
}

#[test]
fn a_key_file_is_read_if_only_its_owner_has_access() {
    let mut nodes = nodes::<1>();
    let node = &mut nodes[0];
    let (path, key) = (node.folder().join(KEY_FILE), node.key.to_base64());
    fs::write(&path, format!("{}\n", key.as_str())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let options = ["--socket-dir", "/run/wireguard", "--state", "/run/wireguard"];
    let refused = node.second(&options);
    let errors = stderr(&refused);
    assert!(!refused.status.success() && errors.contains("0600") && !errors.contains(key.as_str()), "{errors}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    node.start(&["--state", "/run/wireguard"]);
    assert_eq!(node.sh("wg show otwg0 private-key").trim(), key.as_str());
    assert_eq!(node.sh("wg show otwg0 public-key").trim(), node.sh("wg pubkey < /run/wireguard/mesh.key").trim());
    // The key is neither logged nor on the command line.
    let hex = node.key.to_hex();
    for text in [node.log(), fs::read_to_string(format!("/proc/{}/cmdline", node.process_id())).unwrap()] {
        assert!(!text.contains(key.as_str()) && !text.contains(hex.as_str()));
    }
    node.sh(&format!("wg set otwg0 private-key /dev/null peer {} allowed-ips 10.0.0.0/8", node.key.public()));
    assert_eq!(node.sh("wg show otwg0 private-key").trim(), "(none)");
}

#[test]
fn a_deleted_tun_device_is_created_again() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    let before = one.sh("cat /proc/net/dev | wc -l");
    one.sh("ip link del otwg0");
    wait_for_blocking(DEADLINE, "the device", || {
        one.command(&["ip", "link", "show", "otwg0"]).output().unwrap().status.success()
    });
    assert_eq!(one.sh("cat /proc/net/dev | wc -l"), before);
    assert_eq!(one.sh("ip -j link show otwg0 | jq .[0].mtu").trim(), "1440");
    one.sh("ip addr add 10.42.0.1/16 dev otwg0; ip link set otwg0 up");
    one.reaches(&other.address());
}

/// No link notification of the kernel has the name without the alias.
#[test]
fn the_alias_is_set_before_the_name() {
    const RTM_NEWLINK: u16 = 16;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_IFALIAS: u16 = 20;
    const RTNLGRP_LINK: u32 = 1;
    const IFINFOMSG_LEN: usize = 16;
    enter_new();
    let folder = tempdir().unwrap();
    let mut subscription = Subscription::open(Protocol::Route, &[RTNLGRP_LINK], 1 << 20).unwrap();
    let mut process = Command::new(BINARY)
        .args(["--name", "otwg0", "--alias", "otherix:mesh", "--port", "0", "--socket-dir"])
        .arg(folder.path())
        .spawn()
        .unwrap();
    let mut aliases = Vec::new();
    wait_for_blocking(DEADLINE, "the device", || {
        let notified = subscription.drain(usize::MAX, |notification| {
            let text = |kind| find(&notification.payload[IFINFOMSG_LEN..], kind).map(|found| found.value.to_vec());
            if notification.kind == RTM_NEWLINK && text(IFLA_IFNAME).as_deref() == Some(b"otwg0\0") {
                aliases.push(text(IFLA_IFALIAS));
            }
        });
        notified.unwrap();
        folder.path().join("otwg0.sock").exists() && !aliases.is_empty()
    });
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(aliases.iter().all(|alias| alias.as_deref() == Some(b"otherix:mesh\0")), "{aliases:?}");
}
