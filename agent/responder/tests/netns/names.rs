//! Names, asked for by `dig`: those of the network, and others from a resolver in the namespace.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use otherix_responder::GuestNames;
use otherix_responder::dns::{Gateway, Limits, Names, Relay, Upstreams, Zone};
use otherix_testkit::wait::wait_for;

use super::*;

const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/upstream.py");
const WAIT: Duration = Duration::from_secs(10);

/// The resolver of a node, until it is dropped, with the questions that it has got.
struct Resolver(Child, Receiver<String>);

impl Resolver {
    fn start(address: &str, mode: &str) -> Self {
        let mut command = Command::new("python3");
        let mut child = command.args([UPSTREAM, address, mode]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "serving");
        let (sender, questions) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self(child, questions)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn zone(resolvers: &[&str]) -> Arc<Zone> {
    let resolvers: Vec<SocketAddr> = resolvers.iter().map(|address| format!("{address}:53").parse().unwrap()).collect();
    let relay =
        (!resolvers.is_empty()).then(|| Arc::new(Relay::new(SystemRuntime::shared(), Upstreams::new(resolvers))));
    let zone = Zone::new("app".to_owned(), (Ipv4Addr::new(10, 20, 0, 0), 24), relay);
    zone.set_names(Names::new([
        ("web".to_owned(), Ipv4Addr::new(10, 20, 0, 5)),
        ("db".to_owned(), Ipv4Addr::new(10, 20, 0, 6)),
    ]));
    Arc::new(zone)
}

fn with(guest: Guest, zone: &Arc<Zone>) -> Guest {
    let names = Some(GuestNames { host: "web".to_owned(), zone: Arc::clone(zone) });
    Guest { names, ..guest }
}

/// A guest whose node has no address on the bridge, or has that of the gateway.
fn guest_of(zone: &Arc<Zone>, has_gateway: bool) -> (Arc<GuestHost>, Guest) {
    enter_new();
    sh("ip link set lo up");
    let host = GuestHost::new();
    host.sh("ip address add 10.20.0.5/24 dev eth0");
    let mut guest = with(guest(!has_gateway), zone);
    if has_gateway {
        guest.gateway_mac = [2, 0, 0, 0, 0, 9];
        // Datagrams go no further, as on nodes.
        sh("ip link set br-a address 02:00:00:00:00:09\nip address add 10.20.0.1/24 dev br-a\n\
            nft 'add table ip t; add chain ip t c { type filter hook input priority 0; }; \
                 add rule ip t c iifname br-a udp dport 53 drop'");
    }
    (Arc::new(host), guest)
}

/// Returns what `dig` prints.
async fn dig(host: &Arc<GuestHost>, arguments: &str) -> String {
    let (host, command) = (Arc::clone(host), format!("dig @10.20.0.1 +tries=1 +timeout=6 {arguments} || true"));
    on_another_thread(move || host.sh(&command)).await
}

async fn short(host: &Arc<GuestHost>, arguments: &str) -> String {
    dig(host, &format!("+short {arguments}")).await.trim().to_owned()
}

fn status(output: &str) -> &str {
    output.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("none")
}

#[tokio::test]
async fn a_guest_learns_and_resolves_the_names_of_its_network() {
    let zone = zone(&[]);
    let (host, guest) = guest_of(&zone, false);
    // The port is locked and the packet filter drops what the guest sends, as on nodes.
    sh("bridge link set dev tap learning off locked on\n\
        nft 'add table bridge t; add chain bridge t c { type filter hook prerouting priority -300; }; \
             add rule bridge t c iifname tap udp dport { 53, 67 } drop'");
    let mut responder = responder();
    responder.set(&on("tap", guest));
    let lease = meanwhile(&host, |host| host.lease("-O search")).await.unwrap();
    for (name, value) in [
        ("dns", "10.20.0.1"),
        ("domain", "app.otherix.internal"),
        ("search", "app.otherix.internal"),
        ("hostname", "web"),
    ] {
        assert_eq!(lease.get(name).map(String::as_str), Some(value), "{name} of {lease:?}");
    }
    host.sh("ip address replace 10.20.0.5/24 dev eth0");
    assert_eq!(short(&host, "db.app.otherix.internal").await, "10.20.0.6");
    assert_eq!(short(&host, "+noedns DB.App.Otherix.Internal").await, "10.20.0.6");
    assert_eq!(short(&host, "+bufsize=4096 +dnssec db.app.otherix.internal").await, "10.20.0.6");
    assert_eq!(short(&host, "-x 10.20.0.6").await, "db.app.otherix.internal.");
    let answer = dig(&host, "none.app.otherix.internal").await;
    assert!(status(&answer) == "NXDOMAIN" && answer.contains("SOA") && answer.contains("flags: qr aa rd;"), "{answer}");
    let answer = dig(&host, "AAAA db.app.otherix.internal").await;
    assert!(status(&answer) == "NOERROR" && answer.contains("ANSWER: 0") && answer.contains("SOA"), "{answer}");
    for arguments in ["example.com", "+notcp ANY db.app.otherix.internal", "-c CH TXT version.bind"] {
        assert_eq!(status(&dig(&host, arguments).await), "REFUSED", "{arguments}");
    }
    assert_eq!(status(&dig(&host, "+opcode=NOTIFY db.app.otherix.internal").await), "NOTIMP");
    // Names come and go without the guest's socket.
    zone.set_names(Names::new([("new".to_owned(), Ipv4Addr::new(10, 20, 0, 7))]));
    assert_eq!(short(&host, "new.app.otherix.internal").await, "10.20.0.7");
    assert_eq!(status(&dig(&host, "db.app.otherix.internal").await), "NXDOMAIN");
    // With an address that is not its own, it is not answered.
    host.sh("ip address flush dev eth0; ip address add 10.20.0.8/24 dev eth0");
    assert!(dig(&host, "+timeout=1 new.app.otherix.internal").await.contains("timed out"));
    host.sh("ip address flush dev eth0; ip address add 10.20.0.5/24 dev eth0");
    assert_eq!(short(&host, "new.app.otherix.internal").await, "10.20.0.7");
    // Where names are not resolved, nothing is on this port.
    responder.set(&on("tap", super::guest(true)));
    assert!(dig(&host, "+timeout=1 new.app.otherix.internal").await.contains("timed out"));
}

#[tokio::test]
async fn other_names_come_from_the_nodes_resolvers() {
    let zone = zone(&["127.0.0.1"]);
    let (host, guest) = guest_of(&zone, true);
    let resolver = Resolver::start("127.0.0.1", "spoofed");
    let mut responder = responder();
    responder.set(&on("tap", guest));
    responder.set_gateways(&BTreeMap::from([(
        "br-a".to_owned(),
        Gateway { address: Ipv4Addr::new(10, 20, 0, 1), zone: Arc::clone(&zone) },
    )]));
    for number in 0..20 {
        assert_eq!(short(&host, &format!("www-{number}.example.com")).await, "192.0.2.77");
    }
    let asked: Vec<_> = resolver.1.try_iter().collect();
    let words = |place: usize| asked.iter().map(move |line| line.split(' ').nth(place).unwrap().to_owned());
    let (ports, ids): (BTreeSet<_>, BTreeSet<_>) = (words(0).collect(), words(1).collect());
    assert!(asked.len() == 20 && ports.len() >= 19 && ids.len() >= 19, "{asked:?}");
    // Nothing of the network, and no private addresses.
    for name in ["db.app.otherix.internal", "none.otherix.internal", "-x 10.20.0.6", "-x 192.168.7.7", "-x fd00::1"] {
        assert_ne!(status(&dig(&host, name).await), "REFUSED", "{name}");
    }
    assert_eq!(resolver.1.try_iter().count(), 0);

    // Over TCP, in full; over UDP as much as the client and the link take.
    assert_eq!(short(&host, "+tcp db.app.otherix.internal").await, "10.20.0.6");
    assert_eq!(short(&host, "+tcp www.example.com").await, "192.0.2.77");
    assert_eq!(short(&host, "+tcp +keepopen a.example.com b.example.com").await, "192.0.2.77\n192.0.2.77");
    let answer = dig(&host, "+ignore +noedns TXT big.example.com").await;
    assert!(answer.contains("flags: qr tc rd ra;"), "truncated by the resolver: {answer}");
    let answer = dig(&host, "+ignore +bufsize=4096 TXT big.example.com").await;
    assert!(answer.contains("flags: qr tc rd ra;") && answer.contains("ANSWER: 0"), "longer than the link: {answer}");
    let answer = dig(&host, "+bufsize=4096 TXT big.example.com").await;
    assert!(answer.contains("ANSWER: 40"), "{answer}");
}

#[tokio::test]
async fn a_resolver_that_does_not_answer_is_passed_over() {
    let zone = zone(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    let (host, guest) = guest_of(&zone, false);
    let (silent, failing) = (Resolver::start("127.0.0.1", "silent"), Resolver::start("127.0.0.2", "servfail"));
    let mut responder = responder();
    responder.set(&on("tap", guest));
    // Nobody listens at the third.
    assert_eq!(status(&dig(&host, "a.example.com").await), "SERVFAIL");
    let third = Resolver::start("127.0.0.3", "answer");
    assert_eq!(short(&host, "b.example.com").await, "192.0.2.77");
    let (begin, before) = (Instant::now(), silent.1.try_iter().count());
    assert_eq!((short(&host, "c.example.com").await, before), ("192.0.2.77".to_owned(), 2));
    assert!(begin.elapsed() < Duration::from_millis(1_400), "the one that answered last is asked first");
    assert_eq!((silent.1.try_iter().count(), failing.1.try_iter().count(), third.1.try_iter().count()), (0, 2, 2));
    drop((third, failing, silent));
    assert_eq!(status(&dig(&host, "d.example.com").await), "SERVFAIL", "nobody listens");
}

#[tokio::test]
async fn connections_of_a_guest_are_limited_and_another_program_may_have_the_port() {
    let zone = zone(&[]);
    let (host, guest) = guest_of(&zone, true);
    let taken = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
    let mut responder = responder();
    responder.set(&on("tap", guest));
    let gateway = Gateway { address: Ipv4Addr::new(10, 20, 0, 1), zone: Arc::clone(&zone) };
    responder.set_gateways(&BTreeMap::from([("br-a".to_owned(), gateway)]));
    assert_eq!(short(&host, "db.app.otherix.internal").await, "10.20.0.6");
    drop(taken);
    let is_open = || sh("ss -Hltn sport = :53").contains("10.20.0.1%br-a:53");
    wait_for(WAIT, "the port", || std::future::ready(is_open())).await;
    assert_eq!(short(&host, "+tcp db.app.otherix.internal").await, "10.20.0.6");
    // Connections that stay open, with half a message each: eight are kept, and others go on once one is closed.
    let flood = |host: &GuestHost| {
        let script = "
import socket
def closed(peer):
    peer.settimeout(3)
    try:
        return peer.recv(1) == b''
    except TimeoutError:
        return False
    except OSError:
        return True
peers = [socket.create_connection(('10.20.0.1', 53), 3) for _ in range(20)]
for peer in peers:
    try:
        peer.sendall(b'\\\\0')
    except OSError:
        pass
late = peers[8:]
print(sum(closed(peer) for peer in late))
peers[0].settimeout(0.1)
try:
    print(peers[0].recv(1))
except TimeoutError:
    print('open')
";
        host.sh(&format!("python3 -c \"{}\"", script.replace('"', "'")))
    };
    assert_eq!(meanwhile(&host, flood).await.split_whitespace().collect::<Vec<_>>(), ["12", "open"]);
    let served = || async { short(&host, "+tcp db.app.otherix.internal").await == "10.20.0.6" };
    wait_for(WAIT, "another connection", served).await;
    // An address that is no guest's gets none.
    host.sh("ip address flush dev eth0; ip address add 10.20.0.8/24 dev eth0");
    assert!(!dig(&host, "+tcp +timeout=1 db.app.otherix.internal").await.contains("10.20.0.6"));
}

/// Returns a question of the guest for `db.app.otherix.internal` with this id.
fn question(id: u16, name: &[u8]) -> Vec<u8> {
    let message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, 0, 1, 0, 1]].concat();
    let length = u16::try_from(message.len()).unwrap();
    let udp = [&[0xc0, 0, 0, 53][..], &(length + 8).to_be_bytes(), &[0, 0], &message].concat();
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 20, 0, 5, 10, 20, 0, 1];
    ip[2..4].copy_from_slice(&(length + 28).to_be_bytes());
    [&GATEWAY_MAC[..], &MAC, &[8, 0], &ip, &udp].concat()
}

