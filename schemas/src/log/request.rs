//! Requests that read the log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogConsistency, LogTiles, LogView};
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};

/// The requests about the log.
pub(crate) const REQUESTS: &[Request] =
    &[Request::of::<GetLog>(), Request::of::<ProveLogConsistency>(), Request::of::<GetLogTiles>()];

/// A body without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConditions {}

/// Two sizes of the log, in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyRange {
    pub from: u64,
    /// At least `from`, and at most the size in the newest checkpoint.
    pub to: u64,
}

/// Tiles of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogTileNames {
    /// Their paths as in C2SP tlog-tiles, such as `tile/0/x001/234.p/56`; at most 48.
    pub tiles: Vec<String>,
}

/// `log.get`
#[derive(Clone, Copy, Debug)]
pub struct GetLog;

impl RequestType for GetLog {
    const NAME: &'static str = "log.get";
    const PERMISSION: Permission = Permission::EventRead;
    const KIND: RequestKind = RequestKind::Unrecorded;
    const SUMMARY: &'static str = "Get the newest checkpoint of the transparency log";
    const DESCRIPTION: &'static str = "With its key, the checkpoints that nodes keep, and why none is signed any \
        more, if so. All of it is only told: verify the checkpoint with a key that came from elsewhere.";
    type Body = NoConditions;
    type Answer = LogView;
}

/// `log.consistency`
#[derive(Clone, Copy, Debug)]
pub struct ProveLogConsistency;

impl RequestType for ProveLogConsistency {
    const NAME: &'static str = "log.consistency";
    const PERMISSION: Permission = Permission::EventRead;
    const KIND: RequestKind = RequestKind::Unrecorded;
    const SUMMARY: &'static str = "Prove that the transparency log only grew";
    const DESCRIPTION: &'static str = "From one size to another. To be verified with the roots of two checkpoints. \
        `not_found` for sizes that the log does not have.";
    type Body = ConsistencyRange;
    type Answer = LogConsistency;
}

/// `log.tiles`
#[derive(Clone, Copy, Debug)]
pub struct GetLogTiles;

impl RequestType for GetLogTiles {
    const NAME: &'static str = "log.tiles";
    const PERMISSION: Permission = Permission::EventRead;
    const KIND: RequestKind = RequestKind::Unrecorded;
    const SUMMARY: &'static str = "Get tiles of the transparency log";
    const DESCRIPTION: &'static str = "From which any proof can be made, as in C2SP tlog-tiles. Nobody vouches for \
        them: each is to be verified with the root in a checkpoint.";
    type Body = LogTileNames;
    type Answer = LogTiles;
}
