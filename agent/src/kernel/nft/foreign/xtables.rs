//! Parses matches and targets of iptables (linux/netfilter/xt_*.h), whose data has the host's byte order.

use otherix_netlink::find;

use super::{number, string};
use crate::model::filter::expression::{Expression, Verdict};
use crate::model::filter::xtables::XtMatch;

const NAME: u16 = 1;
const REVISION: u16 = 2;
const DATA: u16 = 3;

/// The data of a match or target.
struct Info<'a>(&'a [u8]);

impl Info<'_> {
    fn byte(&self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    fn short(&self, offset: usize) -> Option<u16> {
        self.0.get(offset..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    fn number(&self, offset: usize) -> Option<u32> {
        self.0.get(offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    fn range(&self, offset: usize) -> Option<(u16, u16)> {
        Some((self.short(offset)?, self.short(offset + 2)?))
    }
}

/// Parses a match; the result is empty if it always matches.
pub(super) fn matching(data: &[u8]) -> Vec<Expression> {
    let name = string(data, NAME).unwrap_or_default();
    match name.as_str() {
        // Limits are not reached.
        "comment" | "limit" => Vec::new(),
        _ => {
            let info = Info(find(data, DATA).map(|data| data.value).unwrap_or_default());
            let revision = number(data, REVISION).unwrap_or_default();
            vec![known(&name, revision, &info).map_or(Expression::Unknown, Expression::Xt)]
        }
    }
}

fn known(name: &str, revision: u32, info: &Info<'_>) -> Option<XtMatch> {
    Some(match (name, revision) {
        ("conntrack", 1..=3) => {
            const STATE: u16 = 1;
            const STATE_ALIAS: u16 = 1 << 13;
            let (asked, inverted) = (info.short(146)?, info.short(148)?);
            if asked & !STATE_ALIAS != STATE {
                return None;
            }
            let states = if revision == 1 { u32::from(info.byte(150)?) } else { u32::from(info.short(150)?) };
            XtMatch::State { states, inverted: inverted & STATE != 0 }
        }
        ("state", _) => XtMatch::State { states: info.number(0)?, inverted: false },
        ("mark", 1) => XtMatch::Mark { value: info.number(0)?, mask: info.number(4)?, inverted: info.byte(8)? != 0 },
        ("connmark", 1) => {
            XtMatch::ConnectionMark { value: info.number(0)?, mask: info.number(4)?, inverted: info.byte(8)? != 0 }
        }
        ("addrtype", 1) => {
            let flags = info.number(4)?;
            if flags & !0b11 != 0 {
                // Only for addresses of one link.
                return None;
            }
            XtMatch::AddressType {
                source: info.short(0)?.into(),
                destination: info.short(2)?.into(),
                inverts_source: flags & 1 != 0,
                inverts_destination: flags & 2 != 0,
            }
        }
        ("multiport", 1) => {
            let count = usize::from(info.byte(1)?);
            let mut ranges = Vec::new();
            let mut index = 0;
            while index < count {
                let port = info.short(2 + index * 2)?;
                let is_range = info.byte(32 + index)? != 0;
                index += if is_range { 2 } else { 1 };
                let last = if is_range { info.short(2 + (index - 1) * 2)? } else { port };
                ranges.push((port, last));
            }
            XtMatch::Ports { which: info.byte(0)?, ranges, inverted: info.byte(47)? != 0 }
        }
        ("tcp", _) if info.byte(8)? == 0 => XtMatch::Tcp {
            source: info.range(0)?,
            destination: info.range(4)?,
            mask: info.byte(9)?,
            flags: info.byte(10)?,
            inverted: info.byte(11)?,
        },
        ("udp", _) => XtMatch::Udp { source: info.range(0)?, destination: info.range(4)?, inverted: info.byte(8)? },
        ("icmp", _) => {
            XtMatch::Icmp { kind: info.byte(0)?, codes: (info.byte(1)?, info.byte(2)?), inverted: info.byte(3)? != 0 }
        }
        ("physdev", _) => XtMatch::Bridged { inverted: info.byte(64)?, asked: info.byte(65)? },
        _ => return None,
    })
}

/// Parses a target; the result is empty if it goes on and changes nothing of interest.
pub(super) fn target(data: &[u8]) -> Vec<Expression> {
    let name = string(data, NAME).unwrap_or_default();
    let info = Info(find(data, DATA).map(|data| data.value).unwrap_or_default());
    let verdict = |verdict| vec![Expression::Verdict(verdict)];
    match name.as_str() {
        "REJECT" => verdict(Verdict::Reject),
        "DROP" => verdict(Verdict::Drop),
        "ACCEPT" | "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" => verdict(Verdict::Accept),
        "NFQUEUE" | "QUEUE" | "SYNPROXY" => verdict(Verdict::Queue),
        "NOTRACK" => vec![Expression::Untrack],
        "CT" if info.short(0).is_some_and(|flags| flags & 1 != 0) => vec![Expression::Untrack],
        "MARK" => match (info.number(0), info.number(4)) {
            (Some(xor), Some(mask)) => vec![Expression::ChangeMark { mask, xor }],
            _ => Vec::new(),
        },
        "CONNMARK" => {
            let revision = number(data, REVISION).unwrap_or_default();
            connection_mark(revision, &info).map_or_else(|| vec![Expression::ScrambleMarks], |mark| vec![mark])
        }
        // LOG, TCPMSS, CHECKSUM and others do not decide.
        _ => Vec::new(),
    }
}

/// The second revision can shift marks, which is not understood.
fn connection_mark(revision: u32, info: &Info<'_>) -> Option<Expression> {
    let mode = match revision {
        1 => info.byte(12)?,
        2 if info.byte(13)? == 0 => info.byte(14)?,
        _ => return None,
    };
    let (mark, connection_mask, packet_mask) = (info.number(0)?, info.number(4)?, info.number(8)?);
    match mode {
        0 => Some(Expression::ChangeConnectionMark { mask: connection_mask, xor: mark }),
        1 => Some(Expression::SaveMark { connection_mask, packet_mask }),
        2 => Some(Expression::RestoreMark { connection_mask, packet_mask }),
        _ => None,
    }
}
