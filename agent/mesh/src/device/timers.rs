//! What time asks for: handshakes, keepalives, sessions that end. Done in rounds, and each round in portions, so that a thousand
//! handshakes that are due at once do not hold up packets.

use std::time::{Duration, Instant};

use super::Device;

/// Between rounds; boringtun's clock moves with them.
const ROUND: Duration = Duration::from_millis(250);
/// Most peers, and most handshakes or their states, in a portion.
const PEERS: usize = 512;
const COSTLY: usize = 4;

impl Device {
    /// When there is something to do next.
    pub(crate) fn due(&self) -> Instant {
        if self.place.is_some() { self.now } else { self.next_round }
    }

    /// Does a portion, if one is due.
    pub(crate) fn tick(&mut self) {
        self.remake();
        let mut place = match self.place {
            Some(place) => place,
            None if self.now >= self.next_round => {
                self.next_round = self.now + ROUND;
                if let Some(gate) = &self.gate {
                    gate.reset_count();
                }
                0
            }
            None => return,
        };
        let (mut peers, mut costly) = (0, 0);
        while place < self.peers.places() && peers < PEERS && costly < COSTLY {
            if self.tick_peer(place) {
                costly += 1;
            }
            peers += 1;
            place += 1;
        }
        self.place = Some(place).filter(|place| *place < self.peers.places());
    }

    /// True if it took some time.
    fn tick_peer(&mut self, place: usize) -> bool {
        let Some(id) = self.peers.at(place) else { return false };
        self.peers.retire(id, self.now);
        let Some(own) = &self.own else { return false };
        let Some((peer, made)) = self.peers.ready(id, own, self.now) else { return false };
        match peer.tick(&mut self.scratch, self.now) {
            Some(length) => {
                self.send_scratch(id, length);
                true
            }
            None => made,
        }
    }

    /// Has the next round begin at once.
    pub(super) fn hurry(&mut self) {
        (self.place, self.next_round) = (None, self.now);
    }
}
