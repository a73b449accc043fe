//! Proves that the mesh works: sends probes through the tunnel to each peer, and publishes the peers that no full-size
//! packet passes to and back, with the likely cause.
//!
//! - [`peer`]: what to send when, and what it proves; `check`: the same for one size; [`packet`]: the probes; `cause`:
//!   the texts. All pure.
//! - `socket`: the raw sockets
//!
//! Peers with NICs of the overlays that this node has NICs of are watched: a break of up to a hundred of them is found
//! within two seconds, and within two intervals of [`peer`] if there are more. The other peers are probed less often if
//! the mesh is large. A path that has become too narrow is found as fast while there is traffic or the kernel notifies
//! of a change, otherwise within a minute.

mod cause;
mod check;
mod packet;
mod peer;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use otherix_runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(super) use self::cause::UNPROVEN;
use self::cause::{Narrowness, Silence};
use self::packet::Message;
use self::peer::{PeerProbes, Schedule, Verdict};
use self::socket::{Receiver, Sender};
use super::faults::Faults;
use super::reconcile::PassInputs;
use crate::model::mesh::{DesiredMeshDevice, DesiredPeer};

/// Shortest interval of searches for peers whose probes are due.
const SEARCH_INTERVAL: Duration = Duration::from_millis(20);

/// Searches in the shortest interval of probes: a search takes as long as some probes if there are many peers, and
/// several probes at once wake the processes of both nodes less often.
const SEARCHES_PER_INTERVAL: u32 = 50;

/// Most peers that are sent probes after one search, so that a thousand do not arrive at the same time.
const PEERS_PER_SEARCH: usize = 64;

/// Shortest interval of checks of all peers because of changes that the kernel notified of.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// More bytes than this between two readings of the counters, besides probes, are traffic: less than a full-size
/// packet, but more than a handshake.
const BUSY_BYTES: i64 = 1_000;

/// What WireGuard adds to a packet, in bytes, without the headers of UDP and IP, which the counters do not contain.
const COUNTED_OVERHEAD: u64 = 32;

/// What the device knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerState {
    /// Where its last packet came from, or the configured endpoint.
    pub(super) endpoint: Option<SocketAddr>,
    /// The last handshake is recent.
    pub(super) is_established: bool,
    /// Its handshakes state an earlier time than one before.
    pub(super) has_old_clock: bool,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

/// The peers by their mesh address, as read in the last pass.
pub(super) type PeerStates = Arc<BTreeMap<Ipv4Addr, PeerState>>;

/// The channels of a [`Prober`].
pub(super) struct ProberChannels {
    pub(super) inputs: watch::Receiver<PassInputs>,
    pub(super) states: watch::Receiver<PeerStates>,
    pub(super) faults: Arc<watch::Sender<Faults>>,
    /// The peers that no packet passes to and back.
    pub(super) silent: watch::Sender<BTreeSet<Ipv4Addr>>,
}

/// UDP ports of this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortsOfNode {
    pub(super) mesh: u16,
    /// That of VXLAN, which must be the same on all nodes.
    pub(super) vxlan: u16,
}

/// Sends probes to the peers.
pub(super) struct Prober {
    channels: ProberChannels,
    ports: PortsOfNode,
    own: Ipv4Addr,
    desired: Option<Arc<DesiredMeshDevice>>,
    /// The peers that packets of overlays may pass to.
    watched: Arc<BTreeSet<Ipv4Addr>>,
    peers: BTreeMap<Ipv4Addr, Peer>,
    /// The peers whose verdict may have changed.
    touched: Vec<Ipv4Addr>,
    search_interval: Duration,
    sender: io::Result<Sender>,
    receiver: Option<Receiver>,
    /// The number of notifications that was last acted on.
    changes: u64,
    /// When all peers may be checked next because of a notification.
    recheck_after: Instant,
    /// A notification has not been acted on yet.
    must_recheck: bool,
    /// A fault has changed since the last were published.
    is_changed: bool,
    /// When the next search is due.
    search_at: Instant,
    runtime: Arc<dyn Runtime>,
}

