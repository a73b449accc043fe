//! The filters of a tap's packet sockets, in classic BPF: only what may be answered wakes the agent. They decide by
//! fields at fixed offsets; everything is checked again by [`Guest::answer`], and for questions about names in `dns`.

use crate::answer::Guest;
use crate::frame::{ARP, DNS, ECHO_REQUEST, ICMP, IPV4, SERVER, UDP};

/// An instruction as the kernel has it (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    /// Instructions to skip if a condition is met, and if not.
    pub skip: (u8, u8),
    pub value: u32,
}

/// How much of a packet is received, in bytes.
pub const RECEIVED_MAX: u32 = 2_048;

/// Codes of instructions: load from a fixed offset, from one after the IPv4 header, the size of that header, compare,
/// and return.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AFTER: u16 = 0x48;
const LOAD_BYTE_AFTER: u16 = 0x50;
const LOAD_HEADER_SIZE: u16 = 0xb1;
const IS_EQUAL: u16 = 0x15;
const HAS_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: a tag is not part of the packet any more.
const HAS_VLAN_TAG: u32 = 0xffff_f000 + 48;

/// Offsets in a frame.
const SOURCE: u32 = 6;
const TYPE: u32 = 12;
const PACKET: u32 = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Next,
    Udp,
    Icmp,
    Arp,
    Drop,
    Accept,
}

enum Line {
    /// What follows has this label.
    At(Label),
    Run(u16, u32),
    Jump {
        condition: u16,
        value: u32,
        then: Label,
        or_else: Label,
    },
}

/// Returns the program that accepts the guest's DHCP messages and, if the kernel does not answer them, ARP and echo
/// requests for its gateway.
pub fn program(guest: &Guest) -> Vec<Instruction> {
    let [a, b, c, d, e, f] = guest.mac;
    let gateway = guest.lease.server.to_bits();
    let for_gateway = |label| if guest.answers_for_gateway { label } else { Label::Drop };
    let require = |condition, value| Line::Jump { condition, value, then: Label::Next, or_else: Label::Drop };
    let accept_if = |value| Line::Jump { condition: IS_EQUAL, value, then: Label::Accept, or_else: Label::Drop };
    let choose = |value: u32, then, or_else| Line::Jump { condition: IS_EQUAL, value, then, or_else };
    assemble(&[
        Line::Run(LOAD_WORD, HAS_VLAN_TAG),
        require(IS_EQUAL, 0),
        Line::Run(LOAD_WORD, SOURCE),
        require(IS_EQUAL, u32::from_be_bytes([a, b, c, d])),
        Line::Run(LOAD_HALF, SOURCE + 4),
        require(IS_EQUAL, u16::from_be_bytes([e, f]).into()),
        Line::Run(LOAD_HALF, TYPE),
        choose(ARP.into(), for_gateway(Label::Arp), Label::Next),
        require(IS_EQUAL, IPV4.into()),
        // No fragments.
        Line::Run(LOAD_HALF, PACKET + 6),
        Line::Jump { condition: HAS_BITS, value: 0x3fff, then: Label::Drop, or_else: Label::Next },
        Line::Run(LOAD_BYTE, PACKET + 9),
        choose(UDP.into(), Label::Udp, Label::Next),
        choose(ICMP.into(), for_gateway(Label::Icmp), Label::Drop),
        Line::At(Label::Icmp),
        Line::Run(LOAD_WORD, PACKET + 16),
        require(IS_EQUAL, gateway),
        Line::Run(LOAD_HEADER_SIZE, PACKET),
        Line::Run(LOAD_BYTE_AFTER, PACKET),
        accept_if(ECHO_REQUEST.into()),
        Line::At(Label::Udp),
        Line::Run(LOAD_HEADER_SIZE, PACKET),
        Line::Run(LOAD_HALF_AFTER, PACKET + 2),
        accept_if(SERVER.into()),
        Line::At(Label::Arp),
        // A request.
        Line::Run(LOAD_HALF, PACKET + 6),
        require(IS_EQUAL, 1),
        Line::Run(LOAD_WORD, PACKET + 24),
        accept_if(gateway),
        Line::At(Label::Drop),
        Line::Run(RETURN, 0),
        Line::At(Label::Accept),
        Line::Run(RETURN, RECEIVED_MAX),
    ])
}

/// Returns the program that accepts the guest's questions about names: datagrams from its address to port 53 of its
/// gateway, from its MAC address to that of the gateway.
pub fn dns_program(guest: &Guest) -> Vec<Instruction> {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (guest.gateway_mac, guest.mac);
    let require = |value| Line::Jump { condition: IS_EQUAL, value, then: Label::Next, or_else: Label::Drop };
    assemble(&[
        Line::Run(LOAD_WORD, HAS_VLAN_TAG),
        require(0),
        Line::Run(LOAD_WORD, 0),
        require(u32::from_be_bytes([a, b, c, d])),
        Line::Run(LOAD_WORD, 4),
        require(u32::from_be_bytes([e, f, g, h])),
        Line::Run(LOAD_WORD, 8),
        require(u32::from_be_bytes([i, j, k, l])),
        Line::Run(LOAD_HALF, TYPE),
        require(IPV4.into()),
        // No fragments.
        Line::Run(LOAD_HALF, PACKET + 6),
        Line::Jump { condition: HAS_BITS, value: 0x3fff, then: Label::Drop, or_else: Label::Next },
        Line::Run(LOAD_BYTE, PACKET + 9),
        require(UDP.into()),
        Line::Run(LOAD_WORD, PACKET + 12),
        require(guest.lease.address.to_bits()),
        Line::Run(LOAD_WORD, PACKET + 16),
        require(guest.lease.server.to_bits()),
        Line::Run(LOAD_HEADER_SIZE, PACKET),
        Line::Run(LOAD_HALF_AFTER, PACKET + 2),
        Line::Jump { condition: IS_EQUAL, value: DNS.into(), then: Label::Accept, or_else: Label::Drop },
        Line::At(Label::Drop),
        Line::Run(RETURN, 0),
        Line::At(Label::Accept),
        Line::Run(RETURN, RECEIVED_MAX),
    ])
}

fn assemble(lines: &[Line]) -> Vec<Instruction> {
    let mut labels = Vec::new();
    let mut count = 0;
    for line in lines {
        match line {
            Line::At(label) => labels.push((*label, count)),
            Line::Run(..) | Line::Jump { .. } => count += 1,
        }
    }
    let mut program = Vec::new();
    for line in lines {
        // All jumps are forward, as in every such program.
        let skip = |label: Label| {
            let target = labels.iter().find(|(known, _)| *known == label).map_or(program.len() + 1, |(_, at)| *at);
            u8::try_from(target.saturating_sub(program.len() + 1)).unwrap_or(u8::MAX)
        };
        let instruction = match *line {
            Line::At(_) => continue,
            Line::Run(code, value) => Instruction { code, skip: (0, 0), value },
            Line::Jump { condition, value, then, or_else } => {
                Instruction { code: condition, skip: (skip(then), skip(or_else)), value }
            }
        };
        program.push(instruction);
    }
    program
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
