//! The action on the guest filter, as data.

use std::fmt;

use serde::Serialize;

use crate::model::tap_lock::TapLocks;

/// The subject of the guest filter.
pub const GUEST_FILTER: &str = "guest_filter";

/// Replaces the guest filter, or removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WriteGuestFilter {
    /// Otherwise it is removed.
    #[serde(rename = "wanted")]
    pub is_wanted: bool,
    /// What it is to have about single taps.
    #[serde(skip_serializing_if = "TapLocks::is_empty")]
    pub locks: TapLocks,
}

/// Changes what the guest filter has about single taps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeLocks {
    #[serde(skip_serializing_if = "TapLocks::is_empty")]
    pub remove: TapLocks,
    #[serde(skip_serializing_if = "TapLocks::is_empty")]
    pub add: TapLocks,
}

impl fmt::Display for WriteGuestFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_wanted, locks: _ } = self;
        f.write_str(if *is_wanted { "write the guest filter" } else { "remove the guest filter" })
    }
}

impl fmt::Display for ChangeLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { remove, add } = self;
        write!(f, "change the guest filter:")?;
        add.keys().try_for_each(|tap| write!(f, " lock {tap}"))?;
        remove.keys().try_for_each(|tap| write!(f, " unlock {tap}"))
    }
}