struct Peer {
    endpoint: SocketAddrV4,
    is_watched: bool,
    schedule: Schedule,
    probes: PeerProbes,
    /// The last verdict that was not [`Verdict::Open`].
    verdict: Verdict,
    /// The published fault.
    fault: Option<String>,
    send_error: Option<String>,
    state: Option<PeerState>,
    /// Its UDP port of VXLAN, if it has stated one.
    vxlan_port: Option<u16>,
    /// Bytes of probes and their replies since the counters were last read, in both directions.
    probe_bytes: u64,
    /// Bytes of probes that the counters did not contain yet when they were last read.
    uncounted: i64,
    /// Bytes have arrived between the last two readings of the counters.
    receives: bool,
}

impl Prober {
    pub(super) fn new(channels: ProberChannels, ports: PortsOfNode, runtime: Arc<dyn Runtime>) -> Self {
        let now = Instant::now();
        Self {
            channels,
            ports,
            own: Ipv4Addr::UNSPECIFIED,
            desired: None,
            watched: Arc::default(),
            peers: BTreeMap::new(),
            touched: Vec::new(),
            search_interval: SEARCH_INTERVAL,
            sender: Sender::open(),
            receiver: None,
            changes: 0,
            recheck_after: now,
            must_recheck: false,
            is_changed: false,
            search_at: now,
            runtime,
        }
    }

