//! The disk images that nodes keep. They are no part of the state: a node is asked for them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{NodeId, VmId};
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};
use crate::timestamp::Timestamp;

/// The requests about images.
pub(crate) const REQUESTS: &[Request] = &[Request::of::<ListImages>()];

/// The most images of an answer, those of downloads included.
pub const IMAGES_MAX: usize = 200;

/// The most URLs and VMs that are listed of an image.
pub const IMAGE_USES_MAX: usize = 50;

/// Selects a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagesOfNode {
    pub node_id: NodeId,
}

/// The images of a node, those first that were used last, and the downloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeImages {
    /// At most 200.
    pub images: Vec<NodeImage>,
    /// There are more.
    #[serde(default)]
    pub is_truncated: bool,
}

/// Whether an image can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageState {
    Ready,
    Fetching,
}

impl ImageState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Fetching => "fetching",
        }
    }
}

/// An image on a node, or one that it fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeImage {
    pub state: ImageState,
    /// The SHA-256 digest of its file; null while it is fetched.
    pub digest: Option<String>,
    /// Size of its file in bytes; while it is fetched, if the server tells.
    pub file_size: Option<u64>,
    /// Size of its disk in bytes; null while it is fetched.
    pub virtual_size: Option<u64>,
    /// `qcow2` or `raw`; null while it is fetched.
    pub format: Option<String>,
    /// Where it is from; at most 50.
    pub urls: Vec<String>,
    /// The VMs whose disks are made of it, or that wait for it; at most 50.
    pub vms: Vec<VmId>,
    /// When a VM last began to use it, by the node's clock.
    pub last_used_at: Option<Timestamp>,
    /// Of a download: bytes that were received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Of a download: bytes per second, over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// `image.list`
#[derive(Clone, Copy, Debug)]
pub struct ListImages;

impl RequestType for ListImages {
    const NAME: &'static str = "image.list";
    const PERMISSION: Permission = Permission::ImageRead;
    const KIND: RequestKind = RequestKind::Relayed;
    const SUMMARY: &'static str = "List the disk images of a node";
    const DESCRIPTION: &'static str = "The node is asked. `not_found` if it is no member, `unavailable` if it does not \
        answer, `conflict` if its agent is too old.";
    type Body = ImagesOfNode;
    type Answer = NodeImages;
}
