//! From the TUN device to the wire.

use super::{Device, READS};
use crate::packet::split::split;
use crate::packet::virtio::{HEADER, Header};
use crate::packet::{addresses, get_u32_le};
use crate::peer::DATA;
use crate::system::tun::is_gone;

impl Device {
    /// Reads packets and sends them, as many as are due at once.
    pub(crate) fn read_tun(&mut self) {
        for _ in 0..READS {
            let Some(tun) = &self.tun else { break };
            match tun.read(&mut self.packet) {
                Ok(length) => {
                    let _sent_or_dropped = self.outbound(length);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if is_gone(&error) {
                        self.lose_tun();
                    }
                    break;
                }
            }
            if self.outbox.is_blocked() {
                break;
            }
        }
        self.outbox.flush(&mut self.sockets);
    }

    /// Sends one packet, which may be a large one. Without a peer for its destination, or without knowing where that is,
    /// it is dropped.
    fn outbound(&mut self, length: usize) -> Option<()> {
        let (head, rest) = self.packet.split_first_chunk_mut::<HEADER>()?;
        let packet = rest.get_mut(..length.checked_sub(HEADER)?)?;
        let (_, destination) = addresses(packet)?;
        let id = self.allowed.find(destination)?;
        let (peer, _) = self.peers.ready(id, self.own.as_ref()?, self.now)?;
        let to = peer.endpoint?;
        let (outbox, sockets, now) = (&mut self.outbox, &mut self.sockets, self.now);
        let cut = split(&Header::parse(head), packet, |part| {
            let Some(length) = peer.seal(part, outbox.room()) else { return };
            peer.count_sent(length, now);
            let message = outbox.room().get(..length).unwrap_or_default();
            if get_u32_le(message, 0) == Some(DATA) {
                outbox.push(length, to, sockets);
            } else {
                super::send_one(sockets, message, to);
            }
        });
        if cut.is_err() {
            tracing::debug!("the kernel handed over a packet of {length} bytes that is not what its header says");
        }
        Some(())
    }
}
