//! Networks that were taken back on this node, because with them it could not reach the control plane.

use std::collections::BTreeMap;

use otherix_schemas::id::NetworkId;
use otherix_schemas::position::Position;
use serde::{Deserialize, Serialize};

/// Why a network was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// The network is made again when it is decided anew: when it has another generation.
    pub generation: Position,
    /// What could not be reached, and why.
    pub reason: String,
}

/// The networks that were taken back.
pub type Withdrawals = BTreeMap<NetworkId, Withdrawal>;
