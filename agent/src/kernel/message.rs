//! Encodes requests about links. `rtnetlink` builds the messages, except those that it has no type for, which say so.

pub(crate) mod ip;
pub(crate) mod port;

use otherix_netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL};
use rtnetlink::packet_core::NetlinkSerializable;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

/// Creates a link that must not exist, and requests a reply that contains it; before Linux 6.2 there is none.
const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;

/// Creates a link.
pub(crate) fn create_link(link: LinkMessage) -> Message {
    request(RouteNetlinkMessage::NewLink(link), CREATE)
}

/// Changes a link, including what is specific to its kind: `RTM_SETLINK` ignores that. With an index and without
/// `NLM_F_CREATE` it creates nothing.
pub(crate) fn change_link(link: LinkMessage) -> Message {
    request(RouteNetlinkMessage::NewLink(link), 0)
}

/// Changes a link, without what is specific to its kind.
pub(crate) fn set_link(link: LinkMessage) -> Message {
    request(RouteNetlinkMessage::SetLink(link), 0)
}

pub(crate) fn set_up(index: u32) -> Message {
    set_link(LinkUnspec::new_with_index(index).up().build())
}

pub(crate) fn set_down(index: u32) -> Message {
    set_link(LinkUnspec::new_with_index(index).down().build())
}

/// Sets MTU and alias of a new link, and then its name. With a single message the kernel would notify of the name
/// first, and subscribers would take the link for a foreign one.
pub(crate) fn rename_and_alias(index: u32, name: &str, alias: &str, mtu: Option<u32>) -> [Message; 2] {
    [set_attributes(index, None, Some(alias), mtu), set_attributes(index, Some(name), None, None)]
}

/// Sets these attributes of a link.
pub(crate) fn set_attributes(index: u32, name: Option<&str>, alias: Option<&str>, mtu: Option<u32>) -> Message {
    let mut link = LinkUnspec::new_with_index(index);
    if let Some(mtu) = mtu {
        link = link.mtu(mtu);
    }
    if let Some(name) = name {
        link = link.name(name);
    }
    if let Some(alias) = alias {
        link = link.alias(alias);
    }
    set_link(link.build())
}

pub(crate) fn delete_link(index: u32) -> Message {
    request(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()), 0)
}

/// Reads the link with this name.
pub(crate) fn find_link(name: &str) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().name(name).build()), 0)
}

/// Reads the link with this index.
pub(crate) fn get_link(index: u32) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().index(index).build()), 0)
}

pub(crate) fn get_links() -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().build()), NLM_F_DUMP)
}

/// Reads the VXLAN devices.
pub(crate) fn get_vxlan_devices() -> Message {
    let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan)]);
    request(RouteNetlinkMessage::GetLink(without_statistics().append_extra_attribute(kind).build()), NLM_F_DUMP)
}

/// Reads the ports of a bridge, as links.
pub(crate) fn get_ports(bridge: u32) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().controller(bridge).build()), NLM_F_DUMP)
}

fn without_statistics() -> LinkMessageBuilder<LinkUnspec> {
    LinkMessageBuilder::<LinkUnspec>::default()
        .append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]))
}

pub(super) fn request(content: RouteNetlinkMessage, flags: u16) -> Message {
    let mut message = Message::new(content.message_type(), flags);
    content.serialize(message.push_zeroed(content.buffer_len()));
    message
}
