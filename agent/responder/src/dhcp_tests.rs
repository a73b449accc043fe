//! DHCP as another implementation (`dhcproto`) writes and reads it, in all states of a client.

use dhcproto::v4::{self, CLIENT_PORT, DhcpOption, Flags, MessageType, OptionCode, SERVER_PORT};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use proptest::prelude::*;

use super::*;
use crate::answer::Guest;
use crate::dns::Zone;

const MAC: Mac = [0x52, 0x54, 0, 1, 2, 3];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);

fn lease() -> Lease {
    Lease { address: ADDRESS, netmask: Ipv4Addr::new(255, 255, 255, 0), server: GATEWAY, is_router: true, mtu: 1390 }
}

/// The longest names that there can be.
fn names() -> Option<GuestNames> {
    let label = "n".repeat(63);
    let zone = Zone::new(label.clone(), (Ipv4Addr::new(10, 20, 0, 0), 24), None);
    Some(GuestNames { host: label, zone: zone.into() })
}

fn message(kind: MessageType) -> v4::Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(0x1234_5678, none, none, none, none, &MAC);
    message.set_secs(7);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn with(mut message: v4::Message, options: impl IntoIterator<Item = DhcpOption>) -> v4::Message {
    options.into_iter().for_each(|option| {
        message.opts_mut().insert(option);
    });
    message
}

fn bytes(message: &v4::Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

/// Returns the decoded answer, and where it is sent.
fn answered(message: &v4::Message) -> Option<(v4::Message, Option<Ipv4Addr>)> {
    let Reply { message: reply, to } = answer(&bytes(message), MAC, &lease(), None)?;
    assert!(reply.len() >= 300, "{}", reply.len());
    let reply = v4::Message::decode(&mut Decoder::new(&reply)).unwrap();
    assert_eq!((reply.opcode(), reply.xid(), reply.chaddr()), (v4::Opcode::BootReply, 0x1234_5678, &MAC[..]));
    assert_eq!(reply.opts().get(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(GATEWAY)));
    Some((reply, to))
}

fn kind(message: &v4::Message) -> MessageType {
    answered(message).and_then(|(reply, _)| reply.opts().msg_type()).unwrap()
}

#[test]
fn offers_the_address_with_all_that_a_guest_needs() {
    let parameters = vec![OptionCode::SubnetMask, OptionCode::ClasslessStaticRoute];
    let client = DhcpOption::ClientIdentifier(vec![1, 2, 3]);
    let discover = with(message(MessageType::Discover), [DhcpOption::ParameterRequestList(parameters), client.clone()]);
    let (offer, to) = answered(&discover).unwrap();
    assert_eq!((offer.yiaddr(), offer.ciaddr(), to), (ADDRESS, Ipv4Addr::UNSPECIFIED, Some(ADDRESS)));
    for option in [
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![GATEWAY]),
        DhcpOption::InterfaceMtu(1390),
        DhcpOption::AddressLeaseTime(3600),
        DhcpOption::Renewal(1800),
        DhcpOption::Rebinding(3150),
        DhcpOption::ClasslessStaticRoute(vec![("0.0.0.0/0".parse().unwrap(), GATEWAY)]),
        client,
    ] {
        assert_eq!(offer.opts().get(OptionCode::from(&option)), Some(&option));
    }
    let (offer, _) = answered(&message(MessageType::Discover)).unwrap();
    assert_eq!(offer.opts().get(OptionCode::ClasslessStaticRoute), None, "not asked for");
    let isolated = Lease { is_router: false, ..lease() };
    let reply = answer(&bytes(&discover), MAC, &isolated, None).unwrap().message;
    let reply = v4::Message::decode(&mut Decoder::new(&reply)).unwrap();
    for code in [OptionCode::Router, OptionCode::ClasslessStaticRoute] {
        assert_eq!(reply.opts().get(code), None, "a gateway that is no router");
    }
}

