//! Cutting what has been put together gives the packets again, byte for byte and in order; checksums are right by a sum of
//! their own; no bytes make anything panic.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::merge::{Merger, Takes};
use super::split::split;
use super::virtio::{HEADER, Header, Kind};

const ALL: Takes = Takes { tcp: true, udp: true, tunnel: true };

/// Plainly: RFC 1071 over pairs of bytes.
fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn folded(parts: &[u32]) -> u16 {
    let mut sum: u32 = parts.iter().sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    v6: bool,
    tcp: bool,
    vxlan: bool,
    port: u16,
    dont_fragment: bool,
}

/// One packet of a flow, complete.
fn packet(flow: Flow, number: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let transport = if flow.tcp {
        let mut tcp = [flow.port.to_be_bytes(), 80_u16.to_be_bytes()].concat();
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 9, 0x80, flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        tcp[12] = u8::try_from(tcp.len() / 4).unwrap() << 4;
        tcp
    } else {
        let length = u16::try_from(payload.len() + 8).unwrap();
        [flow.port.to_be_bytes(), 53_u16.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat()
    };
    let inner = ip(flow, number, if flow.tcp { 6 } else { 17 }, &[transport.as_slice(), payload].concat(), true);
    if !flow.vxlan {
        return inner;
    }
    let kind = if flow.v6 { [0x86, 0xdd] } else { [8, 0] };
    let frame = [&[8, 0, 0, 0, 0, 3, 232, 0], [2; 12].as_slice(), &kind, &inner].concat();
    let length = u16::try_from(frame.len() + 8).unwrap();
    let udp = [40_000_u16.to_be_bytes(), 4789_u16.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    ip(Flow { v6: false, ..flow }, number, 17, &[udp, frame].concat(), false)
}

fn ip(flow: Flow, number: u16, protocol: u8, content: &[u8], checked: bool) -> Vec<u8> {
    let mut packet = if flow.v6 {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x60, 0, 0, 0], length.as_slice(), &[protocol, 64], &[0xfd; 16], &[0xfe; 16]].concat()
    } else {
        let length = u16::try_from(content.len() + 20).unwrap().to_be_bytes();
        let fragments = if flow.dont_fragment { [0x40, 0] } else { [0, 0] };
        let mut header =
            [&[0x45, 0], length.as_slice(), &number.to_be_bytes(), &fragments, &[64, protocol, 0, 0]].concat();
        header.extend([10, 42, 0, 1, 10, 42, 0, 2]);
        let checksum = !folded(&[sum(&header)]);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    };
    let at = packet.len();
    packet.extend(content);
    if checked {
        let checksum = !transport_sum(&packet, at, protocol);
        let checksum = if protocol == 17 && checksum == 0 { 0xffff } else { checksum };
        let field = at + if protocol == 6 { 16 } else { 6 };
        packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

fn transport_sum(packet: &[u8], at: usize, protocol: u8) -> u16 {
    let addresses = if at == 40 { &packet[8..40] } else { &packet[12..20] };
    let length = u32::try_from(packet.len() - at).unwrap();
    folded(&[sum(addresses), u32::from(protocol), length & 0xffff, length >> 16, sum(&packet[at..])])
}

/// Takes the options out that the outer header has for the kernel's sake alone.
fn narrow(packet: &[u8]) -> Vec<u8> {
    if packet.len() < 36 || packet[0] != 0x49 || packet[20..36] != [1; 16] {
        return packet.to_vec();
    }
    assert_eq!(folded(&[sum(&packet[..36])]), 0xffff);
    let mut plain = [&packet[..20], &packet[36..]].concat();
    plain[0] = 0x45;
    let length = u16::try_from(plain.len()).unwrap().to_be_bytes();
    plain[2..4].copy_from_slice(&length);
    plain[10..12].fill(0);
    let checksum = !folded(&[sum(&plain[..20])]);
    plain[10..12].copy_from_slice(&checksum.to_be_bytes());
    plain
}

/// UDP without a checksum, as VXLAN has it, gets one when it was merged as UDP; it must be right.
fn without_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let vxlan = packet.len() > 28 && packet[0] == 0x45 && packet[9] == 17 && packet[22..24] == 4789_u16.to_be_bytes();
    if vxlan && packet[26..28] != [0, 0] && transport_sum(&packet, 20, 17) == 0xffff {
        packet[26..28].fill(0);
    }
    packet
}

/// Puts packets together, cuts what comes of it, and gives that with the number of large packets that there were.
fn there_and_back(packets: &[Vec<u8>], takes: Takes) -> (Vec<Vec<u8>>, usize) {
    let (mut merger, mut written) = (Merger::new(takes), Vec::new());
    for packet in packets {
        merger.room()[..packet.len()].copy_from_slice(packet);
        merger.push(packet.len(), |bytes| written.push(bytes.to_vec()));
    }
    merger.flush(|bytes| written.push(bytes.to_vec()));
    let (mut back, mut large) = (Vec::new(), 0);
    for bytes in &mut written {
        let (head, packet) = bytes.split_first_chunk_mut::<HEADER>().unwrap();
        let header = Header::parse(head);
        large += usize::from(header.is_large());
        split(&header, packet, |part| back.push(without_checksum(narrow(part)))).unwrap();
    }
    (back, large)
}

/// The packets of each flow, in their order. What is no packet of a flow is one by itself.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for packet in packets {
        let inner = if packet.len() > 90 && packet[22..24] == 4789_u16.to_be_bytes() { 50 } else { 0 };
        let key = match packet.get(inner) {
            Some(0x45) if packet.len() > 30 => packet.get(inner + 12..inner + 24),
            Some(0x60) if packet.len() > 48 => packet.get(inner + 8..inner + 44),
            _ => None,
        };
        // The ports outside tell flows apart too, and a VXLAN's header which network it is.
        let (ports, network) = if inner == 0 { (&[][..], &[][..]) } else { (&packet[20..24], &packet[28..50]) };
        flows.entry([ports, network, key.unwrap_or_default()].concat()).or_default().push(packet.clone());
    }
    flows
}

