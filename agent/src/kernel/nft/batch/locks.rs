//! The sets of the guest filter with the addresses of single taps ([`TapLock`]), and the rules that look them up:
//!
//! - a tap of a network that assigns addresses: IPv4 and ARP only with the address of its NIC. An ARP request without a
//!   sender's address, which finds out whether an address is in use (RFC 5227), only for that address. IPv6 only with
//!   the link-local address that follows from the MAC address; without an address only what finds out whether that one
//!   is in use, and reports of multicast listeners; neighbour advertisements only for that one;
//! - a tap whose guest may use any address: neither the gateway's IPv4 address nor its MAC address.
//!
//! A look-up takes the same time however many taps there are, and an entry is added without touching the others. A tap
//! of a network that assigns addresses and that has no entry sends none of these packets.

use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr};

use nftnl::set::{Set, SetKey};
use nftnl::{Batch, Chain, MsgType, ProtoFamily, Rule, Table, nft_expr};
use otherix_schemas::value::MacAddress;

use super::guests::{ETH_P_IPV6, ICMPV6, in_groups, is_of_type};
use super::sets::{Icmpv6Type, LinkName, WithAddress, WithAddresses, WithIpv6, WithMac};
use super::{add_rule, add_set, encode};
use crate::kernel::nft::expression::{Field, GroupOf, SecondPart};
use crate::model::firewall::GUEST_TABLES;
use crate::model::link_group::LinkGroup;
use crate::model::tap_lock::{TapLock, TapLocks};

/// The names of the sets.
const ADDRESSES: &CStr = c"addresses";
const LINK_LOCALS: &CStr = c"link_locals";
const GATEWAYS: &CStr = c"gateways";
const GATEWAY_MACS: &CStr = c"gateway_macs";

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
/// The first bytes of an ARP packet about IPv4 on Ethernet: hardware type, protocol, lengths of their addresses.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// `ARPOP_REQUEST`, at this offset.
const ARP_REQUEST: u16 = 1;
const ARP_OPERATION: u32 = 6;
/// Types of ICMPv6 messages.
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Reports of multicast listeners (MLD, RFC 2710 and 3810), which hosts send before they have an address, too.
const LISTENER_REPORTS: [u8; 3] = [131, 132, 143];

/// The sets, with these locks.
pub(super) struct LockSets<'a> {
    addresses: Set<'a, WithAddresses>,
    link_locals: Set<'a, WithIpv6>,
    gateways: Set<'a, WithAddress>,
    gateway_macs: Set<'a, WithMac>,
}

impl<'a> LockSets<'a> {
    /// Returns the sets of a table, whose numbers in the batch begin with `id`.
    pub(super) fn new(table: &'a Table, id: u32, locks: &TapLocks) -> Self {
        let mut sets = Self {
            addresses: Set::new_named(ADDRESSES, id, table, ProtoFamily::Bridge),
            link_locals: Set::new_named(LINK_LOCALS, id + 1, table, ProtoFamily::Bridge),
            gateways: Set::new_named(GATEWAYS, id + 2, table, ProtoFamily::Bridge),
            gateway_macs: Set::new_named(GATEWAY_MACS, id + 3, table, ProtoFamily::Bridge),
        };
        for (tap, locks) in locks {
            locks.iter().for_each(|lock| sets.add(LinkName::of(tap), *lock));
        }
        sets
    }

    fn add(&mut self, tap: LinkName, lock: TapLock) {
        match lock {
            TapLock::Address { mac, address } => self.addresses.add(&WithAddresses(tap, mac, address)),
            TapLock::LinkLocal(address) => self.link_locals.add(&WithIpv6(tap, address)),
            TapLock::Gateway(address) => self.gateways.add(&WithAddress(tap, address)),
            TapLock::GatewayMac(mac) => self.gateway_macs.add(&WithMac(tap, mac)),
        }
    }

    /// Adds the sets and their elements.
    pub(super) fn add_to(&self, batch: &mut Batch) {
        add_set(batch, &self.addresses);
        add_set(batch, &self.link_locals);
        add_set(batch, &self.gateways);
        add_set(batch, &self.gateway_macs);
    }

    /// Adds the elements to existing sets, or removes them.
    fn change_in(&self, batch: &mut Batch, change: fn() -> MsgType) {
        batch.add_iter(self.addresses.elems_iter(), change());
        batch.add_iter(self.link_locals.elems_iter(), change());
        batch.add_iter(self.gateways.elems_iter(), change());
        batch.add_iter(self.gateway_macs.elems_iter(), change());
    }
}

