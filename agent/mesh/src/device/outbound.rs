//! From the TUN device to the peers.

use std::io;

use super::{MeshDevice, READS_PER_EVENT, send_message};
use crate::packet::split::split;
use crate::packet::virtio::{HEADER_LEN, VirtioHeader};
use crate::packet::{addresses, get_u32_le};
use crate::peer::DATA;
use crate::tun::is_deleted;

impl MeshDevice {
    /// Reads packets from the TUN device and sends them to the peers.
    pub(crate) fn read_tun(&mut self) {
        for _ in 0..READS_PER_EVENT {
            let Some(tun) = &self.tun else { break };
            match tun.read(&mut self.packet_buffer) {
                Ok(length) => {
                    let _sent_or_dropped = self.send_packet(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if is_deleted(&error) {
                        self.close_tun();
                    }
                    break;
                }
            }
            if self.is_blocked() {
                break;
            }
        }
        self.send_queue.flush(&mut self.sockets);
    }

    /// Sends the packet in `packet_buffer`, which may be a GSO packet. It is dropped if no peer has the destination
    /// address, or the endpoint of the peer is unknown.
    fn send_packet(&mut self, length: usize) -> Option<()> {
        let (header, rest) = self.packet_buffer.split_first_chunk_mut::<HEADER_LEN>()?;
        let packet = rest.get_mut(..length.checked_sub(HEADER_LEN)?)?;
        let (_, destination) = addresses(packet)?;
        let id = self.allowed_ips.find(destination)?;
        let (peer, _) = self.peers.get_with_state(id, self.local_key.as_ref()?, self.now)?;
        let to = peer.endpoint?;
        let (queue, sockets, now) = (&mut self.send_queue, &mut self.sockets, self.now);
        let result = split(&VirtioHeader::parse(header), packet, |segment| {
            let Some(length) = peer.encrypt(segment, queue.free_space()) else { return };
            peer.count_sent(length, now);
            let message = queue.free_space().get(..length).unwrap_or_default();
            if get_u32_le(message, 0) == Some(DATA) {
                queue.push(length, to, sockets);
            } else {
                send_message(sockets, message, to);
            }
        });
        if result.is_err() {
            tracing::debug!("dropped a packet of {length} bytes from the kernel that does not match its virtio header");
        }
        Some(())
    }
}
