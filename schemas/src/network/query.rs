//! Queries for networks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NetworkView;
use crate::id::NetworkId;
use crate::permission::Permission;
use crate::request::{ByName, Request, RequestKind, RequestType};

/// The requests that read networks.
pub const QUERIES: &[Request] =
    &[Request::of::<GetNetwork>(), Request::of::<FindNetwork>(), Request::of::<ListNetworks>()];

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

/// `network.get`
#[derive(Clone, Copy, Debug)]
pub struct GetNetwork;

impl RequestType for GetNetwork {
    const NAME: &'static str = "network.get";
    const PERMISSION: Permission = Permission::NetworkRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a network by its id";
    const DESCRIPTION: &'static str = "Returns deleted networks, too, until every node has confirmed the removal.";
    type Body = NetworkById;
    type Answer = NetworkView;
}

/// `network.find`
#[derive(Clone, Copy, Debug)]
pub struct FindNetwork;

impl RequestType for FindNetwork {
    const NAME: &'static str = "network.find";
    const PERMISSION: Permission = Permission::NetworkRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a network by its name";
    const DESCRIPTION: &'static str = "Names are compared without regard to case and Unicode normalisation. Returns \
        deleted networks, too, until every node has confirmed the removal, unless another has the name.";
    type Body = ByName;
    type Answer = NetworkView;
}

/// `network.list`
#[derive(Clone, Copy, Debug)]
pub struct ListNetworks;

impl RequestType for ListNetworks {
    const NAME: &'static str = "network.list";
    const PERMISSION: Permission = Permission::NetworkRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "List networks";
    const DESCRIPTION: &'static str = "One page, in the order of creation; `meta.next_cursor` selects the next. \
        Includes deleted networks until every node has confirmed the removal.";
    type Body = NetworkPageRequest;
    type Answer = Vec<NetworkView>;
}
