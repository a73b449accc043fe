//! The rules of a VM's machine.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{CloudInit, Machine, PullPolicy};
use crate::json_field::{integer, object, text, texts};
use crate::value::ImageDigest;
use crate::violations::Violations;

/// Virtual processors: more than most machines have gain nothing.
const VCPUS: RangeInclusive<i64> = 1..=64;

/// Memory in MiB: Linux boots with 64; 1 TiB.
const MEMORY_MB: RangeInclusive<i64> = 64..=1 << 20;

/// Size of the disk in GiB: the tables of a VM's disk are made for 4 TiB (`otherix-image`).
const DISK_GIB: RangeInclusive<i64> = 1..=4096;

/// Longest texts in bytes: those that EC2 accepts, and whole events that NATS and the log take.
const USER_DATA_MAX: usize = 16_384;
const NETWORK_CONFIG_MAX: usize = 8_192;
const SSH_KEY_MAX: usize = 1_024;
const SSH_KEYS_MAX: usize = 32;

/// The virtual processors of a VM that does not say how many.
const DEFAULT_VCPUS: u16 = 2;

/// The memory of a VM that does not say how much, in MiB.
const DEFAULT_MEMORY_MB: u32 = 2048;

/// What a node is to run, as a client sends it, not yet validated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MachineDraft {
    /// 1 to 64 (default 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<i64>,
    /// In MiB, 64 to 1,048,576 (default 2048).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<i64>,
    /// In GiB, 1 to 4,096 (default: that of the image).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<i64>,
    /// The SHA-256 of the image's file, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<String>,
    /// `if-not-present` (default) or `always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<String>,
    /// What cloud-init reads (default: nothing).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
}

impl MachineDraft {
    /// Reads a draft from a JSON object. An unknown field, or a value of the wrong type, is a violation.
    pub fn from_json(fields: Map<String, Value>, violations: &mut Violations) -> Self {
        let mut draft = Self::default();
        for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            let (name, v) = (format!("machine.{field}"), &mut *violations);
            match field.as_str() {
                "vcpus" => draft.vcpus = integer(&name, &value, v),
                "memory_mb" => draft.memory_mb = integer(&name, &value, v),
                "disk_gib" => draft.disk_gib = integer(&name, &value, v),
                "image_sha256" => draft.image_sha256 = text(&name, value, v),
                "pull_policy" => draft.pull_policy = text(&name, value, v),
                "cloud_init" => draft.cloud_init = object(&name, value, v).map(|object| cloud_init(object, v)),
                _ => v.add(&name, "is not a field of a machine"),
            }
        }
        draft
    }

    /// Validates the draft. `None` if it violates a rule.
    pub fn check(&self, v: &mut Violations) -> Option<Machine> {
        let Self { vcpus, memory_mb, disk_gib, image_sha256, pull_policy, cloud_init } = self;
        let vcpus = vcpus.map_or(Some(DEFAULT_VCPUS), |number| within("machine.vcpus", number, VCPUS, v));
        let memory = |number| within("machine.memory_mb", number, MEMORY_MB, v);
        let memory_mb = memory_mb.map_or(Some(DEFAULT_MEMORY_MB), memory);
        let disk_gib = disk_gib.map(|number| within("machine.disk_gib", number, DISK_GIB, v));
        let image_sha256 = image_sha256.as_ref().map(|text| v.check("machine.image_sha256", ImageDigest::parse(text)));
        let policy = |text: &String| v.check("machine.pull_policy", text.parse());
        let pull_policy = pull_policy.as_ref().map_or(Some(PullPolicy::default()), policy);
        if let Some(cloud_init) = cloud_init {
            check_cloud_init(cloud_init, v);
        }
        Some(Machine {
            vcpus: vcpus?,
            memory_mb: memory_mb?,
            disk_gib: disk_gib.map_or(Some(None), |size| size.map(Some))?,
            image_sha256: image_sha256.map_or(Some(None), |digest| digest.map(Some))?,
            pull_policy: pull_policy?,
            cloud_init: cloud_init.clone(),
        })
    }
}

fn within<N: TryFrom<i64>>(field: &str, number: i64, range: RangeInclusive<i64>, v: &mut Violations) -> Option<N> {
    if range.contains(&number) {
        return N::try_from(number).ok();
    }
    v.add(field, format_args!("must be {} to {}, not {number}", range.start(), range.end()));
    None
}

fn cloud_init(object: Map<String, Value>, violations: &mut Violations) -> CloudInit {
    let mut read = CloudInit::default();
    for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        let (name, v) = (format!("machine.cloud_init.{field}"), &mut *violations);
        match field.as_str() {
            "user_data" => read.user_data = text(&name, value, v),
            "network_config" => read.network_config = text(&name, value, v),
            "ssh_keys" => read.ssh_keys = texts(&name, value, v).unwrap_or_default(),
            _ => v.add(&name, "is not a field of `cloud_init`"),
        }
    }
    read
}