#[test]
fn a_client_learns_its_resolver_and_its_names() {
    let zone = Zone::new("app".to_owned(), (Ipv4Addr::new(10, 20, 0, 0), 24), None);
    let names = GuestNames { host: "web-1".to_owned(), zone: zone.into() };
    let options = |kind, parameters: Vec<OptionCode>, names: Option<&GuestNames>| {
        let discover = with(message(kind), [DhcpOption::ParameterRequestList(parameters)]);
        let reply = answer(&bytes(&discover), MAC, &lease(), names).unwrap().message;
        v4::Message::decode(&mut Decoder::new(&reply)).unwrap().opts().clone()
    };
    let all = || vec![OptionCode::Hostname, OptionCode::DomainSearch];
    let given = options(MessageType::Discover, all(), Some(&names));
    assert_eq!(given.get(OptionCode::DomainNameServer), Some(&DhcpOption::DomainNameServer(vec![GATEWAY])));
    let domain = "app.otherix.internal";
    assert_eq!(given.get(OptionCode::DomainName), Some(&DhcpOption::DomainName(domain.into())));
    assert_eq!(given.get(OptionCode::Hostname), Some(&DhcpOption::Hostname("web-1".into())));
    let Some(DhcpOption::DomainSearch(search)) = given.get(OptionCode::DomainSearch) else { panic!("no search list") };
    let search: Vec<_> = search.iter().map(|domain| domain.to_string()).collect();
    assert_eq!(search.concat().trim_end_matches('.'), domain);
    let unasked = options(MessageType::Discover, Vec::new(), Some(&names));
    assert!(unasked.get(OptionCode::DomainNameServer).is_some() && unasked.get(OptionCode::DomainName).is_some());
    for code in all() {
        assert_eq!(unasked.get(code), None, "not asked for");
    }
    let without = options(MessageType::Discover, all(), None);
    for code in all().into_iter().chain([OptionCode::DomainNameServer, OptionCode::DomainName]) {
        assert_eq!(without.get(code), None, "a network that resolves no names");
    }
}

#[test]
fn no_client_gets_more_than_it_must_receive() {
    let parameters = DhcpOption::ParameterRequestList(vec![OptionCode::Hostname, OptionCode::DomainSearch]);
    for length in [1, 100, 255] {
        let client = DhcpOption::ClientIdentifier(vec![7; length]);
        let request = bytes(&with(message(MessageType::Discover), [client, parameters.clone()]));
        let reply = answer(&request, MAC, &lease(), names().as_ref()).unwrap().message;
        assert!(reply.len() <= 548 + length, "{} with {length}", reply.len());
        let reply = v4::Message::decode(&mut Decoder::new(&reply)).unwrap();
        assert_eq!(reply.opts().get(OptionCode::DomainNameServer), Some(&DhcpOption::DomainNameServer(vec![GATEWAY])));
    }
}

#[test]
fn a_client_gets_its_address_in_every_state() {
    let request = || message(MessageType::Request);
    let requested = |address| DhcpOption::RequestedIpAddress(address);
    let server = |address| DhcpOption::ServerIdentifier(address);
    let claiming = |address| {
        let mut message = request();
        message.set_ciaddr(address);
        message
    };
    // It selects an offer.
    assert_eq!(kind(&with(request(), [requested(ADDRESS), server(GATEWAY)])), MessageType::Ack);
    assert_eq!(kind(&with(request(), [requested(OTHER), server(GATEWAY)])), MessageType::Nak);
    // It selects that of another server.
    assert_eq!(answered(&with(request(), [requested(ADDRESS), server(OTHER)])), None);
    assert_eq!(answered(&with(message(MessageType::Discover), [server(OTHER)])), None);
    // It restarts.
    assert_eq!(kind(&with(request(), [requested(ADDRESS)])), MessageType::Ack);
    assert_eq!(kind(&with(request(), [requested(OTHER)])), MessageType::Nak);
    // It renews its lease, or asks any server to.
    assert_eq!(kind(&claiming(ADDRESS)), MessageType::Ack);
    assert_eq!(kind(&claiming(OTHER)), MessageType::Nak);
    let (ack, to) = answered(&claiming(ADDRESS)).unwrap();
    assert_eq!((ack.yiaddr(), ack.ciaddr(), to), (ADDRESS, ADDRESS, Some(ADDRESS)));
    // It claims nothing.
    assert_eq!(answered(&request()), None);
    assert_eq!(answered(&with(request(), [server(GATEWAY)])), None);
}

#[test]
fn a_refusal_reaches_a_client_that_has_another_address() {
    let mut renewal = message(MessageType::Request);
    renewal.set_ciaddr(OTHER);
    let (nak, to) = answered(&renewal).unwrap();
    let none = Ipv4Addr::UNSPECIFIED;
    assert_eq!((nak.yiaddr(), nak.ciaddr(), to), (none, none, None));
    for code in [OptionCode::AddressLeaseTime, OptionCode::SubnetMask, OptionCode::Router] {
        assert_eq!(nak.opts().get(code), None);
    }
}

#[test]
fn a_client_that_cannot_receive_unicast_gets_broadcasts() {
    let mut discover = message(MessageType::Discover);
    discover.set_flags(Flags::default().set_broadcast());
    let (offer, to) = answered(&discover).unwrap();
    assert!(offer.flags().broadcast());
    assert_eq!((offer.yiaddr(), to), (ADDRESS, None));
}