fn flow() -> impl Strategy<Value = Flow> {
    (any::<[bool; 4]>(), 1u16..3).prop_map(|([v6, tcp, vxlan, dont_fragment], port)| Flow {
        v6,
        tcp,
        vxlan: vxlan && tcp,
        port,
        dont_fragment,
    })
}

/// A run of packets of one flow, as a sender's kernel cuts it: equal sizes, a shorter one at the end.
fn run() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (flow(), 1usize..40, 1usize..1200, any::<(u16, u32)>(), any::<bool>()).prop_map(
        |(flow, count, size, (number, sequence), pushed)| {
            let mut packets = Vec::new();
            for at in 0..count {
                let last = at + 1 == count;
                let length = if last { size.div_ceil(2) } else { size };
                let payload: Vec<u8> = (0..length).map(|byte| (byte * 7 + at) as u8).collect();
                let sequence = sequence.wrapping_add((at * size) as u32);
                let flags = if last && pushed { 0x18 } else { 0x10 };
                packets.push(packet(flow, number.wrapping_add(at as u16), sequence, flags, &payload));
            }
            packets
        },
    )
}

fn traffic() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let garbage = prop::collection::vec(any::<u8>(), 1..80).prop_map(|bytes| vec![bytes]);
    prop::collection::vec(prop_oneof![6 => run(), 1 => garbage], 1..6).prop_map(|runs| runs.concat())
}

/// Something is wrong with a packet of a run: swapped, repeated, changed in one byte.
fn disturbed() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (traffic(), any::<(Index, Index, Index, u8, u8)>()).prop_map(|(mut packets, (one, other, at, byte, what))| {
        let (one, other) = (one.index(packets.len()), other.index(packets.len()));
        match what % 3 {
            0 => packets.swap(one, other),
            1 => packets.insert(other, packets[one].clone()),
            _ => {
                let at = at.index(packets[one].len().min(100));
                packets[one][at] ^= byte;
            }
        }
        packets
    })
}

fn takes() -> impl Strategy<Value = Takes> {
    any::<[bool; 3]>().prop_map(|[tcp, udp, tunnel]| Takes { tcp, udp, tunnel: tunnel && tcp })
}

/// Ids of packets that may not be fragmented mean nothing, and merging does not keep them (RFC 6864).
fn without_ids(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let strip = |packet: &mut [u8]| {
        if packet.len() >= 20 && packet[0] == 0x45 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
    };
    let mut packets = packets.to_vec();
    for packet in &mut packets {
        strip(packet);
        if packet.len() > 70 {
            strip(&mut packet[50..]);
        }
    }
    packets
}

