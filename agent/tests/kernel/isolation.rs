//! Networks with NAT egress are isolated from malicious guests and hosts, and work while other programs keep writing
//! the packet filter.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{link, sh};
use otherix_testkit::wait::wait_for_blocking;

use crate::host::Host;
use crate::nat::{REMOTE, forwards, guest, has_gateway, has_table, nat, node_with_uplink};
use crate::node::{Node, REPAIR};

/// A shell script that runs until this is dropped, also by a test that fails.
struct Background(Child);

impl Background {
    fn sh(script: &str) -> Self {
        Self(Command::new("sh").args(["-c", script]).spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _may_have_ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Returns the number of echo replies that a host has received.
fn echo_replies(host: &Host) -> u64 {
    let text = host.sh("cat /proc/net/snmp");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let index = names.split(' ').position(|name| name == "InEchoReps").unwrap();
    values.split(' ').nth(index).unwrap().parse().unwrap()
}

/// Sends a datagram with any source address of the host.
fn send(from: &Host, source: &str, to: &str, text: &str) {
    from.sh(&format!(
        "python3 -c \"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('{source}', 4000))
s.sendto(b'{text}', ('{to}', 5000))\""
    ));
}

const LISTENER: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 5000))
print('listening', flush=True)
while True:
    data, peer = s.recvfrom(100)
    s.sendto(b'reply', peer)
    print(data.decode(), peer[0], flush=True)
";

/// Returns a node with two networks, the host outside, and a guest on each network.
async fn two_networks() -> (Node, Host, Host, Host) {
    let (mut node, outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    node.set_desired(2, nat(2));
    node.settle().await;
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
    let (one, two) = (guest(1, 5), guest(2, 5));
    assert!(one.reaches(REMOTE) && two.reaches(REMOTE));
    (node, outside, one, two)
}

#[tokio::test]
async fn a_guest_cannot_make_the_node_reply_to_another_network() {
    let (_node, _outside, one, two) = two_networks().await;
    one.sh("ip address add 10.20.2.5/32 dev eth0; ip address add 10.20.2.6/32 dev eth0");
    let before = echo_replies(&two);
    for node in ["192.0.2.7", "10.20.1.1"] {
        let ping = format!("ping -q -c 3 -i 0.1 -W 0.3 -I 10.20.2.5 {node} || true");
        one.sh(&ping);
    }
    assert_eq!(echo_replies(&two), before, "replies to requests of a guest on another network");
    assert!(one.reaches("10.20.1.1") && two.reaches("10.20.2.1") && one.cannot_reach("192.0.2.7"));
}

#[tokio::test]
async fn a_guest_cannot_inject_into_a_connection_of_another_network() {
    let (_node, outside, one, two) = two_networks().await;
    let mut listener = outside.command("python3").args(["-c", LISTENER]).stdout(Stdio::piped()).spawn().unwrap();
    let mut received = BufReader::new(listener.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(received.next().unwrap(), "listening");
    one.sh("ip address add 10.20.2.5/32 dev eth0");
    for round in 0..3 {
        send(&two, "10.20.2.5", REMOTE, &format!("genuine-{round}"));
        assert_eq!(received.next().unwrap(), format!("genuine-{round} 192.0.2.7"));
        send(&one, "10.20.2.5", REMOTE, "spoofed");
    }
    send(&one, "10.20.1.5", REMOTE, "last");
    assert_eq!(received.next().unwrap(), "last 192.0.2.7");
    listener.kill().unwrap();
    listener.wait().unwrap();
}

#[tokio::test]
async fn a_gateway_does_not_reply_to_the_outside() {
    let (_node, outside, one, two) = two_networks().await;
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    assert!(outside.cannot_reach("10.20.1.1"));
    assert!(one.reaches("10.20.1.1") && !two.reaches("10.20.1.1"));
    sh("ping -q -c 1 -W 1 10.20.1.1");
    sh("ping -q -c 1 -W 1 10.20.1.5");
}

#[tokio::test]
async fn a_renamed_bridge_whose_name_is_in_use_forwards_nothing() {
    let (mut node, outside, one, two) = two_networks().await;
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    sh("ip link set br-1 down; ip link set br-1 name stolen; ip link add br-1 type bridge; ip link set stolen up");
    node.run_until(REPAIR, || true).await;
    node.expect_failure(1, &["renamed", "stolen"]).await;
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    assert!(two.reaches(REMOTE));
    let before = one.sh("cat /proc/net/snmp");
    let _unreachable = two.cannot_reach("10.20.1.5");
    let _unreachable = outside.cannot_reach("10.20.1.5");
    let icmp =
        |text: &str| text.lines().filter(|line| line.starts_with("IcmpMsg")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(icmp(&one.sh("cat /proc/net/snmp")), icmp(&before), "nothing is forwarded to it");
    assert!(two.cannot_reach("10.20.1.1"));
    sh("ip link del br-1");
    node.expect_outcome(REPAIR, 1, Outcome::Ready).await;
    assert!(link("stolen").is_none() && one.reaches(REMOTE));
}

#[tokio::test]
async fn a_network_with_a_held_deletion_keeps_its_rules_and_its_egress() {
    let (mut node, outside, one, two) = two_networks().await;
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    node.set_desired(2, Want::Nothing);
    node.desired.networks.remove(&crate::node::network(1));
    node.current = false;
    node.restart();
    node.settle().await;
    assert!(one.reaches(REMOTE) && two.reaches(REMOTE), "a port of its own prevents the removal of the second");
    assert!(outside.cannot_reach("10.20.1.5") && outside.cannot_reach("10.20.2.5"));
    assert!(one.cannot_reach("10.20.2.5") && two.cannot_reach("10.20.1.5"));
    sh("ip link del g1-5\nip link del g2-5");
    node.current = true;
    node.settle().await;
    assert!(link("br-1").is_none() && link("br-2").is_none());
    assert!(!sh("nft list tables").contains("otherix"));
}

#[tokio::test]
async fn programs_that_keep_writing_the_packet_filter_delay_nothing() {
    let (mut node, _outside) = node_with_uplink();
    sh("nft add table ip theirs; nft add chain ip theirs c");
    let writer = "while :; do nft add rule ip theirs c counter; nft flush chain ip theirs c; done";
    let writers: Vec<_> = (0..2).map(|_| Background::sh(writer)).collect();
    let mut slowest = Duration::ZERO;
    for number in 1..=20 {
        let start = Instant::now();
        node.set_desired(number, nat(number));
        assert_eq!(node.outcome(number).await, Outcome::Ready, "{number}");
        slowest = slowest.max(start.elapsed());
    }
    drop(writers);
    // On a busy machine the writers take most of the time; without an end to retries it would be unlimited.
    assert!(slowest < REPAIR * 20, "{slowest:?}");
}

#[tokio::test]
async fn rules_are_restored_after_a_program_that_kept_flushing_them_ends() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    node.settle().await;
    let flusher = Background::sh("while :; do nft flush ruleset; done");
    let deadline = Instant::now() + Duration::from_secs(3);
    let (passes, mut is_due) = (node.passes, false);
    while Instant::now() < deadline {
        if !is_due {
            let _nothing_notified = tokio::time::timeout(Duration::from_millis(100), node.reconciler.wait()).await;
        }
        is_due |= node.reconciler.is_due();
        if is_due {
            is_due = node.try_pass().await;
        }
    }
    let passes = node.passes - passes;
    assert!(passes < 500, "{passes} passes in three seconds");
    drop(flusher);
    if is_due {
        node.settle().await;
    }
    node.run_until(REPAIR, || has_table() && has_gateway() && forwards("br-1")).await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    wait_for_blocking(REPAIR, "the removal of the table", || !sh("nft list tables").contains("otherix"));
}
