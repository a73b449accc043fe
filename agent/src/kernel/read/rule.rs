//! Parses rules of policy routing. Numbers are from linux/fib_rules.h.

use std::net::Ipv4Addr;

use super::ip::AF_INET;
use super::{attributes, integer, text};
use crate::model::route::Prefix;
use crate::model::rule::Rule;

/// `struct fib_rule_hdr`.
const RULE_HEADER: usize = 12;

const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TUN_ID: u16 = 12;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FRA_UID_RANGE: u16 = 20;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
const FR_ACT_TO_TBL: u8 = 1;
/// `FR_ACT_BLACKHOLE`, `FR_ACT_UNREACHABLE`, `FR_ACT_PROHIBIT`.
const DROPPING: std::ops::RangeInclusive<u8> = 6..=8;
const FIB_RULE_INVERT: u32 = 2;

/// The link that packets of the node itself count as received on.
const LOOPBACK: &str = "lo";

/// Parses a rule that selects a table, or drops packets.
pub(super) fn rule(payload: &[u8]) -> Option<Rule> {
    let header: &[u8; RULE_HEADER] = payload.first_chunk()?;
    let [family, destination, source, tos, table, _, _, action, flags @ ..] = *header;
    let drops = DROPPING.contains(&action);
    if family != AF_INET || (action != FR_ACT_TO_TBL && !drops) {
        return None;
    }
    let mut rule = Rule {
        priority: 0,
        table: (!drops).then_some(table.into()),
        from: None,
        to: None,
        received_on: None,
        is_local: false,
        is_inverted: u32::from_ne_bytes(flags) & FIB_RULE_INVERT != 0,
        is_partial: tos != 0,
        ignores_defaults: false,
    };
    for attribute in attributes(payload.get(RULE_HEADER..)?) {
        match attribute.kind {
            FRA_DST => rule.to = Some(Prefix::of(Ipv4Addr::from(attribute.array::<4>()?), destination)),
            FRA_SRC => rule.from = Some(Prefix::of(Ipv4Addr::from(attribute.array::<4>()?), source)),
            FRA_IIFNAME => rule.received_on = Some(text(attribute.value)),
            FRA_PRIORITY => rule.priority = integer(attribute.value)?,
            FRA_TABLE if !drops => rule.table = Some(integer(attribute.value)?),
            // The kernel writes -1 if nothing is suppressed.
            FRA_SUPPRESS_PREFIXLEN => rule.ignores_defaults = integer(attribute.value)? != u32::MAX,
            FRA_FWMARK | FRA_TUN_ID | FRA_IP_PROTO | FRA_SPORT_RANGE | FRA_DPORT_RANGE => rule.is_partial = true,
            // Only sockets are bound to a link, or have an owner.
            FRA_OIFNAME | FRA_UID_RANGE => rule.is_local = true,
            _ => {}
        }
    }
    rule.is_local |= rule.received_on.as_deref() == Some(LOOPBACK);
    Some(rule)
}
