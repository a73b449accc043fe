//! What we say to the kernel, and what it says of links.

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use crate::model::desired::DesiredBridge;
use crate::model::observed::{Link, LinkChange};
use crate::model::owner::Owner;
use crate::model::plan::Changes;

pub(super) type Message = NetlinkMessage<RouteNetlinkMessage>;

/// A bridge that is down and has neither its name nor its alias: the kernel ignores an alias here.
///
/// Its MTU is deliberately not the one it must have. A bridge whose MTU was never changed takes the smallest of its
/// ports' (`br_mtu_auto_adjust`), and setting the MTU that a device has already is no change (`netif_set_mtu_ext`).
pub(super) fn create(name: &str, mtu: u32) -> Message {
    let link = LinkMessageBuilder::<LinkBridge>::new(name).mtu(mtu + 1).build();
    request(RouteNetlinkMessage::NewLink(link), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
}

/// Gives a new bridge all that it must have, at once. The kernel applies MTU, name, alias and flags in this order
/// (`do_setlink`), so that the bridge still has the temporary name if it refuses one of the first two.
pub(super) fn complete(index: u32, bridge: &DesiredBridge, owner: Owner) -> Message {
    let link = LinkUnspec::new_with_index(index).mtu(bridge.mtu).name(&bridge.name).alias(owner.to_string()).up();
    request(RouteNetlinkMessage::SetLink(link.build()), NLM_F_ACK)
}

pub(super) fn change(index: u32, changes: &Changes) -> Message {
    let Changes { name, mtu, up } = changes;
    let mut link = LinkUnspec::new_with_index(index);
    if let Some(mtu) = mtu {
        link = link.mtu(*mtu);
    }
    if let Some(name) = name {
        link = link.name(name);
    }
    if *up {
        link = link.up();
    }
    request(RouteNetlinkMessage::SetLink(link.build()), NLM_F_ACK)
}

pub(super) fn take_down(index: u32) -> Message {
    request(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).down().build()), NLM_F_ACK)
}

pub(super) fn remove(index: u32) -> Message {
    request(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()), NLM_F_ACK)
}

/// Asks for a link by its name.
pub(super) fn find(name: &str) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().name(name).build()), 0)
}

pub(super) fn dump() -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().build()), NLM_F_DUMP)
}

fn without_statistics() -> LinkMessageBuilder<LinkUnspec> {
    LinkMessageBuilder::<LinkUnspec>::default()
        .append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]))
}

fn request(message: RouteNetlinkMessage, flags: u16) -> Message {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

/// What a message tells of a link.
#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate that grows with the kernel")]
pub(super) fn read(message: &RouteNetlinkMessage) -> Option<LinkChange> {
    match message {
        RouteNetlinkMessage::NewLink(link) if is_of_link(link) => read_link(link).map(LinkChange::Seen),
        RouteNetlinkMessage::DelLink(link) if is_of_link(link) => Some(LinkChange::Gone(link.header.index)),
        _ => None,
    }
}

/// The bridge code tells of its ports under its own family: a `DelLink` there is a port that left, not a link that is gone.
fn is_of_link(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}

#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate that grows with the kernel")]
fn read_link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        alias: None,
        master: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(text) => link.alias = Some(text.clone()).filter(|text| !text.is_empty()),
            LinkAttribute::Controller(index) => link.master = Some(*index).filter(|index| *index != 0),
            LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind).unwrap_or_default(),
            _ => {}
        }
    }
    link.name = name?;
    Some(link)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate that grows with the kernel")]
fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}
