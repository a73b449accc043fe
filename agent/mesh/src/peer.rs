//! One peer: its sessions, endpoint and counters. Wraps `boringtun::noise` and guards against calls that it does not
//! handle. Does no I/O, and reads no clock.
//!
//! A change of the private or preshared key requires new Noise state. The previous state remains in use, in both
//! directions, until the new one has a session, so that no packets are lost.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};

use super::config::WgPeerStatus;
use super::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use super::packet::{get_u32_le, get_u64_le};
use super::prefix::Prefix;

/// Types of WireGuard messages: their first four bytes.
pub(super) const INITIATION: u32 = 1;
pub(super) const RESPONSE: u32 = 2;
pub(super) const COOKIE: u32 = 3;
pub(super) const DATA: u32 = 4;

/// `REJECT_AFTER_MESSAGES`: counters from this one on must be rejected, which boringtun does not do.
const COUNTER_LIMIT: u64 = u64::MAX - (1 << 13);

/// How long previous state is kept at most: `REJECT_AFTER_TIME`, the lifetime of a session.
const PREVIOUS_LIFETIME: Duration = Duration::from_secs(180);

/// How long previous state is kept after the current one has a session, for messages in flight.
const PREVIOUS_GRACE: Duration = Duration::from_secs(10);

/// How long after an accepted initiation a copy of it may arrive, which must not be taken for one by a clock that was
/// set back.
const COPY_WITHIN: Duration = Duration::from_millis(250);

/// Bytes that encryption adds to a packet at most: the header of a data message and the authentication tag.
const DATA_OVERHEAD: usize = 32;

/// Length of an initiation, the longest handshake message, in bytes.
const INITIATION_LEN: usize = 148;

/// The device's key pair.
pub(super) struct LocalKey {
    pub(super) private: WgPrivateKey,
    pub(super) public: WgPublicKey,
    /// Incremented with every change of the key.
    pub(super) generation: u64,
    /// Admits every handshake: the device has already limited them, and a message must not be counted twice.
    unlimited: Arc<RateLimiter>,
}

impl LocalKey {
    pub(super) fn new(private: WgPrivateKey, generation: u64) -> Self {
        let public = private.public();
        let unlimited = Arc::new(RateLimiter::new(&public.point(), u64::MAX));
        Self { private, public, generation, unlimited }
    }
}

/// Handshake and session state for one pair of keys.
struct NoiseState {
    tunn: Tunn,
    /// The upper 24 bits of the receiver index of messages to this state; boringtun uses the lower eight for sessions.
    index: u32,
    /// The generation of the private key that it was created with.
    generation: u64,
}

impl NoiseState {
    fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }
}

pub(super) struct DevicePeer {
    pub(super) key: WgPublicKey,
    preshared: Option<WgPresharedKey>,
    current: Option<NoiseState>,
    /// With the time at which it is dropped.
    previous: Option<(NoiseState, Instant)>,
    /// The preshared key has changed since `current` was created.
    is_stale: bool,
    pub(super) endpoint: Option<SocketAddr>,
    /// The keepalive interval in seconds; 0 if disabled.
    keepalive: u16,
    /// When an authentic message was last sent or received; `None` if a keepalive is due.
    last_activity: Option<Instant>,
    /// The local index of a session for which a response was sent and no message has been received yet.
    unconfirmed: Option<u32>,
    last_handshake: Option<SystemTime>,
    /// When the last initiation was accepted.
    last_initiation: Option<Instant>,
    /// The last initiation stated an earlier time than one before it.
    has_old_clock: bool,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// The result of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageOutcome {
    /// The buffer starts with a decrypted packet of this length.
    Packet(usize),
    /// The buffer starts with a message of this length to send to the peer.
    Reply(usize),
    /// The message is authentic and requires nothing else.
    Accepted,
    /// An authentic initiation that states an earlier time than one before it: it is a replay, or the peer's clock was
    /// set back.
    Old,
    /// The message is not authentic, a replay, or not for a state of this peer.
    Rejected,
}

