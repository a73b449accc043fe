//! How networks and NICs fare on a node, and how nodes report it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{NetworkId, NicId};
use crate::position::Position;

/// Longest reason or error that is kept, in characters; the rest is cut off.
const TEXT_MAX: usize = 1024;

/// Most warnings of one result that are kept.
const WARNINGS_MAX: usize = 4;

/// Longest warning that is kept, in characters; the rest is cut off.
const WARNING_MAX: usize = 256;

/// How a network or a NIC fares on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "OutcomeParts", into = "OutcomeParts")]
#[schemars(with = "OutcomeParts")]
pub enum Outcome {
    /// Accepted, and waiting for what the reason names.
    Pending(String),
    /// All of it is there.
    Ready,
    /// It could not be made, kept or removed, for the reason that the text names.
    Failed(String),
    /// None of it is left.
    Removed,
}

/// An outcome's status without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeStatus {
    /// See [`Outcome::Pending`].
    Pending,
    /// See [`Outcome::Ready`].
    Ready,
    /// See [`Outcome::Failed`].
    Failed,
    /// See [`Outcome::Removed`].
    Removed,
}

impl OutcomeStatus {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Removed => "removed",
        }
    }
}

/// An outcome on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct OutcomeParts {
    status: OutcomeStatus,
    error: Option<String>,
}

/// A status whose text is missing, or that has none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`error` must be there for `pending` and `failed`, and only for them")]
pub struct OutcomeError;

impl Outcome {
    /// The status alone.
    pub fn status(&self) -> OutcomeStatus {
        match self {
            Self::Pending(_) => OutcomeStatus::Pending,
            Self::Ready => OutcomeStatus::Ready,
            Self::Failed(_) => OutcomeStatus::Failed,
            Self::Removed => OutcomeStatus::Removed,
        }
    }

    /// What it waits for, or what is wrong.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Pending(text) | Self::Failed(text) => Some(text),
            Self::Ready | Self::Removed => None,
        }
    }

    /// The outcome of these parts; a text that is too long is cut off.
    ///
    /// # Errors
    /// When the text is missing or there is one too many.
    pub fn from_parts(status: OutcomeStatus, error: Option<String>) -> Result<Self, OutcomeError> {
        let cut = |text: String| text.chars().take(TEXT_MAX).collect();
        match (status, error) {
            (OutcomeStatus::Pending, Some(text)) => Ok(Self::Pending(cut(text))),
            (OutcomeStatus::Failed, Some(text)) => Ok(Self::Failed(cut(text))),
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

/// What an outcome is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ResourceRef {
    /// A network.
    #[serde(rename = "network_id")]
    Network(NetworkId),
    /// A VM's NIC.
    #[serde(rename = "nic_id")]
    Nic(NicId),
}

impl std::fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(id) => write!(f, "network {id}"),
            Self::Nic(id) => write!(f, "NIC {id}"),
        }
    }
}

/// One thing's outcome on the node that reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceOutcome {
    /// The thing.
    #[serde(flatten)]
    pub resource: ResourceRef,
    /// Which decision about the thing this is the outcome of: the decision's position.
    pub generation: Position,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What works against it on this node without being ours to change. At most 4 of 256 characters are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "warnings")]
    pub warnings: Vec<String>,
}

impl ResourceOutcome {
    /// One without warnings.
    pub fn new(resource: ResourceRef, generation: Position, outcome: Outcome) -> Self {
        Self { resource, generation, outcome, warnings: Vec::new() }
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
    fn a_status_has_a_text_exactly_when_it_needs_one() {
        let read = serde_json::from_value::<Outcome>;
        assert_eq!(read(json!({"status": "ready", "error": null})).unwrap(), Outcome::Ready);
        assert_eq!(read(json!({"status": "failed", "error": "x"})).unwrap(), Outcome::Failed("x".into()));
        assert!(read(json!({"status": "failed", "error": null})).is_err());
        assert!(read(json!({"status": "removed", "error": "x"})).is_err());
        let long = Outcome::from_parts(OutcomeStatus::Failed, Some("ü".repeat(5000))).unwrap();
        assert_eq!(long.error().unwrap().chars().count(), 1024);
    }

    #[test]
    fn a_result_says_what_it_is_of_and_keeps_few_warnings() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8058";
        let read = |of: &str, warnings: &[String]| {
            let result = json!({of: id, "generation": 7, "status": "ready", "error": null, "warnings": warnings});
            serde_json::from_value::<ResourceOutcome>(result)
        };
        let network = read("network_id", &[]).unwrap();
        assert_eq!(network.resource, ResourceRef::Network(id.parse().unwrap()));
        let wanted = json!({"network_id": id, "generation": 7, "status": "ready", "error": null});
        assert_eq!(serde_json::to_value(&network).unwrap(), wanted);
        let nic = read("nic_id", &vec!["ü".repeat(300); 5]).unwrap();
        assert_eq!((nic.resource, nic.warnings), (ResourceRef::Nic(id.parse().unwrap()), vec!["ü".repeat(256); 4]));
        assert!(read("vm_id", &[]).is_err());
    }
}
