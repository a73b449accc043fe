//! From the peers to the TUN device. The source of a message is unknown until the message is authenticated; before
//! that, nothing changes, and little work is done.

use std::io;
use std::net::SocketAddr;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, TunnResult};

use super::{MeshDevice, READS_PER_EVENT, send_message};
use crate::key::WgPublicKey;
use crate::packet::{addresses, get_u32_le};
use crate::peer::{COOKIE, DATA, INITIATION, MessageOutcome, RESPONSE};
use crate::peer_table::PeerId;
use crate::tun::{Tun, is_deleted};

impl MeshDevice {
    /// Receives and processes messages of one address family.
    pub(crate) fn receive(&mut self, v6: bool) {
        let mut buffer = std::mem::take(&mut self.receive_buffer);
        for _ in 0..READS_PER_EVENT {
            let socket = if v6 { self.sockets.v6.as_mut() } else { Some(&mut self.sockets.v4) };
            let Some(socket) = socket else { break };
            match socket.receive(&mut buffer) {
                Ok(received) => {
                    let messages = buffer.get(..received.length).unwrap_or_default();
                    for message in messages.chunks(received.message_size.max(1)) {
                        let _processed_or_rejected = self.receive_message(received.from, message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!("cannot receive: {error}");
                    }
                    break;
                }
            }
        }
        self.receive_buffer = buffer;
        let mut deleted = false;
        self.merger.flush(|bytes| write(self.tun.as_ref(), bytes, &mut deleted));
        if deleted {
            self.close_tun();
        }
    }

    fn receive_message(&mut self, from: SocketAddr, message: &[u8]) -> Option<()> {
        match get_u32_le(message, 0)? {
            DATA => self.receive_data(from, message),
            INITIATION | RESPONSE => self.receive_handshake(from, message),
            COOKIE => {
                let id = self.peers.find_index(get_u32_le(message, 4)? >> 8)?;
                let times = (self.now, self.wall_clock);
                // A cookie does not change the endpoint.
                let _accepted_or_rejected = self.peers.get(id)?.receive(from.ip(), message, &mut self.scratch, times);
                Some(())
            }
            _ => None,
        }
    }

    fn receive_data(&mut self, from: SocketAddr, message: &[u8]) -> Option<()> {
        let receiver = get_u32_le(message, 4)?;
        let id = self.peers.find_index(receiver >> 8)?;
        let peer = self.peers.get(id)?;
        let confirms_session = peer.is_unconfirmed(receiver);
        let outcome = peer.receive(from.ip(), message, self.merger.free_space(), (self.now, self.wall_clock));
        if outcome == MessageOutcome::Rejected {
            return None;
        }
        peer.count_received(message.len());
        peer.endpoint = Some(from);
        if let MessageOutcome::Packet(length) = outcome {
            let source = self.merger.free_space().get(..length).and_then(addresses).map(|(source, _)| source);
            if source.and_then(|source| self.allowed_ips.find(source)) == Some(id) {
                let mut deleted = false;
                self.merger.push(length, |bytes| write(self.tun.as_ref(), bytes, &mut deleted));
                if deleted {
                    self.close_tun();
                }
            }
        }
        if confirms_session {
            self.send_queued_packets(id);
        }
        Some(())
    }

    /// Processes an initiation or a response. Cheap checks come first: the rate per source, the MAC, and under load the
    /// cookie.
    fn receive_handshake(&mut self, from: SocketAddr, message: &[u8]) -> Option<()> {
        if !self.handshake_limiter.may_inspect(from.ip(), self.now) {
            return None;
        }
        let mut cookie = [0; 64];
        let parsed = match self.rate_limiter.as_ref()?.verify_packet(Some(from.ip()), message, &mut cookie) {
            Ok(parsed) => parsed,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                send_message(&mut self.sockets, cookie, from);
                return None;
            }
            Err(_) => return None,
        };
        if !self.handshake_limiter.admit(from.ip(), self.now) {
            return None;
        }
        let local_key = self.local_key.as_ref()?;
        let id = match parsed {
            Packet::HandshakeInit(initiation) => {
                let (private, public) = (local_key.private.scalar(), local_key.public.point());
                let half = parse_handshake_anon(&private, &public, &initiation).ok()?;
                self.peers.find(&WgPublicKey::from_bytes(half.peer_static_public))?
            }
            Packet::HandshakeResponse(response) => self.peers.find_index(response.receiver_idx >> 8)?,
            Packet::PacketCookieReply(_) | Packet::PacketData(_) => return None,
        };
        let (peer, _) = self.peers.get_with_state(id, local_key, self.now)?;
        let outcome = peer.receive(from.ip(), message, &mut self.scratch, (self.now, self.wall_clock));
        match outcome {
            MessageOutcome::Reply(length) => {
                peer.count_received(message.len());
                peer.endpoint = Some(from);
                self.send_scratch(id, length);
            }
            MessageOutcome::Old => return self.initiate_instead(id, from),
            MessageOutcome::Packet(_) | MessageOutcome::Accepted | MessageOutcome::Rejected => return None,
        }
        if get_u32_le(message, 0)? == RESPONSE {
            self.send_queued_packets(id);
        }
        Some(())
    }

    /// Initiates a handshake with a peer whose own initiations state an earlier time than one before: its clock was set
    /// back, and it would not be reached until the clock shows the earlier time again. The endpoint remains until the
    /// peer has answered, because an initiation may be a replay, which thus causes one handshake in five seconds at
    /// most.
    fn initiate_instead(&mut self, id: PeerId, to: SocketAddr) -> Option<()> {
        let peer = self.peers.get(id)?;
        let length = peer.initiate(&mut self.scratch)?;
        tracing::debug!("initiates the handshake with {to}, whose clock was set back");
        peer.count_sent(length, self.now);
        send_message(&mut self.sockets, self.scratch.get(..length)?, to);
        Some(())
    }

    /// Sends the packets that were queued until the peer had a session.
    fn send_queued_packets(&mut self, id: PeerId) {
        while let Some(length) = self.peers.get(id).and_then(|peer| peer.next_queued(&mut self.scratch)) {
            let is_data = self.scratch.get(..length).and_then(|message| get_u32_le(message, 0)) == Some(DATA);
            self.send_scratch(id, length);
            if !is_data {
                break; // There is no session: the message is an initiation.
            }
        }
    }
}

/// Writes a packet to the TUN device. It is dropped if the device is down, as by any network device.
fn write(tun: Option<&Tun>, bytes: &[u8], deleted: &mut bool) {
    if let Some(Err(error)) = tun.map(|tun| tun.write(bytes)) {
        *deleted |= is_deleted(&error);
        tracing::debug!("cannot write a packet of {} bytes: {error}", bytes.len());
    }
}
