//! The hooks that packets of a network pass on this node, with typical packets.

use std::net::Ipv4Addr;

use super::observe::Segment;
use crate::model::filter::packet::{Connection, Content, Device, Packet, Transport};
use crate::model::filter::walk::HookPoint;
use crate::model::filter::{Family, Hook};

/// The priorities from which on answers have the guest's address as destination (`NF_IP_PRI_NAT_DST`), and guests'
/// packets the node's as source (behind `NF_IP_PRI_NAT_SRC`).
const DESTINATION_NAT: i32 = -100;
const BEHIND_SOURCE_NAT: i32 = 101;

/// A port that clients use.
const CLIENT: u16 = 50_123;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What a typical packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Echo,
    Tcp,
    Udp,
    Arp,
}

/// One of several typical connections: other hosts, other ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    pub(super) guest: Option<Ipv4Addr>,
    /// A host outside, or another guest.
    pub(super) peer: Option<Ipv4Addr>,
    pub(super) tcp_port: u16,
    pub(super) udp_port: u16,
}

/// The packets of a connection, in this order; each with the hooks that it passes.
pub(super) struct Exchange {
    pub(super) request: Vec<HookPoint>,
    pub(super) reply: Vec<HookPoint>,
    /// The second packet from the same side.
    pub(super) next: Vec<HookPoint>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Request,
    Reply,
    Next,
}

/// Adds the hooks that a packet passes.
struct PacketPath {
    points: Vec<HookPoint>,
    packet: Packet,
}

impl PacketPath {
    fn new(packet: Packet) -> Self {
        Self { points: Vec::new(), packet }
    }

    fn add(&mut self, family: Family, hook: Hook, input: Option<&Device>, output: Option<&Device>) -> &mut Self {
        let packet = Packet { input: input.cloned(), output: output.cloned(), ..self.packet.clone() };
        self.points.push(HookPoint { hook, family, packet, before: None });
        self
    }

    /// Chains of a lower priority at the last hook see the packet with these addresses.
    fn before(&mut self, priority: i32, content: Content) -> &mut Self {
        if let Some(point) = self.points.last_mut() {
            point.before = Some((priority, Packet { content, ..point.packet.clone() }));
        }
        self
    }

    /// Chains from this priority on, and at later hooks, see the packet with these addresses.
    fn translate(&mut self, priority: i32, content: Content) -> &mut Self {
        let before = self.packet.content;
        self.packet.content = content;
        if let Some(point) = self.points.last_mut() {
            point.packet.content = content;
        }
        self.before(priority, before)
    }

    /// A frame is received on a port of a bridge.
    fn receive(&mut self, port: &Device) -> &mut Self {
        self.add(Family::Netdev, Hook::Ingress, Some(port), None);
        self.add(Family::Bridge, Hook::Prerouting, Some(port), None)
    }

    /// A frame is sent out of a port of a bridge.
    fn send(&mut self, input: Option<&Device>, port: &Device) -> &mut Self {
        self.add(Family::Bridge, Hook::Postrouting, input, Some(port));
        self.add(Family::Netdev, Hook::Egress, None, Some(port))
    }

    /// A frame goes from a port of the bridge to the node itself.
    fn up(&mut self, segment: &Segment) -> &mut Self {
        let Segment { bridge, ports: [port, _], .. } = segment;
        self.receive(port);
        self.add(Family::Bridge, Hook::Input, Some(port), None);
        self.add(Family::Netdev, Hook::Ingress, Some(bridge), None)
    }

    /// A frame goes from the node itself to a port of the bridge.
    fn down(&mut self, segment: &Segment) -> &mut Self {
        let Segment { bridge, ports: [port, _], .. } = segment;
        self.add(Family::Netdev, Hook::Egress, None, Some(bridge));
        self.add(Family::Bridge, Hook::Output, None, Some(port));
        self.send(None, port)
    }

    fn take(&mut self) -> Vec<HookPoint> {
        std::mem::take(&mut self.points)
    }
}

fn exchange(mut path: impl FnMut(Turn) -> Vec<HookPoint>) -> Exchange {
    Exchange { request: path(Turn::Request), reply: path(Turn::Reply), next: path(Turn::Next) }
}

impl Example {
    fn transport(&self, protocol: Protocol, turn: Turn) -> Transport {
        let ports = |port| if turn == Turn::Reply { (port, CLIENT) } else { (CLIENT, port) };
        match protocol {
            Protocol::Echo | Protocol::Arp => Transport::Echo { is_reply: turn == Turn::Reply },
            Protocol::Tcp => {
                let (source, destination) = ports(self.tcp_port);
                let flags = match turn {
                    Turn::Request => SYN,
                    Turn::Reply => SYN | ACK,
                    Turn::Next => ACK,
                };
                Transport::Tcp { source, destination, flags }
            }
            Protocol::Udp => {
                let (source, destination) = ports(self.udp_port);
                Transport::Udp { source, destination }
            }
        }
    }

    /// Returns a packet of a connection between the guest and its peer.
    fn packet(&self, protocol: Protocol, turn: Turn, has_source_nat: bool) -> Packet {
        let (source, destination) = if turn == Turn::Reply { (self.peer, self.guest) } else { (self.guest, self.peer) };
        let content = match protocol {
            Protocol::Arp => Content::Arp { is_reply: turn == Turn::Reply, sender: source, target: destination },
            Protocol::Echo | Protocol::Tcp | Protocol::Udp => {
                Content::Ipv4 { source, destination, transport: self.transport(protocol, turn) }
            }
        };
        let connection = Connection {
            is_new: turn == Turn::Request,
            is_reply: turn == Turn::Reply,
            has_source_nat,
            source: self.guest,
            destination: self.peer,
        };
        Packet { content, input: None, output: None, connection, is_bridged: false, local: None }
    }
}

