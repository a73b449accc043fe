//! Which events a query selects: as a client sent it ([`EventQuery`]) and validated ([`EventSearch`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Event, EventRange};
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::violations::Violations;

/// Most ids in all lists of [`EventQuery::names`], and most types.
pub const NAMES_MAX: usize = 64;

/// Longest actor, in bytes: a name of 255 characters has at most so many.
const ACTOR_MAX: usize = 1020;

/// Selects events; a condition that is absent or empty selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventQuery {
    /// The position after which the events begin; 0 selects all.
    pub after: Position,
    /// Only decisions, which is what nodes follow.
    pub decisions_only: bool,
    /// Only events that were recorded at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only events that were recorded before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Only events of these types: `network.created`, or `network` for all types of networks; at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Only events that name an id of each list, in any attribute or field; at most 64 ids in all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Vec<Uuid>>,
    /// Only events whose `actor` is this, or whose `actorname` is this without regard to case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

impl From<EventRange> for EventQuery {
    fn from(range: EventRange) -> Self {
        let EventRange { after, decisions_only } = range;
        Self { after, decisions_only, ..Self::default() }
    }
}

/// The type of an event without its version, such as `network.created`, or all types of an aggregate, such as
/// `network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    aggregate: &'static str,
    /// `None` for all of the aggregate.
    event: Option<&'static str>,
}

/// A text that is not the type of an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the type of an event, such as `network.created`{}", suggestions(.known))]
pub struct EventTypeError {
    text: String,
    /// The types of the aggregate; the aggregates, if there is none of that name.
    known: Vec<String>,
}

fn suggestions(known: &[String]) -> String {
    format!("; there are {}", known.join(", "))
}

impl EventType {
    /// Whether events of a declared type are selected.
    fn selects(self, aggregate: &str, event: &str) -> bool {
        self.aggregate == aggregate && self.event.is_none_or(|name| name == event)
    }
}

impl std::str::FromStr for EventType {
    type Err = EventTypeError;

    fn from_str(text: &str) -> Result<Self, EventTypeError> {
        let (aggregate, event) =
            text.split_once('.').map_or((text, None), |(aggregate, event)| (aggregate, Some(event)));
        let of_aggregate = || Event::declarations().filter(|declared| declared.aggregate() == aggregate);
        let is_wanted = |name: &str| event.is_none_or(|wanted| wanted == name);
        if let Some(declared) = of_aggregate().find(|declared| is_wanted(declared.event_name())) {
            return Ok(Self { aggregate: declared.aggregate(), event: event.map(|_| declared.event_name()) });
        }
        let mut known: Vec<_> =
            of_aggregate().map(|declared| format!("{}.{}", declared.aggregate(), declared.event_name())).collect();
        if known.is_empty() {
            known = Event::declarations().map(|declared| declared.aggregate().to_owned()).collect();
        }
        known.sort();
        known.dedup();
        Err(EventTypeError { text: text.to_owned(), known })
    }
}

/// A validated query, without its range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSearch {
    types: Vec<EventType>,
    /// For each list, the texts of which an event has one.
    names: Vec<Vec<String>>,
    /// In lower case.
    actor: Option<String>,
}

/// The attributes of an event that a search reads.
#[derive(Debug, Deserialize)]
struct SearchedAttributes<'a> {
    #[serde(borrow)]
    actor: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    actorname: Option<std::borrow::Cow<'a, str>>,
}

impl EventQuery {
    /// Validates the conditions.
    ///
    /// # Errors
    /// Every rule that they violate.
    pub fn search(&self) -> Result<EventSearch, Violations> {
        let mut violations = Violations::default();
        let v = &mut violations;
        let ids = self.names.iter().map(Vec::len).sum();
        for (field, count) in [("types", self.types.len()), ("names", ids)] {
            if count > NAMES_MAX {
                v.add(field, format_args!("must be at most {NAMES_MAX}, not {count}"));
            }
        }
        let types = self.types.iter().take(NAMES_MAX).filter_map(|name| v.check("types", name.parse())).collect();
        if self.names.iter().any(Vec::is_empty) {
            v.add("names", "each list must have an id");
        }
        if self.actor.as_ref().is_some_and(|actor| actor.is_empty() || actor.len() > ACTOR_MAX) {
            v.add("actor", format_args!("must be 1 to {ACTOR_MAX} bytes"));
        }
        if violations.is_empty() {
            let text = |ids: &Vec<Uuid>| ids.iter().map(Uuid::to_string).collect();
            let names = self.names.iter().map(text).collect();
            Ok(EventSearch { types, names, actor: self.actor.as_deref().map(str::to_lowercase) })
        } else {
            Err(violations)
        }
    }
}

