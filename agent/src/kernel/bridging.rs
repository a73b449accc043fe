//! What we say to the kernel of ports of bridges: who is let in, which VLANs they are in, who is reached at them. Numbers are from
//! linux/if_bridge.h, linux/if_link.h and linux/neighbour.h.

use std::net::Ipv4Addr;

use otherix_netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};

use super::read::port::{self, PLAIN};
use crate::model::plan::OnlyVlan;
use crate::model::port::Station;
use crate::model::vxlan::{Frames, Remote};

const AF_BRIDGE: u8 = 7;

const RTM_SETLINK: u16 = 19;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const IFLA_PROTINFO: u16 = 12;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_BRVLAN: u32 = 2;
const IFLA_BRIDGE_FLAGS: u16 = 0;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_FLAGS_SELF: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 2;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 4;
const BRIDGE_VLAN_INFO_RANGE_BEGIN: u16 = 8;
const BRIDGE_VLAN_INFO_RANGE_END: u16 = 16;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_MASTER: u8 = 0x04;

const FIRST_VLAN: u16 = 1;
const LAST_VLAN: u16 = 4094;

/// Has a port let in only stations that are known at it, learn none, and otherwise be as the kernel makes ports.
pub(super) fn lock(index: u32) -> Message {
    let plain = PLAIN.iter().map(|(kind, on)| (*kind, u8::from(*on)));
    let locked = [(port::LEARNING, 0), (port::LOCKED, 1)];
    set_port(index, plain.chain(locked))
}

/// Has a port that has a carrier forward.
pub(super) fn unblock(index: u32) -> Message {
    set_port(index, [(port::STATE, port::FORWARDING)])
}

fn set_port(index: u32, values: impl IntoIterator<Item = (u16, u8)>) -> Message {
    let mut message = link(RTM_SETLINK, 0, index);
    message.nest(IFLA_PROTINFO, |port| {
        for (kind, value) in values {
            port.put(kind, &[value]);
        }
    });
    message
}

/// Has a port, or a bridge itself, be in this VLAN and in no other.
pub(super) fn only_vlan(index: u32, vlan: OnlyVlan, is_bridge: bool) -> Vec<Message> {
    let change = |kind, infos: &[(u16, u16)]| {
        let mut message = link(kind, 0, index);
        message.nest(IFLA_AF_SPEC, |settings| {
            if is_bridge {
                settings.put(IFLA_BRIDGE_FLAGS, &BRIDGE_FLAGS_SELF.to_ne_bytes());
            }
            for (flags, id) in infos {
                settings.put_parts(IFLA_BRIDGE_VLAN_INFO, &[&flags.to_ne_bytes(), &id.to_ne_bytes()]);
            }
        });
        message
    };
    let leave = |first, last| {
        let infos = [(BRIDGE_VLAN_INFO_RANGE_BEGIN, first), (BRIDGE_VLAN_INFO_RANGE_END, last)];
        (first < last)
            .then(|| change(RTM_DELLINK, &infos))
            .or((first == last).then(|| change(RTM_DELLINK, &[(0, first)])))
    };
    match vlan {
        OnlyVlan::None => leave(FIRST_VLAN, LAST_VLAN).into_iter().collect(),
        OnlyVlan::Access(vlan) => {
            let id = vlan.get();
            let enter = change(RTM_SETLINK, &[(BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED, id)]);
            [leave(FIRST_VLAN, id - 1), leave(id + 1, LAST_VLAN), Some(enter)].into_iter().flatten().collect()
        }
    }
}

/// Has the bridge know a station at a port.
pub(super) fn know(index: u32, station: Station) -> Message {
    neighbour(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, station)
}

/// Has the bridge forget a station at a port.
pub(super) fn forget(index: u32, station: Station) -> Message {
    neighbour(RTM_DELNEIGH, 0, index, station)
}

/// Has a VTEP send a station's frames to this node and to no other.
pub(super) fn point(index: u32, remote: Remote) -> Message {
    entry(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index, remote)
}

/// Has a VTEP send what it floods to this node as well.
pub(super) fn flood(index: u32, node: Ipv4Addr) -> Message {
    entry(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, index, Remote::new(Frames::Flood, node))
}

/// Has a VTEP not send frames where it does.
pub(super) fn prune(index: u32, remote: Remote) -> Message {
    entry(RTM_DELNEIGH, 0, index, remote)
}

/// Asks how all ports are, with their VLANs.
pub(super) fn ports() -> Message {
    let mut message = link(RTM_GETLINK, NLM_F_DUMP, 0);
    message.put(IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN.to_ne_bytes());
    message
}

/// Asks for the forwarding databases of all bridges.
pub(super) fn stations() -> Message {
    let mut message = Message::new(RTM_GETNEIGH, NLM_F_DUMP);
    message.push(&[AF_BRIDGE]).push(&[0; 11]);
    message
}

/// A request with a `struct ifinfomsg`.
fn link(kind: u16, flags: u16, index: u32) -> Message {
    let mut message = Message::new(kind, flags);
    message.push(&[AF_BRIDGE, 0, 0, 0]).push(&index.to_ne_bytes()).push(&[0; 8]);
    message
}

/// An entry of a bridge's forwarding database.
fn neighbour(kind: u16, flags: u16, index: u32, station: Station) -> Message {
    let Station { mac, vlan, is_static: _ } = station;
    let mut message = Message::new(kind, flags);
    push_neighbour_header(&mut message, index, NUD_NOARP, NTF_MASTER);
    message.put(NDA_LLADDR, &mac.octets());
    if let Some(vlan) = vlan {
        message.put(NDA_VLAN, &vlan.to_ne_bytes());
    }
    message
}

/// An entry of a VTEP's own forwarding database.
fn entry(kind: u16, flags: u16, index: u32, remote: Remote) -> Message {
    let Remote { frames, node, odd: _ } = remote;
    let mut message = Message::new(kind, flags);
    push_neighbour_header(&mut message, index, NUD_PERMANENT, NTF_SELF);
    message.put(NDA_LLADDR, &frames.octets());
    if let Some(node) = node {
        message.put(NDA_DST, &node.octets());
    }
    message
}

/// `struct ndmsg`.
fn push_neighbour_header(message: &mut Message, index: u32, state: u16, flags: u8) {
    message.push(&[AF_BRIDGE, 0, 0, 0]).push(&index.to_ne_bytes()).push(&state.to_ne_bytes()).push(&[flags, 0]);
}