/// A connection of a guest to a host outside. `uplink` is the link that leads there, with the node's address on it.
pub(super) fn outside(
    segment: &Segment,
    uplink: &(Device, Option<Ipv4Addr>),
    protocol: Protocol,
    example: &Example,
) -> Exchange {
    let (uplink, address) = uplink;
    let bridge = &segment.bridge;
    exchange(|turn| {
        let mut packet = example.packet(protocol, turn, true);
        packet.local = *address;
        let transport = example.transport(protocol, turn);
        let mut path = PacketPath::new(packet);
        if turn == Turn::Reply {
            let inside = path.packet.content;
            path.packet.content = Content::Ipv4 { source: example.peer, destination: *address, transport };
            path.add(Family::Netdev, Hook::Ingress, Some(uplink), None);
            path.add(Family::Ip, Hook::Prerouting, Some(uplink), None).translate(DESTINATION_NAT, inside);
            path.add(Family::Ip, Hook::Forward, Some(uplink), Some(bridge));
            path.add(Family::Ip, Hook::Postrouting, Some(uplink), Some(bridge));
            path.down(segment);
        } else {
            // The source of the first packet is translated at the last hook.
            if turn == Turn::Request {
                path.packet.connection.has_source_nat = false;
            }
            path.up(segment);
            path.add(Family::Ip, Hook::Prerouting, Some(bridge), None);
            path.add(Family::Ip, Hook::Forward, Some(bridge), Some(uplink));
            let outside = Content::Ipv4 { source: *address, destination: example.peer, transport };
            path.add(Family::Ip, Hook::Postrouting, Some(bridge), Some(uplink)).translate(BEHIND_SOURCE_NAT, outside);
            path.add(Family::Netdev, Hook::Egress, None, Some(uplink));
        }
        path.take()
    })
}

/// A request of a guest to the gateway, which is the example's peer.
pub(super) fn gateway(segment: &Segment, protocol: Protocol, example: &Example) -> Exchange {
    let bridge = &segment.bridge;
    let family = if protocol == Protocol::Arp { Family::Arp } else { Family::Ip };
    exchange(|turn| {
        let mut packet = example.packet(protocol, turn, false);
        packet.local = example.peer;
        let mut path = PacketPath::new(packet);
        if turn == Turn::Reply {
            path.add(family, Hook::Output, None, Some(bridge));
            if family == Family::Ip {
                path.add(family, Hook::Postrouting, None, Some(bridge));
            }
            path.down(segment);
        } else {
            path.up(segment);
            if family == Family::Ip {
                path.add(family, Hook::Prerouting, Some(bridge), None);
            }
            path.add(family, Hook::Input, Some(bridge), None);
        }
        path.take()
    })
}

/// A connection between guests on ports of the bridge. If `is_filtered`, bridged packets traverse the IPv4 filter.
pub(super) fn between(segment: &Segment, is_filtered: bool, protocol: Protocol, example: &Example) -> Exchange {
    let Segment { bridge, ports: [one, other], .. } = segment;
    let is_filtered = is_filtered && protocol != Protocol::Arp;
    exchange(|turn| {
        let (input, output) = if turn == Turn::Reply { (other, one) } else { (one, other) };
        let packet = example.packet(protocol, turn, false);
        let bridged = Packet { is_bridged: true, ..packet.clone() };
        let mut path = PacketPath::new(packet.clone());
        path.receive(input);
        let filter = |path: &mut PacketPath, hook, output: Option<&Device>| {
            if is_filtered {
                path.packet = bridged.clone();
                let input = Some(bridge).filter(|_| hook != Hook::Postrouting);
                path.add(Family::Ip, hook, input, output);
                path.packet = packet.clone();
            }
        };
        filter(&mut path, Hook::Prerouting, None);
        path.add(Family::Bridge, Hook::Forward, Some(input), Some(output));
        filter(&mut path, Hook::Forward, Some(bridge));
        filter(&mut path, Hook::Postrouting, Some(bridge));
        path.send(Some(input), output);
        path.take()
    })
}

/// VXLAN between this node and another one, which comes as the first packet of a connection each time.
pub(super) fn vxlan(mesh: &Device, port: u16, local: Ipv4Addr, other: Ipv4Addr) -> Exchange {
    let packet = |source, destination| {
        let transport = Transport::Udp { source: CLIENT, destination: port };
        let content = Content::Ipv4 { source: Some(source), destination: Some(destination), transport };
        let connection = Connection {
            is_new: true,
            is_reply: false,
            has_source_nat: false,
            source: Some(source),
            destination: Some(destination),
        };
        Packet { content, input: None, output: None, connection, is_bridged: false, local: Some(local) }
    };
    let mut out = PacketPath::new(packet(local, other));
    out.add(Family::Ip, Hook::Output, None, Some(mesh));
    out.add(Family::Ip, Hook::Postrouting, None, Some(mesh));
    out.add(Family::Netdev, Hook::Egress, None, Some(mesh));
    let mut back = PacketPath::new(packet(other, local));
    back.add(Family::Netdev, Hook::Ingress, Some(mesh), None);
    back.add(Family::Ip, Hook::Prerouting, Some(mesh), None);
    back.add(Family::Ip, Hook::Input, Some(mesh), None);
    Exchange { request: out.take(), reply: back.take(), next: Vec::new() }
}
