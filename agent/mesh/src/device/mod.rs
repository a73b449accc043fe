//! The device: packets between the TUN end and the UDP sockets, by way of the peers' sessions. Owns them all; never waits: its
//! parts are called when there is something to do (see [`super::run`]), each does a bounded amount of it.
//!
//! - [`outbound`]: packets from the TUN device, encrypted, to the peer whose address it is
//! - [`inbound`]: messages from the wire, decrypted, to the TUN device, if the sender's address is the peer's
//! - [`timers`]: what time asks for
//! - [`apply`]: changes from the local socket, and what the device tells of itself

mod apply;
mod inbound;
mod outbound;
mod timers;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::rate_limiter::RateLimiter;

use super::allowed::AllowedIps;
use super::load::Load;
use super::outbox::Outbox;
use super::packet::merge::Merger;
use super::packet::virtio;
use super::peer::Own;
use super::system::tun::{Offload, Tun, TunError, is_gone};
use super::system::udp::Sockets;
use super::table::{PeerId, Table};

/// Most reads in a row of one kind, so that both ways have their turn.
const READS: usize = 16;
/// Longest packet, and longest message.
const LONGEST: usize = 65_536;
/// How often a device that has gone is made again.
const REMAKE: Duration = Duration::from_secs(1);

/// What the TUN device is to be.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) mtu: u16,
    pub(super) offload: Offload,
    pub(super) alias: Option<String>,
}

impl Interface {
    fn open(&self) -> Result<Tun, TunError> {
        let Self { name, mtu, offload, alias } = self;
        Tun::open(name, *mtu, *offload, alias.as_deref())
    }
}

pub(super) struct Device {
    interface: Interface,
    tun: Option<Tun>,
    /// When it is made again, while it has gone.
    remake: Instant,
    sockets: Sockets,
    mark: u32,
    own: Option<Own>,
    /// Lets handshakes in, or asks for a cookie.
    gate: Option<RateLimiter>,
    /// Counts changes of the key.
    generation: u64,
    load: Load,
    peers: Table,
    allowed: AllowedIps<PeerId>,
    merger: Merger,
    outbox: Outbox,
    packet: Vec<u8>,
    messages: Vec<u8>,
    scratch: Vec<u8>,
    now: Instant,
    wall: SystemTime,
    /// The place that the present round of timers has come to.
    place: Option<usize>,
    next_round: Instant,
}

impl Device {
    pub(super) fn new(interface: Interface, port: u16) -> Result<Self, DeviceError> {
        let tun = interface.open()?;
        let sockets = Sockets::bind(port).map_err(|source| DeviceError::Bind { port, source })?;
        let now = Instant::now();
        let merger = Merger::new(tun.offload().takes());
        Ok(Self {
            interface,
            tun: Some(tun),
            remake: now,
            sockets,
            mark: 0,
            own: None,
            gate: None,
            generation: 0,
            load: Load::new(now),
            peers: Table::default(),
            allowed: AllowedIps::new(),
            merger,
            outbox: Outbox::new(),
            packet: vec![0; virtio::HEADER + LONGEST],
            messages: vec![0; LONGEST],
            scratch: vec![0; 2 * LONGEST],
            now,
            wall: SystemTime::now(),
            place: None,
            next_round: now,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.sockets.port()
    }

    pub(super) fn offload(&self) -> Option<Offload> {
        self.tun.as_ref().map(Tun::offload)
    }

    /// The TUN end, while there is one and what is read from it can be sent.
    pub(super) fn readable_tun(&self) -> Option<BorrowedFd<'_>> {
        self.tun.as_ref().filter(|_| !self.outbox.is_blocked()).map(AsFd::as_fd)
    }

    /// The sockets, of IPv4 and of IPv6.
    pub(super) fn sockets(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.sockets.v4.as_fd(), self.sockets.v6.as_ref().map(AsFd::as_fd))
    }

    /// Whether messages wait for room in a socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.outbox.is_blocked()
    }

    /// Sends what has waited for room.
    pub(super) fn resume(&mut self) {
        self.outbox.resume(&mut self.sockets);
    }

    /// To be told after each wait.
    pub(super) fn set_time(&mut self, now: Instant, wall: SystemTime) {
        (self.now, self.wall) = (now, wall);
    }

    /// Makes the TUN device again after somebody has removed it.
    pub(super) fn remake(&mut self) {
        if self.tun.is_some() || self.now < self.remake {
            return;
        }
        let name = &self.interface.name;
        match self.interface.open() {
            Ok(tun) => {
                tracing::warn!("the device {name} had been removed and was made again");
                self.merger = Merger::new(tun.offload().takes());
                self.tun = Some(tun);
            }
            Err(error) => {
                tracing::debug!("the device {name} has been removed and cannot be made again: {error}");
                self.remake = self.now + REMAKE;
            }
        }
    }

    /// The TUN end said that something is wrong with it.
    pub(super) fn check_tun(&mut self) {
        let probe = self.tun.as_ref().map(|tun| tun.read(&mut self.packet));
        if matches!(probe, Some(Err(error)) if is_gone(&error)) {
            self.lose_tun();
        }
    }

    fn lose_tun(&mut self) {
        (self.tun, self.remake) = (None, self.now);
    }

    /// Sends the message of this length in `scratch` to a peer. What the socket has no room for is lost.
    fn send_scratch(&mut self, id: PeerId, length: usize) {
        let Some(peer) = self.peers.get(id) else { return };
        let (Some(to), Some(message)) = (peer.endpoint, self.scratch.get(..length)) else { return };
        peer.count_sent(length, self.now);
        send_one(&mut self.sockets, message, to);
    }
}

fn send_one(sockets: &mut Sockets, message: &[u8], to: SocketAddr) {
    let Some(socket) = sockets.to(to) else { return };
    if let (_, Err(error)) = socket.send(message, message.len(), to) {
        tracing::debug!("a message to {to} was not sent: {error}");
    }
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// No UDP socket.
    #[error("cannot listen on UDP port {port}")]
    Bind {
        /// The port.
        port: u16,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
