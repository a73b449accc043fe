//! Commands on networks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NewNetwork;
use crate::id::NetworkId;

/// A command on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkCommand {
    Create {
        /// Generated for the request.
        network_id: NetworkId,
        network: NewNetwork,
    },
    Delete {
        network_id: NetworkId,
    },
}

/// Selects a network by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkById {
    pub id: NetworkId,
}

/// Selects a page of networks in the order of their creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkPageRequest {
    /// Only networks of this type: `bridge` or `overlay`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Maximum number of networks on the page, 1 to 200 (default: 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// `meta.next_cursor` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
