//! The TUN device as a network link: its alias.

use std::io;

use otherix_netlink::{Message, Protocol, Socket, find};

const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const IFLA_IFNAME: u16 = 3;
const IFLA_IFALIAS: u16 = 20;

/// `struct ifinfomsg`; the interface index follows family, padding and type.
const HEADER_LEN: usize = 16;

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

pub(super) struct LinkInfo {
    index: i32,
    pub(super) alias: Option<String>,
}

/// Returns the link of this name in this thread's network namespace.
pub(super) fn find_link(name: &str) -> io::Result<Option<LinkInfo>> {
    query(&mut Socket::open(Protocol::Route)?, name)
}

/// Sets alias and name of a link that is down. The alias is set first, with a separate message: the kernel notifies of
/// the name before the alias of the same message, and a subscriber would take the device for a foreign one.
pub(super) fn rename_and_alias(current: &str, name: &str, alias: &str) -> io::Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let LinkInfo { index, .. } = query(&mut socket, current)?.ok_or(io::ErrorKind::NotFound)?;
    let mut set_alias = message(RTM_SETLINK, index);
    set_alias.put(IFLA_IFALIAS, alias.as_bytes());
    let mut set_name = message(RTM_SETLINK, index);
    set_name.put_string(IFLA_IFNAME, name);
    for message in [set_alias, set_name] {
        socket.request(message, |_| {})?;
    }
    Ok(())
}

fn query(socket: &mut Socket, name: &str) -> io::Result<Option<LinkInfo>> {
    let mut request = message(RTM_GETLINK, 0);
    request.put_string(IFLA_IFNAME, name);
    let mut link = None;
    let result = socket.request(request, |reply| link = parse(reply.payload));
    match result {
        Ok(_) => Ok(link),
        Err(error) if error.errno() == Some(ENODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn message(kind: u16, index: i32) -> Message {
    let mut message = Message::new(kind, 0);
    message.push(&[0; 4]).push(&index.to_ne_bytes()).push(&[0; 8]);
    message
}

fn parse(payload: &[u8]) -> Option<LinkInfo> {
    let (header, attributes) = payload.split_at_checked(HEADER_LEN)?;
    let index = i32::from_ne_bytes(*header.get(4..)?.first_chunk()?);
    let alias = find(attributes, IFLA_IFALIAS).map(|attribute| {
        let bytes = attribute.value.strip_suffix(&[0]).unwrap_or(attribute.value);
        String::from_utf8_lossy(bytes).into_owned()
    });
    Some(LinkInfo { index, alias: alias.filter(|alias| !alias.is_empty()) })
}

#[cfg(test)]
mod tests {
    use otherix_testkit::netns::{enter_new, sh};

    use super::*;

    #[test]
    fn alias_and_name_are_set_and_read() {
        enter_new();
        sh("ip link add ot.1 type dummy 2>/dev/null || ip link add ot.1 type bridge");
        assert_eq!(find_link("ot.1").unwrap().unwrap().alias, None);
        rename_and_alias("ot.1", "otwg9", "otherix:mesh").unwrap();
        assert!(find_link("ot.1").unwrap().is_none());
        assert_eq!(find_link("otwg9").unwrap().unwrap().alias.as_deref(), Some("otherix:mesh"));
        assert!(sh("ip -d link show otwg9").contains("alias otherix:mesh"));
        assert_eq!(rename_and_alias("ot.1", "x", "y").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
