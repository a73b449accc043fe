//! Networks that were withdrawn from this node, because with them it could not reach the control plane.

use std::collections::BTreeMap;

use otherix_schemas::id::NetworkId;
use otherix_schemas::position::Position;
use serde::{Deserialize, Serialize};

/// Why a network was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// The network is created again when it is updated: when it has another generation.
    pub generation: Position,
    /// What could not be reached, and why.
    pub reason: String,
}

/// The networks that were withdrawn from this node.
pub type Withdrawals = BTreeMap<NetworkId, Withdrawal>;
