//! From the wire to the TUN device. Until a message has been found authentic, its sender may be anybody: nothing is changed for
//! it, and little is done for it.

use std::io;
use std::net::SocketAddr;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, TunnResult};

use super::{Device, READS, send_one};
use crate::packet::{addresses, get_u32_le};
use crate::peer::{COOKIE, DATA, INITIATION, Opened, RESPONSE};
use crate::system::tun::{Tun, is_gone};
use crate::table::PeerId;

impl Device {
    /// Receives messages of one family and takes them apart, as many as are due at once.
    pub(crate) fn receive(&mut self, v6: bool) {
        let mut buffer = std::mem::take(&mut self.messages);
        for _ in 0..READS {
            let socket = if v6 { self.sockets.v6.as_mut() } else { Some(&mut self.sockets.v4) };
            let Some(socket) = socket else { break };
            match socket.receive(&mut buffer) {
                Ok(received) => {
                    let messages = buffer.get(..received.length).unwrap_or_default();
                    for message in messages.chunks(received.size.max(1)) {
                        let _done_or_refused = self.message(received.from, message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!("receiving failed: {error}");
                    }
                    break;
                }
            }
        }
        self.messages = buffer;
        let mut gone = false;
        self.merger.flush(|bytes| write(self.tun.as_ref(), bytes, &mut gone));
        if gone {
            self.lose_tun();
        }
    }

    fn message(&mut self, from: SocketAddr, message: &[u8]) -> Option<()> {
        match get_u32_le(message, 0)? {
            DATA => self.data(from, message),
            INITIATION | RESPONSE => self.handshake(from, message),
            COOKIE => {
                let id = self.peers.find_index(get_u32_le(message, 4)? >> 8)?;
                let times = (self.now, self.wall);
                // It says nothing of where the peer is.
                let _taken_or_refused = self.peers.get(id)?.open(from.ip(), message, &mut self.scratch, times);
                Some(())
            }
            _ => None,
        }
    }

    fn data(&mut self, from: SocketAddr, message: &[u8]) -> Option<()> {
        let receiver = get_u32_le(message, 4)?;
        let id = self.peers.find_index(receiver >> 8)?;
        let peer = self.peers.get(id)?;
        let confirms = peer.is_unconfirmed(receiver);
        let opened = peer.open(from.ip(), message, self.merger.room(), (self.now, self.wall));
        if opened == Opened::Refused {
            return None;
        }
        peer.count_received(message.len());
        if peer.endpoint != Some(from) {
            peer.endpoint = Some(from);
        }
        if let Opened::Packet(length) = opened {
            let source = self.merger.room().get(..length).and_then(addresses).map(|(source, _)| source);
            if source.and_then(|source| self.allowed.find(source)) == Some(id) {
                let mut gone = false;
                self.merger.push(length, |bytes| write(self.tun.as_ref(), bytes, &mut gone));
                if gone {
                    self.lose_tun();
                }
            }
        }
        if confirms {
            self.send_waiting(id);
        }
        Some(())
    }

    /// An initiation or a response. Cheap checks come first: how many there are, a right MAC, a cookie if there are many.
    fn handshake(&mut self, from: SocketAddr, message: &[u8]) -> Option<()> {
        if !self.load.looks_at(from.ip(), self.now) {
            return None;
        }
        let mut cookie = [0; 64];
        let parsed = match self.gate.as_ref()?.verify_packet(Some(from.ip()), message, &mut cookie) {
            Ok(parsed) => parsed,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                send_one(&mut self.sockets, cookie, from);
                return None;
            }
            Err(_) => return None,
        };
        if !self.load.lets_in(from.ip(), self.now) {
            return None;
        }
        let own = self.own.as_ref()?;
        let id = match parsed {
            Packet::HandshakeInit(initiation) => {
                let half = parse_handshake_anon(&own.private.scalar(), &own.public.point(), &initiation).ok()?;
                self.peers.find(&crate::key::WgPublicKey::from_bytes(half.peer_static_public))?
            }
            Packet::HandshakeResponse(response) => self.peers.find_index(response.receiver_idx >> 8)?,
            Packet::PacketCookieReply(_) | Packet::PacketData(_) => return None,
        };
        let (peer, _) = self.peers.ready(id, own, self.now)?;
        let opened = peer.open(from.ip(), message, &mut self.scratch, (self.now, self.wall));
        let Opened::Reply(length) = opened else { return None };
        peer.count_received(message.len());
        peer.endpoint = Some(from);
        self.send_scratch(id, length);
        if get_u32_le(message, 0)? == RESPONSE {
            self.send_waiting(id);
        }
        Some(())
    }

    /// Sends the packets that have waited for a session.
    fn send_waiting(&mut self, id: PeerId) {
        while let Some(length) = self.peers.get(id).and_then(|peer| peer.next_waiting(&mut self.scratch)) {
            let is_data = self.scratch.get(..length).and_then(|message| get_u32_le(message, 0)) == Some(DATA);
            self.send_scratch(id, length);
            if !is_data {
                break; // no session after all
            }
        }
    }
}

/// Writes to the TUN device. While it is down, what is written is lost, as on any device.
fn write(tun: Option<&Tun>, bytes: &[u8], gone: &mut bool) {
    if let Some(Err(error)) = tun.map(|tun| tun.write(bytes)) {
        *gone |= is_gone(&error);
        tracing::debug!("a packet of {} bytes was not written: {error}", bytes.len());
    }
}
