//! One peer: its sessions, where it is, what it has sent and received. Owns what `boringtun::noise` must be told and must not;
//! never sends, receives or reads a clock itself.
//!
//! A new key or preshared key needs new handshake state. The old one then goes on, in both directions, until the new
//! one has a session: nothing is lost meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};

use super::config::WgPeerStatus;
use super::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use super::packet::{get_u32_le, get_u64_le};
use super::prefix::Prefix;

/// Kinds of messages, the first four bytes of each.
pub(super) const INITIATION: u32 = 1;
pub(super) const RESPONSE: u32 = 2;
pub(super) const COOKIE: u32 = 3;
pub(super) const DATA: u32 = 4;

/// Counters from here on are not to be used (`REJECT_AFTER_MESSAGES`, 2^64 - 2^13 - 1); boringtun does not look.
const LAST_COUNTER: u64 = u64::MAX - (1 << 13);

/// How long the old state goes on at most: as long as a session may live.
const OLD_LIFE: Duration = Duration::from_secs(180);
/// How long it goes on when the new one has a session: for messages on their way.
const OLD_REST: Duration = Duration::from_secs(10);

/// The device's own key and what follows from it.
pub(super) struct Own {
    pub(super) private: WgPrivateKey,
    pub(super) public: WgPublicKey,
    /// Counts with every change of the key.
    pub(super) generation: u64,
    /// Lets everything in: the device has looked at handshakes before a peer sees them (asked twice it would count twice).
    open: Arc<RateLimiter>,
}

impl Own {
    pub(super) fn new(private: WgPrivateKey, generation: u64) -> Self {
        let public = private.public();
        let open = Arc::new(RateLimiter::new(&public.point(), u64::MAX));
        Self { private, public, generation, open }
    }
}

/// State of handshakes and sessions.
struct Noise {
    tunn: Tunn,
    /// Whose messages it gets: their receiver index, but for its last byte.
    index: u32,
    /// The key's generation that it was made with.
    generation: u64,
}

impl Noise {
    fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }
}

pub(super) struct Peer {
    pub(super) key: WgPublicKey,
    preshared: Option<WgPresharedKey>,
    now: Option<Noise>,
    old: Option<(Noise, Instant)>,
    /// The preshared key has changed since `now` was made.
    stale: bool,
    pub(super) endpoint: Option<SocketAddr>,
    keepalive: u16,
    /// When an authentic message last passed, in either direction; `None` if something is to be sent at once.
    passed: Option<Instant>,
    /// The session that the peer has been answered for and not yet used.
    unconfirmed: Option<u32>,
    last_handshake: Option<SystemTime>,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// A packet of so many bytes, at the beginning of the room.
    Packet(usize),
    /// A message of so many bytes to answer with, at the beginning of the room.
    Reply(usize),
    /// Authentic, and nothing more to do.
    Done,
    /// Not authentic, a repetition, or of no use.
    Refused,
}

impl Peer {
    pub(super) const fn new(key: WgPublicKey) -> Self {
        Self {
            key,
            preshared: None,
            now: None,
            old: None,
            stale: false,
            endpoint: None,
            keepalive: 0,
            passed: None,
            unconfirmed: None,
            last_handshake: None,
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
        }
    }

    pub(super) fn set_preshared(&mut self, key: Option<WgPresharedKey>) {
        if self.preshared != key {
            (self.preshared, self.stale) = (key, true);
        }
    }

    pub(super) const fn set_keepalive(&mut self, seconds: u16) {
        if self.keepalive == 0 && seconds > 0 {
            self.passed = None;
        }
        self.keepalive = seconds;
    }

