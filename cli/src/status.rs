//! `otherix status`: the state of the cluster on one screen.

use clap::Args;
use otherix_schemas::cluster::{
    ClusterStatusView, GetClusterStatus, NetworkTotals, NodeTotals, Problem, ProblemKind, VmTotals, WholeCluster,
};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::projection::ProjectionState;

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::table;
use crate::output::text::clean;

pub(crate) const HELP: &str = "\
Shows whether the control plane answers, how far the stream and the read models are behind the journal, nodes, \
networks and VMs by state, and what is wrong with the command to try next. Networks are counted once for each node.

Exit code 8 if something is wrong, 7 if the control plane does not answer.

Examples:
  otherix status
  otherix status -o json";

/// Show the state of the cluster on one screen
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct StatusArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Carries out the command.
pub(crate) async fn run(global: &GlobalArgs, args: StatusArgs, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let view = client.call::<GetClusterStatus>(&WholeCluster {}).await?.data;
    match args.output {
        Format::Text => printer.text(&text(&view))?,
        Format::Json => printer.data(&view)?,
    }
    let stopped = view.projections.iter().filter(|projection| projection.state == ProjectionState::Stopped).count();
    match view.problem_count.saturating_add(stopped as u64) {
        0 => Ok(()),
        1 => Err(wrong("1 problem")),
        count => Err(wrong(&format!("{count} problems"))),
    }
}

fn wrong(text: &str) -> Failure {
    Failure::new(Exit::NodeFailed, ErrorCode::Conflict, text.to_owned())
}

fn text(view: &ClusterStatusView) -> String {
    let ClusterStatusView { head, stream, nodes, networks, vms, problems, problem_count, .. } = view;
    let fields = [
        ("control plane", format!("serving, position {head}")),
        ("stream", behind(head.get().saturating_sub(stream.get()))),
        ("read models", read_models(view)),
        ("nodes", of_nodes(nodes)),
        ("networks", of_networks(networks)),
        ("VMs", of_vms(vms)),
    ];
    let mut text = table::fields(&fields);
    for problem in problems {
        text.push_str(&format!("\n{}\n  try: {}\n", clean(&sentence(problem)), clean(&advice(problem))));
    }
    let left = problem_count.saturating_sub(problems.len() as u64);
    if left > 0 {
        text.push_str(&format!("\nand {left} more: `otherix node list`, `otherix network list`, `otherix vm list`\n"));
    }
    text
}

fn behind(events: u64) -> String {
    match events {
        0 => "up to date".to_owned(),
        1 => "1 event behind".to_owned(),
        count => format!("{count} events behind"),
    }
}

fn read_models(view: &ClusterStatusView) -> String {
    let is_stopped = |state| state == ProjectionState::Stopped;
    let stopped = view.projections.iter().filter(|projection| is_stopped(projection.state));
    let stopped: Vec<String> = stopped.map(|projection| clean(&projection.name)).collect();
    if stopped.is_empty() {
        return behind(view.projections.iter().map(|projection| projection.lag).max().unwrap_or_default());
    }
    format!("{} stopped; see `otherix admin projection status`", stopped.join(", "))
}

/// Counts that are not zero, after their total.
fn counts(total: u64, parts: &[(u64, &str)]) -> String {
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total}: {}", parts.join(", ")) }
}

fn of_nodes(nodes: &NodeTotals) -> String {
    let NodeTotals { total, reachable, unreachable, cordoned, with_conditions } = *nodes;
    let parts = [
        (reachable, "reachable"),
        (unreachable, "unreachable"),
        (cordoned, "cordoned"),
        (with_conditions, "with conditions"),
    ];
    counts(total, &parts)
}

fn of_networks(networks: &NetworkTotals) -> String {
    let NetworkTotals { total, deleting, ready_on_nodes, pending_on_nodes, failed_on_nodes } = *networks;
    let on_nodes = [(ready_on_nodes, "ready"), (pending_on_nodes, "pending"), (failed_on_nodes, "failed")];
    let text = counts(total, &on_nodes);
    if deleting > 0 { format!("{text}; {deleting} deleting") } else { text }
}

fn of_vms(vms: &VmTotals) -> String {
    let VmTotals { total, running, paused, stopped, ready, pending, failed, deleting } = *vms;
    let parts = [
        (running, "running"),
        (paused, "paused"),
        (stopped, "stopped"),
        (ready, "ready"),
        (pending, "pending"),
        (failed, "failed"),
        (deleting, "deleting"),
    ];
    counts(total, &parts)
}

/// The names of the nodes that have a problem, with the number of those that are left out.
fn on_nodes(problem: &Problem) -> String {
    let Problem { nodes, node_count, .. } = problem;
    let left = node_count.saturating_sub(nodes.len() as u64);
    let names = nodes.join(", ");
    if left > 0 { format!("{names} and {left} more") } else { names }
}

fn sentence(problem: &Problem) -> String {
    let name = problem.name.as_deref().unwrap_or_default();
    let detail = problem.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let nodes = on_nodes(problem);
    let (noun, verb) = if problem.node_count == 1 { ("node", "is") } else { ("nodes", "are") };
    match problem.kind {
        ProblemKind::NodeUnreachable => format!("{noun} {nodes} {verb} unreachable{detail}"),
        ProblemKind::NodeCondition => format!("{noun} {nodes}{detail}"),
        ProblemKind::NetworkFailed => format!("network {name} failed on {nodes}{detail}"),
        ProblemKind::VmFailed => format!("VM {name} failed on {nodes}{detail}"),
    }
}

fn advice(problem: &Problem) -> String {
    let name = problem.name.as_deref().unwrap_or_default();
    let node = problem.nodes.first().map(String::as_str).unwrap_or_default();
    match problem.kind {
        ProblemKind::NodeUnreachable => {
            format!("`systemctl status otherix-agent` on {node}, and `otherix explain node {node}`")
        }
        ProblemKind::NodeCondition => format!("otherix node get {node}"),
        ProblemKind::NetworkFailed => format!("otherix explain network {name}"),
        ProblemKind::VmFailed => format!("otherix explain vm {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_failures_of_many_nodes_are_told_once() {
        let problem = Problem {
            kind: ProblemKind::NetworkFailed,
            name: Some("net-dev".to_owned()),
            nodes: vec!["node-1".to_owned(), "node-2".to_owned()],
            node_count: 12,
            detail: Some("lo is already there".to_owned()),
        };
        assert_eq!(sentence(&problem), "network net-dev failed on node-1, node-2 and 10 more: lo is already there");
        assert_eq!(advice(&problem), "otherix explain network net-dev");
        let silent = Problem { kind: ProblemKind::NodeUnreachable, node_count: 1, detail: None, name: None, ..problem };
        let silent = Problem { nodes: vec!["node-3".to_owned()], ..silent };
        assert_eq!(sentence(&silent), "node node-3 is unreachable");
    }
}
