//! Why a VM is in its phase.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// Why a VM is in its phase; its text is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// QEMU has ended by itself.
    Crashed {
        last_words: Option<String>,
    },
    /// The guest's kernel has panicked.
    Panicked,
    /// The guest has powered itself off.
    PoweredOff,
    /// By request.
    Paused,
    /// Its disk cannot be written: usually the node's file system is full.
    DiskError,
    /// QEMU does not answer.
    Unresponsive,
    /// A state of QEMU that has no meaning here.
    State(String),
    GivenUp {
        failures: u32,
        last: Box<Cause>,
    },
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashed { last_words: Some(words) } => write!(f, "QEMU has ended: {words}"),
            Self::Crashed { last_words: None } => write!(f, "QEMU has ended"),
            Self::Panicked => write!(f, "the guest's kernel has panicked"),
            Self::PoweredOff => write!(f, "the guest has powered itself off"),
            Self::Paused => write!(f, "paused"),
            Self::DiskError => write!(f, "its disk cannot be written; is the node's file system full?"),
            Self::Unresponsive => write!(f, "QEMU does not answer"),
            Self::State(name) => write!(f, "QEMU is in the state `{name}`"),
            Self::GivenUp { failures, last } => write!(f, "failed {failures} times in a row, the last time: {last}"),
        }
    }
}