    /// The indices of its states.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.now.iter().chain(self.old.iter().map(|(old, _)| old)).map(|noise| noise.index)
    }

    /// Whether new handshake state is to be made.
    pub(super) fn wants_state(&self, own: &Own) -> bool {
        self.stale || self.now.as_ref().is_none_or(|noise| noise.generation != own.generation)
    }

    /// Makes new handshake state, which costs about a hundred microseconds, and gives the index of state that has gone.
    pub(super) fn make_state(&mut self, own: &Own, index: u32, now: Instant) -> Option<u32> {
        let preshared = self.preshared.as_ref().map(|key| *key.as_bytes());
        let limiter = Some(Arc::clone(&own.open));
        // Keepalives are the device's: a Tunn cannot be told of another interval.
        let tunn = Tunn::new(own.private.scalar(), self.key.point(), preshared, None, index, limiter);
        let before = self.now.replace(Noise { tunn, index, generation: own.generation });
        self.stale = false;
        let unconfirmed = self.unconfirmed.take();
        match before {
            // What has a session goes on with it; an even older one has gone on long enough.
            Some(before) if before.has_session() || unconfirmed.is_some() => {
                self.old.replace((before, now + OLD_LIFE)).map(|(gone, _)| gone.index)
            }
            Some(before) => Some(before.index),
            None => None,
        }
    }

    /// Without a key there are no sessions. Gives the indices that have gone.
    pub(super) fn drop_state(&mut self) -> Vec<u32> {
        let gone = self.indices().collect();
        (self.now, self.old, self.unconfirmed) = (None, None, None);
        gone
    }

    /// The state that is used for sending: the new one, unless it has no session yet and the old one has.
    fn sender(&mut self) -> Option<&mut Tunn> {
        if let (Some(now), Some((old, _))) = (&self.now, &self.old)
            && !now.has_session()
            && old.has_session()
        {
            return self.old.as_mut().map(|(old, _)| &mut old.tunn);
        }
        self.now.as_mut().map(|now| &mut now.tunn)
    }

    /// Encrypts a packet: a message of so many bytes, at the beginning of the room. Without a session the packet waits,
    /// and the message, if there is one, is an initiation.
    pub(super) fn seal(&mut self, packet: &[u8], room: &mut [u8]) -> Option<usize> {
        if room.len() < packet.len() + 32 || room.len() < 148 {
            return None; // boringtun would panic
        }
        written(&self.sender()?.encapsulate(packet, room))
    }

    /// Initiates a handshake, unless one is under way.
    pub(super) fn initiate(&mut self, room: &mut [u8]) -> Option<usize> {
        written(&self.now.as_mut()?.tunn.format_handshake_initiation(room, false))
    }

    /// Takes a message apart. The room must have as many bytes as the longest message, or boringtun panics.
    pub(super) fn open(
        &mut self,
        from: IpAddr,
        message: &[u8],
        room: &mut [u8],
        times: (Instant, SystemTime),
    ) -> Opened {
        let (Some(kind), true) = (get_u32_le(message, 0), room.len() >= message.len().max(256)) else {
            return Opened::Refused;
        };
        let receiver =
            if kind == INITIATION { None } else { get_u32_le(message, if kind == RESPONSE { 8 } else { 4 }) };
        let index = receiver.map(|receiver| receiver >> 8);
        let is_old = self.old.as_ref().is_some_and(|(old, _)| Some(old.index) == index);
        if is_old && kind != DATA
            || kind == DATA && get_u64_le(message, 8).is_none_or(|counter| counter >= LAST_COUNTER)
        {
            return Opened::Refused;
        }
        let noise = if is_old { self.old.as_mut().map(|(old, _)| old) } else { self.now.as_mut() };
        let Some(noise) = noise.filter(|noise| index.is_none_or(|index| index == noise.index)) else {
            return Opened::Refused;
        };
        let opened = match noise.tunn.decapsulate(Some(from), message, room) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::WriteToNetwork(reply) => Opened::Reply(reply.len()),
            TunnResult::Done => Opened::Done,
            TunnResult::Err(_) => return Opened::Refused,
        };
        match kind {
            // Answered: whoever sent it must first show that it understands the answer, in the session of this index.
            INITIATION => self.unconfirmed = get_u32_le(room, 4),
            RESPONSE => self.establish(times),
            DATA if receiver.is_some() && receiver == self.unconfirmed => self.establish(times),
            _ => {}
        }
        self.passed = Some(times.0);
        opened
    }

    /// Notes that a handshake is complete, and that the old state has only messages on their way to wait for.
    fn establish(&mut self, times: (Instant, SystemTime)) {
        let (now, wall) = times;
        self.unconfirmed = None;
        self.last_handshake = Some(wall);
        if let Some((_, until)) = &mut self.old {
            *until = (*until).min(now + OLD_REST);
        }
    }

    /// True from an initiation's answer until the peer has used the session.
    pub(super) fn is_unconfirmed(&self, receiver: u32) -> bool {
        self.unconfirmed == Some(receiver)
    }

    /// Encrypts a packet that has waited for a session.
    pub(super) fn next_waiting(&mut self, room: &mut [u8]) -> Option<usize> {
        written(&self.now.as_mut()?.tunn.decapsulate(None, &[], room))
    }

    pub(super) fn count_received(&mut self, bytes: usize) {
        self.rx_bytes = self.rx_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn count_sent(&mut self, bytes: usize, now: Instant) {
        self.tx_bytes = self.tx_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.passed = Some(now);
    }

    /// Does what time asks for; to be called a few times a second, for boringtun's clock moves only here. A message to be
    /// sent is at the beginning of the room, so many bytes long.
    pub(super) fn tick(&mut self, room: &mut [u8], now: Instant) -> Option<usize> {
        if let Some((old, _)) = &mut self.old {
            // It keeps what it has; new sessions are the new state's.
            if let TunnResult::WriteToNetwork(message) = old.tunn.update_timers(room)
                && get_u32_le(message, 0) == Some(DATA)
            {
                return Some(message.len());
            }
        }
        let due = self.keepalive > 0
            && self.endpoint.is_some()
            && self
                .passed
                .is_none_or(|passed| now.duration_since(passed) >= Duration::from_secs(self.keepalive.into()));
        let state = self.now.as_mut()?;
        if let TunnResult::WriteToNetwork(message) = state.tunn.update_timers(room) {
            return Some(message.len());
        }
        let old_serves = self.old.is_some() && self.endpoint.is_some();
        if !state.has_session() && (due || old_serves) {
            self.passed = Some(now);
            return self.initiate(room);
        }
        if due {
            self.passed = Some(now);
            return self.seal(&[], room);
        }
        None
    }

    /// Drops old state whose time has come; gives its index.
    pub(super) fn retire(&mut self, now: Instant) -> Option<u32> {
        self.old.take_if(|(_, until)| *until <= now).map(|(gone, _)| gone.index)
    }
}

fn written(result: &TunnResult<'_>) -> Option<usize> {
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
