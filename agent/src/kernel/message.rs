//! What we say to the kernel.

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{BridgeStpState, InfoKind, LinkAttribute, LinkExtentMask};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use crate::model::desired::DesiredBridge;
use crate::model::observed::Settings;
use crate::model::owner::Owner;
use crate::model::plan::{Changes, Setting};

pub(super) type Message = NetlinkMessage<RouteNetlinkMessage>;

/// A bridge that is down and has neither its name nor its alias: the kernel ignores an alias here.
///
/// Its MTU is deliberately not the one it must have. A bridge whose MTU was never changed takes the smallest of its
/// ports' (`br_mtu_auto_adjust`), and setting the MTU that a device has already is no change (`netif_set_mtu_ext`).
///
/// VLANs are not mentioned: a kernel without them refuses the whole message, and without a word they are not told apart.
pub(super) fn create(name: &str, mtu: u32) -> Message {
    let Settings { stp, vlan_filtering: _, mcast_snooping, mcast_querier } = Settings::OURS;
    let settings = [Setting::Stp(stp), Setting::McastSnooping(mcast_snooping), Setting::McastQuerier(mcast_querier)];
    let link = settings.into_iter().fold(LinkMessageBuilder::<LinkBridge>::new(name).mtu(mtu + 1), set);
    request(RouteNetlinkMessage::NewLink(link.build()), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
}

fn set(link: LinkMessageBuilder<LinkBridge>, setting: Setting) -> LinkMessageBuilder<LinkBridge> {
    match setting {
        Setting::Stp(on) => link.stp_state(if on { BridgeStpState::KernelStp } else { BridgeStpState::Disabled }),
        Setting::VlanFiltering(on) => link.vlan_filtering(on),
        Setting::McastSnooping(on) => link.mcast_snooping(on),
        Setting::McastQuerier(on) => link.mcast_querier(on),
    }
}

/// Gives a new bridge all that it must have, at once. The kernel applies MTU, name, alias and flags in this order
/// (`do_setlink`), so that the bridge still has the temporary name if it refuses one of the first two.
pub(super) fn complete(index: u32, bridge: &DesiredBridge, owner: Owner) -> Message {
    let link = LinkUnspec::new_with_index(index).mtu(bridge.mtu).name(&bridge.name).alias(owner.to_string()).up();
    request(RouteNetlinkMessage::SetLink(link.build()), NLM_F_ACK)
}

/// Changes a bridge. As only `RTM_NEWLINK` takes a bridge's settings, it is one; without `NLM_F_CREATE` and with an index it
/// makes nothing.
pub(super) fn change(index: u32, changes: &Changes, owner: Owner) -> Message {
    let Changes { name, mtu, up, alias, release, settings } = changes;
    let mut link = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge).index(index);
    if let Some(mtu) = mtu {
        link = link.mtu(*mtu);
    }
    if let Some(name) = name {
        link = link.name(name);
    }
    if *alias {
        link = link.alias(owner.to_string());
    }
    if *release {
        link = link.nocontroller();
    }
    if *up {
        link = link.up();
    }
    link = settings.iter().copied().fold(link, set);
    request(RouteNetlinkMessage::NewLink(link.build()), NLM_F_ACK)
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

/// Asks for a link by its index.
pub(super) fn look(index: u32) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().index(index).build()), 0)
}

/// Asks for all links.
pub(super) fn dump() -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().build()), NLM_F_DUMP)
}

/// Asks for the ports of a bridge.
pub(super) fn ports(index: u32) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().controller(index).build()), NLM_F_DUMP)
}

/// Whether the answer to it is a link and nothing else.
pub(super) fn asks_for_link(message: &Message) -> bool {
    matches!(&message.payload, NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetLink(_)))
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
