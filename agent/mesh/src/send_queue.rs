//! Outgoing messages, collected in GSO batches: messages to one address, of equal size except the last, which one
//! system call sends. Batches that do not fit into the send buffer of the socket wait here, and the device reads no
//! further packets until they have been sent.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::udp::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, UdpSockets};

/// Size of a batch's buffer in bytes: a full batch, and one more message, which does not fit into the batch.
const BUFFER_SIZE: usize = 2 * 65_536 + 64;

/// Unused buffers that are kept for reuse.
const SPARE_MAX: usize = 4;

#[derive(Debug)]
struct GsoBatch {
    buffer: Vec<u8>,
    /// Bytes of all messages.
    length: usize,
    /// Bytes of those that were sent.
    sent: usize,
    /// Bytes of each message except the last.
    message_size: usize,
    count: usize,
    /// The last message was shorter, so no other can follow it.
    is_closed: bool,
    to: Option<SocketAddr>,
}

impl GsoBatch {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_SIZE], length: 0, sent: 0, message_size: 0, count: 0, is_closed: false, to: None }
    }

    fn fits(&self, length: usize, to: SocketAddr) -> bool {
        self.length == 0
            || self.to == Some(to)
                && !self.is_closed
                && length <= self.message_size
                && self.count < BATCH_MESSAGES_MAX
                && self.length + length <= BATCH_BYTES_MAX
    }

    /// Adds the message that was written behind the others.
    fn add(&mut self, length: usize, to: SocketAddr) {
        if self.length == 0 {
            (self.message_size, self.to, self.is_closed, self.count, self.sent) = (length, Some(to), false, 0, 0);
        }
        self.is_closed = length < self.message_size;
        self.count += 1;
        self.length += length;
    }
}

#[derive(Debug)]
pub(super) struct SendQueue {
    filling: GsoBatch,
    /// Batches that wait for space in the send buffer, oldest first.
    blocked: VecDeque<GsoBatch>,
    spare: Vec<GsoBatch>,
}

impl SendQueue {
    pub(super) fn new() -> Self {
        Self { filling: GsoBatch::new(), blocked: VecDeque::new(), spare: Vec::new() }
    }

    /// The buffer for the next message; long enough for any.
    pub(super) fn free_space(&mut self) -> &mut [u8] {
        self.filling.buffer.get_mut(self.filling.length..).unwrap_or_default()
    }

    /// Queues the message of this length that was written to [`free_space`](Self::free_space).
    pub(super) fn push(&mut self, length: usize, to: SocketAddr, sockets: &mut UdpSockets) {
        if !self.filling.fits(length, to) {
            let begin = self.filling.length;
            let mut next = self.spare.pop().unwrap_or_else(GsoBatch::new);
            next.length = 0;
            if let (Some(message), Some(buffer)) =
                (self.filling.buffer.get(begin..begin + length), next.buffer.get_mut(..length))
            {
                buffer.copy_from_slice(message);
            }
            let full = std::mem::replace(&mut self.filling, next);
            self.dispatch(full, sockets);
        }
        self.filling.add(length, to);
    }

    /// Sends the messages that were queued.
    pub(super) fn flush(&mut self, sockets: &mut UdpSockets) {
        if self.filling.length > 0 {
            let next = self.spare.pop().unwrap_or_else(GsoBatch::new);
            let full = std::mem::replace(&mut self.filling, next);
            self.filling.length = 0;
            self.dispatch(full, sockets);
        }
    }

    /// Sends blocked batches as far as the send buffer has space.
    pub(super) fn resume(&mut self, sockets: &mut UdpSockets) {
        while let Some(mut batch) = self.blocked.pop_front() {
            if !send(&mut batch, sockets) {
                self.blocked.push_front(batch);
                return;
            }
            self.recycle(batch);
        }
    }

    /// Whether messages wait for space in a send buffer.
    pub(super) fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    fn dispatch(&mut self, mut batch: GsoBatch, sockets: &mut UdpSockets) {
        if self.is_blocked() || !send(&mut batch, sockets) {
            self.blocked.push_back(batch);
        } else {
            self.recycle(batch);
        }
    }

    fn recycle(&mut self, batch: GsoBatch) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(batch);
        }
    }
}

/// Returns false if the send buffer is full. Those that cannot be sent for another reason are dropped.
fn send(batch: &mut GsoBatch, sockets: &mut UdpSockets) -> bool {
    let Some(to) = batch.to else { return true };
    let Some(socket) = sockets.for_address(to) else { return true };
    let Some(rest) = batch.buffer.get(batch.sent..batch.length) else { return true };
    let (sent, result) = socket.send(rest, batch.message_size, to);
    batch.sent += sent;
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => {
            tracing::debug!("cannot send messages to {to}: {error}");
            true
        }
        Ok(()) => true,
    }
}