/// Encodes the batch that removes some locks and adds others. The kernel refuses all of it if one of the former does
/// not exist, or one of the latter does.
pub(in crate::kernel::nft) fn change(removed: &TapLocks, added: &TapLocks) -> Vec<u8> {
    let mut batch = Batch::new();
    if let Some(table) = super::guests::table(GUEST_TABLES, crate::kernel::nft::tables::FAMILY_BRIDGE) {
        LockSets::new(&table, 1, removed).change_in(&mut batch, || MsgType::Del);
        LockSets::new(&table, 1, added).change_in(&mut batch, || MsgType::Add);
    }
    encode(batch)
}

/// Whether a set of the table of family `bridge` has locks.
pub(in crate::kernel::nft) fn has_locks(set: &[u8]) -> bool {
    [ADDRESSES, LINK_LOCALS, GATEWAYS, GATEWAY_MACS].iter().any(|name| name.to_bytes_with_nul() == set)
}

/// Parses an element of a set that has locks: the name of the tap, and the lock.
pub(in crate::kernel::nft) fn parse(set: &[u8], key: &[u8]) -> Option<(String, TapLock)> {
    let (name, rest) = key.split_first_chunk::<16>()?;
    let name = name.split(|byte| *byte == 0).next()?;
    let tap = String::from_utf8_lossy(name).into_owned();
    let mac = || MacAddress::try_from(*rest.first_chunk::<6>()?).ok();
    let ipv4 = |at: usize| rest.get(at..)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
    let set = CStr::from_bytes_with_nul(set).ok()?;
    let lock = if set == ADDRESSES {
        TapLock::Address { mac: mac()?, address: ipv4(8)? }
    } else if set == LINK_LOCALS {
        TapLock::LinkLocal(Ipv6Addr::from(*rest.first_chunk::<16>()?))
    } else if set == GATEWAYS {
        TapLock::Gateway(ipv4(0)?)
    } else if set == GATEWAY_MACS {
        TapLock::GatewayMac(mac()?)
    } else {
        return None;
    };
    Some((tap, lock))
}

