//! A lab: the names of its namespaces, its files, and its description on disk.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::name::LabName;
use crate::target::{GuestName, LabNamespace};

/// The folder of the labs' folders.
const LABS: &str = "/var/lib/otherix-lab";

/// A lab that may or may not exist.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    pub(crate) name: LabName,
}

/// The properties of a lab, stored when it is created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LabDescription {
    /// The loopback port that is forwarded to NATS.
    pub(crate) port: u16,
    pub(crate) nodes: u32,
    /// Folder of otherix's programs.
    pub(crate) bin_dir: PathBuf,
    pub(crate) nats_server: PathBuf,
}

/// A lab that exists.
#[derive(Clone, Debug)]
pub(crate) struct OpenLab {
    pub(crate) lab: Lab,
    pub(crate) description: LabDescription,
}

impl Lab {
    pub(crate) fn new(name: LabName) -> Self {
        Self { name }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        Path::new(LABS).join(self.name.as_str())
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

    /// The namespace of a guest; unambiguous because no lab's name has a colon.
    pub(crate) fn guest(&self, guest: &GuestName) -> String {
        format!("otx-{}-{guest}", self.name)
    }

    /// The name of a namespace.
    pub(crate) fn namespace(&self, namespace: &LabNamespace) -> String {
        match namespace {
            LabNamespace::Node(node) => self.node(*node),
            LabNamespace::Underlay => self.underlay(),
            LabNamespace::Outside => self.outside(),
            LabNamespace::Guest(guest) => self.guest(guest),
        }
    }

    /// True if a namespace of that name belongs to this lab, not to a lab whose name only begins the same.
    pub(crate) fn owns(&self, namespace: &str) -> bool {
        let of_node = |rest: &str| rest.strip_prefix("node-").is_some_and(|node| node.parse::<u32>().is_ok());
        let rest = namespace.strip_prefix("otx-").and_then(|rest| rest.strip_prefix(self.name.as_str()));
        rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| {
            rest == "underlay" || rest == "outside" || of_node(rest) || rest.parse::<GuestName>().is_ok()
        })
    }

    /// State folder of otherixd.
    pub(crate) fn control_state(&self) -> PathBuf {
        self.folder().join("otherixd")
    }

    /// State folder of a node's agent.
    pub(crate) fn node_state(&self, node: u32) -> PathBuf {
        self.folder().join(format!("node-{node}"))
    }

    /// The folder of the local socket of a node's mesh device.
    /// The state folders of all nodes that there are.
    pub(crate) fn node_states(&self) -> Vec<PathBuf> {
        (1..).map(|node| self.node_state(node)).take_while(|folder| folder.is_dir()).collect()
    }

    /// The folder of a node's local sockets.
    pub(crate) fn mesh_sockets(&self, node: u32) -> PathBuf {
        self.node_state(node).join("wireguard")
    }

    /// A file that exists while a node's agent has joined; written by the agent.
    pub(crate) fn joined_file(&self, node: u32) -> PathBuf {
        self.node_state(node).join("joined")
    }

    /// While this file exists, otherixd does not start its nats-server.
    pub(crate) fn hold_file(&self) -> PathBuf {
        self.control_state().join("nats/hold")
    }

    pub(crate) fn credentials(&self, user: &str) -> PathBuf {
        self.control_state().join(format!("credentials/{user}.creds"))
    }

    /// The certificate of the CA of NATS, with which clients and nodes recognise it.
    pub(crate) fn ca(&self) -> PathBuf {
        self.control_state().join("identity/tls/ca.pem")
    }

    /// The join token of all nodes.
    pub(crate) fn join_token(&self) -> PathBuf {
        self.folder().join("join.token")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder().join(format!("logs/{name}.log"))
    }

    /// The record of the process of this name.
    pub(crate) fn record(&self, name: &str) -> PathBuf {
        self.folder().join(format!("processes/{name}.json"))
    }

    /// Creates the lab's folder; its contents need the lock. Returns false if it must be retried, because a concurrent
    /// `down` of the last lab has removed the parent folder.
    pub(crate) fn create_folder(&self) -> Result<bool, LabError> {
        match create_folder(&self.folder()) {
            Err(LabError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            created => created.map(|()| true),
        }
    }

    /// Creates the folders within the lab's folder.
    pub(crate) fn create_folders(&self) -> Result<(), LabError> {
        ["logs", "processes"].into_iter().try_for_each(|name| create_folder(&self.folder().join(name)))
    }

    /// Reads the lab's description; `None` if the lab does not exist.
    pub(crate) fn read_description(&self) -> Result<Option<LabDescription>, LabError> {
        let path = self.folder().join("lab.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LabError::File { attempt: "read", path, source }),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| LabError::Description { path, source })
    }

    /// Reads the lab's description.
    pub(crate) fn open(&self) -> Result<OpenLab, LabError> {
        let description = self.read_description()?.ok_or_else(|| LabError::NoLab(self.name.clone()))?;
        Ok(OpenLab { lab: self.clone(), description })
    }

    /// Writes the lab's description.
    pub(crate) fn write_description(&self, description: &LabDescription) -> Result<(), LabError> {
        write_json(&self.folder().join("lab.json"), description)
    }

    /// Removes the lab's files, and the parent folder with the last lab. Returns whether it was the last.
    pub(crate) fn remove_files(&self) -> Result<bool, LabError> {
        let folder = self.folder();
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LabError::File { attempt: "remove", path: folder, source: error });
            }
            Ok(()) | Err(_) => {}
        }
        let others_exist = fs::remove_dir(LABS).is_err();
        Ok(!others_exist)
    }
}

fn create_folder(path: &Path) -> Result<(), LabError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| LabError::File { attempt: "create the folder", path: path.to_owned(), source })
}

/// Writes a file atomically.
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
    fn owns_only_its_own_namespaces() {
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
}
