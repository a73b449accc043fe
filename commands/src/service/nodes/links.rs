//! How nodes are asked: what their heartbeats have told of that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otherix_schemas::decision_chain::Nonce;
use otherix_schemas::id::NodeId;
use otherix_schemas::value::UserId;

/// What the last heartbeat of a node told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::service) struct NodeLink {
    /// The key that it was sent with: requests are sent to it.
    pub(in crate::service) key: UserId,
    /// What requests must be signed with; `None` if the agent takes none.
    pub(in crate::service) challenge: Option<Nonce>,
}

/// The links of all nodes. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::service) struct NodeLinks(Arc<Mutex<BTreeMap<NodeId, NodeLink>>>);

impl NodeLinks {
    pub(in crate::service) fn heard(&self, node: NodeId, link: NodeLink) {
        self.lock().insert(node, link);
    }

    /// Forgets nodes that are none any more.
    pub(in crate::service) fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        self.lock().retain(|node, _| is_member(*node));
    }

    /// `None` if no heartbeat has arrived since the start of the control plane.
    pub(super) fn get(&self, node: NodeId) -> Option<NodeLink> {
        self.lock().get(&node).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, NodeLink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
