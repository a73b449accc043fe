//! What rules consist of: expressions that load parts of a packet into registers, compare them, and give a verdict.
//! Numbers are from linux/netfilter/nf_tables.h.

use serde::{Deserialize, Serialize};

use super::value::Data;
use super::xtables::XtMatch;

/// An offset in the registers, in bytes.
pub type Register = usize;

/// An expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    /// Loads a part of the packet.
    Load {
        field: Field,
        to: Register,
    },
    /// Loads a constant.
    Constant {
        data: Data,
        to: Register,
    },
    /// Goes on if the register compares so.
    Compare {
        from: Register,
        comparison: Comparison,
        data: Data,
    },
    /// Goes on if the register is in the range, or, inverted, if it is not.
    Range {
        from: Register,
        low: Data,
        high: Data,
        inverted: bool,
    },
    /// Loads `(from & mask) ^ xor`.
    Mask {
        from: Register,
        mask: Data,
        xor: Data,
        to: Register,
    },
    /// Reverses the bytes of numbers of this size.
    Swap {
        from: Register,
        size: usize,
        length: usize,
        to: Register,
    },
    /// Goes on if the set has the register's value, or, inverted, if it does not; a map gives a verdict, or loads.
    Lookup {
        set: String,
        from: Register,
        result: LookupResult,
        inverted: bool,
    },
    /// Sets the mark of the packet.
    SetMark {
        from: Register,
    },
    /// Sets the mark of the connection.
    SetConnectionMark {
        from: Register,
    },
    /// `(mark & !mask) ^ xor`, of the packet.
    ChangeMark {
        mask: u32,
        xor: u32,
    },
    /// `(mark & !mask) ^ xor`, of the connection.
    ChangeConnectionMark {
        mask: u32,
        xor: u32,
    },
    /// Takes the mark of the connection from the packet, under masks.
    SaveMark {
        connection_mask: u32,
        packet_mask: u32,
    },
    /// Takes the mark of the packet from the connection, under masks.
    RestoreMark {
        connection_mask: u32,
        packet_mask: u32,
    },
    /// Leaves unknown which marks packet and connection have.
    ScrambleMarks,
    /// Exempts the packet from connection tracking.
    Untrack,
    /// A match of iptables.
    Xt(XtMatch),
    /// Never goes on with a packet of ours: what it reads does not exist, or a limit is not reached.
    Never,
    /// May go on or not: it depends on something that is not known.
    Unknown,
    /// Leaves unknown what the registers have.
    Scramble,
    Verdict(Verdict),
}

/// What a look-up does with what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookupResult {
    /// It is a set.
    Nothing,
    Verdict,
    /// Loads the data of the element.
    Load(Register),
}

/// How a register is compared with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Accept,
    Drop,
    /// Drops, and tells the sender.
    Reject,
    /// Passes it to a program, which may drop it.
    Queue,
    /// Sends it elsewhere.
    Steal,
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    /// Whether the packet may be lost.
    pub fn may_drop(&self) -> bool {
        match self {
            Self::Drop | Self::Reject | Self::Queue | Self::Steal => true,
            Self::Accept | Self::Continue | Self::Return | Self::Jump(_) | Self::Goto(_) => false,
        }
    }
}

/// A part of a packet that can be loaded, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// `enum nft_meta_keys`.
    Meta(u32),
    /// `enum nft_payload_bases`, with offset and length.
    Payload { base: u32, offset: usize, length: usize },
    /// `enum nft_ct_keys`.
    Connection { key: u32, is_reply: Option<bool> },
    /// `enum nft_fib_result`, with `NFTA_FIB_F_*`.
    Fib { result: u32, flags: u32 },
}

impl Field {
    /// The mark of the packet.
    pub const MARK: Self = Self::Meta(3);
}
