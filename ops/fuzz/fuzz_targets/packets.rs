//! Packets between the TUN device and the wire: splitting of large packets with any header, and merging of any packets,
//! whose results can be split again.
#![no_main]
#![allow(dead_code, unused_imports, reason = "the mesh device uses more of the module than this target")]

use libfuzzer_sys::fuzz_target;

// The module is private to its crate; it names nothing outside itself.
#[path = "../../../agent/mesh/src/packet/mod.rs"]
mod packet;

use packet::merge::{Merger, OffloadSupport};
use packet::split::split;
use packet::virtio::{HEADER_LEN, VirtioHeader};

/// Longest IP packet.
const LONGEST: usize = 65_535;

fuzz_target!(|bytes: &[u8]| {
    let Some((selector, bytes)) = bytes.split_first() else { return };
    let _addresses = packet::addresses(bytes);
    if let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let _valid_or_not = split(&VirtioHeader::parse(header), &mut body.to_vec(), |_| {});
    }
    let support = OffloadSupport { tcp: selector & 1 != 0, udp: selector & 2 != 0, tunnel: selector & 4 != 0 };
    let (mut merger, mut written) = (Merger::new(support), Vec::new());
    // Two bytes of length, then the packet, repeatedly.
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len()).min(LONGEST);
        let (packet, after) = after.split_at(length);
        merger.free_space()[..length].copy_from_slice(packet);
        merger.push(length, |large| written.push(large.to_vec()));
        rest = after;
    }
    merger.flush(|large| written.push(large.to_vec()));
    for large in &mut written {
        let (header, packet) = large.split_first_chunk_mut::<HEADER_LEN>().expect("every packet has its header");
        split(&VirtioHeader::parse(header), packet, |_| {}).expect("merged packets can be split");
    }
});
