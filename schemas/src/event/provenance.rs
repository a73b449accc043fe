//! Why events are recorded.

/// Why an event is recorded, for the people who read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventProvenance {
    /// When it is recorded: sentences.
    pub when: &'static str,
    /// The requests that can result in it; none if the control plane records it by itself.
    pub requests: &'static [&'static str],
    /// The events that `causationid` may name, as `<aggregate>.<event>`; none if the event has none.
    pub causes: &'static [&'static str],
}

impl EventProvenance {
    /// Of a shape that is not written any more.
    pub const SUPERSEDED: Self = Self { when: "", requests: &[], causes: &[] };
}
