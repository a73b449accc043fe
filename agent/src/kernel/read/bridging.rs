//! What the kernel says of ports of bridges. Numbers are from linux/if_bridge.h, linux/if_link.h and linux/neighbour.h.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use otherix_schemas::value::MacAddress;

use super::{LINK_HEADER, attributes, integer, port, short};
use crate::model::port::{PortVlan, Station};
use crate::model::vxlan::Remote;

pub(super) const AF_BRIDGE: u8 = 7;

/// `struct ndmsg`.
const NEIGHBOUR_HEADER: usize = 12;

const IFF_LOWER_UP: u32 = 1 << 16;
const IFLA_PROTINFO: u16 = 12;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 2;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 4;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_PORT: u16 = 6;
const NDA_VNI: u16 = 7;
const NDA_IFINDEX: u16 = 8;
const NDA_NH_ID: u16 = 13;
const NTF_SELF: u8 = 0x02;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// Something of a link as a port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum PortNews {
    /// It is like this. A notification has no VLANs.
    Seen { index: u32, locked: bool, learning: bool, altered: bool, blocked: bool, vlans: BTreeSet<PortVlan> },
    /// The forwarding database has, or had, a station at it.
    Station { index: u32, station: Station },
    /// A VTEP's own forwarding database has, or had, an entry.
    Remote { index: u32, remote: Remote },
}

impl PortNews {
    /// The link.
    pub(in crate::kernel) fn index(&self) -> u32 {
        match self {
            Self::Seen { index, .. } | Self::Station { index, .. } | Self::Remote { index, .. } => *index,
        }
    }
}

pub(super) fn port(payload: &[u8]) -> Option<PortNews> {
    let (index, flags) = (integer(payload.get(4..)?)?, integer(payload.get(8..)?)?);
    let (mut locked, mut learning, mut altered, mut blocked) = (false, false, false, false);
    let mut vlans = BTreeSet::new();
    for attribute in attributes(payload.get(LINK_HEADER..)?) {
        match attribute.kind {
            IFLA_PROTINFO => {
                for setting in attributes(attribute.value) {
                    let Some(value) = setting.value.first().copied() else { continue };
                    match setting.kind {
                        port::STATE => blocked = value != port::FORWARDING && flags & IFF_LOWER_UP != 0,
                        port::LEARNING => learning = value != 0,
                        port::LOCKED => locked = value != 0,
                        kind => altered |= port::PLAIN.contains(&(kind, value == 0)),
                    }
                }
            }
            IFLA_AF_SPEC => {
                let infos = attributes(attribute.value).filter(|info| info.kind == IFLA_BRIDGE_VLAN_INFO);
                vlans.extend(infos.filter_map(|info| vlan(info.value)));
            }
            _ => {}
        }
    }
    Some(PortNews::Seen { index, locked, learning, altered, blocked, vlans })
}

fn vlan(info: &[u8]) -> Option<PortVlan> {
    let (flags, id) = (short(info)?, short(info.get(2..)?)?);
    let has = |flag| flags & flag != 0;
    Some(PortVlan { id, pvid: has(BRIDGE_VLAN_INFO_PVID), untagged: has(BRIDGE_VLAN_INFO_UNTAGGED) })
}

/// A bridge's own addresses are no stations. What a device has itself and goes to nobody, such as the groups it listens to, is
/// no entry of a VTEP. A VTEP's entries are told in a dump as of IPv4.
pub(super) fn station(payload: &[u8]) -> Option<PortNews> {
    let (family, index, state) = (payload.first()?, integer(payload.get(4..)?)?, short(payload.get(8..)?)?);
    let is_own = payload.get(10)? & NTF_SELF != 0;
    let (mut mac, mut vlan, mut node, mut goes, mut detour) = (None, None, None, false, false);
    for attribute in attributes(payload.get(NEIGHBOUR_HEADER..)?) {
        match attribute.kind {
            NDA_LLADDR => mac = <[u8; 6]>::try_from(attribute.value).ok(),
            NDA_VLAN => vlan = short(attribute.value),
            NDA_DST => (goes, node) = (true, <[u8; 4]>::try_from(attribute.value).ok().map(Ipv4Addr::from)),
            NDA_NH_ID => goes = true,
            NDA_PORT | NDA_VNI | NDA_IFINDEX => detour = true,
            _ => {}
        }
    }
    if is_own && goes {
        // The kernel leaves zeros out.
        let frames = mac.unwrap_or_default().into();
        let odd = detour || node.is_none() || state & NUD_PERMANENT == 0;
        return Some(PortNews::Remote { index, remote: Remote { frames, node, odd } });
    }
    if *family != AF_BRIDGE || state & NUD_PERMANENT != 0 {
        return None;
    }
    let mac = MacAddress::try_from(mac?).ok()?;
    Some(PortNews::Station { index, station: Station { mac, vlan, is_static: state & NUD_NOARP != 0 } })
}
