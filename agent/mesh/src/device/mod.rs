//! The mesh device: moves packets between the TUN device and the UDP sockets, through the sessions of the peers. Never
//! blocks: [`crate::event_loop`] calls its methods on events, and each does a bounded amount of work.
//!
//! - [`outbound`]: packets from the TUN device, encrypted and sent to the peer that has the destination address
//! - [`inbound`]: messages from the UDP sockets, decrypted and written to the TUN device if the peer has the source
//!   address
//! - [`timers`]: handshakes, keepalives and expiry
//! - [`apply`]: updates from the local socket, and the status

mod apply;
mod inbound;
mod outbound;
mod timers;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::rate_limiter::RateLimiter;

use super::allowed_ips::AllowedIps;
use super::error::MeshRunError;
use super::handshake_limit::HandshakeLimiter;
use super::packet::merge::Merger;
use super::packet::virtio;
use super::peer::LocalKey;
use super::peer_table::{PeerId, PeerTable};
use super::send_queue::SendQueue;
use super::tun::{Offload, Tun, TunError, is_deleted};
use super::udp::UdpSockets;

/// Reads from one descriptor per event, so that both directions make progress.
const READS_PER_EVENT: usize = 16;

/// Maximum length of a packet or message in bytes, rounded up.
const PACKET_MAX: usize = 65_536;

/// Interval of attempts to create a TUN device that was deleted.
const RECREATE_INTERVAL: Duration = Duration::from_secs(1);

/// How the TUN device is opened.
#[derive(Clone, Debug)]
pub(super) struct TunSettings {
    pub(super) name: String,
    pub(super) mtu: u16,
    pub(super) offload: Offload,
    pub(super) alias: Option<String>,
}

impl TunSettings {
    fn open(&self) -> Result<Tun, TunError> {
        let Self { name, mtu, offload, alias } = self;
        Tun::open(name, *mtu, *offload, alias.as_deref())
    }
}

pub(super) struct MeshDevice {
    tun_settings: TunSettings,
    /// `None` after the device was deleted, until it is created again.
    tun: Option<Tun>,
    /// The time of the next attempt to create it.
    recreate_at: Instant,
    sockets: UdpSockets,
    fwmark: u32,
    local_key: Option<LocalKey>,
    /// Verifies the MACs of handshakes and requires cookies under load.
    rate_limiter: Option<RateLimiter>,
    /// The number of changes of the private key.
    key_generation: u64,
    handshake_limiter: HandshakeLimiter,
    peers: PeerTable,
    allowed_ips: AllowedIps<PeerId>,
    merger: Merger,
    send_queue: SendQueue,
    packet_buffer: Vec<u8>,
    receive_buffer: Vec<u8>,
    scratch: Vec<u8>,
    now: Instant,
    wall_clock: SystemTime,
    /// The next slot of the current timer round; `None` between rounds.
    timer_slot: Option<usize>,
    next_round: Instant,
}

impl MeshDevice {
    pub(super) fn new(tun_settings: TunSettings, port: u16) -> Result<Self, MeshRunError> {
        let tun = tun_settings.open()?;
        let sockets = UdpSockets::bind(port).map_err(|source| MeshRunError::Bind { port, source })?;
        let now = Instant::now();
        let merger = Merger::new(tun.offload().support());
        Ok(Self {
            tun_settings,
            tun: Some(tun),
            recreate_at: now,
            sockets,
            fwmark: 0,
            local_key: None,
            rate_limiter: None,
            key_generation: 0,
            handshake_limiter: HandshakeLimiter::new(now),
            peers: PeerTable::default(),
            allowed_ips: AllowedIps::new(),
            merger,
            send_queue: SendQueue::new(),
            packet_buffer: vec![0; virtio::HEADER_LEN + PACKET_MAX],
            receive_buffer: vec![0; PACKET_MAX],
            scratch: vec![0; 2 * PACKET_MAX],
            now,
            wall_clock: SystemTime::now(),
            timer_slot: None,
            next_round: now,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.sockets.port()
    }

    pub(super) fn offload(&self) -> Option<Offload> {
        self.tun.as_ref().map(Tun::offload)
    }

    /// The descriptor of the TUN device, unless it was deleted or messages wait for space in a send buffer.
    pub(super) fn readable_tun(&self) -> Option<BorrowedFd<'_>> {
        self.tun.as_ref().filter(|_| !self.is_blocked()).map(AsFd::as_fd)
    }

    /// The descriptors of the IPv4 and the IPv6 socket.
    pub(super) fn sockets(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.sockets.v4.as_fd(), self.sockets.v6.as_ref().map(AsFd::as_fd))
    }

    /// Whether messages wait for space in a send buffer.
    pub(super) fn is_blocked(&self) -> bool {
        self.send_queue.is_blocked()
    }

    /// Sends messages that waited for space in a send buffer.
    pub(super) fn resume_sending(&mut self) {
        self.send_queue.resume(&mut self.sockets);
    }

    /// Sets the current time. Must be called after each wait.
    pub(super) fn set_time(&mut self, now: Instant, wall_clock: SystemTime) {
        (self.now, self.wall_clock) = (now, wall_clock);
    }

    /// Creates the TUN device again if it was deleted.
    fn recreate_tun(&mut self) {
        if self.tun.is_some() || self.now < self.recreate_at {
            return;
        }
        let name = &self.tun_settings.name;
        match self.tun_settings.open() {
            Ok(tun) => {
                tracing::warn!("created device {name} again after it was deleted");
                self.merger = Merger::new(tun.offload().support());
                self.tun = Some(tun);
            }
            Err(error) => {
                tracing::debug!("device {name} was deleted and cannot be created: {error}");
                self.recreate_at = self.now + RECREATE_INTERVAL;
            }
        }
    }

    /// Finds out whether the TUN device was deleted. Called when polling reports an error.
    pub(super) fn check_tun(&mut self) {
        let read = self.tun.as_ref().map(|tun| tun.read(&mut self.packet_buffer));
        if matches!(read, Some(Err(error)) if is_deleted(&error)) {
            self.close_tun();
        }
    }

    fn close_tun(&mut self) {
        (self.tun, self.recreate_at) = (None, self.now);
    }

    /// Sends the first `length` bytes of `scratch` to a peer. They are dropped if the send buffer is full.
    fn send_scratch(&mut self, id: PeerId, length: usize) {
        let Some(peer) = self.peers.get(id) else { return };
        let (Some(to), Some(message)) = (peer.endpoint, self.scratch.get(..length)) else { return };
        peer.count_sent(length, self.now);
        send_message(&mut self.sockets, message, to);
    }
}

fn send_message(sockets: &mut UdpSockets, message: &[u8], to: SocketAddr) {
    let Some(socket) = sockets.for_address(to) else { return };
    if let (_, Err(error)) = socket.send(message, message.len(), to) {
        tracing::debug!("cannot send a message to {to}: {error}");
    }
}
