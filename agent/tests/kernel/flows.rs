//! Connections that begin while the rules of networks with NAT egress are missing do not outlast that.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::sh;

use crate::host::Host;
use crate::nat::{OUTSIDE_HOST, REMOTE, guest, has_table, nat, node_with_uplink};
use crate::node::{Node, REPAIR};

const NODE: &str = "192.0.2.7";
const GUEST: &str = "10.20.1.5";

/// A program loads its rules anew. They use connection tracking, so that the kernel goes on with it.
const RELOAD: &str = "nft -f - <<'.'
flush ruleset
table inet theirs {
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state invalid drop
    }
}
.";

/// Sends a datagram every 10 ms from the same port, and prints whether there was a reply.
const SENDER: &str = "
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 4000))
s.settimeout(0.2)
while True:
    s.sendto(b'x', (sys.argv[1], 5000))
    try:
        s.recvfrom(100)
        print('reply', flush=True)
    except OSError:
        print('nothing', flush=True)
    time.sleep(0.01)
";

/// Replies to datagrams, and prints the source of each.
const LISTENER: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 5000))
print('listening', flush=True)
while True:
    data, peer = s.recvfrom(100)
    s.sendto(b'reply', peer)
    print(peer[0], flush=True)
";

/// A program whose output is read line by line.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command.args(["-c"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn listen(command: Command) -> Self {
        let mut listener = Self::start(command, &[LISTENER]);
        assert_eq!(listener.line(), "listening");
        listener
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Reads until a line is `expected`, and asserts that this takes less than a second of datagrams.
    #[track_caller]
    fn expect(&mut self, expected: &str) {
        let last: Vec<_> = (0..100).map(|_| self.line()).take_while(|line| line != expected).collect();
        assert!(last.len() < 100, "{expected}: {last:?}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

async fn node_with_guest() -> (Node, Host, Host) {
    let (mut node, outside) = node_with_uplink();
    node.set_desired(1, nat(1));
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    let guest = guest(1, 5);
    assert!(guest.reaches(REMOTE));
    outside.sh("ip route add 10.20.0.0/16 via 192.0.2.7");
    (node, outside, guest)
}

/// Restarts the agent, or lets it follow notifications, until our table is there.
async fn repair(node: &mut Node, restarts: bool) {
    if restarts {
        node.restart();
        node.settle().await;
    } else {
        node.run_until(REPAIR, has_table).await;
    }
    assert_eq!(node.outcome(1).await, Outcome::Ready);
}

#[tokio::test]
async fn a_flow_that_began_without_rules_gets_nat_when_they_are_back() {
    let (mut node, outside, guest) = node_with_guest().await;
    let mut listener = Program::listen(outside.command("python3"));
    for restarts in [false, true] {
        sh(RELOAD);
        let _sender = Program::start(guest.command("python3"), &[SENDER, OUTSIDE_HOST]);
        // It begins without NAT.
        listener.expect(GUEST);
        repair(&mut node, restarts).await;
        listener.expect(NODE);
        assert!((0..20).all(|_| listener.line() == NODE));
    }
}

#[tokio::test]
async fn connections_to_guests_and_to_the_node_that_began_without_rules_end_when_they_are_back() {
    let (mut node, outside, guest) = node_with_guest().await;
    let own = Command::new("python3");
    let listeners = [Program::listen(guest.command("python3")), Program::listen(own)];
    sh(RELOAD);
    let mut from_outside = Program::start(outside.command("python3"), &[SENDER, GUEST]);
    let mut to_node = Program::start(guest.command("python3"), &[SENDER, NODE]);
    from_outside.expect("reply");
    to_node.expect("reply");
    repair(&mut node, false).await;
    for sender in [&mut from_outside, &mut to_node] {
        sender.expect("nothing");
        assert!((0..3).all(|_| sender.line() == "nothing"));
    }
    drop(listeners);
}

#[tokio::test]
async fn a_flow_gets_the_new_address_of_the_uplink() {
    let (mut node, outside, guest) = node_with_guest().await;
    let mut listener = Program::listen(outside.command("python3"));
    let _sender = Program::start(guest.command("python3"), &[SENDER, OUTSIDE_HOST]);
    listener.expect(NODE);
    sh("ip address del 192.0.2.7/24 dev uplink\nip address add 192.0.2.8/24 dev uplink
        ip route add default via 192.0.2.9");
    listener.expect("192.0.2.8");
    node.settle().await;
    assert_eq!(node.outcome(1).await, Outcome::Ready);
    assert!((0..20).all(|_| listener.line() == "192.0.2.8"));
}

#[tokio::test]
async fn connections_with_nat_survive_a_repair() {
    let (mut node, outside, guest) = node_with_guest().await;
    let listener = Program::listen(outside.command("python3"));
    let _sender = Program::start(guest.command("python3"), &[SENDER, OUTSIDE_HOST]);
    let connections = || sh("cat /proc/net/nf_conntrack");
    wait(|| connections().contains("dport=5000"));
    let nat = |text: String| text.lines().filter(|line| line.contains("dport=5000")).map(str::to_owned).next().unwrap();
    let port = nat(connections()).rsplit_once("dst=192.0.2.7 ").unwrap().1.split(' ').nth(1).unwrap().to_owned();
    sh(RELOAD);
    repair(&mut node, false).await;
    assert!(nat(connections()).contains(&port), "{port}: {}", connections());
    drop(listener);
}

fn wait(condition: impl Fn() -> bool) {
    otherix_testkit::wait::wait_for_blocking(Duration::from_secs(10), "a connection", condition);
}
