//! Virtual machines: as asked for ([`VmDraft`]) and as checked ([`NewVm`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, NicId, NodeId};
use crate::value::{ImageUrl, VmName};

/// Hex digits of a NIC's id in the name of its tap: with `ot` they make 14 of the 15 bytes that a name may have.
const TAP_DIGITS: usize = 12;

/// A VM as somebody asks for it: nothing is checked yet. [`crate::rules::check_vm`] does that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VmDraft {
    /// The name; see [`VmName`].
    pub name: String,
    /// Where its disk image is; see [`ImageUrl`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// `amd64` or `arm64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The id of the network that its NIC is on; without one it has no NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_id: Option<String>,
    /// The id of the node that it is on; the control plane chooses when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
}

/// A VM that may be created, if what it names exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVm {
    /// The name.
    pub name: VmName,
    /// Where its disk image is.
    pub image_url: ImageUrl,
    /// What it runs on.
    pub arch: Arch,
    /// The network of its NIC.
    pub network_id: Option<NetworkId>,
    /// The node it is to be on; any when absent.
    pub node_id: Option<NodeId>,
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
    /// As it is written.
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

/// The name of a NIC's tap: `ot` and the first twelve hex digits of the NIC's id. No bridge may be called so.
pub fn tap_name(nic: NicId) -> String {
    let digits = nic.uuid().as_simple().to_string();
    format!("ot{}", digits.get(..TAP_DIGITS).unwrap_or(&digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::BridgeName;

    #[test]
    fn a_tap_has_a_name_that_no_bridge_may_have() {
        let name = tap_name("0198e8c4-0abc-4000-8000-000000000001".parse().unwrap());
        assert_eq!(name, "ot0198e8c40abc");
        assert!(name.parse::<BridgeName>().is_err());
    }
}
