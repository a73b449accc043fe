//! Timers: handshakes, keepalives and the expiry of sessions. They run in rounds over all peers, and a round is divided
//! into steps, so that a thousand handshakes that are due at the same time do not delay packets.

use std::time::{Duration, Instant};

use super::MeshDevice;

/// Shortest interval between the begins of rounds. It is the resolution of boringtun's clock, whose times are seconds.
const ROUND_INTERVAL: Duration = Duration::from_millis(250);

/// The interval for each peer: a visit takes some 0.2 µs, although nothing is due at most of them.
const ROUND_INTERVAL_PER_PEER: Duration = Duration::from_millis(1);

/// Longest interval between the begins of rounds, however many peers there are.
const ROUND_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Peers visited in a step at most.
const PEERS_PER_STEP: usize = 512;

/// Peers for which a message was sent or state was created in a step at most; each takes some 100 µs.
const COSTLY_PER_STEP: usize = 4;

impl MeshDevice {
    /// When [`run_timers`](Self::run_timers) has something to do.
    pub(crate) fn next_deadline(&self) -> Instant {
        if self.timer_slot.is_some() { self.now } else { self.next_round }
    }

    /// Runs a step of the current round, or of a new one if it is due.
    pub(crate) fn run_timers(&mut self) {
        self.recreate_tun();
        let mut slot = match self.timer_slot {
            Some(slot) => slot,
            None if self.now >= self.next_round => {
                self.next_round = self.now + self.round_interval();
                if let Some(limiter) = &self.rate_limiter {
                    limiter.reset_count();
                }
                0
            }
            None => return,
        };
        let (mut visited, mut costly) = (0, 0);
        while slot < self.peers.slot_count() && visited < PEERS_PER_STEP && costly < COSTLY_PER_STEP {
            if self.run_peer_timers(slot) {
                costly += 1;
            }
            visited += 1;
            slot += 1;
        }
        self.timer_slot = Some(slot).filter(|slot| *slot < self.peers.slot_count());
    }

    fn round_interval(&self) -> Duration {
        let all = ROUND_INTERVAL_PER_PEER.saturating_mul(u32::try_from(self.peers.slot_count()).unwrap_or(u32::MAX));
        all.clamp(ROUND_INTERVAL, ROUND_INTERVAL_MAX)
    }

    /// Returns whether a message was sent or state was created.
    fn run_peer_timers(&mut self, slot: usize) -> bool {
        let Some(id) = self.peers.id_at(slot) else { return false };
        self.peers.expire_previous(id, self.now);
        let Some(local_key) = &self.local_key else { return false };
        let Some((peer, created)) = self.peers.get_with_state(id, local_key, self.now) else { return false };
        match peer.run_timers(&mut self.scratch, self.now) {
            Some(length) => {
                self.send_scratch(id, length);
                true
            }
            None => created,
        }
    }

    /// Begins a new round with the next step.
    pub(super) fn start_round(&mut self) {
        (self.timer_slot, self.next_round) = (None, self.now);
    }
}