#[test]
fn a_client_with_an_address_of_its_own_gets_the_rest() {
    assert_eq!(answered(&message(MessageType::Inform)), None);
    let mut inform = message(MessageType::Inform);
    inform.set_ciaddr(OTHER);
    let (ack, to) = answered(&inform).unwrap();
    assert_eq!((ack.yiaddr(), ack.ciaddr(), to), (Ipv4Addr::UNSPECIFIED, OTHER, Some(OTHER)));
    assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), None);
    assert_eq!(ack.opts().get(OptionCode::InterfaceMtu), Some(&DhcpOption::InterfaceMtu(1390)));
}

#[test]
fn what_is_no_question_of_the_guest_is_not_answered() {
    let discover = || message(MessageType::Discover);
    for kind in [
        MessageType::Decline,
        MessageType::Release,
        MessageType::Offer,
        MessageType::Ack,
        MessageType::Nak,
        MessageType::ForceRenew,
    ] {
        assert_eq!(answered(&message(kind)), None, "{kind:?}");
    }
    let mut relayed = discover();
    relayed.set_giaddr(OTHER);
    assert_eq!(answered(&relayed), None);
    let mut of_another = discover();
    of_another.set_chaddr(&[0x52, 0x54, 0, 1, 2, 4]);
    assert_eq!(answered(&of_another), None);
    let mut reply = discover();
    reply.set_opcode(v4::Opcode::BootReply);
    assert_eq!(answered(&reply), None);
    let mut without_type = discover();
    without_type.opts_mut().remove(OptionCode::MessageType);
    assert_eq!(answered(&without_type), None);
    let good = bytes(&discover());
    for (what, at, byte) in [("another cookie", 236, 0), ("no Ethernet", 1, 6), ("a long address", 2, 16)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(answer(&bad, MAC, &lease(), None), None, "{what}");
    }
    for length in 0..243 {
        assert_eq!(answer(&good[..length], MAC, &lease(), None), None, "{length} bytes");
    }
    assert!(answer(&good[..243], MAC, &lease(), None).is_some(), "without an end");
}

#[test]
fn answers_are_frames_that_others_can_read() {
    let guest =
        Guest { mac: MAC, lease: lease(), gateway_mac: [2, 0, 0, 0, 0, 1], answers_for_gateway: true, names: None };
    let datagram = bytes(&message(MessageType::Discover));
    let length = u16::try_from(datagram.len()).unwrap();
    let [from, to] = [CLIENT_PORT, SERVER_PORT].map(u16::to_be_bytes);
    let ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    let udp = [from, to, (length + 8).to_be_bytes(), [0, 0]].concat();
    let mut frame = [&[0xff; 6][..], &MAC, &[8, 0], &ip, &udp, &datagram].concat();
    frame[16..18].copy_from_slice(&(length + 28).to_be_bytes());
    let reply = guest.answer(&frame).unwrap();
    assert_eq!((&reply[..6], &reply[6..12], &reply[12..14]), (&MAC[..], &guest.gateway_mac[..], &[8, 0][..]));
    assert_eq!((&reply[26..30], &reply[30..34]), (&GATEWAY.octets()[..], &ADDRESS.octets()[..]));
    let total = usize::from(u16::from_be_bytes([reply[16], reply[17]]));
    assert_eq!(total, reply.len() - 14);
    // The sum of what a checksum covers is all ones.
    let sum = |parts: &[&[u8]]| {
        let words = parts.concat();
        let sum: u64 =
            words.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
        (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16))
    };
    assert_eq!(sum(&[&reply[14..34]]), 0xffff, "of the IPv4 header");
    let pseudo = [&reply[26..34], &[0, 17], &reply[38..40]].concat();
    assert_eq!(sum(&[&pseudo, &reply[34..]]), 0xffff, "of the datagram");
    frame[17] = 1;
    assert_eq!(guest.answer(&frame), None, "shorter than its header");
}

proptest! {
    #[test]
    fn no_frame_causes_a_panic(frame in prop::collection::vec(any::<u8>(), 0..600), for_gateway: bool) {
        let gateway_mac = [2; 6];
        let guest = Guest { mac: MAC, lease: lease(), gateway_mac, answers_for_gateway: for_gateway, names: names() };
        let _answer = guest.answer(&frame);
    }

    #[test]
    fn a_damaged_message_causes_no_panic(
        changes in prop::collection::vec((0..330_usize, any::<u8>()), 0..12),
        options in prop::collection::vec(any::<u8>(), 0..90),
        length in 0..400_usize,
    ) {
        let mut message = bytes(&message(MessageType::Request));
        message.pop();
        message.extend(options);
        for (at, byte) in changes {
            if let Some(target) = message.get_mut(at) {
                *target = byte;
            }
        }
        message.truncate(length.max(230));
        if let Some(Reply { message: reply, .. }) = answer(&message, MAC, &lease(), names().as_ref()) {
            prop_assert_eq!(&reply[28..34], &MAC[..]);
            prop_assert!(reply.len() < 600, "{}", reply.len());
        }
    }
}
