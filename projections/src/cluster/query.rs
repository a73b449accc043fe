//! Counts of everything, and what is wrong. The cost grows with the number of nodes and VMs, and not with that of
//! networks.

use std::cmp::Reverse;

use otherix_schemas::cluster::{
    NetworkTotals, NodeTotals, PROBLEM_NODES_MAX, PROBLEMS_MAX, Problem, ProblemKind, VmTotals,
};
use otherix_schemas::node::NodeConditionKind;
use rusqlite::{Connection, Row};

use crate::query::{QueryError, all, count, first, unquoted};

/// Nodes, networks and VMs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub nodes: NodeTotals,
    pub networks: NetworkTotals,
    pub vms: VmTotals,
}

const NODES: &str = "
    SELECT COUNT(*) AS total, COALESCE(SUM(reachable), 0) AS reachable, COALESCE(SUM(cordoned), 0) AS cordoned,
        (SELECT COUNT(DISTINCT node_id) FROM node_conditions) AS with_conditions
    FROM nodes";

const NETWORKS: &str = "
    SELECT COALESCE((SELECT networks FROM network_total WHERE id = 1), 0) AS total,
        (SELECT COUNT(*) FROM networks WHERE deleted_at IS NOT NULL) AS deleting,
        (SELECT COALESCE(SUM(ready), 0) FROM network_counts WHERE node_id IN (SELECT id FROM network_nodes)) AS ready,
        (SELECT COALESCE(SUM(failed), 0) FROM network_counts WHERE node_id IN (SELECT id FROM network_nodes)) AS failed,
        (SELECT COUNT(*) FROM network_nodes) AS nodes";

/// VMs with their states, which are those that the VMs' views have.
macro_rules! vm_states {
    () => {
        "SELECT json_extract(vms.created, '$.name') AS name, vm_nodes.name AS node, machine_error, nics.error AS error,
            CASE
                WHEN vms.deleted_at IS NOT NULL THEN 'deleting'
                WHEN vm_nodes.arch <> json_extract(vms.created, '$.arch')
                    OR (nics.status = 'failed' AND nics.observed_generation = nics.generation)
                    OR (machine_status = 'failed' AND machine_observed = machine_generation) THEN 'failed'
                WHEN (nics.id IS NOT NULL
                        AND (nics.observed_generation IS NOT nics.generation OR nics.status = 'pending'))
                    OR (machines.vm_id IS NOT NULL
                        AND (machine_observed IS NOT machine_generation OR machine_status = 'pending')) THEN 'pending'
                ELSE COALESCE(power, 'ready')
            END AS state
        FROM vms JOIN vm_nodes ON vm_nodes.id = vms.node_id
            LEFT JOIN nics ON nics.vm_id = vms.id LEFT JOIN machines ON machines.vm_id = vms.id"
    };
}

const VMS: &str = concat!("SELECT state, COUNT(*) AS count FROM (", vm_states!(), ") GROUP BY state");

const UNREACHABLE: &str = "SELECT name AS node FROM nodes WHERE NOT reachable ORDER BY name COLLATE NOCASE";

const CONDITIONS: &str = "
    SELECT kind, detail, nodes.name AS node FROM node_conditions JOIN nodes ON nodes.id = node_id
    ORDER BY kind, detail, node COLLATE NOCASE";

/// Only the reports of nodes on which a network has failed are read.
const FAILED_NETWORKS: &str = "
    SELECT json_extract(created, '$.name') AS name, error AS detail, network_nodes.name AS node
    FROM network_counts JOIN outcomes ON outcomes.node_id = network_counts.node_id
        JOIN networks ON networks.id = network_id JOIN network_nodes ON network_nodes.id = outcomes.node_id
    WHERE network_counts.failed > 0 AND status = 'failed' AND outcomes.generation = networks.generation
        AND deleted_at IS NULL
    ORDER BY networks.name_key, detail, node COLLATE NOCASE";

