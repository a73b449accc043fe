//! The record of links whose IPv4 forwarding this agent turned on: the kernel does not tell who did. It is valid until
//! the machine is restarted, and in this network namespace.
//!
//! A link is recorded before its forwarding is turned on, so that a process that is killed in between leaves no link
//! that forwards without being recorded.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use otherix_runtime::files;
use serde::{Deserialize, Serialize};

/// The name of the file in the state folder.
const FILE: &str = "uplinks.json";

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The record, and its file.
#[derive(Debug, Default)]
pub(super) struct UplinkRecord {
    /// `None`: the record ends with the process.
    path: Option<PathBuf>,
    links: BTreeMap<u32, bool>,
}

/// What the file contains.
#[derive(Debug, Serialize, Deserialize)]
struct StoredRecord {
    boot: String,
    /// The inode of the network namespace.
    namespace: u64,
    /// By interface index: whether forwarding of all links was on.
    turned_on: BTreeMap<u32, bool>,
}

impl UplinkRecord {
    /// Reads the record in a state folder. One that cannot be read is logged: links that forward then count as turned
    /// on by someone else.
    pub(super) fn read(state: &std::path::Path) -> Self {
        let path = state.join(FILE);
        let parse = |text: Vec<u8>| serde_json::from_slice::<StoredRecord>(&text).map_err(io::Error::from);
        let stored = match files::read(&path).and_then(|text| text.map(parse).transpose()) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read which links this agent made forward");
                None
            }
        };
        let is_valid =
            |stored: &StoredRecord| current().is_ok_and(|current| current == (stored.boot.clone(), stored.namespace));
        let links = stored.filter(is_valid).map(|stored| stored.turned_on).unwrap_or_default();
        Self { path: Some(path), links }
    }

    /// The links, by interface index, and whether forwarding of all links was on when theirs was turned on.
    pub(super) fn links(&self) -> &BTreeMap<u32, bool> {
        &self.links
    }

    /// Records a link.
    pub(super) fn add(&mut self, index: u32, was_on_for_all: bool) -> io::Result<()> {
        if self.links.get(&index) == Some(&was_on_for_all) {
            return Ok(());
        }
        self.change(|links| links.extend([(index, was_on_for_all)]))
    }

    /// Removes links from the record, but those that are to be kept. A failure to write it is not significant: these
    /// links do not exist, or do not forward.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(u32) -> bool) {
        if self.links.keys().all(|index| is_kept(*index)) {
            return;
        }
        if let Err(error) = self.change(|links| links.retain(|index, _| is_kept(*index))) {
            tracing::debug!(%error, "cannot write which links this agent made forward");
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<u32, bool>)) -> io::Result<()> {
        let mut links = self.links.clone();
        change(&mut links);
        if let Some(path) = &self.path {
            let (boot, namespace) = current()?;
            let stored = StoredRecord { boot, namespace, turned_on: links.clone() };
            files::replace(path, &serde_json::to_vec_pretty(&stored)?)?;
        }
        self.links = links;
        Ok(())
    }
}

/// Returns what identifies this start of the machine, and this thread's network namespace.
fn current() -> io::Result<(String, u64)> {
    Ok((fs::read_to_string(BOOT)?.trim().to_owned(), fs::metadata(NAMESPACE)?.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_process_but_no_other_start_of_the_machine() {
        let folder = otherix_testkit::tempdir().unwrap();
        let mut record = UplinkRecord::read(folder.path());
        assert!(record.links().is_empty());
        record.add(3, false).unwrap();
        record.add(4, true).unwrap();
        record.retain(|index| index != 4);
        let path = folder.path().join(FILE);
        assert_eq!(*UplinkRecord::read(folder.path()).links(), [(3, false)].into());
        let text = fs::read_to_string(&path).unwrap();
        let (boot, namespace) = current().unwrap();
        for (from, to) in [(boot, "another".to_owned()), (namespace.to_string(), "7".to_owned())] {
            fs::write(&path, text.replace(&from, &to)).unwrap();
            assert!(UplinkRecord::read(folder.path()).links().is_empty());
        }
        fs::write(&path, "{").unwrap();
        assert!(UplinkRecord::read(folder.path()).links().is_empty());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(UplinkRecord::read(folder.path()).add(3, false).is_err(), "not recorded");
    }
}
