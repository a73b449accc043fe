//! `otherix bisect`: since when something is as it is.

use clap::{Args, Subcommand, ValueEnum};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::event::EventQuery;
use otherix_schemas::id::NodeId;
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::position::Position;
use otherix_schemas::request::AsOf;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmView;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::line::Lines;
use super::select;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::moment;
use crate::output::Printer;
use crate::output::format::Format;
use crate::resource::{NameOrId, Resource};

/// Find since when a network, VM or node has its status
#[derive(Debug, Subcommand)]
#[command(after_help = HELP)]
pub(crate) enum BisectSubcommand {
    /// Find since when a network has a status on a node
    #[command(after_help = HELP)]
    Network {
        #[command(flatten)]
        common: BisectArgs,
        /// The node: its name (not case-sensitive) or UUID
        #[arg(long, value_name = "NAME|UUID")]
        node: String,
        /// The status that the node has reported; unreported if it has not
        #[arg(long, value_enum)]
        status: NetworkQuestion,
    },
    /// Find since when a VM has a status
    #[command(after_help = HELP)]
    Vm {
        #[command(flatten)]
        common: BisectArgs,
        /// The status that `vm list` shows
        #[arg(long, value_enum)]
        status: VmQuestion,
    },
    /// Find since when a node is reachable or unreachable
    #[command(after_help = HELP)]
    Node {
        #[command(flatten)]
        common: BisectArgs,
        /// The status that `node list` shows
        #[arg(long, value_enum)]
        status: NodeQuestion,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BisectArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// When it has the status: a position, an RFC 3339 time, or a time ago (30s, 10m, 1h, 7d) [default: now]
    #[arg(long, value_name = "WHEN")]
    at: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// A status of a network on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkQuestion {
    Pending,
    Ready,
    Failed,
    Removed,
    Unreported,
}

/// A status of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VmQuestion {
    Pending,
    Ready,
    Failed,
    Deleting,
}

/// A status of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodeQuestion {
    Reachable,
    Unreachable,
}

const HELP: &str = "\
Prints the event since which the status holds without interruption, by whom or what it was caused, and the decision \
that it is about. The state is looked at after each event that could have changed it, from the newest to the first \
without the status. Exit code 3 if it does not hold at the end.

Examples:
  otherix bisect network net-dev --node node-2 --status failed
  otherix bisect vm web-1 --status pending --at 1h
  otherix bisect node node-1 --status unreachable -o json";

/// What is asked, of what.
enum Question {
    Network { id: Uuid, node: NodeId, status: NetworkQuestion },
    Vm { id: Uuid, status: VmQuestion },
    Node { id: Uuid, status: NodeQuestion },
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Finding<'a> {
    position: Position,
    time: Option<Timestamp>,
    event: &'a Value,
    /// The event that caused it, if it is one that names the resource.
    cause: Option<&'a Value>,
}

/// Carries out the command.
pub(crate) async fn run(global: &GlobalArgs, command: BisectSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    let (common, what) = match &command {
        BisectSubcommand::Network { common, node, status } => (common, format!("{} on {node}", name_of(*status))),
        BisectSubcommand::Vm { common, status } => (common, name_of(*status)),
        BisectSubcommand::Node { common, status } => (common, name_of(*status)),
    };
    let (reference, output) = (common.reference.clone(), common.output);
    let mut violations = Violations::default();
    let at = common.at.as_ref().and_then(|at| violations.check("at", moment::as_of(at)));
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let end = select::settle(at, &mut client).await?;
    let (question, noun, queries) = asked(command, end, &mut client).await?;
    let mut events = Vec::new();
    for query in queries {
        events.extend(select::events_until(query, end, &mut client).await?);
    }
    events.sort_by_key(select::position_of);
    events.dedup_by_key(|event| select::position_of(event));
    if !holds(&question, end, &mut client).await? {
        let when = if at.is_some() { "then" } else { "now" };
        let message = format!("{noun} `{reference}` is not {what} {when}");
        let failure = Failure::new(Exit::NotFound, ErrorCode::NotFound, message);
        return Err(failure.hint(format!("`otherix explain {noun} {reference}` shows everything that happened to it")));
    }
    let mut since = None;
    for event in events.iter().rev() {
        let Some(position) = select::position_of(event) else { continue };
        if !holds(&question, position, &mut client).await? {
            break;
        }
        since = Some((event, position));
    }
    let Some((event, position)) = since else {
        let message = format!("no event about {noun} `{reference}` explains that it is {what}");
        return Err(Failure::new(Exit::Unexpected, ErrorCode::Internal, message));
    };
    let cause = event.get("causationid");
    let cause = cause.and_then(|id| events.iter().find(|event| event.get("id") == Some(id)));
    let time = event.get("time").and_then(Value::as_str).and_then(|time| time.parse().ok());
    if output == Format::Json {
        return printer.data(&Finding { position, time, event, cause });
    }
    client.look_at(None);
    let mut lines = Lines::default();
    lines.names.learn(&events, &mut client).await;
    let when = time.map(|time: Timestamp| format!(", {time}")).unwrap_or_default();
    let mut text = format!("{noun} {reference} is {what} since position {position}{when}\n");
    for event in cause.into_iter().chain([event]) {
        text.push_str(&format!("  {}\n", lines.line(event)));
    }
    printer.text(&text)
}

fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The question with the ids that the names stand for at `end`, the noun of the resource, and the queries for all
/// events up to there that can change the answer: the question is asked once for each of them.
async fn asked(
    command: BisectSubcommand,
    end: Position,
    client: &mut ControlPlaneClient,
) -> Result<(Question, &'static str, Vec<EventQuery>), Failure> {
    let naming = |names: Vec<Vec<Uuid>>, types: &[&str]| EventQuery {
        names,
        types: types.iter().map(|&name| name.to_owned()).collect(),
        ..EventQuery::default()
    };
    let at = Some(end);
    Ok(match command {
        BisectSubcommand::Network { common, node, status } => {
            let id = select::id::<NetworkView>(&common.reference, at, client).await?;
            let node = select::id::<NodeView>(&node, at, client).await?;
            let queries = vec![
                naming(vec![vec![id]], &["network"]),
                // What other nodes report about the network is most of what names it.
                naming(vec![vec![id], vec![node]], &["node"]),
                naming(vec![vec![node]], &["node.joined", "node.removed"]),
            ];
            (Question::Network { id, node: NodeId::new(node), status }, NetworkView::COMMAND, queries)
        }
        BisectSubcommand::Vm { common, status } => {
            let ids = select::vm_and_nics(&common.reference, at, client).await?;
            let id = ids.first().copied().unwrap_or_default();
            let created = select::events_until(naming(vec![vec![id]], &["vm.created"]), end, client).await?;
            let mut queries = vec![naming(vec![ids], &[])];
            // The architecture of its node, which it never leaves, decides whether the VM can run.
            let node = created.first().and_then(|event| event.pointer("/data/node_id")?.as_str()?.parse().ok());
            if let Some(node) = node {
                queries.push(naming(vec![vec![node]], &["node.described"]));
            }
            (Question::Vm { id, status }, VmView::COMMAND, queries)
        }
        BisectSubcommand::Node { common, status } => {
            let id = select::id::<NodeView>(&common.reference, at, client).await?;
            let queries = vec![naming(vec![vec![id]], &["node.joined", "node.reachable", "node.unreachable"])];
            (Question::Node { id, status }, NodeView::COMMAND, queries)
        }
    })
}

/// Whether the answer is yes after the event at a position. What does not exist then has no status.
async fn holds(question: &Question, at: Position, client: &mut ControlPlaneClient) -> Result<bool, Failure> {
    client.renew();
    client.look_at(Some(AsOf::Position(at)));
    match question {
        Question::Network { id, node, status } => {
            let view = existing::<NetworkView>(*id, client).await?;
            Ok(view.is_some_and(|view| network_status(&view, *node) == Some(*status)))
        }
        Question::Vm { id, status } => {
            let view = existing::<VmView>(*id, client).await?;
            Ok(view.is_some_and(|view| vm_status(&view) == Some(*status)))
        }
        Question::Node { id, status } => {
            let view = existing::<NodeView>(*id, client).await?;
            let is_wanted = *status == NodeQuestion::Reachable;
            Ok(view.is_some_and(|view| view.reachable == is_wanted))
        }
    }
}

async fn existing<R: Resource>(id: Uuid, client: &mut ControlPlaneClient) -> Result<Option<R>, Failure> {
    match NameOrId::Id(id).look_up::<R>(client).await {
        Ok(view) => Ok(Some(view)),
        Err(failure) if failure.exit == Exit::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn network_status(view: &NetworkView, node: NodeId) -> Option<NetworkQuestion> {
    let reported = view.status.nodes.iter().flatten().find(|status| status.node_id == node);
    let unreported = view.status.unreported.iter().flatten().any(|unreported| unreported.node_id == node);
    match reported.map(|reported| reported.status) {
        Some(OutcomeStatus::Pending) => Some(NetworkQuestion::Pending),
        Some(OutcomeStatus::Ready) => Some(NetworkQuestion::Ready),
        Some(OutcomeStatus::Failed) => Some(NetworkQuestion::Failed),
        Some(OutcomeStatus::Removed) => Some(NetworkQuestion::Removed),
        None => unreported.then_some(NetworkQuestion::Unreported),
    }
}

fn vm_status(view: &VmView) -> Option<VmQuestion> {
    if view.deleted_at.is_some() {
        return Some(VmQuestion::Deleting);
    }
    match view.status {
        OutcomeStatus::Pending => Some(VmQuestion::Pending),
        OutcomeStatus::Ready => Some(VmQuestion::Ready),
        OutcomeStatus::Failed => Some(VmQuestion::Failed),
        OutcomeStatus::Removed => None,
    }
}
