//! Which events a command reads: the arguments that `list` and `tail` share.

use std::time::Duration;

use clap::Args;
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::event::{EventPage, EventQuery, ListEvents, NAMES_MAX};
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::name_key;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmView;
use serde::Deserialize;
use uuid::Uuid;

use crate::client::ControlPlaneClient;
use crate::duration;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::resource::{NameOrId, Resource};

/// The units of `--since` and `--until`.
const UNITS: [duration::Unit; 4] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest time to look back: ten years.
const LOOK_BACK_MAX: Duration = Duration::from_secs(3_653 * 86_400);

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

/// Where events begin or end on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Position(Position),
    Time(Timestamp),
}

impl Moment {
    /// Parses `all` (position 0), a position, an RFC 3339 time, or how long ago it was.
    ///
    /// # Errors
    /// The rule that the text violates.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rule =
            || format!("must be a time ago (30s, 10m, 1h, 7d), an RFC 3339 time, a position or `all`, not `{text}`");
        if text == "all" {
            return Ok(Self::Position(Position::ZERO));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(|number| Self::Position(Position::new(number))).map_err(|_| rule());
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let ago = duration::within(text, &UNITS, LOOK_BACK_MAX).map_err(|error| match error {
            duration::DurationError::Syntax => rule(),
            duration::DurationError::Range => "must be 1s to 3653d ago".to_owned(),
        })?;
        duration_ago(ago).map(Self::Time)
    }
}

fn duration_ago(ago: Duration) -> Result<Timestamp, String> {
    let now = SystemRuntime.now().map_err(|error| error.to_string())?;
    let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_unix_micros(now.unix_micros().saturating_sub(micros)).map_err(|error| error.to_string())
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
            query.names.push(vec![id::<NetworkView>(network, client).await?]);
        }
        if let Some(node) = node {
            query.names.push(vec![id::<NodeView>(node, client).await?]);
        }
        if let Some(vm) = vm {
            query.names.push(vm_and_nics(vm, client).await?);
        }
        Ok(query)
    }
}

/// The id of the resource; of one that was deleted, too: the newest that had the name.
pub(super) async fn id<R: Resource>(reference: &str, client: &mut ControlPlaneClient) -> Result<Uuid, Failure> {
    match NameOrId::new(reference) {
        NameOrId::Id(id) => Ok(id),
        name @ NameOrId::Name(_) => match name.look_up::<R>(client).await {
            Ok(view) => Ok(view.id()),
            Err(failure) if failure.exit == Exit::NotFound => {
                former(R::COMMAND, reference, client).await?.ok_or_else(|| never_existed(&failure, R::NOUN, reference))
            }
            Err(failure) => Err(failure),
        },
    }
}

fn never_existed(failure: &Failure, noun: &str, name: &str) -> Failure {
    let message = format!("there is no {noun} `{name}`, and there was none");
    Failure::new(Exit::NotFound, failure.body.error.code, message)
}

/// The id in the last event about a resource with this name.
async fn former(aggregate: &str, name: &str, client: &mut ControlPlaneClient) -> Result<Option<Uuid>, Failure> {
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
        let Page { events, is_last } = next_page(&mut query, None, client).await?;
        let named = events.iter().filter_map(|event| serde_json::from_str::<Named<'_>>(event).ok());
        let named = named.filter(|event| event.data.name.as_deref().is_some_and(|name| name_key(name) == key));
        let mut ids = named.filter_map(|event| event.subject.split_once('/')?.1.parse().ok());
        found = ids.next_back().or(found);
        if is_last {
            return Ok(found);
        }
    }
}

/// The ids of a VM and of its NICs: outcomes name the NIC only.
pub(super) async fn vm_and_nics(reference: &str, client: &mut ControlPlaneClient) -> Result<Vec<Uuid>, Failure> {
    #[derive(Deserialize)]
    struct Attached {
        data: AttachedNic,
    }
    #[derive(Deserialize)]
    struct AttachedNic {
        nic_id: Uuid,
    }
    let vm = id::<VmView>(reference, client).await?;
    let mut found = vec![vm];
    let mut query =
        EventQuery { types: vec!["nic.attached".to_owned()], names: vec![vec![vm]], ..EventQuery::default() };
    loop {
        let Page { events, is_last } = next_page(&mut query, None, client).await?;
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
    let events = events.filter(|event| last.is_none_or(|last| position(event) <= last)).collect();
    let end = last.map_or(answer.meta.position, |last| last.min(answer.meta.position));
    // A page that goes no further would be repeated for ever.
    let is_last = is_complete || complete_to >= end || complete_to <= query.after;
    query.after = query.after.max(complete_to);
    // The position says it from now on.
    query.since = None;
    Ok(Page { events, is_last })
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
    fn a_moment_is_a_position_a_time_or_a_time_ago() {
        assert_eq!(Moment::parse("all"), Ok(Moment::Position(Position::ZERO)));
        assert_eq!(Moment::parse("42"), Ok(Moment::Position(Position::new(42))));
        let time = "2026-11-01T00:00:00Z";
        assert_eq!(Moment::parse(time), Ok(Moment::Time(time.parse().unwrap())));
        for ago in ["30s", "10m", "1h", "3653d"] {
            assert!(matches!(Moment::parse(ago), Ok(Moment::Time(_))), "{ago}");
        }
        for bad in
            ["", "1", "h", "-1h", "1w", "0s", "3654d", "yesterday", "18446744073709551616", "2026-13-01T00:00:00Z"]
        {
            assert!(bad == "1" || Moment::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_begins_with_the_event_at_the_position() {
        for (since, after) in [(0, 0), (1, 0), (42, 41)] {
            let mut query = EventQuery::default();
            begin(&mut query, Moment::Position(Position::new(since)));
            assert_eq!(query.after, Position::new(after));
        }
    }
}