/// Adds the rules to the chain that has all frames, as the last of it.
pub(super) fn add_rules(batch: &mut Batch, table: &Table, receive: &Chain<'_>, sets: &LockSets<'_>) {
    add_locked(batch, table, sets);
    for group in [LinkGroup::AssignedTap, LinkGroup::AssignedGatewayTap] {
        jump(batch, receive, group, c"locked");
    }
    let free = Chain::new(c"free", table);
    batch.add(&free, MsgType::Add);
    add_rule(batch, &free, |rule| {
        of_tap(rule, &[(Field::EthernetSource, WithMac::MAC)]);
        rule.add_expr(&nft_expr!(lookup & sets.gateway_macs));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    for (kind, source) in [(ETH_P_IP, Field::Ipv4Source), (ETH_P_ARP, Field::ArpSender)] {
        add_rule(batch, &free, |rule| {
            is_of_type(rule, kind);
            of_tap(rule, &[(source, LinkName::LEN)]);
            rule.add_expr(&nft_expr!(lookup & sets.gateways));
            rule.add_expr(&nft_expr!(verdict drop));
        });
    }
    for group in [LinkGroup::GatewayTap, LinkGroup::SpoofingTap, LinkGroup::SpoofingGatewayTap] {
        jump(batch, receive, group, c"free");
    }
}

fn jump(batch: &mut Batch, from: &Chain<'_>, group: LinkGroup, to: &CStr) {
    add_rule(batch, from, |rule| {
        in_groups(rule, GroupOf::Input, u32::MAX, group.number());
        rule.add_expr(&nft_expr!(verdict jump to.to_owned()));
    });
}

/// Adds the chains for taps whose guests can use one address only.
fn add_locked(batch: &mut Batch, table: &Table, sets: &LockSets<'_>) {
    let arp = add_arp(batch, table, sets);
    let ipv6 = add_ipv6(batch, table, sets);
    let locked = Chain::new(c"locked", table);
    batch.add(&locked, MsgType::Add);
    add_rule(batch, &locked, |rule| {
        is_of_type(rule, ETH_P_IP);
        of_tap(rule, &[(Field::EthernetSource, WithMac::MAC), (Field::Ipv4Source, WithAddresses::ADDRESS)]);
        rule.add_expr(&nft_expr!(lookup & sets.addresses));
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, &locked, |rule| {
        is_of_type(rule, ETH_P_IP);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    for (kind, chain) in [(ETH_P_ARP, arp), (ETH_P_IPV6, ipv6)] {
        add_rule(batch, &locked, |rule| {
            is_of_type(rule, kind);
            rule.add_expr(&nft_expr!(verdict jump chain.to_owned()));
        });
    }
}

/// Adds the chain for ARP, which drops what it does not accept, and returns its name.
fn add_arp(batch: &mut Batch, table: &Table, sets: &LockSets<'_>) -> &'static CStr {
    let arp = Chain::new(c"arp", table);
    batch.add(&arp, MsgType::Add);
    add_rule(batch, &arp, |rule| {
        rule.add_expr(&nft_expr!(payload_raw nh 0, 6));
        rule.add_expr(&nft_expr!(cmp != ARP_OF_IPV4.as_slice()));
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, &arp, |rule| {
        of_tap(rule, &[(Field::ArpSenderMac, WithMac::MAC), (Field::ArpSender, WithAddresses::ADDRESS)]);
        rule.add_expr(&nft_expr!(lookup & sets.addresses));
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, &arp, |rule| {
        rule.add_expr(&nft_expr!(payload_raw nh ARP_OPERATION, 2));
        rule.add_expr(&nft_expr!(cmp == ARP_REQUEST.to_be()));
        rule.add_expr(&nft_expr!(payload_raw nh 14, 4));
        rule.add_expr(&nft_expr!(cmp == 0_u32));
        of_tap(rule, &[(Field::ArpSenderMac, WithMac::MAC), (Field::ArpTarget, WithAddresses::ADDRESS)]);
        rule.add_expr(&nft_expr!(lookup & sets.addresses));
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, &arp, |rule| rule.add_expr(&nft_expr!(verdict drop)));
    c"arp"
}

/// Adds the chain for IPv6, which drops what it does not accept, and returns its name.
fn add_ipv6(batch: &mut Batch, table: &Table, sets: &LockSets<'_>) -> &'static CStr {
    let reports =
        super::guests::add_numbers(batch, table, c"reports", 10, LISTENER_REPORTS.map(|kind| Icmpv6Type::of([kind])));
    let ipv6 = Chain::new(c"ipv6", table);
    batch.add(&ipv6, MsgType::Add);
    let has_own = |rule: &mut Rule<'_>, field| {
        of_tap(rule, &[(field, LinkName::LEN)]);
        rule.add_expr(&nft_expr!(lookup & sets.link_locals));
    };
    add_rule(batch, &ipv6, |rule| {
        is_icmpv6(rule, NEIGHBOUR_ADVERTISEMENT);
        has_own(rule, Field::NeighbourTarget);
        has_own(rule, Field::Ipv6Source);
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, &ipv6, |rule| {
        is_icmpv6(rule, NEIGHBOUR_ADVERTISEMENT);
        rule.add_expr(&nft_expr!(verdict drop));
    });
    add_rule(batch, &ipv6, |rule| {
        has_own(rule, Field::Ipv6Source);
        rule.add_expr(&nft_expr!(verdict accept));
    });
    let has_none = |rule: &mut Rule<'_>| {
        rule.add_expr(&nft_expr!(payload_raw nh 8, 16));
        rule.add_expr(&nft_expr!(cmp == [0_u8; 16].as_slice()));
    };
    add_rule(batch, &ipv6, |rule| {
        has_none(rule);
        is_icmpv6(rule, NEIGHBOUR_SOLICITATION);
        has_own(rule, Field::NeighbourTarget);
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, &ipv6, |rule| {
        has_none(rule);
        rule.add_expr(&nft_expr!(meta l4proto));
        rule.add_expr(&nft_expr!(cmp == ICMPV6));
        rule.add_expr(&nft_expr!(payload_raw th 0, 1));
        rule.add_expr(&nft_expr!(lookup & reports));
        rule.add_expr(&nft_expr!(verdict accept));
    });
    add_rule(batch, &ipv6, |rule| rule.add_expr(&nft_expr!(verdict drop)));
    c"ipv6"
}

fn is_icmpv6(rule: &mut Rule<'_>, kind: u8) {
    rule.add_expr(&nft_expr!(meta l4proto));
    rule.add_expr(&nft_expr!(cmp == ICMPV6));
    rule.add_expr(&nft_expr!(payload_raw th 0, 1));
    rule.add_expr(&nft_expr!(cmp == kind));
}

/// Loads the name of the tap, and these fields behind it, each at its offset in the key.
fn of_tap(rule: &mut Rule<'_>, fields: &[(Field, u32)]) {
    rule.add_expr(&nft_expr!(meta iifname));
    for (field, after) in fields {
        rule.add_expr(&SecondPart { field: *field, after: *after });
    }
}
