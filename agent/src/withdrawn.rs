//! The networks that were withdrawn from this node, because with them it could not reach the control plane: they are
//! created again when they are updated or after an operator released them.
//!
//! Two files in the state folder: `withdrawn.json` contains them. `otherix-agent release` writes the ids of those that
//! are released to `withdrawn.released.json`, which the agent reads every second while there are some, and removes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use otherix_runtime::files;
use otherix_schemas::error::Causes;
use otherix_schemas::id::NetworkId;
use serde::{Deserialize, Serialize};

use crate::model::withdrawal::{Withdrawal, Withdrawals};

const FILE: &str = "withdrawn.json";
const RELEASED: &str = "withdrawn.released.json";

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawnNetworks {
    pub networks: BTreeMap<NetworkId, WithdrawnNetwork>,
}

/// A network that was withdrawn from this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawnNetwork {
    /// Its name, for the operator.
    pub name: String,
    pub withdrawal: Withdrawal,
}

impl WithdrawnNetwork {
    /// Whether `text` is the network's name or id.
    pub fn is_named(&self, id: NetworkId, text: &str) -> bool {
        text == self.name || text == id.to_string()
    }
}

impl WithdrawnNetworks {
    /// Reads the file in this folder. If there is none, there are no such networks.
    ///
    /// # Errors
    /// If it cannot be read or parsed.
    pub fn read(folder: &Path) -> io::Result<Self> {
        match files::read(&folder.join(FILE))? {
            Some(content) => Ok(serde_json::from_slice(&content)?),
            None => Ok(Self::default()),
        }
    }

    /// Like [`Self::read`], for the start of the agent: an error is logged. What is forgotten is found out again by
    /// looking up the route to the control plane.
    pub fn read_or_log(folder: &Path) -> Self {
        Self::read(folder).unwrap_or_else(|error| {
            tracing::error!(error = %Causes(&error), file = FILE, "cannot read which networks were withdrawn");
            Self::default()
        })
    }

    /// Writes the file, or removes it if there are no networks.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join(FILE);
        if self.networks.is_empty() {
            return files::remove(&path);
        }
        files::replace(&path, &serde_json::to_vec(self)?)
    }

    /// Removes the networks that an operator has released, from the file too. Returns the removed ones.
    pub fn take_released(&mut self, folder: &Path) -> BTreeMap<NetworkId, WithdrawnNetwork> {
        let released = read_released(folder).unwrap_or_else(|error| {
            tracing::error!(error = %Causes(&error), file = RELEASED, "cannot read which networks are released");
            BTreeSet::new()
        });
        if released.is_empty() {
            return BTreeMap::new();
        }
        let all = std::mem::take(&mut self.networks);
        let (taken, kept) = all.into_iter().partition(|(id, _)| released.contains(id));
        self.networks = kept;
        self.write_or_log(folder);
        if let Err(error) = files::remove(&folder.join(RELEASED)) {
            tracing::error!(error = %Causes(&error), file = RELEASED, "cannot remove a file");
        }
        taken
    }

    /// Like [`Self::write`], but an error is logged.
    pub fn write_or_log(&self, folder: &Path) {
        if let Err(error) = self.write(folder) {
            tracing::error!(error = %Causes(&error), file = FILE, "cannot write which networks were withdrawn");
        }
    }

    /// The withdrawals, by network.
    pub fn withdrawals(&self) -> Withdrawals {
        self.networks.iter().map(|(id, network)| (*id, network.withdrawal.clone())).collect()
    }
}

/// Releases networks that were withdrawn from the node with this state folder, whether or not its agent is running:
/// those with one of these names or ids, or all if there are none. Returns them.
///
/// # Errors
/// If a file cannot be read or written.
pub fn release(folder: &Path, only: &[String]) -> io::Result<BTreeMap<NetworkId, WithdrawnNetwork>> {
    let mut networks = WithdrawnNetworks::read(folder)?.networks;
    networks.retain(|id, network| only.is_empty() || only.iter().any(|text| network.is_named(*id, text)));
    if !networks.is_empty() {
        let mut released = read_released(folder)?;
        released.extend(networks.keys());
        files::replace(&folder.join(RELEASED), &serde_json::to_vec(&released)?)?;
    }
    Ok(networks)
}

fn read_released(folder: &Path) -> io::Result<BTreeSet<NetworkId>> {
    let content = files::read(&folder.join(RELEASED))?;
    Ok(content.map(|content| serde_json::from_slice(&content)).transpose()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use otherix_schemas::position::Position;
    use otherix_testkit::tempdir;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn releases_all_or_those_that_are_named() {
        let network = |name: &str| WithdrawnNetwork {
            name: name.to_owned(),
            withdrawal: Withdrawal { generation: Position::new(7), reason: "no route".to_owned() },
        };
        let id = |number| NetworkId::new(Uuid::from_u128(number));
        let all = WithdrawnNetworks { networks: [(id(1), network("a")), (id(2), network("b"))].into() };
        let folder = tempdir().unwrap();
        let folder = folder.path();
        let read = || WithdrawnNetworks::read(folder).unwrap();
        assert!(read().networks.is_empty() && release(folder, &[]).unwrap().is_empty());
        all.write(folder).unwrap();
        let mut found = read();
        assert_eq!(found, all);
        assert!(release(folder, &["c".to_owned()]).unwrap().is_empty());
        assert!(found.take_released(folder).is_empty());
        release(folder, &["a".to_owned()]).unwrap();
        assert_eq!(found.take_released(folder).into_keys().collect::<Vec<_>>(), [id(1)]);
        assert_eq!(found.withdrawals().into_keys().collect::<Vec<_>>(), [id(2)]);
        assert_eq!(read(), found);
        assert!(found.take_released(folder).is_empty(), "once");
        assert_eq!(release(folder, &[id(2).to_string()]).unwrap(), release(folder, &[]).unwrap());
        assert_eq!(found.take_released(folder).len(), 1);
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
        std::fs::write(folder.join(FILE), "{").unwrap();
        WithdrawnNetworks::read(folder).unwrap_err();
        assert_eq!(WithdrawnNetworks::read_or_log(folder), WithdrawnNetworks::default());
    }
}
