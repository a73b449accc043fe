//! `cluster.status`: the state of the whole cluster at a glance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::permission::Permission;
use crate::position::Position;
use crate::projection::ProjectionView;
use crate::request::{Request, RequestKind, RequestType};

/// The queries about the cluster.
pub const QUERIES: &[Request] = &[Request::of::<GetClusterStatus>()];

/// Most entries of [`ClusterStatusView::problems`].
pub const PROBLEMS_MAX: usize = 20;

/// Most names in [`Problem::nodes`].
pub const PROBLEM_NODES_MAX: usize = 5;

/// Selects the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WholeCluster {}

/// `cluster.status`
#[derive(Clone, Copy, Debug)]
pub struct GetClusterStatus;

impl RequestType for GetClusterStatus {
    const NAME: &'static str = "cluster.status";
    const PERMISSION: Permission = Permission::ClusterRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get the state of the cluster at a glance";
    const DESCRIPTION: &'static str = "How far the stream and the read models are, nodes, networks and VMs by state, \
        and what is wrong, with the most affected first.";
    type Body = WholeCluster;
    type Answer = ClusterStatusView;
}

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterStatusView {
    /// The position of the last event.
    pub head: Position,
    /// The last event that the stream has acknowledged: what nodes and subscribers can have.
    pub stream: Position,
    /// How far each read model is.
    pub projections: Vec<ProjectionView>,
    pub nodes: NodeTotals,
    pub networks: NetworkTotals,
    pub vms: VmTotals,
    /// What is wrong: the first [`PROBLEMS_MAX`], by the number of nodes that have it.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub problem_count: u64,
}

/// Nodes by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeTotals {
    pub total: u64,
    pub reachable: u64,
    pub unreachable: u64,
    /// Those on which no VMs are placed, reachable or not.
    pub cordoned: u64,
    /// Those that reported a condition, reachable or not.
    pub with_conditions: u64,
}

/// Networks, and what the nodes have reported on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkTotals {
    /// Without deleted ones.
    pub total: u64,
    /// Deleted ones that some node has not removed yet.
    pub deleting: u64,
    /// Each network counts once for each node on which it is ready.
    pub ready_on_nodes: u64,
    /// Each network counts once for each node that it waits for.
    pub pending_on_nodes: u64,
    /// Each network counts once for each node on which it has failed.
    pub failed_on_nodes: u64,
}

/// VMs by state. `total` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmTotals {
    pub total: u64,
    pub running: u64,
    pub paused: u64,
    pub stopped: u64,
    /// Records of NICs, whose VMs otherix does not run, with everything that they need.
    pub ready: u64,
    /// Their node has not carried out the last decision yet.
    pub pending: u64,
    pub failed: u64,
    /// Deleted ones that their node has not removed yet.
    pub deleting: u64,
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    NodeUnreachable,
    /// A node has reported a condition.
    NodeCondition,
    NetworkFailed,
    VmFailed,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    pub kind: ProblemKind,
    /// The name of the network or VM; null if it is about nodes alone.
    pub name: Option<String>,
    /// The names of the first [`PROBLEM_NODES_MAX`] nodes that have it.
    pub nodes: Vec<String>,
    /// How many nodes have it.
    pub node_count: u64,
    /// What is wrong, in words; null if the kind says it all.
    pub detail: Option<String>,
}