impl DevicePeer {
    pub(super) const fn new(key: WgPublicKey) -> Self {
        Self {
            key,
            preshared: None,
            current: None,
            previous: None,
            is_stale: false,
            endpoint: None,
            keepalive: 0,
            last_activity: None,
            unconfirmed: None,
            last_handshake: None,
            last_initiation: None,
            has_old_clock: false,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    pub(super) fn status(&self, allowed_ips: Vec<Prefix>) -> WgPeerStatus {
        WgPeerStatus {
            public_key: self.key,
            preshared_key: self.preshared.clone(),
            endpoint: self.endpoint,
            last_handshake: self.last_handshake,
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
            keepalive: self.keepalive,
            allowed_ips,
            has_old_clock: self.has_old_clock,
        }
    }

    pub(super) fn set_preshared(&mut self, key: Option<WgPresharedKey>) {
        if self.preshared != key {
            (self.preshared, self.is_stale) = (key, true);
        }
    }

    pub(super) const fn set_keepalive(&mut self, seconds: u16) {
        if self.keepalive == 0 && seconds > 0 {
            self.last_activity = None;
        }
        self.keepalive = seconds;
    }

    /// The indices of the current and previous state.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.current.iter().chain(self.previous.iter().map(|(previous, _)| previous)).map(|state| state.index)
    }

    /// Whether there is no state for the present keys.
    pub(super) fn needs_state(&self, local_key: &LocalKey) -> bool {
        self.is_stale || self.current.as_ref().is_none_or(|state| state.generation != local_key.generation)
    }

    /// Creates state for the present keys, which takes some 100 µs. Returns the index of a state that was dropped.
    pub(super) fn create_state(&mut self, local_key: &LocalKey, index: u32, now: Instant) -> Option<u32> {
        let preshared = self.preshared.as_ref().map(|key| *key.as_bytes());
        let limiter = Some(Arc::clone(&local_key.unlimited));
        // The device sends keepalives itself, because a `Tunn` cannot change its interval.
        let tunn = Tunn::new(local_key.private.scalar(), self.key.point(), preshared, None, index, limiter);
        let replaced = self.current.replace(NoiseState { tunn, index, generation: local_key.generation });
        self.is_stale = false;
        let unconfirmed = self.unconfirmed.take();
        match replaced {
            // A state with a session remains in use, and replaces an even older one.
            Some(replaced) if replaced.has_session() || unconfirmed.is_some() => {
                self.previous.replace((replaced, now + PREVIOUS_LIFETIME)).map(|(dropped, _)| dropped.index)
            }
            Some(replaced) => Some(replaced.index),
            None => None,
        }
    }

    /// Drops all sessions.
    pub(super) fn clear_state(&mut self) {
        (self.current, self.previous, self.unconfirmed) = (None, None, None);
    }

    /// The state to send with: the current one, unless only the previous one has a session.
    fn sender(&mut self) -> Option<&mut Tunn> {
        if let (Some(current), Some((previous, _))) = (&self.current, &self.previous)
            && !current.has_session()
            && previous.has_session()
        {
            return self.previous.as_mut().map(|(previous, _)| &mut previous.tunn);
        }
        self.current.as_mut().map(|current| &mut current.tunn)
    }

    /// Encrypts a packet into `buffer`, and returns the length of the message. Without a session, the packet is queued
    /// and the message, if any, is an initiation.
    pub(super) fn encrypt(&mut self, packet: &[u8], buffer: &mut [u8]) -> Option<usize> {
        if buffer.len() < packet.len() + DATA_OVERHEAD || buffer.len() < INITIATION_LEN {
            return None; // boringtun would panic
        }
        message_length(&self.sender()?.encapsulate(packet, buffer))
    }

    /// Writes an initiation into `buffer` unless a handshake is in progress, and returns its length.
    pub(super) fn initiate(&mut self, buffer: &mut [u8]) -> Option<usize> {
        message_length(&self.current.as_mut()?.tunn.format_handshake_initiation(buffer, false))
    }

    /// Processes a received message. A packet or reply is written to `buffer`, which must be at least as long as the
    /// message and 256 bytes.
    pub(super) fn receive(
        &mut self,
        from: IpAddr,
        message: &[u8],
        buffer: &mut [u8],
        times: (Instant, SystemTime),
    ) -> MessageOutcome {
        // boringtun would panic if the buffer were too short.
        let (Some(kind), true) = (get_u32_le(message, 0), buffer.len() >= message.len().max(256)) else {
            return MessageOutcome::Rejected;
        };
        let receiver =
            if kind == INITIATION { None } else { get_u32_le(message, if kind == RESPONSE { 8 } else { 4 }) };
        let index = receiver.map(|receiver| receiver >> 8);
        let is_previous = self.previous.as_ref().is_some_and(|(previous, _)| Some(previous.index) == index);
        if is_previous && kind != DATA
            || kind == DATA && get_u64_le(message, 8).is_none_or(|counter| counter >= COUNTER_LIMIT)
        {
            return MessageOutcome::Rejected;
        }
        let state =
            if is_previous { self.previous.as_mut().map(|(previous, _)| previous) } else { self.current.as_mut() };
        let Some(state) = state.filter(|state| index.is_none_or(|index| index == state.index)) else {
            return MessageOutcome::Rejected;
        };
        let outcome = match state.tunn.decapsulate(Some(from), message, buffer) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                MessageOutcome::Packet(packet.len())
            }
            TunnResult::WriteToNetwork(reply) => MessageOutcome::Reply(reply.len()),
            TunnResult::Done => MessageOutcome::Accepted,
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => return self.old_initiation(times.0),
            TunnResult::Err(_) => return MessageOutcome::Rejected,
        };
        match kind {
            // The handshake completes when the initiator uses the session of the response, which has this sender index.
            INITIATION => {
                self.unconfirmed = get_u32_le(buffer, 4);
                (self.last_initiation, self.has_old_clock) = (Some(times.0), false);
            }
            RESPONSE => self.complete_handshake(times),
            DATA if receiver.is_some() && receiver == self.unconfirmed => self.complete_handshake(times),
            _ => {}
        }
        self.last_activity = Some(times.0);
        outcome
    }

    fn old_initiation(&mut self, now: Instant) -> MessageOutcome {
        if self.last_initiation.is_some_and(|last| now.duration_since(last) < COPY_WITHIN) {
            return MessageOutcome::Rejected;
        }
        self.has_old_clock = true;
        MessageOutcome::Old
    }

    /// Records that a handshake completed; the previous state then only receives messages in flight.
    fn complete_handshake(&mut self, times: (Instant, SystemTime)) {
        let (now, wall_clock) = times;
        (self.unconfirmed, self.has_old_clock) = (None, false);
        self.last_handshake = Some(wall_clock);
        if let Some((_, expires)) = &mut self.previous {
            *expires = (*expires).min(now + PREVIOUS_GRACE);
        }
    }

    /// Whether this is the index of a session that the peer has not used yet.
    pub(super) fn is_unconfirmed(&self, receiver: u32) -> bool {
        self.unconfirmed == Some(receiver)
    }

    /// Encrypts the next packet that was queued for a session into `buffer`, and returns the length of the message.
    pub(super) fn next_queued(&mut self, buffer: &mut [u8]) -> Option<usize> {
        message_length(&self.current.as_mut()?.tunn.decapsulate(None, &[], buffer))
    }

    pub(super) fn count_received(&mut self, bytes: usize) {
        self.rx_bytes = self.rx_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn count_sent(&mut self, bytes: usize, now: Instant) {
        self.tx_bytes = self.tx_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.last_activity = Some(now);
    }

    /// Runs the timers of the sessions and the keepalive, and returns the length of a message in `buffer` to send. Must
    /// be called each second, because boringtun's clock advances only here.
    pub(super) fn run_timers(&mut self, buffer: &mut [u8], now: Instant) -> Option<usize> {
        if let Some((previous, _)) = &mut self.previous {
            // The previous state initiates no handshakes.
            if let TunnResult::WriteToNetwork(message) = previous.tunn.update_timers(buffer)
                && get_u32_le(message, 0) == Some(DATA)
            {
                return Some(message.len());
            }
        }
        let interval = Duration::from_secs(self.keepalive.into());
        let is_keepalive_due = self.keepalive > 0
            && self.endpoint.is_some()
            && self.last_activity.is_none_or(|last| now.duration_since(last) >= interval);
        let state = self.current.as_mut()?;
        if let TunnResult::WriteToNetwork(message) = state.tunn.update_timers(buffer) {
            return Some(message.len());
        }
        let must_replace_previous = self.previous.is_some() && self.endpoint.is_some();
        if !state.has_session() && (is_keepalive_due || must_replace_previous) {
            self.last_activity = Some(now);
            return self.initiate(buffer);
        }
        if is_keepalive_due {
            self.last_activity = Some(now);
            return self.encrypt(&[], buffer);
        }
        None
    }

    /// Drops the previous state if it has expired, and returns its index.
    pub(super) fn expire_previous(&mut self, now: Instant) -> Option<u32> {
        self.previous.take_if(|(_, expires)| *expires <= now).map(|(dropped, _)| dropped.index)
    }
}

fn message_length(result: &TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message.len()),
        TunnResult::Done | TunnResult::Err(_) | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            None
        }
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
