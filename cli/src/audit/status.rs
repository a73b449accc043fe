//! `otherix audit status`.

use std::collections::BTreeMap;

use clap::Args;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NodeId;
use otherix_schemas::log::{ConsistencyRange, ProveLogConsistency};
use otherix_schemas::node::{ListNodes, NodeConditionKind, NodeView};
use otherix_schemas::request::{PAGE_MAX, PageRequest};
use otherix_tlog::{ConsistencyProof, TreeHead, VerifierKey};
use serde::Serialize;

use super::verify::{self, Origin, head_of};
use super::{checkpoint, parse_key};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::table;
use crate::output::text::clean;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The public key of the log, as `otherix audit key` printed it; the one that the control plane tells when absent
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Shows the newest checkpoint, and for each node the number of events in the checkpoint that it keeps. Each is verified: \
its signature, and by a proof of consistency that the log continues it. Exit code 1 if one is contradicted or cannot \
be used, a node has found a contradiction itself, or the log signs nothing any more.

Examples:
  otherix audit status
  otherix audit status --key \"$(cat log.vkey)\" -o json";

/// A node and what it keeps.
#[derive(Debug, Serialize)]
struct WitnessStatus {
    node: String,
    /// The number of events in the checkpoint that it keeps.
    events: Option<u64>,
    /// `consistent`, `earlier epoch`, `none`, `omitted` (it may keep one, which did not fit into the control plane's
    /// answer), `contradicts` or `unusable`.
    status: &'static str,
    /// What contradicts, or why its checkpoint cannot be used.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    log: String,
    events: u64,
    position: u64,
    signed_at: Option<String>,
    stopped: Option<String>,
    witnesses: Vec<WitnessStatus>,
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: StatusArgs, printer: &mut Printer) -> Result<(), Failure> {
    let StatusArgs { key, output } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let pinned = key.as_deref().map(parse_key).transpose()?;
    let (view, note, told) = checkpoint(&mut client).await?;
    let key = pinned.unwrap_or(told);
    let head = head_of(note.as_bytes(), &key).map_err(|text| {
        let text = format!("the newest checkpoint is not to be believed: {text}");
        Failure::new(Exit::Unexpected, ErrorCode::Conflict, text)
    })?;
    let kept: BTreeMap<NodeId, String> = view
        .witnesses
        .iter()
        .flat_map(|kept| kept.node_ids.iter().map(|node| (*node, kept.checkpoint.clone())))
        .collect();
    let mut witnesses = Vec::new();
    for node in nodes(&mut client).await? {
        let mut status = witness(&mut client, (&key, &head), &node, kept.get(&node.id)).await?;
        if status.status == "none" && view.witnesses_omitted > 0 {
            status.status = "omitted";
        }
        witnesses.push(status);
    }
    let status = Status {
        log: key.name().to_string(),
        events: head.size(),
        position: view.position.get(),
        signed_at: view.signed_at.map(|at| at.to_string()),
        stopped: view.stopped,
        witnesses,
    };
    match output {
        Format::Text => printer.text(&text(&status))?,
        Format::Json => printer.data(&status)?,
    }
    outcome(&status)
}

/// Whether something is wrong.
fn outcome(status: &Status) -> Result<(), Failure> {
    let contradicted = status.witnesses.iter().filter(|witness| witness.status == "contradicts").count();
    let unusable = status.witnesses.iter().filter(|witness| witness.status == "unusable").count();
    let text = match (&status.stopped, contradicted, unusable) {
        (None, 0, 0) => return Ok(()),
        (Some(stopped), ..) => format!("the log signs nothing any more: {stopped}"),
        (None, 0, count) => format!("{count} nodes keep checkpoints that are not of this log and key"),
        (None, count, _) => format!("the log contradicts what {count} nodes have kept of it"),
    };
    let hint = "somebody has changed recorded events, or restored the journal without a new epoch: compare it with \
        `otherix audit verify --live --checkpoint FILE`, and keep `witness.json` of the nodes as evidence";
    Err(Failure::new(Exit::Unexpected, ErrorCode::Conflict, text).hint(hint))
}

/// All nodes.
pub(super) async fn nodes(client: &mut ControlPlaneClient) -> Result<Vec<NodeView>, Failure> {
    let (mut nodes, mut cursor) = (Vec::new(), None);
    loop {
        client.renew();
        let answer = client.call::<ListNodes>(&PageRequest { limit: i64::try_from(PAGE_MAX).ok(), cursor }).await?;
        nodes.extend(answer.data);
        cursor = answer.meta.next_cursor;
        if cursor.is_none() {
            return Ok(nodes);
        }
    }
}

async fn witness(
    client: &mut ControlPlaneClient,
    (key, head): (&VerifierKey, &TreeHead),
    node: &NodeView,
    kept: Option<&String>,
) -> Result<WitnessStatus, Failure> {
    let found = node.conditions.iter().find(|condition| condition.kind == NodeConditionKind::LogContradiction);
    let status = |events, status, error| WitnessStatus { node: node.name.to_string(), events, status, error };
    let origin = Origin::parse(key.name())?;
    let kept = kept.map(|note| verify::kept("its own", note.as_bytes(), key, &origin));
    let size = kept.as_ref().and_then(|kept| kept.as_ref().ok()).map(|kept| kept.head.size());
    if let Some(condition) = found {
        return Ok(status(size, "contradicts", Some(condition.detail.clone())));
    }
    let older = match kept {
        None => return Ok(status(None, "none", None)),
        Some(Err(fault)) => return Ok(status(None, "unusable", Some(fault.text))),
        Some(Ok(kept)) if kept.epoch < origin.epoch => return Ok(status(size, "earlier epoch", None)),
        Some(Ok(kept)) => kept.head,
    };
    // It may have been signed since.
    let now = if older.size() > head.size() {
        let (_, note, _) = checkpoint(client).await?;
        head_of(note.as_bytes(), key).unwrap_or(*head)
    } else {
        *head
    };
    let error = if older.size() > now.size() {
        Some(format!("the log has {} events, and had {}", now.size(), older.size()))
    } else {
        client.renew();
        let range = ConsistencyRange { from: older.size(), to: now.size() };
        let answer = client.call::<ProveLogConsistency>(&range).await?.data;
        let hashes: Option<Vec<_>> = answer.hashes.iter().map(|hash| hash.parse().ok()).collect();
        let proof = hashes.and_then(ConsistencyProof::new);
        let is_proven = proof.is_some_and(|proof| proof.verify(&older, &now).is_ok());
        (!is_proven).then(|| "the log does not continue the checkpoint that it keeps".to_owned())
    };
    Ok(match error {
        None => status(size, "consistent", None),
        Some(text) => status(size, "contradicts", Some(text)),
    })
}

fn text(status: &Status) -> String {
    let Status { log, events, position, signed_at, stopped, witnesses } = status;
    let mut lines = vec![("log", clean(log)), ("events", events.to_string()), ("position", position.to_string())];
    lines.extend(signed_at.iter().map(|at| ("signed", at.clone())));
    lines.push(("state", stopped.as_ref().map_or_else(|| "signing".to_owned(), |text| format!("stopped: {text}"))));
    let row = |witness: &WitnessStatus| {
        let WitnessStatus { node, events, status, error } = witness;
        vec![node.clone(), table::optional(*events), (*status).to_owned(), table::optional(error.as_ref())]
    };
    let rows = table::table_unless_empty(
        &["NODE", "EVENTS", "STATUS", "ERROR"],
        &witnesses.iter().map(row).collect::<Vec<_>>(),
    );
    format!("{}{rows}", table::fields(&lines))
}
