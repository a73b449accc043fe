//! The outcome of reconciling a resource on a node.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{NetworkId, NicId, VmId};
use crate::position::Position;
use crate::vm::MachineStatus;

/// Maximum length of an error in characters; the rest is cut off.
const TEXT_MAX: usize = 1024;

/// Maximum number of warnings of one resource; the rest is dropped.
const WARNINGS_MAX: usize = 4;

/// Maximum length of a warning in characters; the rest is cut off.
const WARNING_MAX: usize = 256;

/// The outcome of reconciling a network, a NIC or the machine of a VM on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "OutcomeParts", into = "OutcomeParts")]
#[schemars(with = "OutcomeParts")]
pub enum Outcome {
    /// Waiting for what the text names.
    Pending(String),
    /// In the desired state.
    Ready,
    /// Could not be created, repaired or removed, for the reason that the text names.
    Failed(String),
    /// Removed completely.
    Removed,
}

/// The status of a resource on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeStatus {
    /// Waiting; the error says for what.
    Pending,
    /// In the desired state.
    Ready,
    /// Could not be created, repaired or removed; the error says why.
    Failed,
    /// Removed completely.
    Removed,
}

impl OutcomeStatus {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Removed => "removed",
        }
    }
}

/// Status and error of a resource on a node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct OutcomeParts {
    status: OutcomeStatus,
    /// Present, up to 1,024 characters, for `pending` (what it waits for) and `failed` (why); null otherwise.
    error: Option<String>,
}

/// A status without its text, or with a text that it does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`error` must be set for `pending` and `failed`, and only for these")]
pub struct OutcomeError;

impl Outcome {
    pub fn status(&self) -> OutcomeStatus {
        match self {
            Self::Pending(_) => OutcomeStatus::Pending,
            Self::Ready => OutcomeStatus::Ready,
            Self::Failed(_) => OutcomeStatus::Failed,
            Self::Removed => OutcomeStatus::Removed,
        }
    }

    /// What it waits for, or why it failed.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Pending(text) | Self::Failed(text) => Some(text),
            Self::Ready | Self::Removed => None,
        }
    }

    /// Combines status and error; an error longer than 1,024 characters is cut off.
    ///
    /// # Errors
    /// If the error is missing, or the status has none.
    pub fn from_parts(status: OutcomeStatus, error: Option<String>) -> Result<Self, OutcomeError> {
        let truncate = |text: String| text.chars().take(TEXT_MAX).collect();
        match (status, error) {
            (OutcomeStatus::Pending, Some(text)) => Ok(Self::Pending(truncate(text))),
            (OutcomeStatus::Failed, Some(text)) => Ok(Self::Failed(truncate(text))),
            (OutcomeStatus::Ready, None) => Ok(Self::Ready),
            (OutcomeStatus::Removed, None) => Ok(Self::Removed),
            (OutcomeStatus::Pending | OutcomeStatus::Failed, None)
            | (OutcomeStatus::Ready | OutcomeStatus::Removed, Some(_)) => Err(OutcomeError),
        }
    }
}

impl TryFrom<OutcomeParts> for Outcome {
    type Error = OutcomeError;
    fn try_from(parts: OutcomeParts) -> Result<Self, OutcomeError> {
        let OutcomeParts { status, error } = parts;
        Self::from_parts(status, error)
    }
}

impl From<Outcome> for OutcomeParts {
    fn from(outcome: Outcome) -> Self {
        let error = outcome.error().map(str::to_owned);
        Self { status: outcome.status(), error }
    }
}

/// A resource that nodes report on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ResourceRef {
    #[serde(rename = "network_id")]
    Network(NetworkId),
    #[serde(rename = "nic_id")]
    Nic(NicId),
    /// The machine of a VM.
    #[serde(rename = "vm_id")]
    Vm(VmId),
}

impl std::fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(id) => write!(f, "network {id}"),
            Self::Nic(id) => write!(f, "NIC {id}"),
            Self::Vm(id) => write!(f, "VM {id}"),
        }
    }
}

/// The outcome of one resource on the reporting node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceOutcome {
    #[serde(flatten)]
    pub resource: ResourceRef,
    /// The position of the decision about the resource that this is the outcome of.
    pub generation: Position,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Conditions on the node that impair the resource and that otherix does not change. At most 4 of up to 256
    /// characters are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "warnings")]
    pub warnings: Vec<String>,
    /// Present for machines of VMs, and only for these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineStatus>,
}

impl ResourceOutcome {
    /// An outcome without warnings.
    pub fn new(resource: ResourceRef, generation: Position, outcome: Outcome) -> Self {
        Self { resource, generation, outcome, warnings: Vec::new(), machine: None }
    }
}

fn warnings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let all = Vec::<String>::deserialize(deserializer)?;
    Ok(all.into_iter().take(WARNINGS_MAX).map(|text| text.chars().take(WARNING_MAX).collect()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn error_is_required_by_status() {
        let read = serde_json::from_value::<Outcome>;
        assert_eq!(read(json!({"status": "ready", "error": null})).unwrap(), Outcome::Ready);
        assert_eq!(read(json!({"status": "failed", "error": "x"})).unwrap(), Outcome::Failed("x".into()));
        assert!(read(json!({"status": "failed", "error": null})).is_err());
        assert!(read(json!({"status": "removed", "error": "x"})).is_err());
        let long = Outcome::from_parts(OutcomeStatus::Failed, Some("ü".repeat(5000))).unwrap();
        assert_eq!(long.error().unwrap().chars().count(), 1024);
    }

    #[test]
    fn resource_outcome_is_flat_and_truncates_warnings() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8058";
        let read = |of: &str, warnings: &[String]| {
            let result = json!({of: id, "generation": 7, "status": "ready", "error": null, "warnings": warnings});
            serde_json::from_value::<ResourceOutcome>(result)
        };
        let network = read("network_id", &[]).unwrap();
        assert_eq!(network.resource, ResourceRef::Network(id.parse().unwrap()));
        let expected = json!({"network_id": id, "generation": 7, "status": "ready", "error": null});
        assert_eq!(serde_json::to_value(&network).unwrap(), expected);
        let nic = read("nic_id", &vec!["ü".repeat(300); 5]).unwrap();
        assert_eq!((nic.resource, nic.warnings), (ResourceRef::Nic(id.parse().unwrap()), vec!["ü".repeat(256); 4]));
        assert_eq!(read("vm_id", &[]).unwrap().resource, ResourceRef::Vm(id.parse().unwrap()));
        assert!(read("node_id", &[]).is_err());
    }
}
