//! Queries for events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::search::EventQuery;
use crate::permission::Permission;
use crate::position::Position;
use crate::request::{Request, RequestKind, RequestType};

/// The requests that read events.
pub const QUERIES: &[Request] = &[Request::of::<ListEvents>()];

/// The events that a follower reads: all after a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventRange {
    /// The position after which the events begin; 0 selects all.
    pub after: Position,
    /// Only decisions, which is what nodes follow.
    pub decisions_only: bool,
}

/// Events in the order of their positions, as many as fit into an answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// The events as they are stored, byte for byte.
    #[schemars(with = "Vec<Value>")]
    pub events: Vec<Box<RawValue>>,
    /// The position up to which the page has all selected events. The next page begins after it; the last one reaches
    /// `meta.position`.
    pub complete_to: Position,
    /// Whether no later event can be selected: `until` is passed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_complete: bool,
}

/// `event.list`
#[derive(Clone, Copy, Debug)]
pub struct ListEvents;

impl RequestType for ListEvents {
    const NAME: &'static str = "event.list";
    const PERMISSION: Permission = Permission::EventRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "List stored events";
    const DESCRIPTION: &'static str = "Read from the journal, in order, from a position or time on; those that \
        all given conditions select. Events about users are left out for roles without `audit:read`. \
        `meta.position` is the last event; repeat with `after` set to `data.complete_to` until that reaches it, or \
        until `data.is_complete`, which is true once `until` is passed.";
    type Body = EventQuery;
    type Answer = EventPage;
}