    /// Runs until the senders of its inputs are dropped.
    pub(super) async fn run(mut self) {
        if let Err(error) = &self.sender {
            tracing::error!(%error, "cannot open a raw socket: the mesh cannot be proven to work");
        }
        loop {
            let readable = async {
                match &self.receiver {
                    Some(receiver) => receiver.readable().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.channels.inputs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.inputs_changed();
                }
                changed = self.channels.states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.states_changed();
                }
                () = readable => {}
                () = sleep_until(self.search_at) => {}
            }
            let now = Instant::now();
            // What has arrived counts, however late this task runs.
            self.receive(now);
            if now >= self.search_at {
                self.search(now);
            }
            self.publish(now);
        }
    }

    fn inputs_changed(&mut self) {
        let now = Instant::now();
        let PassInputs { desired, watched, has_left, is_current: _, index: _, needed: _, changes } =
            self.channels.inputs.borrow_and_update().clone();
        let desired = desired.filter(|_| !has_left);
        if (&self.desired, &self.watched) != (&desired, &watched) {
            (self.desired, self.watched) = (desired, watched);
            self.peers_changed(now);
        }
        self.renew_receiver();
        self.must_recheck |= self.changes != changes;
        self.changes = changes;
        self.search_at = now;
    }

    fn peers_changed(&mut self, now: Instant) {
        self.is_changed = true;
        let Some(desired) = &self.desired else {
            self.peers.clear();
            return;
        };
        let DesiredMeshDevice { address, mtu, peers, .. } = desired.as_ref();
        let full_size = u16::try_from(*mtu).unwrap_or(u16::MAX);
        let watched = peers.values().filter(|peer| self.watched.contains(&peer.address)).count();
        let schedules = [Schedule::unwatched(peers.len(), full_size), Schedule::watched(watched, full_size)];
        let [unwatched, of_watched] = schedules.each_ref().map(|schedule| schedule.interval);
        let shortest = if watched == 0 { unwatched } else { unwatched.min(of_watched) };
        self.search_interval = SEARCH_INTERVAL.max(shortest / SEARCHES_PER_INTERVAL);
        if self.own != *address {
            self.peers.clear();
            self.own = *address;
        }
        let mut before = std::mem::take(&mut self.peers);
        let faults = self.channels.faults.borrow();
        for DesiredPeer { node: _, address, endpoint } in peers.values() {
            let is_watched = self.watched.contains(address);
            let [unwatched, watched] = schedules;
            let schedule = if is_watched { watched } else { unwatched };
            let new = || Peer {
                endpoint: endpoint.socket_addr(),
                is_watched,
                schedule,
                probes: PeerProbes::new(self.own, *address, now),
                verdict: Verdict::Open,
                fault: faults.unproven.get(address).cloned(),
                send_error: None,
                state: None,
                vxlan_port: None,
                probe_bytes: 0,
                uncounted: 0,
                receives: false,
            };
            let mut peer = before.remove(address).unwrap_or_else(new);
            if is_watched && !peer.is_watched {
                peer.probes.recheck(now);
            }
            (peer.endpoint, peer.is_watched, peer.schedule) = (endpoint.socket_addr(), is_watched, schedule);
            self.peers.insert(*address, peer);
        }
    }

    fn renew_receiver(&mut self) {
        let is_new = self.receiver.is_none();
        // Without a mesh device there is nothing to receive.
        self.receiver = Receiver::renewed(self.receiver.take()).ok();
        if is_new && self.receiver.is_some() {
            let now = Instant::now();
            self.peers.values_mut().for_each(|peer| peer.probes.recheck(now));
        }
    }

    /// Applies the counters of the device.
    fn states_changed(&mut self) {
        let now = Instant::now();
        let states = Arc::clone(&self.channels.states.borrow_and_update());
        self.renew_receiver();
        // All probes that the counters contain are counted as such before.
        self.receive(now);
        for (address, peer) in &mut self.peers {
            let before = std::mem::replace(&mut peer.state, states.get(address).copied());
            let probes = std::mem::take(&mut peer.probe_bytes);
            if let (Some(before), Some(state)) = (before, peer.state) {
                let received = state.rx_bytes.saturating_sub(before.rx_bytes);
                let sent = state.tx_bytes.saturating_sub(before.tx_bytes);
                peer.receives = received > 0;
                let others = i64::try_from(received + sent).unwrap_or(i64::MAX) - i64::try_from(probes).unwrap_or(0);
                if others - peer.uncounted > BUSY_BYTES {
                    peer.probes.is_busy(now);
                }
                peer.uncounted = (-others).max(0);
            }
            if peer.fault.is_some() {
                self.is_changed |= peer.update_fault(self.ports, now);
            }
        }
        self.search_at = now;
    }

    fn receive(&mut self, now: Instant) {
        for received in self.receiver.iter_mut().flat_map(Receiver::drain) {
            let Some(peer) = self.peers.get_mut(&received.from) else { continue };
            peer.count(received.size, matches!(received.message, Message::Request(..)));
            if let Message::Request(_, Some(port)) = received.message {
                let is_new = peer.vxlan_port.replace(port) != Some(port);
                if port != self.ports.vxlan {
                    peer.probes.inform(now);
                }
                self.is_changed |= is_new && peer.update_fault(self.ports, now);
            }
            peer.probes.receive(received, now, peer.schedule);
            self.search_at = self.search_at.min(peer.probes.due().max(now + SEARCH_INTERVAL));
            self.touched.push(received.from);
        }
    }

    /// Sends the probes that are due.
    fn search(&mut self, now: Instant) {
        if self.must_recheck && now >= self.recheck_after {
            (self.must_recheck, self.recheck_after) =
                (false, now + RECHECK_INTERVAL.max(self.search_interval * SEARCHES_PER_INTERVAL));
            self.peers.values_mut().for_each(|peer| peer.probes.recheck(now));
        }
        let due: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.probes.due() <= now).map(|(of, _)| *of).collect();
        for address in due.into_iter().take(PEERS_PER_SEARCH) {
            let Some(peer) = self.peers.get_mut(&address) else { continue };
            let probes = peer.probes.step(now, peer.schedule, &mut || self.runtime.random_u64());
            self.touched.push(address);
            // The route to a peer that no guest's packets pass to is looked up now and then.
            if !probes.is_empty() && (peer.is_watched || probes.len() > 1 || peer.send_error.is_some()) {
                peer.send_error = socket::misrouted(self.own, address, peer.schedule.full_size);
            }
            if peer.send_error.is_some() {
                continue;
            }
            for probe in probes {
                let bytes = packet::encode(probe.size, probe.token, probe.flags, self.ports.vxlan);
                let sent = match &self.sender {
                    Ok(sender) => sender.send(&bytes, self.own, address).map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                peer.count(probe.size, false);
                peer.send_error = sent.err();
            }
        }
        let recheck = self.must_recheck.then_some(self.recheck_after);
        let next = self.peers.values().map(|peer| peer.probes.due()).chain(recheck).min();
        self.search_at = next.unwrap_or(now + RECHECK_INTERVAL).max(now + self.search_interval);
    }

    /// Publishes the peers that are not proven, if they have changed.
    fn publish(&mut self, now: Instant) {
        for address in self.touched.drain(..) {
            let Some(peer) = self.peers.get_mut(&address) else { continue };
            let verdict = peer.probes.verdict();
            if verdict != Verdict::Open && verdict != peer.verdict {
                peer.verdict = verdict;
                self.is_changed |= peer.update_fault(self.ports, now);
            }
        }
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let with_fault = self.peers.iter().filter_map(|(address, peer)| Some((*address, peer.fault.clone()?)));
        let mut unproven: BTreeMap<_, _> = with_fault.collect();
        let inputs = self.channels.inputs.borrow();
        let is_next = |address: &Ipv4Addr| {
            let mut peers = inputs.desired.iter().flat_map(|desired| desired.peers.values());
            !self.peers.contains_key(address) && peers.any(|peer| peer.address == *address)
        };
        self.channels.faults.send_if_modified(|faults| {
            // This task will know them soon.
            let next = faults.unproven.iter().filter(|(address, _)| is_next(address));
            unproven.extend(next.map(|(address, fault)| (*address, fault.clone())));
            if faults.unproven == unproven {
                return false;
            }
            log(&faults.unproven, &unproven);
            faults.unproven = unproven;
            true
        });
        drop(inputs);
        let silent = self.peers.iter().filter(|(_, peer)| peer.verdict == Verdict::Silent);
        let silent: BTreeSet<_> = silent.map(|(address, _)| *address).collect();
        self.channels.silent.send_if_modified(|before| std::mem::replace(before, silent.clone()) != silent);
    }
}

