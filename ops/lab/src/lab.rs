//! What a lab is called, where its files are, and what is written down of it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::target::GuestName;

/// Below it each lab has a folder.
const LABS: &str = "/var/lib/otherix-lab";

/// Longest name of a lab, in bytes.
const NAME_MAX: usize = 20;

/// A lab's name: part of the names of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabName(String);

/// A text that is no name of a lab.
#[derive(Clone, Debug, thiserror::Error)]
#[error("must be 1 to {NAME_MAX} of `a-z 0-9 -`, the first no `-`")]
pub(crate) struct LabNameError;

impl FromStr for LabName {
    type Err = LabNameError;
    fn from_str(text: &str) -> Result<Self, LabNameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=NAME_MAX).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('-');
        if fits { Ok(Self(text.to_owned())) } else { Err(LabNameError) }
    }
}

impl std::fmt::Display for LabName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A lab that may or may not exist.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    pub(crate) name: LabName,
}

/// What is written down when a lab is made, so that every later command means the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    /// The port on loopback that leads to NATS.
    pub(crate) port: u16,
    /// How many nodes there are.
    pub(crate) nodes: u32,
    /// Where the programs are.
    pub(crate) bin_dir: PathBuf,
    /// The server that otherixd runs.
    pub(crate) nats_server: PathBuf,
}

/// A lab that exists.
#[derive(Clone, Debug)]
pub(crate) struct OpenLab {
    pub(crate) lab: Lab,
    pub(crate) description: Description,
}

impl Lab {
    pub(crate) fn new(name: LabName) -> Self {
        Self { name }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        Path::new(LABS).join(&self.name.0)
    }

    /// The namespace of the underlay and the control plane.
    pub(crate) fn underlay(&self) -> String {
        format!("otx-{}-underlay", self.name)
    }

    /// The namespace of a node.
    pub(crate) fn node(&self, node: u32) -> String {
        format!("otx-{}-node-{node}", self.name)
    }

    /// The namespace of the host outside.
    pub(crate) fn outside(&self) -> String {
        format!("otx-{}-outside", self.name)
    }

    /// The namespace of a guest. No lab's name has a colon.
    pub(crate) fn guest(&self, guest: &GuestName) -> String {
        format!("otx-{}-{guest}", self.name)
    }

    /// True if a namespace of that name is this lab's, and not one of a lab with a longer name.
    pub(crate) fn owns(&self, namespace: &str) -> bool {
        let of_node = |rest: &str| rest.strip_prefix("node-").is_some_and(|node| node.parse::<u32>().is_ok());
        let rest = namespace.strip_prefix("otx-").and_then(|rest| rest.strip_prefix(&self.name.0));
        rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| {
            rest == "underlay" || rest == "outside" || of_node(rest) || rest.parse::<GuestName>().is_ok()
        })
    }

    /// The state of otherixd.
    pub(crate) fn control_state(&self) -> PathBuf {
        self.folder().join("otherixd")
    }

    /// The state of a node's agent.
    pub(crate) fn node_state(&self, node: u32) -> PathBuf {
        self.folder().join(format!("node-{node}"))
    }

    /// The folder of the local socket of a node's mesh device.
    pub(crate) fn mesh_sockets(&self, node: u32) -> PathBuf {
        self.node_state(node).join("wireguard")
    }

    /// Is there while a node's agent has joined: the agent makes it.
    pub(crate) fn joined(&self, node: u32) -> PathBuf {
        self.node_state(node).join("joined")
    }

    /// Keeps otherixd from starting its server while it is there.
    pub(crate) fn hold(&self) -> PathBuf {
        self.control_state().join("nats/hold")
    }

    /// How a user connects.
    pub(crate) fn credentials(&self, user: &str) -> PathBuf {
        self.control_state().join(format!("credentials/{user}.json"))
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder().join(format!("logs/{name}.log"))
    }

    /// Where it is written down which process has this name.
    pub(crate) fn record(&self, name: &str) -> PathBuf {
        self.folder().join(format!("processes/{name}.json"))
    }

    /// Makes the lab's folder, and nothing in it: that is for whoever holds it locked. Says whether it may be there now: who
    /// removes the last lab at this moment removes the folder above as well.
    pub(crate) fn make_folder(&self) -> Result<bool, LabError> {
        match make_folder(&self.folder()) {
            Err(LabError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Makes the folders in it.
    pub(crate) fn make_folders(&self) -> Result<(), LabError> {
        ["logs", "processes"].into_iter().try_for_each(|name| make_folder(&self.folder().join(name)))
    }

    /// What is written down of the lab, if it exists.
    pub(crate) fn described(&self) -> Result<Option<Description>, LabError> {
        let path = self.folder().join("lab.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LabError::File { attempt: "read", path, source }),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| LabError::Description { path, source })
    }

    /// The lab, if it exists.
    pub(crate) fn opened(&self) -> Result<OpenLab, LabError> {
        let description = self.described()?.ok_or_else(|| LabError::NoLab(self.name.clone()))?;
        Ok(OpenLab { lab: self.clone(), description })
    }

    /// Writes down what the lab is.
    pub(crate) fn describe(&self, description: &Description) -> Result<(), LabError> {
        write_json(&self.folder().join("lab.json"), description)
    }

    /// Removes the lab's files, and the folder of all labs with the last one. Says whether it was the last.
    pub(crate) fn remove_files(&self) -> Result<bool, LabError> {
        let folder = self.folder();
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LabError::File { attempt: "remove", path: folder, source: error });
            }
            Ok(()) | Err(_) => {}
        }
        let other_labs_are_there = fs::remove_dir(LABS).is_err();
        Ok(!other_labs_are_there)
    }
}

fn make_folder(path: &Path) -> Result<(), LabError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| LabError::File { attempt: "make the folder", path: path.to_owned(), source })
}

/// Writes a file whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), LabError> {
    let new = path.with_extension("new");
    serde_json::to_vec(value)
        .map_err(io::Error::other)
        .and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|source| LabError::File { attempt: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_owns_its_own_namespaces_only() {
        let lab = Lab::new("a".parse().unwrap());
        for own in ["otx-a-underlay", "otx-a-outside", "otx-a-node-12", "otx-a-vm:web", "otx-a-vm:b-underlay"] {
            assert!(lab.owns(own), "{own}");
        }
        for other in [
            "otx-a-node-1-underlay",
            "otx-a-node-",
            "otx-ab-underlay",
            "otx-a",
            "a-underlay",
            "otx-a-b-node-1",
            "otx-a-b-vm:c",
        ] {
            assert!(!lab.owns(other), "{other}");
        }
    }

    #[test]
    fn names() {
        for bad in ["", "-a", "A", "a/b", "a.b", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
    }
}
