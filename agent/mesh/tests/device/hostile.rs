//! Floods, forged messages and misbehaving clients of the local socket, which must not disturb traffic.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Instant;

use otherix_mesh::config::{WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::WgPrivateKey;
use otherix_testkit::wait::wait_for_blocking;
use rustix::process::Signal;

use crate::node::{DEADLINE, TestNode, mesh, transfer};

/// Sends initiations with a valid first MAC, which only requires the public key of the receiver, and random content.
/// Prints how many were sent and how many cookies were received.
const FLOOD: &str = "
import base64, hashlib, os, socket, struct, sys, time
key = hashlib.blake2s(b'mac1----' + base64.b64decode(sys.argv[2])).digest()
floods = []
for host in range(150, 170):
    flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flood.setblocking(False)
    flood.bind(('192.0.2.%d' % host, 0))
    floods.append(flood)
messages = []
for number in range(256):
    body = struct.pack('<II', 1, number) + os.urandom(108)
    messages.append(body + hashlib.blake2s(body, key=key, digest_size=16).digest() + bytes(16))
sent = cookies = 0
print('started', flush=True)
deadline = time.monotonic() + float(sys.argv[3])
while time.monotonic() < deadline:
    for number, message in enumerate(messages):
        try:
            floods[number % 20].sendto(message, (sys.argv[1], 51820))
            sent += 1
        except BlockingIOError:
            pass
    for flood in floods:
        try:
            while True:
                cookies += flood.recv(200)[0] == 3
        except BlockingIOError:
            pass
print(sent, cookies)
";

#[test]
fn a_flood_of_initiations_does_not_disturb_traffic() {
    let mut nodes = mesh::<3>(&[]);
    {
        let [one, other, _] = &nodes;
        one.reaches(&other.address());
    }
    let key = nodes[0].key.public().to_base64();
    let (to, third) = (nodes[0].underlay(), &nodes[2]);
    third.sh("for host in $(seq 150 169); do ip addr add 192.0.2.$host/24 dev u0; done");
    let mut command = third.command(&["/usr/bin/python3", "-c", FLOOD, &to, &key, "15"]);
    let mut flood = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(flood.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "started\n");
    let (sent, lost) = nodes[1].ping(&nodes[0].address(), 400).sent_and_lost();
    assert!(lost * 50 <= sent, "{lost} of {sent} lost under the flood");
    transfer(&nodes[1], &nodes[0], &nodes[0].address(), 4 << 20);
    // A peer that lost its session establishes a new one, with a cookie.
    nodes[1].signal(Signal::KILL);
    nodes[1].start(&[]);
    nodes[1].configure(&nodes);
    nodes[1].reaches(&nodes[0].address());
    line.clear();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    flood.wait().unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(numbers[0] > 10_000 && numbers[1] > 100, "{line}");
}

#[test]
fn forged_messages_do_not_change_the_endpoint() {
    let nodes = mesh::<3>(&[]);
    let [one, other, third] = &nodes;
    one.reaches(&other.address());
    let dump = one.dump(other);
    // All message types with all indices in use and all valid lengths.
    third.sh(&format!(
        "/usr/bin/python3 -c '
import os, socket, struct
forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for kind in range(7):
    for index in range(512):
        for length in (0, 3, 4, 12, 31, 32, 64, 92, 148, 1400):
            forger.sendto((struct.pack(\"<III\", kind, index, index) + os.urandom(1400))[:length], (\"{}\", 51820))
'",
        one.underlay()
    ));
    one.reaches(&other.address());
    let after = one.dump(other);
    assert_eq!((&after[2], &after[4]), (&dump[2], &dump[4]));
}

fn connect(node: &TestNode) -> UnixStream {
    UnixStream::connect(node.folder().join("otwg0.sock")).unwrap()
}

fn read_answers(mut stream: UnixStream, count: usize) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while text.matches("\n\n").count() < count {
        let length = stream.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "{text}");
        text += std::str::from_utf8(&buffer[..length]).unwrap();
    }
    text
}

#[test]
fn misbehaving_clients_do_not_disturb_traffic() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    let mode = std::fs::metadata(one.folder().join("otwg0.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ping = one.ping(&other.address(), 400);
    // More hanging clients than are served at a time: silent, with half a request, or not reading their answer.
    let mut hanging = Vec::new();
    for number in 0..60 {
        let mut stream = connect(one);
        let _written_or_disconnected =
            stream.write_all([b"".as_slice(), b"set=1\nprivate_k", b"get=1\n\n"][number % 3]);
        hanging.push(stream);
    }
    // A request without end.
    let endless = std::thread::spawn({
        let mut stream = connect(one);
        move || std::iter::repeat_with(|| stream.write_all(&[b'a'; 1 << 16])).take_while(Result::is_ok).count()
    });
    for request in
        ["\n\n", "set=1\nprivate_key=zz\n\n", "get=2\n\n", "set=1\npublic_key=00\n\n", "set=1\n\u{1F600}\n\n"]
    {
        let mut stream = connect(one);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_answers(stream, 1), "errno=-22\n\n");
    }
    // Several fragmented requests on one connection.
    let mut stream = connect(one);
    for fragment in ["get=", "1\n", "\nset=1\n\nget=1\n\n"] {
        stream.write_all(fragment.as_bytes()).unwrap();
    }
    let answers = read_answers(stream, 3);
    assert!(answers.matches("errno=0\n\n").count() == 3 && answers.matches("listen_port=").count() == 2, "{answers}");
    assert!(endless.join().unwrap() < 1024, "disconnected after 16 MiB");
    assert_eq!(ping.sent_and_lost(), (400, 0));
    drop(hanging);
    one.reaches(&other.address());
}

#[test]
fn a_thousand_peers_are_added_without_disturbing_traffic() {
    let nodes = mesh::<2>(&[]);
    let [one, other] = &nodes;
    one.reaches(&other.address());
    let ping = one.ping(&other.address(), 400);
    let peer = |number: u16| WgPeerUpdate {
        endpoint: Some(([192, 0, 2, 200], 9).into()),
        keepalive: Some(25),
        allowed_ips: vec![
            format!("10.44.{}.{}", number / 256, number % 256).parse::<otherix_mesh::prefix::Prefix>().unwrap().into(),
        ],
        ..WgPeerUpdate::new(WgPrivateKey::generate().unwrap().public())
    };
    let peers: Vec<WgPeerUpdate> = (0..1000).map(peer).collect();
    let started = Instant::now();
    one.client().set(&WgDeviceUpdate { peers: peers.clone(), ..WgDeviceUpdate::default() }).unwrap();
    let duration = started.elapsed();
    assert!(duration.as_secs() < 5, "{duration:?}");
    assert_eq!(one.sh("wg show otwg0 peers | wc -l").trim(), "1001");
    // A handshake with each was initiated.
    wait_for_blocking(DEADLINE, "an initiation to each", || {
        one.client().get().unwrap().peers.iter().all(|peer| peer.tx_bytes > 0)
    });
    assert_eq!(ping.sent_and_lost(), (400, 0));
    let removed =
        peers.into_iter().map(|peer| WgPeerUpdate { remove: true, ..WgPeerUpdate::new(peer.public_key) }).collect();
    one.client().set(&WgDeviceUpdate { peers: removed, ..WgDeviceUpdate::default() }).unwrap();
    assert_eq!(one.sh("wg show otwg0 peers | wc -l").trim(), "1");
    one.reaches(&other.address());
}
