//! Services of the node, of other nodes and of the control plane.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use otherix_agent::model::desired::Want;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for_blocking;

use super::{ATTACK, Server, attack, delete_tables, warns_of_address};
use crate::host::Host;
use crate::nat::{REMOTE, guest, nat, node_with_uplink};
use crate::node::{Node, REPAIR, bridge};

/// What a guest behind NAT tries against its node, which has another address on `lo`.
const AGAINST_THE_NODE: [&str; 11] = [
    "tcp 10.20.1.1 8022",
    "tcp 192.0.2.7 8022",
    "tcp 198.51.100.77 8022",
    "tcp 10.20.2.1 8022",
    "udp 10.20.1.1 8022 10.20.1.5",
    "udp 192.0.2.7 8022 10.20.1.5",
    "udp 198.51.100.77 8022 10.20.1.5",
    "arp eth0 10.20.1.5 192.0.2.7",
    "arp eth0 10.20.1.5 198.51.100.77",
    "arp eth0 10.20.1.5 10.20.2.1",
    "arp eth0 192.0.2.9 192.0.2.7",
];

#[tokio::test]
async fn behind_nat_only_an_echo_of_the_gateway_is_reached() {
    let (mut node, _outside) = node_with_uplink();
    sh("ip link set lo up\nip address add 198.51.100.77/32 dev lo");
    node.set_desired(1, nat(1));
    node.set_desired(2, nat(2));
    node.settle().await;
    let (guest, _server) = (guest(1, 5), Server::start(None, "8022"));
    let is_prevented = |attacks: &[&str]| attacks.iter().all(|arguments| !attack(&guest, arguments));
    assert!(guest.reaches("10.20.1.1") && guest.reaches(REMOTE));
    for arguments in AGAINST_THE_NODE {
        assert!(!attack(&guest, arguments), "{arguments}");
    }
    for address in ["192.0.2.7", "198.51.100.77", "10.20.2.1"] {
        assert!(guest.cannot_reach(address), "{address}");
    }
    assert!(attack(&guest, "arp eth0 10.20.1.5 10.20.1.1"), "the gateway answers ARP");
    sh("ping -q -c 1 -W 1 10.20.1.5");
    let _at_guest = Server::start(Some(&guest), "9000");
    sh("python3 -c 'import socket; socket.create_connection((\"10.20.1.5\", 9000), 1)'");

    delete_tables();
    for arguments in AGAINST_THE_NODE {
        // The last one is answered only where reverse paths are not checked.
        assert!(attack(&guest, arguments) || arguments.contains("192.0.2.9"), "{arguments} without the tables");
    }
    node.run_until(REPAIR, || sh("nft list tables").contains("table arp otherix\n")).await;
    node.settle().await;
    assert!(is_prevented(&AGAINST_THE_NODE) && guest.reaches("10.20.1.1"));
    sh("nft delete table arp otherix");
    node.run_until(REPAIR, || sh("nft list tables").contains("table arp otherix\n")).await;
}

/// Returns the number of datagrams that sockets of the node have received.
pub(super) fn datagrams_received() -> u64 {
    let text = sh("cat /proc/net/snmp");
    let line = text.lines().filter(|line| line.starts_with("Udp: ")).nth(1).unwrap().to_owned();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn behind_nat_no_datagrams_to_groups_reach_the_node() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    node.settle().await;
    let (guest, _server) = (guest(1, 5), Server::start(None, "67 5353 8022"));
    guest.sh("ip route add 224.0.0.0/4 dev eth0; ip route add 255.255.255.255 dev eth0");
    let send = || {
        for (address, port, source) in [
            ("255.255.255.255", 67, "10.20.1.5"),
            ("10.20.1.255", 8022, "10.20.1.5"),
            ("224.0.0.1", 5353, "10.20.1.5"),
            ("224.0.0.1", 5353, "192.0.2.9"),
        ] {
            attack(&guest, &format!("udp {address} {port} {source}"));
        }
    };
    let before = datagrams_received();
    send();
    assert!(guest.reaches("10.20.1.1"));
    assert_eq!(datagrams_received(), before);
    delete_tables();
    send();
    assert!(datagrams_received() >= before + 3, "without the tables");
}