impl EventSearch {
    /// Whether it selects all events.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it selects an event of this type, which may be one that this version does not know.
    pub fn selects_type(&self, type_name: &str) -> bool {
        let mut tokens = type_name.trim_start_matches(super::stored::TYPE_PREFIX).split('.');
        let (aggregate, event) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
        self.types.is_empty() || self.types.iter().any(|selected| selected.selects(aggregate, event))
    }

    /// Whether it selects an event with these bytes, whatever its type.
    pub fn selects(&self, event: &str) -> bool {
        self.names.iter().all(|ids| ids.iter().any(|id| event.contains(id.as_str()))) && self.selects_actor(event)
    }

    fn selects_actor(&self, event: &str) -> bool {
        let Some(wanted) = &self.actor else { return true };
        let Ok(SearchedAttributes { actor, actorname }) = serde_json::from_str(event) else { return false };
        let is_wanted = |text: &str| text.to_lowercase() == *wanted;
        is_wanted(&actor) || actorname.is_some_and(|name| is_wanted(&name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_range_is_sent_as_before() {
        let query = EventQuery::from(EventRange { after: Position::new(7), decisions_only: true });
        assert_eq!(serde_json::to_value(&query).unwrap(), json!({ "after": 7, "decisions_only": true }));
        assert_eq!(serde_json::from_value::<EventQuery>(json!({})).unwrap(), EventQuery::default());
        assert!(serde_json::from_value::<EventQuery>(json!({ "sinse": null })).is_err());
    }

    #[test]
    fn types_are_those_of_declared_events() {
        for good in ["network", "network.created", "node.reconciled", "join-token", "user.revoked"] {
            assert!(good.parse::<EventType>().is_ok(), "{good}");
        }
        for bad in ["", "networks", "network.", "network.created.v1", "dev.otherix.network.created.v1", "Network"] {
            assert!(bad.parse::<EventType>().is_err(), "{bad}");
        }
        let error = "network.painted".parse::<EventType>().unwrap_err().to_string();
        assert!(error.ends_with("there are network.changed, network.created, network.deleted"), "{error}");
    }

    #[test]
    fn all_conditions_select_together() {
        let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
        let event = json!({
            "type": "dev.otherix.nic.attached.v1", "actor": "UABC", "actorname": "Ann \"A\"",
            "subject": format!("nic/{one}"), "data": { "network_id": two },
        });
        let event = event.to_string();
        let selects = |query: EventQuery| {
            let search = query.search().unwrap();
            search.selects_type("dev.otherix.nic.attached.v1") && search.selects(&event)
        };
        let all = EventQuery::default();
        assert!(selects(all.clone()));
        for names in [vec![vec![one]], vec![vec![three, two]], vec![vec![one], vec![two]]] {
            assert!(selects(EventQuery { names, ..all.clone() }));
        }
        for names in [vec![vec![three]], vec![vec![one], vec![three]]] {
            assert!(!selects(EventQuery { names, ..all.clone() }));
        }
        for (actor, is_selected) in [("uabc", true), ("ann \"a\"", true), ("ann", false), ("Bob", false)] {
            assert_eq!(selects(EventQuery { actor: Some(actor.to_owned()), ..all.clone() }), is_selected, "{actor}");
        }
        for (types, is_selected) in
            [(vec!["nic"], true), (vec!["vm", "nic.attached"], true), (vec!["nic.bound"], false), (vec!["vm"], false)]
        {
            let types = types.into_iter().map(str::to_owned).collect();
            assert_eq!(selects(EventQuery { types, ..all.clone() }), is_selected);
        }
    }

    #[test]
    fn every_violated_rule_is_named() {
        let query = EventQuery {
            types: vec!["nett".to_owned()],
            names: vec![Vec::new()],
            actor: Some(String::new()),
            ..EventQuery::default()
        };
        let violations = query.search().unwrap_err();
        let fields: Vec<_> = violations.iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["actor", "names", "types"]);
        let many = EventQuery { types: vec!["vm".to_owned(); NAMES_MAX + 1], ..EventQuery::default() };
        assert!(many.search().is_err());
        let ids = |lists: usize| EventQuery { names: vec![vec![Uuid::nil()]; lists], ..EventQuery::default() };
        assert!(ids(NAMES_MAX).search().is_ok() && ids(NAMES_MAX + 1).search().is_err());
    }
}
