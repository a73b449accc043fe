//! Which events a command reads: the arguments that `list` and `tail` share.

use clap::Args;
use otherix_schemas::event::{EventPage, EventQuery, ListEvents, NAMES_MAX};
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::{ListNodes, NodeView};
use otherix_schemas::position::Position;
use otherix_schemas::request::{AsOf, PageRequest};
use otherix_schemas::value::name_key;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmView;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::moment::Moment;
use crate::resource::{NameOrId, Resource};

/// Conditions that every printed event satisfies.
#[derive(Debug, Args)]
pub(super) struct SelectArgs {
    /// Only events of this type, such as network.created, or of all types of a resource, such as network; can be
    /// repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// Only events that concern this network
    #[arg(long, value_name = "NAME|UUID")]
    network: Option<String>,

    /// Only events that concern this VM or its NIC
    #[arg(long, value_name = "NAME|UUID")]
    vm: Option<String>,

    /// Only events that concern this node
    #[arg(long, value_name = "NAME|UUID")]
    node: Option<String>,

    /// Only events that this user or node has caused: its name then, or its id
    #[arg(long, value_name = "NAME|ID")]
    actor: Option<String>,
}

/// Begins a query at a moment; an event at that position or time is part of it.
pub(super) fn begin(query: &mut EventQuery, since: Moment) {
    match since {
        Moment::Position(position) => query.after = Position::new(position.get().saturating_sub(1)),
        Moment::Time(time) => query.since = Some(time),
    }
}

impl SelectArgs {
    /// Validates the conditions, and looks up the resources that they name.
    pub(super) async fn resolve(&self, client: &mut ControlPlaneClient) -> Result<EventQuery, Failure> {
        let Self { types, network, vm, node, actor } = self;
        let mut query = EventQuery { types: types.clone(), actor: actor.clone(), ..EventQuery::default() };
        query.search().map_err(usage)?;
        if let Some(network) = network {
            query.names.push(vec![id::<NetworkView>(network, None, client).await?]);
        }
        if let Some(node) = node {
            query.names.push(vec![id::<NodeView>(node, None, client).await?]);
        }
        if let Some(vm) = vm {
            query.names.push(vm_and_nics(vm, None, client).await?);
        }
        Ok(query)
    }
}

/// The id of the resource that has the name at a position, or now; if there is none, of the newest that had it before.
pub(super) async fn id<R: Resource>(
    reference: &str,
    at: Option<Position>,
    client: &mut ControlPlaneClient,
) -> Result<Uuid, Failure> {
    let name = match NameOrId::new(reference) {
        NameOrId::Id(id) => return Ok(id),
        name @ NameOrId::Name(_) => name,
    };
    client.renew();
    client.look_at(at.map(AsOf::Position));
    let found = name.look_up::<R>(client).await;
    // Events have no history.
    client.look_at(None);
    match found {
        Ok(view) => Ok(view.id()),
        Err(failure) if failure.exit == Exit::NotFound => {
            let id = former(R::COMMAND, reference, at, client).await?;
            id.ok_or_else(|| never_existed(&failure, R::NOUN, reference))
        }
        Err(failure) => Err(failure),
    }
}

fn never_existed(failure: &Failure, noun: &str, name: &str) -> Failure {
    let message = format!("there is no {noun} `{name}`, and there was none");
    Failure::new(Exit::NotFound, failure.body.error.code, message)
}

/// The id in the last event, up to a position, about a resource with this name.
async fn former(
    aggregate: &str,
    name: &str,
    last: Option<Position>,
    client: &mut ControlPlaneClient,
) -> Result<Option<Uuid>, Failure> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        subject: &'a str,
        data: NamedData,
    }
    #[derive(Deserialize)]
    struct NamedData {
        #[serde(default)]
        name: Option<String>,
    }
    let key = name_key(name.trim());
    let mut query = EventQuery { types: vec![aggregate.to_owned()], ..EventQuery::default() };
    let mut found = None;
    loop {
        let Page { events, is_last } = next_page(&mut query, last, client).await?;
        let named = events.iter().filter_map(|event| serde_json::from_str::<Named<'_>>(event).ok());
        let named = named.filter(|event| event.data.name.as_deref().is_some_and(|name| name_key(name) == key));
        let mut ids = named.filter_map(|event| event.subject.split_once('/')?.1.parse().ok());
        found = ids.next_back().or(found);
        if is_last {
            return Ok(found);
        }
    }
}

