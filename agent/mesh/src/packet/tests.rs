//! Splitting merged packets restores them byte for byte and in order; checksums are correct, by an independent
//! implementation; no input causes a panic.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::merge::{Merger, OffloadSupport};
use super::split::split;
use super::virtio::{GsoType, HEADER_LEN, VirtioHeader};

const ALL: OffloadSupport = OffloadSupport { tcp: true, udp: true, tunnel: true };

/// RFC 1071, over pairs of bytes.
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

/// A complete packet of a flow.
fn packet(flow: Flow, id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
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
    let inner = ip(flow, id, if flow.tcp { 6 } else { 17 }, &[transport.as_slice(), payload].concat(), true);
    if !flow.vxlan {
        return inner;
    }
    let kind = if flow.v6 { [0x86, 0xdd] } else { [8, 0] };
    let frame = [&[8, 0, 0, 0, 0, 3, 232, 0], [2; 12].as_slice(), &kind, &inner].concat();
    let length = u16::try_from(frame.len() + 8).unwrap();
    let udp = [40_000_u16.to_be_bytes(), 4789_u16.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    ip(Flow { v6: false, ..flow }, id, 17, &[udp, frame].concat(), false)
}

fn ip(flow: Flow, id: u16, protocol: u8, content: &[u8], with_checksum: bool) -> Vec<u8> {
    let mut packet = if flow.v6 {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x60, 0, 0, 0], length.as_slice(), &[protocol, 64], &[0xfd; 16], &[0xfe; 16]].concat()
    } else {
        let length = u16::try_from(content.len() + 20).unwrap().to_be_bytes();
        let fragments = if flow.dont_fragment { [0x40, 0] } else { [0, 0] };
        let mut header = [&[0x45, 0], length.as_slice(), &id.to_be_bytes(), &fragments, &[64, protocol, 0, 0]].concat();
        header.extend([10, 42, 0, 1, 10, 42, 0, 2]);
        let checksum = !folded(&[sum(&header)]);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    };
    let at = packet.len();
    packet.extend(content);
    if with_checksum {
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

/// Removes the options that were inserted into the outer IPv4 header.
fn without_options(packet: &[u8]) -> Vec<u8> {
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

/// Removes the checksum of a VXLAN packet, if it is correct: merging it as UDP adds one.
fn without_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let vxlan = packet.len() > 28 && packet[0] == 0x45 && packet[9] == 17 && packet[22..24] == 4789_u16.to_be_bytes();
    if vxlan && packet[26..28] != [0, 0] && transport_sum(&packet, 20, 17) == 0xffff {
        packet[26..28].fill(0);
    }
    packet
}

/// Merges packets and splits the result. Returns that, and the number of GSO packets in between.
fn merge_and_split(packets: &[Vec<u8>], support: OffloadSupport) -> (Vec<Vec<u8>>, usize) {
    let (mut merger, mut written) = (Merger::new(support), Vec::new());
    for packet in packets {
        merger.free_space()[..packet.len()].copy_from_slice(packet);
        merger.push(packet.len(), |bytes| written.push(bytes.to_vec()));
    }
    merger.flush(|bytes| written.push(bytes.to_vec()));
    let (mut restored, mut gso_count) = (Vec::new(), 0);
    for bytes in &mut written {
        let (head, packet) = bytes.split_first_chunk_mut::<HEADER_LEN>().unwrap();
        let header = VirtioHeader::parse(head);
        gso_count += usize::from(header.is_gso());
        split(&header, packet, |part| restored.push(without_checksum(without_options(part)))).unwrap();
    }
    (restored, gso_count)
}

/// The packets by flow, in order.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for packet in packets {
        let inner = if packet.len() > 90 && packet[22..24] == 4789_u16.to_be_bytes() { 50 } else { 0 };
        let key = match packet.get(inner) {
            Some(0x45) if packet.len() > 30 => packet.get(inner + 12..inner + 24),
            Some(0x60) if packet.len() > 48 => packet.get(inner + 8..inner + 44),
            _ => None,
        };
        // Flows also differ by the outer ports and by the VXLAN header.
        let (outer_ports, vxlan) = if inner == 0 { (&[][..], &[][..]) } else { (&packet[20..24], &packet[28..50]) };
        flows.entry([outer_ports, vxlan, key.unwrap_or_default()].concat()).or_default().push(packet.clone());
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

/// Consecutive packets of one flow, of equal size except that the last is shorter.
fn run() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (flow(), 1usize..40, 1usize..1200, any::<(u16, u32)>(), any::<bool>()).prop_map(
        |(flow, count, size, (id, sequence), pushed)| {
            let mut packets = Vec::new();
            for at in 0..count {
                let last = at + 1 == count;
                let length = if last { size.div_ceil(2) } else { size };
                let payload: Vec<u8> = (0..length).map(|byte| (byte * 7 + at) as u8).collect();
                let sequence = sequence.wrapping_add((at * size) as u32);
                let flags = if last && pushed { 0x18 } else { 0x10 };
                packets.push(packet(flow, id.wrapping_add(at as u16), sequence, flags, &payload));
            }
            packets
        },
    )
}

