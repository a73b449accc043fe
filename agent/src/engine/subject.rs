//! The subjects of steps, and those that are not to be tried for now.

use std::collections::BTreeMap;

use otherix_schemas::id::{NetworkId, NicId};
use serde::{Deserialize, Serialize};

/// What a step concerns. Failures and retries are counted by subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Network(NetworkId),
    Nic(NicId),
    /// A device, by interface index.
    Device(u32),
    /// Something that the node has once, such as the packet filter's table.
    Node(&'static str),
}

/// The subjects that are not to be tried for now, because the kernel refused a step or another program keeps undoing
/// it, with an error that becomes part of an outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failures {
    networks: BTreeMap<NetworkId, String>,
    nics: BTreeMap<NicId, String>,
    devices: BTreeMap<u32, String>,
    node: BTreeMap<String, String>,
}

impl Failures {
    /// Returns the error of a subject that is not to be tried for now.
    pub fn get(&self, subject: Subject) -> Option<&String> {
        match subject {
            Subject::Network(network) => self.networks.get(&network),
            Subject::Nic(nic) => self.nics.get(&nic),
            Subject::Device(index) => self.devices.get(&index),
            Subject::Node(name) => self.node.get(name),
        }
    }

    /// Adds a subject that is not to be tried for now.
    pub fn insert(&mut self, subject: Subject, error: String) {
        match subject {
            Subject::Network(network) => drop(self.networks.insert(network, error)),
            Subject::Nic(nic) => drop(self.nics.insert(nic, error)),
            Subject::Device(index) => drop(self.devices.insert(index, error)),
            Subject::Node(name) => drop(self.node.insert(name.to_owned(), error)),
        }
    }

    pub fn is_empty(&self) -> bool {
        let Self { networks, nics, devices, node } = self;
        networks.is_empty() && nics.is_empty() && devices.is_empty() && node.is_empty()
    }
}