const LOCAL: &[u8] = b"\x02db\x03app\x07otherix\x08internal";
const FOREIGN: &[u8] = b"\x03www\x07example";

/// Returns the ids of the answers that have arrived.
fn answers(tap: &TapDevice) -> Vec<u16> {
    let mut buffer = vec![0; FRAME_MAX];
    let mut ids = Vec::new();
    while let Ok(length) = tap.read(&mut buffer) {
        if length > 44 && buffer[23] == 17 && buffer[34..36] == [0, 53] {
            ids.push(u16::from_be_bytes([buffer[42], buffer[43]]));
        }
    }
    ids
}

#[tokio::test]
async fn a_guest_that_floods_is_limited_and_does_not_keep_others_waiting() {
    let zone = zone(&["127.0.0.1"]);
    enter_new();
    sh("ip link set lo up");
    let _silent = Resolver::start("127.0.0.1", "silent");
    let taps = ["tap0", "tap1"].map(|name| TapDevice::create(name).unwrap());
    sh("ip link set tap0 up\nip link set tap1 up");
    let mut responder = Responder::with_limits(SystemRuntime::shared(), Limits { per_second: 500, burst: 100 });
    // Two networks with the same addresses.
    let other = super::names::zone(&["127.0.0.1"]);
    let guests = [("tap0", &zone), ("tap1", &other)];
    let guests = guests.map(|(name, zone)| (name.to_owned(), with(guest(true), zone)));
    responder.set(&BTreeMap::from(guests));
    let (flooded, times, leases, late) = on_another_thread(move || {
        let [hostile, neighbour] = taps;
        let (mut flooded, mut times, mut leases) = (0, Vec::new(), Vec::new());
        let (begin, mut buffer) = (Instant::now(), vec![0; FRAME_MAX]);
        for round in 0..100_u16 {
            // Both kinds: those that are answered, and those that wait for a resolver in vain.
            (0..100).for_each(|number| hostile.write(&question(number, LOCAL)).unwrap());
            (0..20).for_each(|number| hostile.write(&question(number, FOREIGN)).unwrap());
            let asked = Instant::now();
            neighbour.write(&question(round, LOCAL)).unwrap();
            while !answers(&neighbour).contains(&round) {
                assert!(asked.elapsed() < WAIT, "the neighbour is not answered");
                std::thread::yield_now();
            }
            times.push(asked.elapsed());
            leases.push(ask(&neighbour, &mut buffer, round.into(), WAIT).unwrap());
            flooded += answers(&hostile).len();
            std::thread::sleep(Duration::from_millis(10));
        }
        let rate = flooded as f64 / begin.elapsed().as_secs_f64();
        // The one that has flooded is answered again.
        let asked = Instant::now();
        let late = loop {
            hostile.write(&question(999, LOCAL)).unwrap();
            if answers(&hostile).contains(&999) {
                break asked.elapsed();
            }
            assert!(asked.elapsed() < WAIT);
            std::thread::sleep(Duration::from_millis(10));
        };
        times.sort();
        leases.sort();
        (rate, times, leases, late)
    })
    .await;
    assert!((100.0..900.0).contains(&flooded), "{flooded} answers in a second");
    // Other tests run at the same time: this is no measurement.
    let (half, lease) = (times[50], leases[50]);
    assert!(half < Duration::from_millis(20) && lease < Duration::from_millis(20), "{half:?}, {lease:?}, {late:?}");
}