proptest! {
    #[test]
    fn what_is_put_together_comes_apart_as_it_was(packets in traffic(), takes in takes()) {
        let (back, _) = there_and_back(&packets, takes);
        prop_assert_eq!(by_flow(&without_ids(&back)), by_flow(&without_ids(&packets)));
    }

    #[test]
    fn disturbed_traffic_comes_apart_as_it_was(packets in disturbed(), takes in takes()) {
        let (back, _) = there_and_back(&packets, takes);
        prop_assert_eq!(by_flow(&without_ids(&back)), by_flow(&without_ids(&packets)));
    }

    #[test]
    fn a_run_becomes_one_packet(packets in run()) {
        let whole: usize = packets.iter().map(Vec::len).sum();
        let (back, large) = there_and_back(&packets, ALL);
        prop_assert_eq!(&back, &packets);
        prop_assert_eq!(large, usize::from(packets.len() > 1), "{} packets, {} bytes", packets.len(), whole);
    }

    #[test]
    fn a_large_packet_is_cut_into_right_ones(v6 in any::<bool>(), length in 1usize..20_000, size in 20u16..1400, sequence in any::<u32>()) {
        let flow = Flow { v6, tcp: true, vxlan: false, port: 7, dont_fragment: true };
        let payload: Vec<u8> = (0..length).map(|byte| (byte * 31) as u8).collect();
        // FIN, PSH, ACK and CWR.
        let mut large = packet(flow, 5, sequence, 0x99, &payload);
        let at = if v6 { 40 } else { 20 };
        let headers = large.len() - length;
        let header = Header::large(Kind::Tcp { v6 }, 0, size, (at as u16, 16));
        let mut parts = Vec::new();
        split(&header, &mut large, |part| parts.push(part.to_vec())).unwrap();
        let together: Vec<u8> = parts.iter().flat_map(|part| part[headers..].to_vec()).collect();
        prop_assert_eq!(together, payload);
        for (number, part) in parts.iter().enumerate() {
            prop_assert_eq!(transport_sum(part, at, 6), 0xffff);
            let carried = u32::from_be_bytes(part[at + 4..at + 8].try_into().unwrap());
            prop_assert_eq!(carried, sequence.wrapping_add((number * usize::from(size)) as u32));
            let (first, last) = (number == 0, number + 1 == parts.len());
            prop_assert_eq!(part[at + 13], 0x10 | if first { 0x80 } else { 0 } | if last { 9 } else { 0 });
            if !v6 {
                prop_assert_eq!(folded(&[sum(&part[..20])]), 0xffff);
                prop_assert_eq!(usize::from(u16::from_be_bytes([part[2], part[3]])), part.len());
                prop_assert_eq!(usize::from(u16::from_be_bytes([part[4], part[5]])), 5 + number);
            }
        }
    }

    #[test]
    fn no_bytes_make_cutting_panic(head in any::<[u8; HEADER]>(), kind in 0u8..8, start in 0u16..100, mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut likely = head;
        likely[0] &= 1;
        likely[1] = [0, 1, 4, 5, 0x21, 0x24, 0x25, 0x41][usize::from(kind)];
        likely[6..8].copy_from_slice(&start.to_ne_bytes());
        likely[8..10].copy_from_slice(&16_u16.to_ne_bytes());
        for head in [head, likely] {
            let _any = split(&Header::parse(&head), &mut bytes, |part| assert!(part.len() <= 65_536));
        }
    }

    #[test]
    fn a_cut_packet_with_any_header_does_not_panic(packets in run(), head in any::<[u8; HEADER]>(), at in any::<Index>(), byte in any::<u8>()) {
        let mut bytes = packets[0].clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _any = split(&Header::parse(&head), &mut bytes, |_| {});
    }
}

#[test]
fn flows_that_come_in_turn_are_put_together_each_by_itself() {
    let flow = |port| Flow { v6: false, tcp: true, vxlan: port % 2 == 0, port, dont_fragment: false };
    let mut packets = Vec::new();
    for at in 0..20_u16 {
        packets.extend((0..8).map(|port| packet(flow(port), at, u32::from(at) * 100, 0x10, &[at as u8; 100])));
    }
    let (back, large) = there_and_back(&packets, ALL);
    assert_eq!((by_flow(&back), large), (by_flow(&packets), 8));
}

#[test]
fn what_ends_a_flow_does_not_overtake_it() {
    let flow = Flow { v6: false, tcp: true, vxlan: true, port: 7, dont_fragment: false };
    let packets: Vec<Vec<u8>> = [0x10, 0x10, 0x11, 0x10]
        .iter()
        .enumerate()
        .map(|(at, flags)| packet(flow, at as u16, at as u32 * 100, *flags, &[at as u8; 100]))
        .collect();
    let (back, large) = there_and_back(&packets, ALL);
    assert_eq!((back, large), (packets, 1));
}

#[test]
fn a_wrong_checksum_is_not_made_right() {
    let flow = Flow { v6: false, tcp: true, vxlan: false, port: 7, dont_fragment: false };
    let mut packets: Vec<Vec<u8>> =
        (0..3).map(|at| packet(flow, at, u32::from(at) * 100, 0x10, &[at as u8; 100])).collect();
    packets[1][60] ^= 1;
    let (back, large) = there_and_back(&packets, ALL);
    assert_eq!((back, large), (packets, 0));
}

#[test]
fn more_than_an_ip_packet_holds_becomes_two() {
    let flow = Flow { v6: false, tcp: true, vxlan: true, port: 7, dont_fragment: true };
    let packets: Vec<Vec<u8>> =
        (0..60).map(|at| packet(flow, at, u32::from(at) * 1300, 0x10, &[at as u8; 1300])).collect();
    let (back, large) = there_and_back(&packets, ALL);
    assert_eq!((back, large), (packets, 2));
}
