//! A VM's definition: as a client sent it ([`VmDraft`]) and validated ([`NewVm`]).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Machine, MachineDraft};
use crate::id::{NetworkId, NodeId};
use crate::value::{ImageUrl, Metadata, VmName};

/// A VM as a client sends it, not yet validated. `image_url` and `arch` are required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VmDraft {
    /// 1 to 255 characters, trimmed, without `/` and control characters, not of the form of a UUID; unique among the
    /// cluster's VMs, without regard to case.
    pub name: String,
    /// The URL of the disk image: `http` or `https`, without user and password, at most 2,048 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// `amd64` or `arm64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The id of the network to attach a NIC to (default: no NIC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_id: Option<String>,
    /// The IPv4 address of the NIC, on a network with DHCP (default: the lowest that is free).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The id of the node to place the VM on (default: the control plane chooses).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// What the node is to run (default: nothing; the VM is a NIC for a machine that somebody else runs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineDraft>,
    /// What it is for: 1 to 512 characters on one line. It has no effect on nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// At most 32, with keys of 1 to 63 of `a-z0-9./-` and values of at most 63 of `A-Za-z0-9._/-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A validated VM, which can be created if its network and node exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVm {
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    /// The network to attach a NIC to.
    pub network_id: Option<NetworkId>,
    /// The address of the NIC; `None` leaves the choice to the control plane.
    pub ip: Option<Ipv4Addr>,
    /// The node to place it on; `None` leaves the choice to the control plane.
    pub node_id: Option<NodeId>,
    /// What the node is to run; `None` if nothing.
    pub machine: Option<Machine>,
    pub metadata: Metadata,
}

/// A processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

/// A text that names no architecture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `amd64` or `arm64`, not `{0}`")]
pub struct ArchError(String);

impl Arch {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Arch {
    type Err = ArchError;
    fn from_str(text: &str) -> Result<Self, ArchError> {
        match text {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            other => Err(ArchError(other.to_owned())),
        }
    }
}
