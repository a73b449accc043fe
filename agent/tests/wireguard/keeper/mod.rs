//! The mesh's device is made, kept and taken away, whatever serves it: here by our own process, in the guest by the kernel too.

mod station;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use otherix_agent::model::mesh_device::MeshFaults;
use otherix_agent::wireguard::{Backend, rotation};
use otherix_testkit::wait::wait_for_blocking;
use otherix_vmtest::Guest;
use rustix::process::{Signal, kill_process};

use self::station::{BINARY, DEADLINE, Station, join, stations};

/// What is shown of the device of the first of two nodes.
const READY: &str = r#"up 1440 otherix:mesh ["10.42.0.1/32"] ["10.42.0.2"]"#;

fn in_guest(body: impl FnOnce()) {
    Guest::default().with_program(BINARY).with_deadline(Duration::from_secs(170)).run(body);
}

#[track_caller]
fn is_ready(station: &Station) {
    wait_for_blocking(DEADLINE, "the device to be as it must be", || {
        let shown = station.shown();
        if shown == READY { Ok(()) } else { Err(format!("{shown}, {:?}", station.trouble())) }
    });
}

/// Two nodes that reach each other.
fn pair(backends: [Backend; 2], kinds: [&str; 2]) -> [Station; 2] {
    let pair = stations(backends);
    join(&pair);
    is_ready(&pair[0]);
    pair[0].reaches(&pair[1]);
    pair[1].reaches(&pair[0]);
    assert_eq!([pair[0].kind(), pair[1].kind()], kinds);
    pair
}

/// Whatever is done to the device is undone.
fn is_kept([node, other]: &[Station; 2]) {
    let second = || {
        let peer = node.status().peers.remove(0);
        (peer.public_key, peer.allowed_ips, peer.keepalive)
    };
    let before = second();
    for harm in [
        "ip link set otwg0 down",
        "ip link del otwg0",
        "ip addr flush dev otwg0",
        "ip addr add 10.42.0.9/16 dev otwg0",
        "ip link set otwg0 mtu 1300",
        "ip link set otwg0 alias mine",
        "ip route del 10.42.0.2 dev otwg0",
        // Before Linux 6.2 it must be down to be renamed, and is up again at once.
        r#"until printf "link set otwg0 down\nlink set otwg0 name lost0\n" | ip -batch -; do true; done"#,
    ] {
        let asked = Instant::now();
        node.sh(harm);
        is_ready(node);
        node.reaches(other);
        other.reaches(node);
        eprintln!("{harm}: {} ms", asked.elapsed().as_millis());
        assert_eq!((second(), node.trouble()), (before.clone(), MeshFaults::default()), "{harm}");
        assert_eq!(node.sh("ip -br link | grep -c -e otwg -e lost").trim(), "1");
    }
}

/// How many of the pings were lost.
fn lost(ping: Child) -> u32 {
    let text = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap();
    let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers[0] - numbers[1]
}

/// Another key is used by all at once: the gap is some pings.
fn keys_are_rotated(pair: &[Station; 2]) {
    let [node, _] = pair;
    let (before, pings) = (node.offered(), node.ping(&pair[1], 400));
    let state = node.state.path().to_owned();
    let rotating = std::thread::spawn(move || rotation::rotate(&state, DEADLINE).unwrap());
    wait_for_blocking(DEADLINE, "a new offer", || node.offered() != before);
    join(pair);
    let rotated = rotating.join().unwrap();
    assert_eq!(rotated.before.as_bytes(), &before.bytes());
    assert_eq!(rotated.now.as_bytes(), &node.offered().bytes());
    let lost = lost(pings);
    eprintln!("lost while the key was rotated: {lost} of 400, one every 10 ms");
    assert!(lost <= 100, "{lost}");
    assert_eq!(node.status().private_key.unwrap().public(), rotated.now);
    assert_eq!(pair[1].status().peers[0].public_key, rotated.now);
    node.reaches(&pair[1]);
}

#[test]
fn our_own_process_serves_where_the_kernel_does_not() {
    let pair = pair([Backend::Userspace; 2], ["tun"; 2]);
    is_kept(&pair);
    keys_are_rotated(&pair);
}

#[test]
fn a_process_that_is_killed_is_back_and_knows_its_peers() {
    let pair = pair([Backend::Userspace; 2], ["tun"; 2]);
    let [node, other] = &pair;
    let first = node.process().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    wait_for_blocking(DEADLINE, "another process", || node.process().is_some_and(|process| process != first));
    other.reaches(node);
    node.reaches(other);
    assert_eq!((node.shown().as_str(), node.trouble()), (READY, MeshFaults::default()));
}

