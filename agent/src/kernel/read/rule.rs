//! Parses rules of policy routing. Numbers are from linux/fib_rules.h.

use std::net::Ipv4Addr;

use super::ip::AF_INET;
use super::{attributes, integer, text};
use crate::model::route::Prefix;
use crate::model::rule::Rule;

/// `struct fib_rule_hdr`.
const RULE_HEADER: usize = 12;

const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FRA_UID_RANGE: u16 = 20;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;

/// The link that packets of the node itself count as received on.
const LOOPBACK: &str = "lo";

/// Parses a rule that selects a table.
pub(super) fn rule(payload: &[u8]) -> Option<Rule> {
    let header: &[u8; RULE_HEADER] = payload.first_chunk()?;
    let [family, _, source, _, table, _, _, action, flags @ ..] = *header;
    if family != AF_INET || action != FR_ACT_TO_TBL {
        return None;
    }
    let mut rule = Rule {
        priority: 0,
        table: table.into(),
        from: None,
        received_on: None,
        is_local: false,
        is_inverted: u32::from_ne_bytes(flags) & FIB_RULE_INVERT != 0,
    };
    for attribute in attributes(payload.get(RULE_HEADER..)?) {
        match attribute.kind {
            FRA_SRC => rule.from = Some(Prefix::of(Ipv4Addr::from(attribute.array::<4>()?), source)),
            FRA_IIFNAME => rule.received_on = Some(text(attribute.value)),
            FRA_PRIORITY => rule.priority = integer(attribute.value)?,
            FRA_TABLE => rule.table = integer(attribute.value)?,
            // Only sockets are bound to a link, or have an owner.
            FRA_OIFNAME | FRA_UID_RANGE => rule.is_local = true,
            _ => {}
        }
    }
    rule.is_local |= rule.received_on.as_deref() == Some(LOOPBACK);
    Some(rule)
}
