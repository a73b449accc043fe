//! Messages on their way out, in trains: messages to one address, of equal size but for the last, sent as one. Trains that the
//! socket has no room for wait here, and the device reads nothing more to be sent until they have gone.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::system::udp::{Sockets, TRAIN_BYTES, TRAIN_MESSAGES};

/// Room for a train, and for the message that does not fit into it any more.
const ROOM: usize = 2 * 65_536 + 64;

#[derive(Debug)]
struct Train {
    buffer: Vec<u8>,
    length: usize,
    sent: usize,
    size: usize,
    count: usize,
    /// The last message was shorter.
    closed: bool,
    to: Option<SocketAddr>,
}

impl Train {
    fn new() -> Self {
        Self { buffer: vec![0; ROOM], length: 0, sent: 0, size: 0, count: 0, closed: false, to: None }
    }

    fn takes(&self, length: usize, to: SocketAddr) -> bool {
        self.length == 0
            || self.to == Some(to)
                && !self.closed
                && length <= self.size
                && self.count < TRAIN_MESSAGES
                && self.length + length <= TRAIN_BYTES
    }

    fn add(&mut self, length: usize, to: SocketAddr) {
        if self.length == 0 {
            (self.size, self.to, self.closed, self.count, self.sent) = (length, Some(to), false, 0, 0);
        }
        self.closed = length < self.size;
        self.count += 1;
        self.length += length;
    }
}

#[derive(Debug)]
pub(super) struct Outbox {
    filling: Train,
    waiting: VecDeque<Train>,
    spare: Vec<Train>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { filling: Train::new(), waiting: VecDeque::new(), spare: Vec::new() }
    }

    /// Where the next message is to be put: always enough for any.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.filling.buffer.get_mut(self.filling.length..).unwrap_or_default()
    }

    /// Takes the message of this length that has been put into the room.
    pub(super) fn push(&mut self, length: usize, to: SocketAddr, sockets: &mut Sockets) {
        if !self.filling.takes(length, to) {
            let begin = self.filling.length;
            let mut next = self.spare.pop().unwrap_or_else(Train::new);
            next.length = 0;
            if let (Some(from), Some(room)) =
                (self.filling.buffer.get(begin..begin + length), next.buffer.get_mut(..length))
            {
                room.copy_from_slice(from);
            }
            let full = std::mem::replace(&mut self.filling, next);
            self.dispatch(full, sockets);
        }
        self.filling.add(length, to);
    }

    /// Sends what has been filled in.
    pub(super) fn flush(&mut self, sockets: &mut Sockets) {
        if self.filling.length > 0 {
            let next = self.spare.pop().unwrap_or_else(Train::new);
            let full = std::mem::replace(&mut self.filling, next);
            self.filling.length = 0;
            self.dispatch(full, sockets);
        }
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn resume(&mut self, sockets: &mut Sockets) {
        while let Some(mut train) = self.waiting.pop_front() {
            if !send(&mut train, sockets) {
                self.waiting.push_front(train);
                return;
            }
            self.keep(train);
        }
    }

    /// Whether something waits for room.
    pub(super) fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn dispatch(&mut self, mut train: Train, sockets: &mut Sockets) {
        if self.is_blocked() || !send(&mut train, sockets) {
            self.waiting.push_back(train);
        } else {
            self.keep(train);
        }
    }

    fn keep(&mut self, train: Train) {
        if self.spare.len() < 4 {
            self.spare.push(train);
        }
    }
}

/// False if there was no room for all of it. What cannot be sent for another reason is lost, as on any network.
fn send(train: &mut Train, sockets: &mut Sockets) -> bool {
    let Some(to) = train.to else { return true };
    let Some(socket) = sockets.to(to) else { return true };
    let Some(rest) = train.buffer.get(train.sent..train.length) else { return true };
    let (sent, result) = socket.send(rest, train.size, to);
    train.sent += sent;
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => {
            tracing::debug!("messages to {to} were not sent: {error}");
            true
        }
        Ok(()) => true,
    }
}