const FAILED_VMS: &str = concat!(
    "SELECT name, node, COALESCE(machine_error, error) AS detail FROM (",
    vm_states!(),
    ") WHERE state = 'failed' ORDER BY name"
);

/// Counts everything.
pub(super) fn totals(db: &Connection) -> Result<Totals, QueryError> {
    let nodes = first(db, NODES, [], |row| {
        let (total, reachable) = (count(row, "total")?, count(row, "reachable")?);
        let unreachable = total.saturating_sub(reachable);
        let (cordoned, with_conditions) = (count(row, "cordoned")?, count(row, "with_conditions")?);
        Ok(NodeTotals { total, reachable, unreachable, cordoned, with_conditions })
    })?;
    let networks = first(db, NETWORKS, [], |row| {
        let (total, ready, failed) = (count(row, "total")?, count(row, "ready")?, count(row, "failed")?);
        let reports = total.saturating_mul(count(row, "nodes")?);
        Ok(NetworkTotals {
            total,
            deleting: count(row, "deleting")?,
            ready_on_nodes: ready,
            pending_on_nodes: reports.saturating_sub(ready).saturating_sub(failed),
            failed_on_nodes: failed,
        })
    })?;
    let mut vms = VmTotals::default();
    for (state, count) in all(db, VMS, [], |row| Ok((row.get::<_, String>("state")?, count(row, "count")?)))? {
        vms.total += count;
        let of_state = match state.as_str() {
            "deleting" => &mut vms.deleting,
            "failed" => &mut vms.failed,
            "pending" => &mut vms.pending,
            "running" => &mut vms.running,
            "paused" => &mut vms.paused,
            "stopped" => &mut vms.stopped,
            _ => &mut vms.ready,
        };
        *of_state += count;
    }
    Ok(Totals { nodes: nodes.unwrap_or_default(), networks: networks.unwrap_or_default(), vms })
}

/// What is wrong: the first of them, those of most nodes before the others, and how many there are.
pub(super) fn problems(db: &Connection) -> Result<(Vec<Problem>, u64), QueryError> {
    let mut problems = Vec::new();
    collect(db, UNREACHABLE, ProblemKind::NodeUnreachable, &mut problems, |_| Ok((None, None)))?;
    collect(db, CONDITIONS, ProblemKind::NodeCondition, &mut problems, |row| {
        let kind: NodeConditionKind = unquoted(row, "kind")?;
        let detail: String = row.get("detail")?;
        Ok((None, Some(format!("{detail}: {}", kind.hint()))))
    })?;
    let named = |row: &Row<'_>| Ok((row.get("name")?, row.get("detail")?));
    collect(db, FAILED_NETWORKS, ProblemKind::NetworkFailed, &mut problems, named)?;
    collect(db, FAILED_VMS, ProblemKind::VmFailed, &mut problems, named)?;
    let count = u64::try_from(problems.len()).unwrap_or(u64::MAX);
    problems.sort_by_key(|problem| Reverse(problem.node_count));
    problems.truncate(PROBLEMS_MAX);
    Ok((problems, count))
}

/// Adds the rows of a query. Those that follow each other and differ in the node alone are one problem.
fn collect(
    db: &Connection,
    query: &str,
    kind: ProblemKind,
    problems: &mut Vec<Problem>,
    about: impl Fn(&Row<'_>) -> Result<(Option<String>, Option<String>), QueryError>,
) -> Result<(), QueryError> {
    for ((name, detail), node) in all(db, query, [], |row| Ok((about(row)?, row.get::<_, String>("node")?)))? {
        let same = |last: &&mut Problem| (last.kind, &last.name, &last.detail) == (kind, &name, &detail);
        if let Some(last) = problems.last_mut().filter(same) {
            last.node_count += 1;
            if last.nodes.len() < PROBLEM_NODES_MAX {
                last.nodes.push(node);
            }
        } else {
            problems.push(Problem { kind, name, nodes: vec![node], node_count: 1, detail });
        }
    }
    Ok(())
}
