//! The probes of one node: which are to be sent when, and what their replies prove. Pure.
//!
//! Of two nodes, the one with the lower address sends probes in each interval, and states in them that they are
//! answered. The other one sends its own only when those stop, or state otherwise. When full-size probes remain
//! unanswered, the largest size that passes is measured with probes of many sizes at once.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use super::check::{Check, CheckState, RETRY};
use super::packet::{Flags, Message, Received, SMALLEST, Token};

/// Shortest interval of small probes while they are answered. With full-size ones in [`FULL_INTERVAL`], two nodes send
/// each other less than 1 kbit/s, including all headers.
const INTERVAL: Duration = Duration::from_secs(1);

/// So many peers that packets of overlays may pass to are probed in the shortest interval.
const SHORTEST_UP_TO: usize = 100;

/// The interval for each further one.
const INTERVAL_PER_FURTHER_PEER: Duration = Duration::from_millis(17);

/// The interval of the other peers, for each peer of the mesh: with a thousand, before keepalives would be due.
const INTERVAL_PER_PEER: Duration = Duration::from_millis(24);

/// Shortest interval of full-size probes while they are answered and there is no traffic.
const FULL_INTERVAL: Duration = Duration::from_secs(60);

/// Interval of full-size probes while there is traffic, or while they are not answered.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest interval of small probes while they are not answered.
const FAILED_INTERVAL: Duration = Duration::from_millis(500);

/// How long a reply is accepted.
const LIFETIME: Duration = Duration::from_secs(3);

/// How often the largest size is measured while full-size probes are not answered.
const MEASURE_INTERVAL: Duration = Duration::from_secs(30);

/// The smallest size that is measured, in bytes: less than this is hardly a path MTU (RFC 791 requires 576).
pub(super) const MEASURED_MIN: u16 = 480;

/// Sizes of one round of a measurement.
const ROUND: u16 = 32;

/// How long packets of the other node count as arriving.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The intervals for a number of peers, and the size of full-size packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Of small probes.
    pub(super) interval: Duration,
    full_interval: Duration,
    failed_interval: Duration,
    /// In bytes, including the IP header.
    pub(super) full_size: u16,
}

impl Schedule {
    /// For a peer that packets of overlays may pass to, if there are so many of them.
    pub(super) fn watched(watched: usize, full_size: u16) -> Self {
        let further = watched.saturating_sub(SHORTEST_UP_TO);
        let shortest = if further == 0 { Duration::ZERO } else { INTERVAL };
        Self::new(shortest, INTERVAL_PER_FURTHER_PEER, further, full_size)
    }

    /// For another peer, if the mesh has so many.
    pub(super) fn unwatched(peers: usize, full_size: u16) -> Self {
        Self::new(Duration::ZERO, INTERVAL_PER_PEER, peers, full_size)
    }

    fn new(first: Duration, each: Duration, peers: usize, full_size: u16) -> Self {
        let all = first + each.saturating_mul(u32::try_from(peers).unwrap_or(u32::MAX));
        Self {
            interval: INTERVAL.max(all),
            full_interval: FULL_INTERVAL.max(all * 6),
            failed_interval: FAILED_INTERVAL.max(all),
            full_size,
        }
    }
}

/// What the probes of a peer prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet: the last verdict remains.
    Open,
    /// Full-size packets pass both ways.
    Proven,
    /// No packet passes both ways.
    Silent,
    /// Full-size packets do not pass, but small ones do. What passes is being measured.
    Unmeasured,
    /// Packets of `largest` bytes pass, but not full-size ones. `None` if even the smallest measured size does not.
    Narrow { largest: Option<u16> },
}

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// In bytes, including the IP header.
    pub(super) size: u16,
    pub(super) token: Token,
    pub(super) flags: Flags,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    token: Token,
    size: u16,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Sizes across the range were sent.
    Coarse,
    /// The sizes between two of those were sent.
    Fine,
    Complete,
}

/// The measurement of the largest size that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measurement {
    /// The largest size that passed in this measurement.
    largest: Option<u16>,
    phase: Phase,
    /// When the current round ends, or the next measurement begins.
    ends: Instant,
}

#[derive(Debug)]
pub(super) struct PeerProbes {
    /// This node has the lower address of the two.
    leads: bool,
    small: Check,
    full: Check,
    sent: VecDeque<Sent>,
    measurement: Option<Measurement>,
    /// The result of the last measurement.
    measured: Option<Option<u16>>,
    /// When a packet of ours last arrived from the peer.
    heard: Option<Instant>,
}

impl PeerProbes {
    pub(super) fn new(own: Ipv4Addr, peer: Ipv4Addr, now: Instant) -> Self {
        Self {
            leads: own < peer,
            small: Check::new(now),
            full: Check::new(now),
            sent: VecDeque::new(),
            measurement: None,
            measured: None,
            heard: None,
        }
    }

    /// When [`Self::step`] has something to do.
    pub(super) fn due(&self) -> Instant {
        let full = (self.small.state() != CheckState::Fails).then(|| self.full.due());
        let measurement = self.measurement.map(|measurement| measurement.ends);
        [full, measurement].into_iter().flatten().fold(self.small.due(), Instant::min)
    }

    /// Returns what the probes prove so far.
    pub(super) fn verdict(&self) -> Verdict {
        match (self.small.state(), self.full.state(), self.measured) {
            (CheckState::Fails, _, _) => Verdict::Silent,
            (CheckState::Passes, CheckState::Passes, _) => Verdict::Proven,
            (CheckState::Passes, CheckState::Fails, Some(largest)) => Verdict::Narrow { largest },
            (CheckState::Passes, CheckState::Fails, None) => Verdict::Unmeasured,
            (CheckState::Unknown, _, _) | (CheckState::Passes, CheckState::Unknown, _) => Verdict::Open,
        }
    }

