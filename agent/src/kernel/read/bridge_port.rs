//! Parses bridge ports and entries of forwarding databases. Numbers are from linux/if_bridge.h, linux/if_link.h and
//! linux/neighbour.h.

use std::net::Ipv4Addr;

use otherix_schemas::value::MacAddress;

use super::{LINK_HEADER, attributes, integer, short};
use crate::model::bridge_port::{BridgePort, FdbEntry, PortVlan, StpState};
use crate::model::vxlan::RemoteEntry;

pub(super) const AF_BRIDGE: u8 = 7;

/// `struct ndmsg`.
const NEIGHBOUR_HEADER: usize = 12;

const IFF_LOWER_UP: u32 = 1 << 16;
const IFLA_PROTINFO: u16 = 12;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_LOCKED: u16 = 39;
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

/// The other settings as [`crate::kernel::message::port::configure`] sets them: the kernel's defaults, except that no
/// port of ours becomes the root port of a spanning tree.
const SETTINGS: [(u16, bool); 12] = [
    (4, false),  // IFLA_BRPORT_MODE, which is hairpin
    (5, false),  // IFLA_BRPORT_GUARD
    (6, true),   // IFLA_BRPORT_PROTECT, which is root_block
    (7, false),  // IFLA_BRPORT_FAST_LEAVE
    (9, true),   // IFLA_BRPORT_UNICAST_FLOOD
    (10, false), // IFLA_BRPORT_PROXYARP
    (12, false), // IFLA_BRPORT_PROXYARP_WIFI
    (27, true),  // IFLA_BRPORT_MCAST_FLOOD
    (28, false), // IFLA_BRPORT_MCAST_TO_UCAST
    (30, true),  // IFLA_BRPORT_BCAST_FLOOD
    (32, false), // IFLA_BRPORT_NEIGH_SUPPRESS
    (33, false), // IFLA_BRPORT_ISOLATED
];

/// The data of a message about a link as a bridge port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum PortData {
    /// Settings and VLANs, without forwarding databases. Notifications do not contain VLANs.
    Settings { index: u32, port: BridgePort },
    /// An entry of the bridge's forwarding database was added or removed.
    Fdb { index: u32, entry: FdbEntry },
    /// An entry of a VTEP's own forwarding database was added or removed.
    Remote { index: u32, entry: RemoteEntry },
}

impl PortData {
    pub(in crate::kernel) fn index(&self) -> u32 {
        match self {
            Self::Settings { index, .. } | Self::Fdb { index, .. } | Self::Remote { index, .. } => *index,
        }
    }
}

pub(super) fn settings(payload: &[u8]) -> Option<PortData> {
    let (index, flags) = (integer(payload.get(4..)?)?, integer(payload.get(8..)?)?);
    let mut port = BridgePort::default();
    for attribute in attributes(payload.get(LINK_HEADER..)?) {
        match attribute.kind {
            IFLA_PROTINFO => {
                for setting in attributes(attribute.value) {
                    let Some(value) = setting.value.first().copied() else { continue };
                    match setting.kind {
                        IFLA_BRPORT_STATE if flags & IFF_LOWER_UP != 0 => port.state = stp_state(value),
                        IFLA_BRPORT_STATE => {}
                        IFLA_BRPORT_LEARNING => port.learning = value != 0,
                        IFLA_BRPORT_LOCKED => port.locked = value != 0,
                        kind => port.altered |= SETTINGS.contains(&(kind, value == 0)),
                    }
                }
            }
            IFLA_AF_SPEC => {
                let infos = attributes(attribute.value).filter(|info| info.kind == IFLA_BRIDGE_VLAN_INFO);
                port.vlans.extend(infos.filter_map(|info| vlan(info.value)));
            }
            _ => {}
        }
    }
    Some(PortData::Settings { index, port })
}

/// `BR_STATE_*` of linux/if_bridge.h.
fn stp_state(value: u8) -> StpState {
    match value {
        0 => StpState::Disabled,
        1 => StpState::Listening,
        2 => StpState::Learning,
        3 => StpState::Forwarding,
        _ => StpState::Blocking,
    }
}

fn vlan(info: &[u8]) -> Option<PortVlan> {
    let (flags, id) = (short(info)?, short(info.get(2..)?)?);
    let has = |flag| flags & flag != 0;
    Some(PortVlan { id, pvid: has(BRIDGE_VLAN_INFO_PVID), untagged: has(BRIDGE_VLAN_INFO_UNTAGGED) })
}

/// Parses an entry of a forwarding database. A bridge's own addresses are left out, and so are entries of a device's
/// own database without a destination, such as its multicast groups. In a dump, entries of a VTEP have the family of
/// IPv4.
pub(super) fn fdb_entry(payload: &[u8]) -> Option<PortData> {
    let (family, index, state) = (payload.first()?, integer(payload.get(4..)?)?, short(payload.get(8..)?)?);
    let is_own = payload.get(10)? & NTF_SELF != 0;
    let (mut mac, mut vlan, mut node, mut has_destination, mut is_altered) = (None, None, None, false, false);
    for attribute in attributes(payload.get(NEIGHBOUR_HEADER..)?) {
        match attribute.kind {
            NDA_LLADDR => mac = attribute.array::<6>(),
            NDA_VLAN => vlan = short(attribute.value),
            NDA_DST => (has_destination, node) = (true, attribute.array::<4>().map(Ipv4Addr::from)),
            NDA_NH_ID => has_destination = true,
            NDA_PORT | NDA_VNI | NDA_IFINDEX => is_altered = true,
            _ => {}
        }
    }
    if is_own && has_destination {
        // The kernel omits an address of zeros.
        let frames = mac.unwrap_or_default().into();
        let altered = is_altered || node.is_none() || state & NUD_PERMANENT == 0;
        return Some(PortData::Remote { index, entry: RemoteEntry { frames, node, altered } });
    }
    if *family != AF_BRIDGE || state & NUD_PERMANENT != 0 {
        return None;
    }
    let mac = MacAddress::try_from(mac?).ok()?;
    Some(PortData::Fdb { index, entry: FdbEntry { mac, vlan, is_static: state & NUD_NOARP != 0 } })
}
