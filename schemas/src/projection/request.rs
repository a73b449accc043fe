//! Requests about read models.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ProjectionsView, RebuildView};
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};

/// The requests about read models.
pub(crate) const REQUESTS: &[Request] = &[Request::of::<ProjectionStatus>(), Request::of::<RebuildProjections>()];

/// Selects all read models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllProjections {}

/// `projection.status`
#[derive(Clone, Copy, Debug)]
pub struct ProjectionStatus;

impl RequestType for ProjectionStatus {
    const NAME: &'static str = "projection.status";
    const PERMISSION: Permission = Permission::ClusterRead;
    const KIND: RequestKind = RequestKind::Maintenance;
    const SUMMARY: &'static str = "Get how far each read model is";
    const DESCRIPTION: &'static str = "Each read model and the history, with its lag, its last error since the \
        control plane started, and the last rebuild. Answered at once, whatever they lag behind.";
    type Body = AllProjections;
    type Answer = ProjectionsView;
}

/// `projection.rebuild`
#[derive(Clone, Copy, Debug)]
pub struct RebuildProjections;

impl RequestType for RebuildProjections {
    const NAME: &'static str = "projection.rebuild";
    const PERMISSION: Permission = Permission::ClusterManage;
    const KIND: RequestKind = RequestKind::Maintenance;
    const SUMMARY: &'static str = "Begin to rebuild the read models";
    const DESCRIPTION: &'static str = "Builds the read models (not the history) again from the events, beside those \
        that queries are answered from, and replaces these when it is done. Answered at once: `projection.status` \
        shows the progress. While a rebuild is running, the request begins no other one and returns that one. A \
        rebuild that the control plane's end interrupts leaves the old ones as they are.";
    type Body = AllProjections;
    type Answer = RebuildView;
}
