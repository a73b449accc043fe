//! A NIC as queries return it, within its VM.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, NicId};
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{MacAddress, NetworkName};

/// A VM's NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NicView {
    pub id: NicId,
    pub network_id: NetworkId,
    pub network_name: NetworkName,
    /// The bridge that its tap is a port of.
    pub bridge_name: String,
    pub mac: MacAddress,
    /// Its address; null if the network assigns none.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// The name of its tap on the node.
    pub tap: String,
    /// The position of the last decision about the NIC.
    pub generation: Position,
    /// The generation that the node reported on; null until it has reported.
    pub observed_generation: Option<Position>,
    /// When the report was recorded; null until the node has reported.
    pub reconciled_at: Option<Timestamp>,
}
