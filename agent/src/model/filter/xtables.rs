//! Matches of iptables (`xt_*`) that rules of `iptables-nft` contain.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::packet::{Content, Tracking, Transport, View};
use super::value::Answer;

/// A match of iptables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XtMatch {
    /// `conntrack` and `state`: `XT_CONNTRACK_STATE_*`.
    State { states: u32, inverted: bool },
    /// `mark`: the packet's mark under `mask`.
    Mark { value: u32, mask: u32, inverted: bool },
    /// `connmark`: that of its connection.
    ConnectionMark { value: u32, mask: u32, inverted: bool },
    /// `addrtype`: `XT_ADDRTYPE_*`, 0 for any.
    AddressType { source: u32, destination: u32, inverts_source: bool, inverts_destination: bool },
    /// `multiport`: which ports, 0 source, 1 destination, 2 either; ranges of ports.
    Ports { which: u8, ranges: Vec<(u16, u16)>, inverted: bool },
    /// `tcp`: ranges of ports, the flags that must be set of those in the mask, and `XT_TCP_INV_*`.
    Tcp { source: (u16, u16), destination: (u16, u16), mask: u8, flags: u8, inverted: u8 },
    /// `udp`: ranges of ports, and `XT_UDP_INV_*`.
    Udp { source: (u16, u16), destination: (u16, u16), inverted: u8 },
    /// `icmp`: type (255 for any) and codes.
    Icmp { kind: u8, codes: (u8, u8), inverted: bool },
    /// `physdev`: `XT_PHYSDEV_OP_*` that are asked for, and those that are inverted.
    Bridged { asked: u8, inverted: u8 },
}

/// `XT_CONNTRACK_STATE_SNAT` and `XT_CONNTRACK_STATE_UNTRACKED`.
const TRANSLATED: u32 = 1 << 6;
const UNTRACKED: u32 = 1 << 8;

impl XtMatch {
    /// Whether it matches the packet.
    pub fn matches(&self, view: &View<'_>) -> Answer {
        match self {
            Self::State { states, inverted } => state(view, *states).inverted(*inverted),
            Self::Mark { value, mask, inverted } => view.mark.is(*value, *mask).inverted(*inverted),
            Self::ConnectionMark { value, mask, inverted } => match view.tracking {
                Tracking::Tracked => view.connection_mark.is(*value, *mask).inverted(*inverted),
                Tracking::None | Tracking::Exempt => Answer::No,
                Tracking::Unknown => Answer::Maybe,
            },
            Self::AddressType { source, destination, inverts_source, inverts_destination } => {
                let types = [*source, *destination];
                let [source, destination] = address_types(view, types);
                source
                    .inverted(*inverts_source && types != [0, types[1]])
                    .and(destination.inverted(*inverts_destination && types != [types[0], 0]))
            }
            Self::Ports { which, ranges, inverted } => {
                let Some((source, destination)) = transport(view).and_then(Transport::ports) else { return Answer::No };
                let has = |port: u16| ranges.iter().any(|range| contains(*range, port));
                let is_so = match which {
                    0 => has(source),
                    1 => has(destination),
                    _ => has(source) || has(destination),
                };
                Answer::from(is_so).inverted(*inverted)
            }
            Self::Tcp { source, destination, mask, flags, inverted } => match transport(view) {
                Some(Transport::Tcp { source: from, destination: to, flags: set }) => Answer::from(
                    (contains(*source, from) != (inverted & 1 != 0))
                        && (contains(*destination, to) != (inverted & 2 != 0))
                        && ((set & mask == *flags) != (inverted & 4 != 0)),
                ),
                Some(Transport::Echo { .. } | Transport::Udp { .. }) | None => Answer::No,
            },
            Self::Udp { source, destination, inverted } => match transport(view) {
                Some(Transport::Udp { source: from, destination: to }) => Answer::from(
                    (contains(*source, from) != (inverted & 1 != 0))
                        && (contains(*destination, to) != (inverted & 2 != 0)),
                ),
                Some(Transport::Echo { .. } | Transport::Tcp { .. }) | None => Answer::No,
            },
            Self::Icmp { kind, codes: (low, high), inverted } => match transport(view) {
                Some(Transport::Echo { is_reply }) => {
                    let is_kind = *kind == if is_reply { 0 } else { 8 };
                    let is_code = RangeInclusive::new(*low, *high).contains(&0);
                    Answer::from(*kind == u8::MAX || (is_kind && is_code)).inverted(*inverted)
                }
                Some(Transport::Tcp { .. } | Transport::Udp { .. }) | None => Answer::No,
            },
            Self::Bridged { asked, inverted } => bridged(view, *asked, *inverted),
        }
    }
}

fn transport(view: &View<'_>) -> Option<Transport> {
    view.packet.content.transport()
}

fn contains((low, high): (u16, u16), port: u16) -> bool {
    (low..=high).contains(&port)
}

fn state(view: &View<'_>, states: u32) -> Answer {
    let state = match view.tracking {
        Tracking::Unknown => return Answer::Maybe,
        Tracking::Exempt => UNTRACKED,
        Tracking::Tracked | Tracking::None => view.state().unwrap_or_default(),
    };
    let translated = if view.packet.connection.has_source_nat { TRANSLATED } else { 0 };
    Answer::from(states & (state | translated) != 0)
}

/// Whether source and destination of the packet are of these types.
fn address_types(view: &View<'_>, types: [u32; 2]) -> [Answer; 2] {
    /// `XT_ADDRTYPE_UNICAST` and `XT_ADDRTYPE_LOCAL`.
    const UNICAST: u32 = 1 << 1;
    const LOCAL: u32 = 1 << 2;
    let Content::Ipv4 { source, destination, .. } = view.packet.content else { return [Answer::No; 2] };
    let is = |address: Option<std::net::Ipv4Addr>, types: u32| match address {
        _ if types == 0 => Answer::Yes,
        Some(address) => Answer::from(types & if view.is_local(address) { LOCAL } else { UNICAST } != 0),
        None => Answer::Maybe,
    };
    let [of_source, of_destination] = types;
    [is(source, of_source), is(destination, of_destination)]
}

/// `physdev`: whether the packet is bridged, and between which ports.
fn bridged(view: &View<'_>, asked: u8, inverted: u8) -> Answer {
    const BRIDGED: u8 = 4;
    let is_only = asked == BRIDGED;
    if view.packet.is_bridged {
        if is_only { Answer::from(inverted & BRIDGED == 0) } else { Answer::Maybe }
    } else {
        Answer::from(asked & !inverted == 0)
    }
}