/// Logs the first fault, and its end. Those of further nodes are in the statuses of networks.
fn log(before: &BTreeMap<Ipv4Addr, String>, after: &BTreeMap<Ipv4Addr, String>) {
    match (before.is_empty(), after.first_key_value()) {
        (true, Some((node, fault))) => {
            tracing::warn!(%node, fault, nodes = after.len(), "the mesh does not reach a node");
        }
        (false, None) => tracing::info!("the mesh reaches all nodes again"),
        (true, None) | (false, Some(_)) => {}
    }
}

impl Peer {
    /// Counts a probe that was sent, or one that was received and answered, or a reply.
    fn count(&mut self, size: u16, is_answered: bool) {
        let bytes = u64::from(size) + COUNTED_OVERHEAD;
        self.probe_bytes += if is_answered { 2 * bytes } else { bytes };
    }

    /// Determines the fault by the last verdict. Returns whether it is another.
    fn update_fault(&mut self, ports: PortsOfNode, now: Instant) -> bool {
        let Self { endpoint, state, .. } = *self;
        let fault = match self.verdict {
            Verdict::Open => return false,
            Verdict::Proven => {
                let other = self.vxlan_port.filter(|port| *port != ports.vxlan);
                other.map(|other| cause::vxlan_ports(ports.vxlan, other))
            }
            Verdict::Unmeasured => Some(cause::unmeasured(endpoint, state, self.schedule.full_size)),
            Verdict::Narrow { largest } => Some(cause::narrow(&Narrowness {
                endpoint,
                state,
                largest,
                full_size: self.schedule.full_size,
                link_mtu: underlay_mtu(endpoint).ok(),
            })),
            Verdict::Silent => Some(cause::silence(&Silence {
                endpoint,
                port: ports.mesh,
                state,
                is_heard: self.receives || self.probes.is_heard(now),
                send_error: self.send_error.as_deref(),
                route_error: underlay_mtu(endpoint).err().map(|error| error.to_string()),
            })),
        };
        let is_changed = self.fault != fault;
        self.fault = fault;
        is_changed
    }
}

/// Returns the MTU of the link through which the kernel sends to an endpoint, or of the path if it is known to be less.
/// Sends nothing.
fn underlay_mtu(endpoint: SocketAddrV4) -> io::Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(endpoint)?;
    Ok(u16::try_from(getsockopt(&socket, sockopt::IpMtu)?).unwrap_or(u16::MAX))
}