#[tokio::test]
async fn behind_nat_no_node_and_no_nats_server_is_reached_as_the_node() {
    let (mut node, outside) = node_with_uplink();
    outside.sh("ip address add 192.0.2.20/24 dev eth0");
    node.set_desired(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    let _server = Server::start(Some(&outside), "22 4222 51820");
    let (nats, another_node) = (format!("tcp {REMOTE} 4222"), ["tcp 192.0.2.20 22", "udp 192.0.2.20 51820 10.20.1.5"]);
    // Without the addresses of the cluster, they are reached, with the node's address.
    assert!(attack(&guest, &nats) && another_node.iter().all(|arguments| attack(&guest, arguments)));
    node.desired.cluster_addresses.nodes = ["192.0.2.20".parse().unwrap()].into();
    node.desired.cluster_addresses.nats = [format!("{REMOTE}:4222").parse().unwrap()].into();
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!(!attack(&guest, &nats) && another_node.iter().all(|arguments| !attack(&guest, arguments)));
    assert!(guest.cannot_reach("192.0.2.20"));
    assert!(guest.reaches(REMOTE) && attack(&guest, &format!("tcp {REMOTE} 22")), "the rest of the outside");
    assert!(attack(&guest, &format!("udp {REMOTE} 4222 10.20.1.5")));
    sh(&format!("python3 -c 'import socket; socket.create_connection((\"{REMOTE}\", 4222), 1)'"));
}

/// Connects a guest to a bridge, with a foreign port and an address of a subnet of its own.
fn guest_on(bridge: &str) -> Host {
    let guest = Host::new("guest");
    sh(&format!("ip link set guest master {bridge}"));
    guest.sh("ip address add 10.66.0.5/24 dev eth0\nip route add default dev eth0");
    guest
}

#[tokio::test]
async fn without_a_gateway_the_node_does_not_exist_on_a_bridge() {
    enter_new();
    sh("ip link set lo up\nip address add 198.51.100.77/32 dev lo\nip link add eth9 type veth peer name eth8
        ip link set eth9 up\nip link set eth8 up\nip address add 192.0.2.7/24 dev eth9
        ip route add 10.66.0.0/24 dev eth9\nsysctl -qw net.ipv4.conf.all.rp_filter=0");
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let (guest, _server) = (guest_on("br-app"), Server::start(None, "8022"));
    let attacks =
        ["arp eth0 10.66.0.5 192.0.2.7", "arp eth0 0.0.0.0 198.51.100.77", "arp eth0 10.66.0.5 198.51.100.77"];
    for arguments in attacks {
        assert!(!attack(&guest, arguments), "{arguments}");
    }
    // Datagrams reach the node, whatever it answers.
    let received = datagrams_received;
    let mac = link("br-app").unwrap()["address"].as_str().unwrap().to_owned();
    for address in ["192.0.2.7", "198.51.100.77"] {
        guest.sh(&format!("ip neighbour replace {address} lladdr {mac} dev eth0"));
    }
    let send = || {
        for source in ["10.66.0.5", "203.0.113.99", "198.51.100.4"] {
            attack(&guest, &format!("udp 198.51.100.77 8022 {source}"));
            attack(&guest, &format!("udp 192.0.2.7 8022 {source}"));
        }
    };
    let before = received();
    send();
    assert_eq!(received(), before, "datagrams with any source");

    delete_tables();
    for arguments in attacks {
        assert!(attack(&guest, arguments), "{arguments} without the tables");
    }
    send();
    assert!(received() > before, "datagrams without the tables");

    node.run_until(REPAIR, || sh("nft list tables").matches("otherix_guests").count() == 4).await;
    node.settle().await;
    assert!(!attacks.iter().any(|arguments| attack(&guest, arguments)));
    for change in [
        "nft delete table bridge otherix_guests",
        "nft flush table ip otherix_guests",
        "nft insert rule arp otherix_guests input accept",
        "nft delete chain ip6 otherix_guests output || nft flush chain ip6 otherix_guests output",
        "ip link set br-app group 0",
    ] {
        let expected = (sh("nft list tables"), sh("nft -s list table arp otherix_guests"));
        sh(change);
        let group = || link("br-app").unwrap()["group"].as_str().unwrap().to_owned();
        node.run_until(REPAIR, || {
            (sh("nft list tables"), sh("nft -s list table arp otherix_guests")) == expected && group() != "default"
        })
        .await;
        node.settle().await;
        assert!(!attacks.iter().any(|arguments| attack(&guest, arguments)), "{change}");
    }

    sh("ip link del guest");
    node.desired.is_member = true;
    node.set_desired(1, Want::Nothing);
    assert_eq!(node.outcome(1).await, Outcome::Removed);
    assert_eq!(sh("nft list tables").matches("otherix_guests").count(), 4, "a member keeps them for the next network");
    sh("nft flush table bridge otherix_guests");
    node.run_until(REPAIR, || sh("nft list table bridge otherix_guests").contains("drop")).await;
    node.desired.is_member = false;
    node.settle().await;
    assert!(!sh("nft list tables").contains("otherix"), "removed with the membership");
}

#[tokio::test]
async fn an_address_that_someone_gave_a_bridge_is_a_warning_and_works() {
    enter_new();
    let mut node = Node::new();
    node.set_desired(1, bridge("br-app", 1500));
    node.settle().await;
    let guest = guest_on("br-app");
    sh("ip address add 10.66.0.1/24 dev br-app");
    node.run_until_pass(REPAIR, warns_of_address).await;
    assert!(guest.reaches("10.66.0.1"), "through a port that is no tap");
    sh("ip address del 10.66.0.1/24 dev br-app");
    node.run_until_pass(REPAIR, |pass| !warns_of_address(pass)).await;
    sh("ip address add 10.66.0.1/24 dev lo");
    assert!(guest.cannot_reach("10.66.0.1"));
}

#[tokio::test]
async fn behind_nat_no_service_of_the_node_is_reached_through_translations_of_other_programs() {
    let (mut node, outside) = node_with_uplink();
    let container = Host::new("container");
    sh("ip address add 172.17.0.1/16 dev container
        sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1");
    container.sh("ip address add 172.17.0.2/16 dev eth0; ip route add default via 172.17.0.1");
    sh("nft 'table ip docker {
        chain prerouting { type nat hook prerouting priority dstnat;
            tcp dport { 8080, 8081 } fib daddr type local dnat to 172.17.0.2:80
            ip saddr 10.20.1.0/24 tcp dport 3000 redirect to :8022
        }
    }'");
    node.set_desired(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    let (_on_node, _in_container) = (Server::start(None, "8022"), Server::start(Some(&container), "80"));
    let attacks = [
        "tcp 192.0.2.7 8080".to_owned(),
        "tcp 10.20.1.1 8081".to_owned(),
        format!("tcp {REMOTE} 3000"),
        "tcp 127.0.0.1 8022".to_owned(),
    ];
    guest.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1; ip address del 127.0.0.1/8 dev lo
        ip route add 127.0.0.0/8 via 10.20.1.1");
    for arguments in &attacks {
        assert!(!attack(&guest, arguments), "{arguments}");
    }
    assert!(attack(&outside, "tcp 192.0.2.7 8080"), "the outside reaches it");
    assert!(guest.reaches("10.20.1.1") && guest.reaches(REMOTE));
    delete_tables();
    for arguments in &attacks[..3] {
        assert!(attack(&guest, arguments), "{arguments} without the tables");
    }
}

/// Sends ICMP errors (fragmentation needed, MTU 600) about a datagram of the node.
const ICMP_ERROR: &str = "
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
node, peer, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
addresses = socket.inet_aton(node), socket.inet_aton(peer)
inner = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1428, 1, 0x4000, 64, 17, 0, *addresses)
inner = inner[:10] + struct.pack('!H', checksum(inner)) + inner[12:] + struct.pack('!HHHH', port, 51820, 1408, 0)
body = struct.pack('!BBHHH', 3, 4, 0, 0, 600) + inner
body = body[:2] + struct.pack('!H', checksum(body)) + body[4:]
sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for _ in range(3):
    sender.sendto(body, (node, 0))
";

/// Has a socket like that of the mesh, and sends a datagram.
const MESH: &str = "
import socket
mesh = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
mesh.bind(('192.0.2.7', 51820))
mesh.sendto(b'x', ('203.0.113.1', 51820))
print('sent', flush=True)
input()
";

#[tokio::test]
async fn guests_send_the_node_no_icmp_errors_about_its_own_connections() {
    let (mut node, outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    let _peer = Server::start(Some(&outside), "51820");
    let mut mesh =
        Command::new("python3").args(["-c", MESH]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(mesh.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "sent\n");
    let attack = || guest.sh(&format!("python3 -c \"{ICMP_ERROR}\" 192.0.2.7 {REMOTE} 51820"));
    let has_small_mtu = || sh(&format!("ip route get {REMOTE} from 192.0.2.7")).contains("mtu 600");
    attack();
    assert!(guest.reaches("10.20.1.1"));
    assert!(!has_small_mtu(), "the packets of the mesh would be fragmented");
    delete_tables();
    attack();
    wait_for_blocking(REPAIR, "the effect without the tables", has_small_mtu);
    mesh.kill().unwrap();
    mesh.wait().unwrap();
}

#[tokio::test]
async fn errors_about_packets_of_guests_come_from_their_gateway() {
    let (mut node, _outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    let output = guest.sh(&format!("ping -n -c 1 -t 1 -W 1 {REMOTE} || true"));
    assert!(output.contains("From 10.20.1.1 icmp_seq=1 Time to live exceeded"), "{output}");
    // With the options that record addresses, nothing but the gateway's and the guest's is learned of the node.
    let output = guest.sh("ping -n -c 1 -R -W 1 10.20.1.1 || true");
    assert!(!output.contains("192.0.2.7"), "{output}");
}

#[tokio::test]
async fn behind_nat_no_metadata_service_is_reached_and_no_port_of_root_is_used() {
    let (mut node, outside) = node_with_uplink();
    outside.sh("ip address add 169.254.169.254/32 dev lo; ip route add 10.20.1.0/24 via 192.0.2.7");
    node.set_desired(1, nat(1));
    node.settle().await;
    let (guest, _service) = (guest(1, 5), Server::start(Some(&outside), "80"));
    let _server = Server::run(Some(&outside), "ports 111");
    sh("python3 -c 'import socket; socket.create_connection((\"169.254.169.254\", 80), 1)'");
    // Each attempt has a source port of its own: one that was used may be in TIME_WAIT.
    let (metadata, port) = ("tcp 169.254.169.254 80", |source: u16| format!("port {REMOTE} 111 {source}"));
    assert!(!attack(&guest, metadata) && attack(&guest, &format!("tcp {REMOTE} 80")));
    assert!(!attack(&guest, &port(700)) && !attack(&guest, &port(7000)));
    delete_tables();
    assert!(attack(&guest, metadata) && attack(&guest, &port(701)), "without the tables");
}

/// A connection, and whether it still works when it is asked.
struct Held(BufReader<ChildStdout>, Child);

impl Held {
    fn connect(host: &Host, address: &str, port: u16) -> Self {
        let mut command = host.command("python3");
        let command = command.args([ATTACK, "hold", address, &port.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut held = Self(BufReader::new(child.stdout.take().unwrap()), child);
        assert_eq!(held.line(), "connected\n");
        held
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn works(mut self) -> bool {
        self.1.stdin.take().unwrap().write_all(b"\n").unwrap();
        let is_working = self.line() == "reached\n";
        self.1.wait().unwrap();
        is_working
    }
}

#[tokio::test]
async fn connections_that_began_without_the_tables_end_with_them() {
    let (mut node, outside) = node_with_uplink();
    // Connections are tracked all the time.
    sh("nft 'add table inet theirs
        add chain inet theirs forward { type filter hook forward priority 10; }
        add rule inet theirs forward ct state invalid counter'");
    node.set_desired(1, nat(1));
    node.settle().await;
    let guest = guest(1, 5);
    outside.sh("ip route add 10.20.1.0/24 via 192.0.2.7");
    let servers = [None, Some(&outside), Some(&guest)].map(|host| Server::run(host, "echo 7000"));
    let permitted = Held::connect(&guest, REMOTE, 7000);
    sh("nft delete table ip otherix");
    let kept = [Held::connect(&guest, "10.20.1.1", 7000), Held::connect(&outside, "10.20.1.5", 7000)];
    assert!(kept.into_iter().all(Held::works), "without the tables");
    let begun = [
        Held::connect(&guest, "10.20.1.1", 7000),
        Held::connect(&guest, "192.0.2.7", 7000),
        Held::connect(&outside, "10.20.1.5", 7000),
    ];
    node.run_until(REPAIR, crate::nat::has_table).await;
    node.settle().await;
    for held in begun {
        assert!(!held.works());
    }
    assert!(permitted.works(), "a connection that began with the tables");
    drop(servers);
}