/// The ids of a VM, found as by [`id`], and of its NICs up to that position: outcomes name the NIC only.
pub(super) async fn vm_and_nics(
    reference: &str,
    at: Option<Position>,
    client: &mut ControlPlaneClient,
) -> Result<Vec<Uuid>, Failure> {
    #[derive(Deserialize)]
    struct Attached {
        data: AttachedNic,
    }
    #[derive(Deserialize)]
    struct AttachedNic {
        nic_id: Uuid,
    }
    let vm = id::<VmView>(reference, at, client).await?;
    let mut found = vec![vm];
    let mut query =
        EventQuery { types: vec!["nic.attached".to_owned()], names: vec![vec![vm]], ..EventQuery::default() };
    loop {
        let Page { events, is_last } = next_page(&mut query, at, client).await?;
        let nics = events.iter().filter_map(|event| serde_json::from_str::<Attached>(event).ok());
        found.extend(nics.map(|attached| attached.data.nic_id));
        if is_last || found.len() >= NAMES_MAX {
            found.truncate(NAMES_MAX);
            return Ok(found);
        }
    }
}

/// The attribute of an event that tells its position.
#[derive(Deserialize)]
struct Sequence<'a> {
    #[serde(borrow)]
    sequence: &'a str,
}

/// Events as they are stored.
pub(crate) struct Page {
    pub(crate) events: Vec<String>,
    /// Whether there are no more for now.
    pub(crate) is_last: bool,
}

/// Reads the next page of a query up to a position, and moves the query behind it. Without events there may still be a
/// next page.
pub(crate) async fn next_page(
    query: &mut EventQuery,
    last: Option<Position>,
    client: &mut ControlPlaneClient,
) -> Result<Page, Failure> {
    client.renew();
    let answer = client.call::<ListEvents>(query).await?;
    let EventPage { events, complete_to, is_complete } = answer.data;
    let events = events.into_iter().map(|event| Box::<str>::from(event).into_string());
    // All that are complete to the last position are up to it.
    let last_event = last.filter(|last| complete_to > *last);
    let events = events.filter(|event| last_event.is_none_or(|last| position(event) <= last)).collect();
    let end = last.map_or(answer.meta.position, |last| last.min(answer.meta.position));
    // A page that goes no further would be repeated for ever.
    let is_last = is_complete || complete_to >= end || complete_to <= query.after;
    query.after = query.after.max(complete_to);
    // The position says it from now on.
    query.since = None;
    Ok(Page { events, is_last })
}

/// The position of a moment, or of the newest event. Queries look at the state of now again.
pub(super) async fn settle(at: Option<AsOf>, client: &mut ControlPlaneClient) -> Result<Position, Failure> {
    client.renew();
    client.look_at(at);
    let one = PageRequest { limit: Some(1), cursor: None };
    let answer = client.call::<ListNodes>(&one).await;
    client.look_at(None);
    Ok(answer?.meta.position)
}

/// The selected events up to a position.
pub(super) async fn events_until(
    mut query: EventQuery,
    last: Position,
    client: &mut ControlPlaneClient,
) -> Result<Vec<Value>, Failure> {
    let mut found = Vec::new();
    loop {
        let Page { events, is_last } = next_page(&mut query, Some(last), client).await?;
        found.extend(events.iter().filter_map(|event| serde_json::from_str(event).ok()));
        if is_last {
            return Ok(found);
        }
    }
}

/// The position of an event.
pub(super) fn position_of(event: &Value) -> Option<Position> {
    Position::from_sequence(event.get("sequence")?.as_str()?).ok()
}

/// The position of a stored event; after all others if it is malformed.
fn position(event: &str) -> Position {
    let sequence = serde_json::from_str::<Sequence<'_>>(event).ok();
    let position = sequence.and_then(|it| Position::from_sequence(it.sequence).ok());
    position.unwrap_or(Position::new(u64::MAX))
}

fn usage(violations: Violations) -> Failure {
    Failure::from(violations).hint("`otherix events list --help` has examples")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_begins_with_the_event_at_the_position() {
        for (since, after) in [(0, 0), (1, 0), (42, 41)] {
            let mut query = EventQuery::default();
            begin(&mut query, Moment::Position(Position::new(since)));
            assert_eq!(query.after, Position::new(after));
        }
    }
}
