//! The machine of a VM: what its node runs, and what it reports of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;
use crate::value::ImageDigest;

/// What the node of a VM runs, as it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Virtual processors.
    #[schemars(range(min = 1, max = 64))]
    pub vcpus: u16,
    /// Memory in MiB.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub memory_mb: u32,
    /// Size of the disk in GiB; null for that of the image.
    #[schemars(range(min = 1, max = 4_096))]
    pub disk_gib: Option<u32>,
    /// The SHA-256 of the image's file; null if any image of the URL will do.
    pub image_sha256: Option<ImageDigest>,
    pub pull_policy: PullPolicy,
    /// What cloud-init in the guest reads; null if it is given nothing.
    pub cloud_init: Option<CloudInit>,
}

/// When the image is fetched, if its digest is not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// If the node has nothing from the URL.
    #[default]
    IfNotPresent,
    /// Whenever the VM's disk is made, if the server has another version.
    Always,
}

impl PullPolicy {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "if-not-present",
            Self::Always => "always",
        }
    }
}

impl std::fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `if-not-present` or `always`, not `{0}`")]
pub struct PullPolicyError(String);

impl std::str::FromStr for PullPolicy {
    type Err = PullPolicyError;
    fn from_str(text: &str) -> Result<Self, PullPolicyError> {
        match text {
            "if-not-present" => Ok(Self::IfNotPresent),
            "always" => Ok(Self::Always),
            other => Err(PullPolicyError(other.to_owned())),
        }
    }
}

/// What cloud-init reads from the VM's seed disk, beside the VM's id and name. It is part of the events, which are kept
/// for ever and which every user may read: no place for secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudInit {
    /// At most 16,384 bytes; null for none.
    pub user_data: Option<String>,
    /// At most 8,192 bytes; null for what the guest does by itself, which is DHCP.
    pub network_config: Option<String>,
    /// Public keys that may log in, one line each; at most 32 of at most 1,024 bytes.
    pub ssh_keys: Vec<String>,
}

/// Whether a VM is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    Running,
    Paused,
    Stopped,
}

impl Power {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Power {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Running, Self::Paused, Self::Stopped].into_iter().find(|power| power.as_str() == text).ok_or(UnknownName)
    }
}

/// A text that is no name of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown name")]
pub struct UnknownName;

/// What a VM is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Instruction {
    /// Begin to run.
    Start,
    /// Shut down.
    Stop,
    /// Shut down, and begin to run again.
    Reboot,
    /// Begin anew at once, as by the reset button.
    Reset,
    /// Keep its state, and do not go on.
    Pause,
    /// Go on after a pause.
    Resume,
}

impl Instruction {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// Whether the VM is to run once it has done it.
    pub fn leads_to(self) -> Power {
        match self {
            Self::Start | Self::Reboot | Self::Reset | Self::Resume => Power::Running,
            Self::Stop => Power::Stopped,
            Self::Pause => Power::Paused,
        }
    }
}

/// What the machine of a VM is doing on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MachinePhase {
    /// It waits; the error says for what.
    Pending,
    /// The node fetches its image.
    Fetching,
    /// Its disk is made, and its process starts.
    Starting,
    Running,
    Paused,
    /// The guest was told to shut down.
    Stopping,
    Stopped,
    /// It cannot be run, for the reason that the error gives; `otherix vm start` tries again.
    Failed,
    /// Its process, its disk and its files are removed.
    Removed,
}

impl MachinePhase {
    const ALL: [Self; 9] = [
        Self::Pending,
        Self::Fetching,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Removed,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fetching => "fetching",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Removed => "removed",
        }
    }
}

impl std::fmt::Display for MachinePhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for MachinePhase {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or(UnknownName)
    }
}

/// What a node reports of a VM's machine, beside its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineStatus {
    pub phase: MachinePhase,
    /// Since when it runs, by the node's clock; null if it does not.
    pub started_at: Option<Timestamp>,
    /// The last line that the guest wrote to its console before it ended, at most 256 characters; null while it runs.
    #[serde(deserialize_with = "last_line")]
    pub last_line: Option<String>,
}

/// Longest line of a console that is reported, in characters; the rest is cut off.
pub const LAST_LINE_MAX: usize = 256;

fn last_line<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let line = Option::<String>::deserialize(deserializer)?;
    Ok(line.map(|line| line.chars().take(LAST_LINE_MAX).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_on_the_wire() {
        for phase in MachinePhase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
            assert_eq!(phase.as_str().parse(), Ok(phase));
        }
        for power in [Power::Running, Power::Paused, Power::Stopped] {
            assert_eq!(serde_json::to_value(power).unwrap(), power.as_str());
            assert_eq!(power.as_str().parse(), Ok(power));
        }
        assert_eq!("".parse::<Power>(), Err(UnknownName));
    }

    #[test]
    fn the_last_line_is_cut_off() {
        let text = serde_json::json!({"phase": "failed", "started_at": null, "last_line": "ü".repeat(1_000)});
        let status: MachineStatus = serde_json::from_value(text).unwrap();
        assert_eq!(status.last_line.unwrap().chars().count(), LAST_LINE_MAX);
    }
}
