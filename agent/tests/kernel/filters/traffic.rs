//! Real traffic between a guest and another host.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// Replies to TCP and UDP.
const SERVER: &str = "
import socket, sys, threading
tcp = socket.create_server(('', 28173))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 28173))
def serve():
    while True:
        data, peer = udp.recvfrom(100)
        try:
            udp.sendto(data, peer)
        except OSError:
            pass
threading.Thread(target=serve, daemon=True).start()
print('listening', flush=True)
while True:
    peer, _ = tcp.accept()
    try:
        peer.sendall(peer.recv(100))
    except OSError:
        pass
    peer.close()
";

/// For each line, tries all protocols, and prints which of them work.
const CLIENT: &str = "
import socket, subprocess, sys
to = sys.argv[1]
def echo():
    command = ['ping', '-q', '-c', '1', '-W', '0.3', to]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
def tcp():
    with socket.create_connection((to, 28173), timeout=0.3) as peer:
        peer.sendall(b'x')
        return peer.recv(100) == b'x'
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(0.3)
        peer.sendto(b'x', (to, 28173))
        return peer.recv(100) == b'x'
def works(attempt):
    try:
        return attempt()
    except OSError:
        return False
for line in sys.stdin:
    print(*[int(works(attempt)) for attempt in (echo, tcp, udp)], flush=True)
";

/// A client on a guest, and a server.
pub(super) struct Traffic {
    server: Child,
    client: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Traffic {
    pub(super) fn new(mut guest: Command, mut server: Command, address: &str) -> Self {
        let mut server = server.args(["-c", SERVER, address]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        let client = guest.args(["-c", CLIENT, address]);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(client.stdout.take().unwrap());
        let pipes = Mutex::new((client.stdin.take().unwrap(), output));
        Self { server, client, pipes }
    }

    /// Which of echo, TCP and UDP pass.
    pub(super) fn passes(&self) -> super::Passes {
        let mut pipes = self.pipes.lock().unwrap();
        let (input, output) = &mut *pipes;
        input.write_all(b"\n").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let passes: Vec<_> = line.trim().split(' ').map(|digit| digit == "1").collect();
        passes.try_into().unwrap()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