    /// Whether packets of the peer arrive.
    pub(super) fn is_heard(&self, now: Instant) -> bool {
        self.heard.is_some_and(|heard| now.duration_since(heard) < HEARD_WITHIN)
    }

    /// Returns the probes to send now. `random` returns random numbers.
    pub(super) fn step(&mut self, now: Instant, schedule: Schedule, random: &mut dyn FnMut() -> u64) -> Vec<Probe> {
        let flags = Flags {
            small_passes: self.small.passes(),
            full_passes: self.full.passes(),
            full_fails: self.full.state() == CheckState::Fails,
        };
        let mut sizes = Vec::new();
        if self.small.take(now, schedule.failed_interval) {
            sizes.push(SMALLEST);
        }
        if self.small.state() == CheckState::Fails {
            self.full.restart(now);
            (self.measurement, self.measured) = (None, None);
        } else if self.full.take(now, BUSY_INTERVAL.max(schedule.failed_interval)) {
            sizes.push(schedule.full_size);
        }
        if self.full.state() == CheckState::Fails {
            sizes.extend(self.measure(now, schedule.full_size));
        }
        // The device may send several packets in one train, which passes some virtual links whatever their MTU, but
        // only if none is larger than the first one.
        sizes.sort_unstable();
        let expired = |sent: &Sent| now.duration_since(sent.at) > LIFETIME;
        while self.sent.front().is_some_and(expired) {
            self.sent.pop_front();
        }
        let probes = sizes.into_iter().map(|size| Probe { size, token: Token::new(random()), flags });
        let probes: Vec<_> = probes.collect();
        self.sent.extend(probes.iter().map(|probe| Sent { token: probe.token, size: probe.size, at: now }));
        probes
    }

    /// Applies a received probe or reply.
    pub(super) fn receive(&mut self, received: Received, now: Instant, schedule: Schedule) {
        match received.message {
            Message::Request(flags, _) => self.requested(flags, now, schedule),
            Message::Reply(token) => {
                let Some(index) = self.sent.iter().position(|sent| sent.token == token) else { return };
                let Some(sent) = self.sent.remove(index) else { return };
                if sent.size == received.size && now.duration_since(sent.at) <= LIFETIME {
                    self.answered(sent, now, schedule);
                }
            }
        }
    }

    fn answered(&mut self, sent: Sent, now: Instant, schedule: Schedule) {
        let (size, took) = (sent.size, now.duration_since(sent.at));
        self.heard = Some(now);
        self.small.answered(now, took, self.own_turn(schedule.interval));
        if size >= schedule.full_size {
            self.full.answered(now, took, self.own_turn(schedule.full_interval));
            (self.measurement, self.measured) = (None, None);
        }
        if let Some(measurement) = self.measurement.as_mut().filter(|_| size >= MEASURED_MIN) {
            measurement.largest = measurement.largest.max(Some(size));
        }
    }

    /// The peer sent a probe, which the kernel has answered.
    fn requested(&mut self, flags: Flags, now: Instant, schedule: Schedule) {
        let Flags { small_passes, full_passes, full_fails } = flags;
        self.heard = Some(now);
        if small_passes && self.small.state() == CheckState::Passes {
            self.small.postpone(now, self.own_turn(schedule.interval));
        } else {
            self.small.hurry(now, RETRY);
        }
        if full_passes {
            self.full.postpone(now, self.own_turn(schedule.full_interval));
        }
        if full_fails && self.full.state() == CheckState::Passes {
            self.full.hurry(now, BUSY_INTERVAL);
        }
    }

    /// The peer must learn something that only full-size probes state.
    pub(super) fn inform(&mut self, now: Instant) {
        self.full.hurry(now, BUSY_INTERVAL);
    }

    /// Returns the time that this node waits for its next probe, if the peer sends none.
    fn own_turn(&self, interval: Duration) -> Duration {
        if self.leads { interval } else { interval + interval / 8 }
    }

    /// There is traffic with the peer: probes of both sizes may follow each other more closely.
    pub(super) fn is_busy(&mut self, now: Instant) {
        self.small.hurry(now, BUSY_INTERVAL);
        self.full.hurry(now, BUSY_INTERVAL);
    }

    /// Something has changed that packets may depend on: checks both sizes now.
    pub(super) fn recheck(&mut self, now: Instant) {
        self.small.hurry(now, RETRY);
        self.full.hurry(now, RETRY);
    }

    /// Returns the sizes to send for the measurement.
    fn measure(&mut self, now: Instant, full_size: u16) -> Vec<u16> {
        if self.measurement.is_some_and(|measurement| now < measurement.ends) {
            return Vec::new();
        }
        let step = (full_size.saturating_sub(MEASURED_MIN) / ROUND).max(1);
        let (phase, largest, sizes) = match self.measurement {
            None | Some(Measurement { phase: Phase::Complete, .. }) => {
                let sizes = (MEASURED_MIN..full_size).step_by(step.into()).collect();
                (Phase::Coarse, None, sizes)
            }
            Some(Measurement { phase: Phase::Coarse, largest: Some(largest), .. }) => {
                let sizes = (largest + 1..full_size.min(largest + step)).collect();
                (Phase::Fine, Some(largest), sizes)
            }
            Some(Measurement { phase: Phase::Coarse | Phase::Fine, largest, .. }) => {
                self.measured = Some(largest);
                (Phase::Complete, largest, Vec::new())
            }
        };
        let lasts = if phase == Phase::Complete { MEASURE_INTERVAL } else { RETRY * 2 };
        self.measurement = Some(Measurement { largest, phase, ends: now + lasts });
        sizes
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
