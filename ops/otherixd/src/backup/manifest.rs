//! What is in a backup. The manifest comes first in the file, and says size and SHA-256 of every part.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::check::Checked;
use super::{ARCHIVE, BackupError};

/// The version of the format.
pub(super) const FORMAT: u32 = 1;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const SUMS: &str = "SHA256SUMS";
pub(super) const JOURNAL: &str = "journal.db";
pub(super) const LOG: &str = "log.db";

/// The beginning of the names of files with events that a restore gave up, and of the checkpoints of these.
pub(super) const GIVEN_UP: &str = "given-up-epoch-";

/// Folders of the state folder whose files are in the backup: the keys, and the credentials of the first administrator.
pub(super) const PRIVATE_FOLDERS: [&str; 2] = ["identity", "credentials"];

/// The longest name: longer ones take another form in a tar archive.
const NAME_MAX: usize = 99;

/// The most parts.
pub(super) const PARTS_MAX: usize = 1000;

/// The content of the backup, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// The version of otherixd.
    pub(super) version: String,
    pub(super) created_at: Timestamp,
    pub(super) cluster: ClusterId,
    pub(super) epoch: Epoch,
    /// The journal's last event.
    pub(super) position: Position,
    /// The number of events.
    pub(super) events: u64,
    /// Of the last event, in hexadecimal: the end of the digest chain.
    pub(super) digest: String,
    /// The newest one of this epoch.
    pub(super) checkpoint: Option<ManifestCheckpoint>,
    /// Checkpoints that the log had found to contradict the journal.
    pub(super) contradictions: usize,
    /// In the order of the archive.
    pub(super) parts: Vec<Part>,
}

/// A signed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestCheckpoint {
    /// Events that it covers.
    pub(super) size: u64,
    /// As it was signed.
    pub(super) note: String,
}

/// A file of the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) bytes: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
}

impl Manifest {
    /// The manifest of files that were checked, in this folder.
    ///
    /// # Errors
    /// If they cannot be read, or one cannot be in a backup.
    pub(super) fn of(checked: &Checked, folder: &Path, created_at: Timestamp) -> Result<Self, BackupError> {
        let mut names = Vec::new();
        list(folder, "", &mut names).map_err(|source| BackupError::file("read", folder, source))?;
        names.sort();
        let mut parts = Vec::new();
        for name in names.into_iter().filter(|name| name != ARCHIVE) {
            if !is_name(&name) {
                return Err(BackupError::Name(name));
            }
            let path = folder.join(&name);
            let (bytes, sha256) = digest(&path).map_err(|source| BackupError::file("read", &path, source))?;
            parts.push(Part { name, bytes, sha256 });
        }
        let Checked { cluster, epoch, position, events, digest, checkpoint, contradictions } = checked.clone();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let checkpoint = checkpoint.map(|(note, size)| ManifestCheckpoint { size, note });
        let format = FORMAT;
        Ok(Self {
            format,
            version,
            created_at,
            cluster,
            epoch,
            position,
            events,
            digest,
            checkpoint,
            contradictions,
            parts,
        })
    }

    /// Checks that it can be the manifest of a backup.
    ///
    /// # Errors
    /// If parts are missing, foreign, or twice in it.
    pub(super) fn check(&self) -> Result<(), BackupError> {
        if self.format != FORMAT {
            return Err(BackupError::Format(self.format));
        }
        if let Some(part) = self.parts.iter().find(|part| !is_name(&part.name)) {
            return Err(BackupError::Name(part.name.clone()));
        }
        if self.parts.len() > PARTS_MAX {
            return Err(BackupError::TooMany);
        }
        if !self.parts.is_sorted_by(|one, next| one.name < next.name) {
            return Err(BackupError::Malformed("the parts are not in order"));
        }
        if !self.parts.iter().any(|part| part.name == JOURNAL) {
            return Err(BackupError::Malformed("it has no journal"));
        }
        Ok(())
    }

    /// Compares it with what the files say.
    ///
    /// # Errors
    /// If they differ.
    pub(super) fn compare(&self, checked: &Checked) -> Result<(), BackupError> {
        let checkpoint = self.checkpoint.as_ref().map(|it| (it.note.as_str(), it.size));
        let fields = [
            ("cluster", self.cluster == checked.cluster),
            ("epoch", self.epoch == checked.epoch),
            ("position", self.position == checked.position),
            ("events", self.events == checked.events),
            ("digest", self.digest == checked.digest),
            ("checkpoint", checkpoint == checked.checkpoint.as_ref().map(|(note, size)| (note.as_str(), *size))),
            ("contradictions", self.contradictions == checked.contradictions),
        ];
        fields.into_iter().find(|(_, holds)| !holds).map_or(Ok(()), |(name, _)| Err(BackupError::Manifest(name)))
    }

    /// As it is written.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, BackupError> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// The last member, which `sha256sum -c` reads: the manifest and all parts.
    pub(super) fn sums(&self, manifest: &[u8]) -> String {
        let own = format!("{}  {MANIFEST}\n", hex(&Sha256::digest(manifest)));
        let parts = self.parts.iter().map(|Part { name, sha256, .. }| format!("{sha256}  {name}\n"));
        std::iter::once(own).chain(parts).collect()
    }
}

/// Whether a part may have this name: one of the databases, a file with what was given up, or a file in one of the
/// folders. Nothing that a path could be made of which leads elsewhere.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let mut parts = name.split('/');
    let is_known = match (parts.next(), parts.clone().count()) {
        (Some(JOURNAL | LOG), 0) => true,
        (Some(name), 0) => name.starts_with(GIVEN_UP) && is_plain(name) && !name.ends_with(".new"),
        (Some(folder), 1 | 2) => PRIVATE_FOLDERS.contains(&folder),
        _ => false,
    };
    is_known && name.len() <= NAME_MAX && parts.all(is_plain)
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hash, mut length) = (File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        length += bytes.len() as u64;
    }
    Ok((length, hex(&hash.finalize())))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_state_folder_are_parts() {
        for name in [
            "journal.db",
            "log.db",
            "identity/operator.nk",
            "identity/tls/ca.pem",
            "credentials/admin.creds",
            "given-up-epoch-1-from-7.jsonl",
            "given-up-epoch-1-from-7.checkpoint",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "/",
            "journal.db/",
            "journal.db/x",
            "./journal.db",
            "../journal.db",
            "/journal.db",
            "identity",
            "identity/",
            "identity/.",
            "identity/..",
            "identity/../x",
            "identity/tls/../x",
            "identity//x",
            "nats/x",
            "identity/a/b/c",
            "identity/a b",
            "identity/a\n",
            "identity/.hidden",
            "manifest.json",
            "SHA256SUMS",
            "journal.db-wal",
            "read-models.db",
            "given-up-epoch-1-from-7.jsonl.new",
            "given-up-epoch-1/x",
            "identity/\u{e4}",
        ] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name(&format!("identity/{}", "a".repeat(90))) && !is_name(&format!("identity/{}", "a".repeat(91))));
    }
}
