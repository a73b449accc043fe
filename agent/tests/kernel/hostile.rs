//! Guests and neighbours that mean harm to a network with a way out, and people who write the packet filter all the
//! time.

use std::process::Stdio;
use std::time::{Duration, Instant};

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{link, sh};
use otherix_testkit::wait::wait_for_blocking;

use crate::host::Host;
use crate::nat::{BEYOND, forwards, guest, has_gateway, nat, node_with_uplink};
use crate::node::{Node, REPAIR};

/// How many echo replies have come to a host.
fn echo_replies(host: &Host) -> u64 {
    let text = host.sh("cat /proc/net/snmp");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "InEchoReps").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// Sends a datagram with this source, whosever it is.
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
    s.sendto(b'answer', peer)
    print(data.decode(), peer[0], flush=True)
";

async fn two_networks() -> (Node, Host, Host, Host) {
    let (mut node, outside) = node_with_uplink();
    node.want(1, nat(1));
    node.want(2, nat(2));
    node.settle().await;
    assert_eq!((node.outcome(1).await, node.outcome(2).await), (Outcome::Ready, Outcome::Ready));
    let (one, two) = (guest(1, 5), guest(2, 5));
    assert!(one.reaches(BEYOND) && two.reaches(BEYOND));
    (node, outside, one, two)
}

#[tokio::test]
async fn a_guest_cannot_have_the_node_answer_to_another_network() {
    let (_node, _outside, one, two) = two_networks().await;
    one.sh("ip address add 10.20.2.5/32 dev eth0; ip address add 10.20.2.6/32 dev eth0");
    let before = echo_replies(&two);
    for node in ["192.0.2.7", "10.20.1.1"] {
        let ping = format!("ping -q -c 3 -i 0.1 -W 0.3 -I 10.20.2.5 {node} || true");
        one.sh(&ping);
    }
    assert_eq!(echo_replies(&two), before, "answers to questions of a guest of another network");
    assert!(one.reaches("10.20.1.1") && two.reaches("10.20.2.1") && one.reaches("192.0.2.7"));
}

#[tokio::test]
async fn a_guest_cannot_speak_in_a_connection_of_another_network() {
    let (_node, outside, one, two) = two_networks().await;
    let mut listener = outside.command("python3").args(["-c", LISTENER]).stdout(Stdio::piped()).spawn().unwrap();
    let heard = std::io::BufRead::lines(std::io::BufReader::new(listener.stdout.take().unwrap()));
    let mut heard = heard.map(Result::unwrap);
    assert_eq!(heard.next().unwrap(), "listening");
    one.sh("ip address add 10.20.2.5/32 dev eth0");
    for round in 0..3 {
        send(&two, "10.20.2.5", BEYOND, &format!("honest-{round}"));
        assert_eq!(heard.next().unwrap(), format!("honest-{round} 192.0.2.7"));
        send(&one, "10.20.2.5", BEYOND, "spoofed");
    }
    send(&one, "10.20.1.5", BEYOND, "last");
    assert_eq!(heard.next().unwrap(), "last 192.0.2.7");
    listener.kill().unwrap();
    listener.wait().unwrap();
}

#[tokio::test]
async fn a_gateway_does_not_answer_the_outside() {
    let (_node, outside, one, two) = two_networks().await;
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    assert!(outside.is_kept_from("10.20.1.1"));
    assert!(one.reaches("10.20.1.1") && !two.reaches("10.20.1.1"));
    sh("ping -q -c 1 -W 1 10.20.1.1");
    sh("ping -q -c 1 -W 1 10.20.1.5");
}

#[tokio::test]
async fn a_bridge_whose_name_is_taken_forwards_for_nobody() {
    let (mut node, outside, one, two) = two_networks().await;
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    sh("ip link set br-1 down; ip link set br-1 name stolen; ip link add br-1 type bridge; ip link set stolen up");
    node.work_until(REPAIR, || true).await;
    node.fails(1, &["renamed", "stolen"]).await;
    assert_eq!(node.outcome(2).await, Outcome::Ready);
    assert!(two.reaches(BEYOND));
    let before = one.sh("cat /proc/net/snmp");
    let _refused = two.is_kept_from("10.20.1.5");
    let _refused = outside.is_kept_from("10.20.1.5");
    let asked =
        |text: &str| text.lines().filter(|line| line.starts_with("IcmpMsg")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(asked(&one.sh("cat /proc/net/snmp")), asked(&before), "nobody is heard in it");
    assert!(two.is_kept_from("10.20.1.1"));
    sh("ip link del br-1");
    node.becomes(REPAIR, 1, Outcome::Ready).await;
    assert!(link("stolen").is_none() && one.reaches(BEYOND));
}

#[tokio::test]
async fn a_network_whose_removal_is_held_back_is_guarded_and_has_its_way_out() {
    let (mut node, outside, one, two) = two_networks().await;
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    node.want(2, Want::Nothing);
    node.desired.networks.remove(&crate::node::network(1));
    node.current = false;
    node.restart();
    node.settle().await;
    assert!(one.reaches(BEYOND) && two.reaches(BEYOND), "its own port holds the second");
    assert!(outside.is_kept_from("10.20.1.5") && outside.is_kept_from("10.20.2.5"));
    assert!(one.is_kept_from("10.20.2.5") && two.is_kept_from("10.20.1.5"));
    sh("ip link del g1-5\nip link del g2-5");
    node.current = true;
    node.settle().await;
    assert!(link("br-1").is_none() && link("br-2").is_none());
    assert!(!sh("nft list tables").contains("otherix"));
}

#[tokio::test]
async fn whoever_writes_the_packet_filter_without_end_holds_nobody_up() {
    let (mut node, _outside) = node_with_uplink();
    sh("nft add table ip theirs; nft add chain ip theirs c");
    let writer = "while :; do nft add rule ip theirs c counter; nft flush chain ip theirs c; done";
    let mut writers: Vec<_> =
        (0..2).map(|_| std::process::Command::new("sh").args(["-c", writer]).spawn().unwrap()).collect();
    let mut slowest = Duration::ZERO;
    for number in 1..=20 {
        let asked = Instant::now();
        node.want(number, nat(number));
        assert_eq!(node.outcome(number).await, Outcome::Ready, "{number}");
        slowest = slowest.max(asked.elapsed());
    }
    for writer in &mut writers {
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    assert!(slowest < REPAIR, "{slowest:?}");
}

#[tokio::test]
async fn rules_that_are_flushed_without_end_are_there_when_that_ends() {
    let (mut node, _outside) = node_with_uplink();
    node.want(1, nat(1));
    node.settle().await;
    let mut flusher =
        std::process::Command::new("sh").args(["-c", "while :; do nft flush ruleset; done"]).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    let (rounds, mut dirty) = (node.rounds, false);
    while Instant::now() < end {
        if !dirty {
            let _nothing_new = tokio::time::timeout(Duration::from_millis(100), node.reconciler.wait()).await;
        }
        dirty |= node.reconciler.is_due();
        if dirty {
            dirty = node.try_round().await;
        }
    }
    let rounds = node.rounds - rounds;
    assert!(rounds < 500, "{rounds} rounds in three seconds");
    flusher.kill().unwrap();
    flusher.wait().unwrap();
    if dirty {
        node.settle().await;
    }
    node.work_until(REPAIR, || sh("nft list tables").contains("otherix") && has_gateway() && forwards("br-1")).await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    node.want(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    wait_for_blocking(REPAIR, "no table", || !sh("nft list tables").contains("otherix"));
}
