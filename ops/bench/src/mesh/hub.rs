//! Many nodes of a mesh in one thread, which answer the handshakes and the echo requests of another node.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use otherix_mesh::key::{WgPrivateKey, WgPublicKey};
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval};

use crate::BenchError;

/// The UDP port of the first node; the others have those that follow.
pub(super) const FIRST_PORT: u16 = 10_000;

/// Longest message or packet, in bytes, with room for what encryption adds.
const MESSAGE_MAX: usize = 2048;

/// The resolution of boringtun's clock.
const TIMERS: Duration = Duration::from_millis(250);

/// Answers as the nodes with these keys, at this address, until it is cancelled. `node` is the key of the other node.
pub(super) async fn answer(keys: Vec<WgPrivateKey>, address: Ipv4Addr, node: WgPublicKey) -> Result<(), BenchError> {
    let mut nodes = tokio::task::JoinSet::new();
    for (number, key) in keys.iter().enumerate() {
        let port = FIRST_PORT + u16::try_from(number)?;
        let socket = UdpSocket::bind(SocketAddrV4::new(address, port)).await?;
        let secret = StaticSecret::from(*key.as_bytes());
        let tunn = Tunn::new(secret, PublicKey::from(*node.as_bytes()), None, None, u32::from(port), None);
        nodes.spawn(HubNode { socket, tunn, node: None }.run());
    }
    match nodes.join_next().await {
        Some(result) => result?,
        None => Ok(()),
    }
}

struct HubNode {
    socket: UdpSocket,
    tunn: Tunn,
    /// Where messages of the other node come from.
    node: Option<SocketAddr>,
}

impl HubNode {
    async fn run(mut self) -> Result<(), BenchError> {
        let (mut received, mut scratch) = (vec![0; MESSAGE_MAX], vec![0; MESSAGE_MAX]);
        let mut timers = interval(TIMERS);
        timers.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                result = self.socket.recv_from(&mut received) => {
                    let (length, from) = result?;
                    self.node = Some(from);
                    let message = received.get(..length).unwrap_or_default();
                    self.receive(message, from, &mut scratch).await?;
                }
                _ = timers.tick() => {
                    if let TunnResult::WriteToNetwork(message) = self.tunn.update_timers(&mut scratch) {
                        send(&self.socket, message, self.node).await?;
                    }
                }
            }
        }
    }

    async fn receive(&mut self, message: &[u8], from: SocketAddr, scratch: &mut [u8]) -> Result<(), BenchError> {
        match self.tunn.decapsulate(Some(from.ip()), message, scratch) {
            TunnResult::WriteToNetwork(answer) => send(&self.socket, answer, self.node).await,
            TunnResult::WriteToTunnelV4(packet, _) => {
                let Some(reply) = echo_reply(packet) else { return Ok(()) };
                match self.tunn.encapsulate(&reply, scratch) {
                    TunnResult::WriteToNetwork(message) => send(&self.socket, message, self.node).await,
                    TunnResult::Done
                    | TunnResult::Err(_)
                    | TunnResult::WriteToTunnelV4(..)
                    | TunnResult::WriteToTunnelV6(..) => Ok(()),
                }
            }
            TunnResult::Done | TunnResult::Err(_) | TunnResult::WriteToTunnelV6(..) => Ok(()),
        }
    }
}

async fn send(socket: &UdpSocket, message: &[u8], to: Option<SocketAddr>) -> Result<(), BenchError> {
    if let Some(to) = to {
        socket.send_to(message, to).await?;
    }
    Ok(())
}

/// Returns the reply to an ICMP echo request with an IPv4 header of 20 bytes.
fn echo_reply(request: &[u8]) -> Option<Vec<u8>> {
    let mut reply = request.to_vec();
    let header = reply.first_chunk_mut::<24>()?;
    let [.., a, b, c, d, e, f, g, h, kind, _, high, low] = header;
    if *kind != 8 {
        return None;
    }
    *kind = 0;
    ([*a, *b, *c, *d], [*e, *f, *g, *h]) = ([*e, *f, *g, *h], [*a, *b, *c, *d]);
    // Only the type differs, by 8 in the first byte (RFC 1624): the checksum grows by 0x0800, with the carry added.
    let (sum, carry) = u16::from_be_bytes([*high, *low]).overflowing_add(0x0800);
    [*high, *low] = (sum + u16::from(carry)).to_be_bytes();
    Some(reply)
}
