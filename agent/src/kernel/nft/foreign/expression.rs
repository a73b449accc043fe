//! Parses expressions of rules.

use otherix_netlink::{attributes, find};

use super::{number, string, xtables};
use crate::model::filter::expression::{Comparison, Expression, Field, LookupResult, Register, Verdict};
use crate::model::filter::value::Data;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// The flags of limits, and of look-ups: the match is inverted.
const INVERTED: u32 = 1;

/// Parses an expression; the result is empty if it always goes on and changes nothing of interest.
pub(super) fn parse(element: &[u8]) -> Vec<Expression> {
    let name = string(element, NFTA_EXPR_NAME).unwrap_or_default();
    let data = find(element, NFTA_EXPR_DATA).map(|data| data.value).unwrap_or_default();
    let unknown = || vec![Expression::Scramble, Expression::Unknown];
    match name.as_str() {
        "counter" | "log" | "dup" | "last" | "tproxy" | "flow_offload" => Vec::new(),
        "limit" => limit(number(data, 5)),
        "connlimit" => limit(number(data, 2)),
        "quota" => vec![Expression::Unknown],
        "objref" => object(number(data, 1)),
        "dynset" => update(data),
        "notrack" => vec![Expression::Untrack],
        "reject" => vec![Expression::Verdict(Verdict::Reject)],
        "masq" | "nat" | "redir" => vec![Expression::Verdict(Verdict::Accept)],
        "queue" | "synproxy" => vec![Expression::Verdict(Verdict::Queue)],
        "fwd" => vec![Expression::Verdict(Verdict::Steal)],
        "match" => xtables::matching(data),
        "target" => xtables::target(data),
        "exthdr" if find(data, 7).is_some() => Vec::new(),
        // What it loads is not known.
        "exthdr" | "rt" | "osf" | "numgen" | "hash" | "tunnel" | "xfrm" | "inner" => vec![Expression::Scramble],
        // Of a socket of the node, which forwarded packets have none of.
        "socket" => vec![Expression::Scramble, Expression::Unknown],
        _ => loading(&name, data).unwrap_or_else(unknown),
    }
}

fn loading(name: &str, data: &[u8]) -> Option<Vec<Expression>> {
    let expression = match name {
        "meta" => match (register(data, 1), register(data, 3)) {
            (Some(to), _) => Expression::Load { field: Field::Meta(number(data, 2)?), to },
            (None, Some(from)) if Field::Meta(number(data, 2)?) == Field::MARK => Expression::SetMark { from },
            (None, _) => return Some(Vec::new()),
        },
        "ct" => match (register(data, 1), register(data, 4)) {
            (Some(to), _) => {
                let is_reply = find(data, 3).and_then(|direction| direction.value.first()).map(|reply| *reply != 0);
                Expression::Load { field: Field::Connection { key: number(data, 2)?, is_reply }, to }
            }
            (None, Some(from)) if number(data, 2)? == 3 => Expression::SetConnectionMark { from },
            (None, _) => return Some(Vec::new()),
        },
        "payload" => match register(data, 1) {
            Some(to) => {
                let field = Field::Payload { base: number(data, 2)?, offset: size(data, 3)?, length: size(data, 4)? };
                Expression::Load { field, to }
            }
            None => return Some(Vec::new()),
        },
        "fib" => {
            let field = Field::Fib { result: number(data, 2)?, flags: number(data, 3)? };
            Expression::Load { field, to: register(data, 1)? }
        }
        "cmp" => Expression::Compare {
            from: register(data, 1)?,
            comparison: comparison(number(data, 2)?)?,
            data: value(data, 3)?,
        },
        "range" => Expression::Range {
            from: register(data, 1)?,
            low: value(data, 3)?,
            high: value(data, 4)?,
            inverted: number(data, 2)? != 0,
        },
        "bitwise" if number(data, 6).unwrap_or_default() == 0 => Expression::Mask {
            from: register(data, 1)?,
            to: register(data, 2)?,
            mask: value(data, 4)?,
            xor: value(data, 5)?,
        },
        "bitwise" => Expression::Scramble,
        "byteorder" => {
            let (from, to) = (register(data, 1)?, register(data, 2)?);
            // The kernel swaps in the order of the host.
            let size = if cfg!(target_endian = "big") { 1 } else { size(data, 5)? };
            Expression::Swap { from, size, length: self::size(data, 4)?, to }
        }
        "immediate" => match register(data, 1) {
            Some(to) => Expression::Constant { data: value(data, 2)?, to },
            None => Expression::Verdict(verdict(find(data, 2)?.value)?),
        },
        "lookup" => {
            let result = match number(data, 3) {
                None => LookupResult::Nothing,
                Some(0) => LookupResult::Verdict,
                Some(_) => LookupResult::Load(register(data, 3)?),
            };
            let inverted = number(data, 5).unwrap_or_default() & INVERTED != 0;
            Expression::Lookup { set: string(data, 1)?, from: register(data, 2)?, result, inverted }
        }
        _ => return None,
    };
    Some(vec![expression])
}

/// `enum nft_cmp_ops`.
fn comparison(number: u32) -> Option<Comparison> {
    Some(match number {
        0 => Comparison::Equal,
        1 => Comparison::Unequal,
        2 => Comparison::Less,
        3 => Comparison::AtMost,
        4 => Comparison::Greater,
        5 => Comparison::AtLeast,
        _ => return None,
    })
}

/// A limit that is not reached: it matches, unless it is inverted.
fn limit(flags: Option<u32>) -> Vec<Expression> {
    if flags.is_some_and(|flags| flags & INVERTED != 0) { vec![Expression::Never] } else { Vec::new() }
}

/// A reference to an object of the table.
fn object(kind: Option<u32>) -> Vec<Expression> {
    match kind {
        // Quotas and limits.
        Some(2 | 4 | 5) => vec![Expression::Unknown],
        _ => Vec::new(),
    }
}

/// An update of a set, which goes on unless a limit in it does not.
fn update(data: &[u8]) -> Vec<Expression> {
    let single = find(data, 7).map(|single| parse(single.value)).unwrap_or_default();
    let list = find(data, 10).map(|list| list.value).unwrap_or_default();
    let list = attributes(list).map_while(Result::ok).flat_map(|element| parse(element.value));
    single.into_iter().chain(list).collect()
}

/// Parses what a rule or an element decides.
pub(super) fn verdict(data: &[u8]) -> Option<Verdict> {
    let verdict = find(data, NFTA_DATA_VERDICT)?.value;
    let chain = || string(verdict, NFTA_VERDICT_CHAIN);
    let code = i32::from_ne_bytes(number(verdict, NFTA_VERDICT_CODE)?.to_ne_bytes());
    Some(match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        2 => Verdict::Steal,
        -1 | -2 => Verdict::Continue,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => Verdict::Queue,
    })
}

/// Parses a constant.
pub(super) fn value(fields: &[u8], kind: u16) -> Option<Data> {
    Some(Data(find(find(fields, kind)?.value, NFTA_DATA_VALUE)?.value.to_vec()))
}

fn size(fields: &[u8], kind: u16) -> Option<usize> {
    usize::try_from(number(fields, kind)?).ok()
}

/// Parses the number of a register of data.
fn register(fields: &[u8], kind: u16) -> Option<Register> {
    let number = usize::try_from(number(fields, kind)?).ok()?;
    match number {
        1..=4 => Some((number - 1) * 16),
        8..=23 => Some((number - 8) * 4),
        _ => None,
    }
}
