//! The action on the guest filter, as data.

use std::fmt;

use serde::Serialize;

/// The subject of the guest filter.
pub const GUEST_FILTER: &str = "guest_filter";

/// Replaces the guest filter, or removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WriteGuestFilter {
    /// Otherwise it is removed.
    #[serde(rename = "wanted")]
    pub is_wanted: bool,
}

impl fmt::Display for WriteGuestFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_wanted } = self;
        f.write_str(if *is_wanted { "write the guest filter" } else { "remove the guest filter" })
    }
}