fn check_cloud_init(cloud_init: &CloudInit, v: &mut Violations) {
    let CloudInit { user_data, network_config, ssh_keys } = cloud_init;
    for (field, text, max) in
        [("user_data", user_data, USER_DATA_MAX), ("network_config", network_config, NETWORK_CONFIG_MAX)]
    {
        let length = text.as_ref().map_or(0, String::len);
        if length > max {
            let name = format!("machine.cloud_init.{field}");
            v.add(&name, format_args!("must have at most {max} bytes, not {length}"));
        }
    }
    let name = "machine.cloud_init.ssh_keys";
    if ssh_keys.len() > SSH_KEYS_MAX {
        v.add(name, format_args!("must be at most {SSH_KEYS_MAX}, not {}", ssh_keys.len()));
    }
    for key in ssh_keys {
        let words = key.split_ascii_whitespace().count();
        if words < 2 || key.len() > SSH_KEY_MAX || key.chars().any(char::is_control) {
            v.add(
                name,
                format_args!("must each be a line of at most {SSH_KEY_MAX} bytes, such as `ssh-ed25519 AAAA…`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(machine: Value) -> Result<Machine, Vec<String>> {
        let Value::Object(object) = machine else { unreachable!("no object") };
        let mut violations = Violations::default();
        let draft = MachineDraft::from_json(object, &mut violations);
        match draft.check(&mut violations) {
            Some(machine) if violations.is_empty() => Ok(machine),
            _ => Err(violations.iter().map(|(field, rule)| format!("{field}: {rule}")).collect()),
        }
    }

    #[test]
    fn everything_has_a_default() {
        let machine = check(json!({})).unwrap();
        assert_eq!((machine.vcpus, machine.memory_mb, machine.disk_gib), (2, 2048, None));
        assert_eq!((machine.pull_policy, &machine.image_sha256), (PullPolicy::IfNotPresent, &None));
        let null = check(json!({"vcpus": null, "cloud_init": {"user_data": null}})).unwrap();
        assert_eq!(null, Machine { cloud_init: Some(CloudInit::default()), ..machine.clone() });
    }

    #[test]
    fn bounds_are_inclusive() {
        let most = json!({"vcpus": 64, "memory_mb": 1 << 20, "disk_gib": 4096, "pull_policy": "always",
            "image_sha256": "aB".repeat(32), "cloud_init": {"user_data": "x".repeat(16_384),
            "network_config": "x".repeat(8_192), "ssh_keys": vec![format!("a {}", "b".repeat(1_022)); 32]}});
        assert_eq!(check(most).unwrap().disk_gib, Some(4096));
        assert_eq!(check(json!({"vcpus": 1, "memory_mb": 64, "disk_gib": 1})).unwrap().vcpus, 1);
    }

    #[test]
    fn all_violations_are_reported_together() {
        let bad = json!({"vcpus": 0, "memory_mb": 63, "disk_gib": 4097, "pull_policy": "never", "image_sha256": "ab",
            "cpus": 1, "cloud_init": {"user_data": "x".repeat(16_385), "network_config": "x".repeat(8_193),
            "ssh_keys": ["a"], "hostname": "x"}});
        let expected = [
            "machine.cloud_init.hostname: is not a field of `cloud_init`",
            "machine.cloud_init.network_config: must have at most 8192 bytes, not 8193",
            "machine.cloud_init.ssh_keys: must each be a line of at most 1024 bytes, such as `ssh-ed25519 AAAA…`",
            "machine.cloud_init.user_data: must have at most 16384 bytes, not 16385",
            "machine.cpus: is not a field of a machine",
            "machine.disk_gib: must be 1 to 4096, not 4097",
            "machine.image_sha256: must be a SHA-256: 64 hexadecimal digits",
            "machine.memory_mb: must be 64 to 1048576, not 63",
            "machine.pull_policy: must be `if-not-present` or `always`, not `never`",
            "machine.vcpus: must be 1 to 64, not 0",
        ];
        assert_eq!(check(bad).unwrap_err(), expected);
        let wrong = json!({"vcpus": "2", "cloud_init": [], "image_sha256": 7});
        let expected = [
            "machine.cloud_init: must be an object",
            "machine.image_sha256: must be a string",
            "machine.vcpus: must be an integer",
        ];
        assert_eq!(check(wrong).unwrap_err(), expected);
        let keys = json!({"cloud_init": {"ssh_keys": vec!["ssh-ed25519 AAAA"; 33]}});
        assert_eq!(check(keys).unwrap_err(), ["machine.cloud_init.ssh_keys: must be at most 32, not 33"]);
    }
}