fn traffic() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let garbage = prop::collection::vec(any::<u8>(), 1..80).prop_map(|bytes| vec![bytes]);
    prop::collection::vec(prop_oneof![6 => run(), 1 => garbage], 1..6).prop_map(|runs| runs.concat())
}

/// Traffic with two packets swapped, a packet duplicated, or a byte changed.
fn disturbed_traffic() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (traffic(), any::<(Index, Index, Index, u8, u8)>()).prop_map(|(mut packets, (one, other, at, byte, choice))| {
        let (one, other) = (one.index(packets.len()), other.index(packets.len()));
        match choice % 3 {
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

fn support() -> impl Strategy<Value = OffloadSupport> {
    any::<[bool; 3]>().prop_map(|[tcp, udp, tunnel]| OffloadSupport { tcp, udp, tunnel: tunnel && tcp })
}

/// Clears the IDs of packets that must not be fragmented: they are meaningless (RFC 6864), and merging changes them.
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
    fn split_restores_merged_packets(packets in traffic(), support in support()) {
        let (restored, _) = merge_and_split(&packets, support);
        prop_assert_eq!(by_flow(&without_ids(&restored)), by_flow(&without_ids(&packets)));
    }

    #[test]
    fn split_restores_disturbed_traffic(packets in disturbed_traffic(), support in support()) {
        let (restored, _) = merge_and_split(&packets, support);
        prop_assert_eq!(by_flow(&without_ids(&restored)), by_flow(&without_ids(&packets)));
    }

    #[test]
    fn a_run_is_merged_into_one_packet(packets in run()) {
        let bytes: usize = packets.iter().map(Vec::len).sum();
        let (restored, gso_count) = merge_and_split(&packets, ALL);
        prop_assert_eq!(&restored, &packets);
        prop_assert_eq!(gso_count, usize::from(packets.len() > 1), "{} packets, {} bytes", packets.len(), bytes);
    }

    #[test]
    fn a_gso_packet_is_split_into_correct_packets(
        v6 in any::<bool>(),
        length in 1usize..20_000,
        size in 20u16..1400,
        sequence in any::<u32>(),
    ) {
        let flow = Flow { v6, tcp: true, vxlan: false, port: 7, dont_fragment: true };
        let payload: Vec<u8> = (0..length).map(|byte| (byte * 31) as u8).collect();
        // FIN, PSH, ACK and CWR.
        let mut gso_packet = packet(flow, 5, sequence, 0x99, &payload);
        let at = if v6 { 40 } else { 20 };
        let headers = gso_packet.len() - length;
        let header = VirtioHeader::gso(GsoType::Tcp { v6 }, 0, size, (at as u16, 16));
        let mut parts = Vec::new();
        split(&header, &mut gso_packet, |part| parts.push(part.to_vec())).unwrap();
        let payloads: Vec<u8> = parts.iter().flat_map(|part| part[headers..].to_vec()).collect();
        prop_assert_eq!(payloads, payload);
        for (number, part) in parts.iter().enumerate() {
            prop_assert_eq!(transport_sum(part, at, 6), 0xffff);
            let found = u32::from_be_bytes(part[at + 4..at + 8].try_into().unwrap());
            prop_assert_eq!(found, sequence.wrapping_add((number * usize::from(size)) as u32));
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
    fn splitting_any_bytes_does_not_panic(
        head in any::<[u8; HEADER_LEN]>(),
        choice in 0usize..8,
        start in 0u16..100,
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut plausible = head;
        plausible[0] &= 1;
        plausible[1] = [0, 1, 4, 5, 0x21, 0x24, 0x25, 0x41][choice];
        plausible[6..8].copy_from_slice(&start.to_ne_bytes());
        plausible[8..10].copy_from_slice(&16_u16.to_ne_bytes());
        for head in [head, plausible] {
            let header = VirtioHeader::parse(&head);
            let _split_or_malformed = split(&header, &mut bytes, |part| assert!(part.len() <= 65_536));
        }
    }

    #[test]
    fn splitting_a_packet_with_any_header_does_not_panic(
        packets in run(),
        head in any::<[u8; HEADER_LEN]>(),
        at in any::<Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = packets[0].clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _split_or_malformed = split(&VirtioHeader::parse(&head), &mut bytes, |_| {});
    }
}

#[test]
fn interleaved_flows_are_merged_separately() {
    let flow = |port| Flow { v6: false, tcp: true, vxlan: port % 2 == 0, port, dont_fragment: false };
    let mut packets = Vec::new();
    for at in 0..20_u16 {
        packets.extend((0..8).map(|port| packet(flow(port), at, u32::from(at) * 100, 0x10, &[at as u8; 100])));
    }
    let (restored, gso_count) = merge_and_split(&packets, ALL);
    assert_eq!((by_flow(&restored), gso_count), (by_flow(&packets), 8));
}

#[test]
fn a_packet_that_cannot_be_merged_keeps_its_place_in_the_flow() {
    let flow = Flow { v6: false, tcp: true, vxlan: true, port: 7, dont_fragment: false };
    let packets: Vec<Vec<u8>> = [0x10, 0x10, 0x11, 0x10]
        .iter()
        .enumerate()
        .map(|(at, flags)| packet(flow, at as u16, at as u32 * 100, *flags, &[at as u8; 100]))
        .collect();
    let (restored, gso_count) = merge_and_split(&packets, ALL);
    assert_eq!((restored, gso_count), (packets, 1));
}

#[test]
fn packets_with_a_wrong_checksum_are_not_merged() {
    let flow = Flow { v6: false, tcp: true, vxlan: false, port: 7, dont_fragment: false };
    let mut packets: Vec<Vec<u8>> =
        (0..3).map(|at| packet(flow, at, u32::from(at) * 100, 0x10, &[at as u8; 100])).collect();
    packets[1][60] ^= 1;
    let (restored, gso_count) = merge_and_split(&packets, ALL);
    assert_eq!((restored, gso_count), (packets, 0));
}

#[test]
fn a_run_longer_than_an_ip_packet_is_merged_into_two() {
    let flow = Flow { v6: false, tcp: true, vxlan: true, port: 7, dont_fragment: true };
    let packets: Vec<Vec<u8>> =
        (0..60).map(|at| packet(flow, at, u32::from(at) * 1300, 0x10, &[at as u8; 1300])).collect();
    let (restored, gso_count) = merge_and_split(&packets, ALL);
    assert_eq!((restored, gso_count), (packets, 2));
}