#[test]
fn peers_go_once_all_is_known_and_the_device_when_the_node_leaves() {
    let all = stations([Backend::Userspace; 3]);
    join(&all);
    all[0].reaches(&all[2]);
    let peers = || all[0].status().peers.len();
    all[0].want(Some(all[0].place(all[..2].iter())), false, false);
    all[0].sh("ip link set otwg0 mtu 1300");
    wait_for_blocking(DEADLINE, "a pass", || all[0].shown().contains("1440"));
    assert_eq!(peers(), 2, "it may be of a node that is not known yet");
    all[0].reaches(&all[2]);
    all[0].want(Some(all[0].place(all[..2].iter())), false, true);
    is_ready(&all[0]);
    wait_for_blocking(DEADLINE, "the third to go", || peers() == 1);
    all[0].reaches(&all[1]);

    all[0].want(None, false, true);
    all[0].sh("ip link set otwg0 down");
    all[0].want(None, true, true);
    wait_for_blocking(DEADLINE, "the device to go", || all[0].shown() == "");
    wait_for_blocking(DEADLINE, "its process to end", || all[0].process().is_none());
}

#[test]
fn a_route_that_is_in_the_way_of_one_node_is_left_alone_and_holds_up_no_other() {
    let all = stations([Backend::Userspace; 3]);
    join(&all);
    all[0].reaches(&all[1]);
    all[0].reaches(&all[2]);
    all[0].sh("ip route replace 10.42.0.2 dev u0");
    let why = "there is a route to it that otherix did not make: remove it".to_owned();
    let trouble = MeshFaults { device: None, nodes: [("10.42.0.2".parse().unwrap(), why)].into() };
    wait_for_blocking(DEADLINE, "that to be said", || all[0].trouble() == trouble);
    all[0].reaches(&all[2]);
    assert_eq!(all[0].sh("ip route show 10.42.0.2").trim(), "10.42.0.2 dev u0 scope link");
    // A node that joins meanwhile is reached.
    all[0].want(Some(all[0].place(all[..2].iter())), false, true);
    wait_for_blocking(DEADLINE, "the third to go", || !all[0].shown().contains("10.42.0.3"));
    all[0].want(Some(all[0].place(all.iter())), false, true);
    all[0].reaches(&all[2]);
    all[0].sh("ip route del 10.42.0.2 dev u0");
    all[0].reaches(&all[1]);
    wait_for_blocking(DEADLINE, "that to be over", || all[0].trouble() == MeshFaults::default());
}

#[test]
fn a_process_that_no_agent_started_is_not_ended() {
    let [node] = stations([Backend::Userspace]);
    // It serves the folder from another namespace, so that the node has no device.
    let mut command = Command::new(BINARY);
    command.args(["mesh", "--port", "0", "--socket-dir"]).arg(node.state.path().join("sockets"));
    let mut other = command.spawn().unwrap();
    wait_for_blocking(DEADLINE, "the other process", || node.process().is_some());
    node.want(None, true, true);
    // A pass has failed, and the next has not.
    node.sh("ip link add otwg0 type bridge");
    wait_for_blocking(DEADLINE, "trouble", || node.trouble().device.is_some());
    node.sh("ip link del otwg0");
    wait_for_blocking(DEADLINE, "that to be over", || node.trouble() == MeshFaults::default());
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_device_that_is_not_ours_is_left_alone() {
    let [node] = stations([Backend::Userspace]);
    for squatter in ["link add otwg0 type bridge", "tuntap add otwg0 mode tun"] {
        node.sh(&format!("ip {squatter}"));
        node.want(Some(node.place(std::iter::once(&node))), false, true);
        wait_for_blocking(DEADLINE, "trouble", || node.trouble().device.is_some());
        assert_eq!(
            node.trouble().device.unwrap(),
            "there is a device `otwg0` that otherix did not make: remove or rename it"
        );
        assert!(node.shown().starts_with("down 1500  []"), "{}", node.shown());
        assert!(node.process().is_none());
        node.sh("ip link del otwg0");
        wait_for_blocking(DEADLINE, "the device", || {
            node.shown().starts_with("up 1440 otherix:mesh [\"10.42.0.1/32\"]")
        });
        assert_eq!(node.trouble(), MeshFaults::default());
        node.want(None, true, true);
        wait_for_blocking(DEADLINE, "the device to go", || node.shown() == "");
    }
}

mod in_guest {
    use super::*;

    #[test]
    fn the_kernel_serves_where_it_can_and_both_are_peers() {
        super::in_guest(|| {
            let pair = pair([Backend::Auto, Backend::Userspace], ["wireguard", "tun"]);
            assert!(pair[0].process().is_none());
            is_kept(&pair);
        });
    }

    #[test]
    fn keys_are_rotated_in_the_kernel_too() {
        super::in_guest(|| {
            let pair = pair([Backend::Kernel, Backend::Userspace], ["wireguard", "tun"]);
            keys_are_rotated(&pair);
            let [first, second] = pair;
            keys_are_rotated(&[second, first]);
        });
    }
}
