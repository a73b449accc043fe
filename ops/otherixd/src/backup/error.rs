//! Why a backup was not made, or not restored.

use std::io;
use std::path::{Path, PathBuf};

use otherix_commands::CopyError;
use otherix_commands::store::{LoadError, OpenError, StoreError};
use otherix_commands::tlog::LogCheckError;

/// Nothing has its final name then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("there is something at `{}` already", .0.display())]
    Exists(PathBuf),
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    #[error("`{}` is not the name of a file", .0.display())]
    NoName(PathBuf),
    #[error("another otherixd is using `{}`", .0.display())]
    InUse(PathBuf),
    #[error("`{}` belongs to somebody else, or others have access to it", .0.display())]
    Foreign(PathBuf),
    #[error("cannot {attempt} `{}`", path.display())]
    File { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no journal `{}`", .0.display())]
    NoJournal(PathBuf),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("the keys in `{}` changed while they were copied, several times", .0.display())]
    KeysChange(PathBuf),
    #[error("the file `{0}` cannot be in a backup")]
    Name(String),
    #[error("it is not a backup: {0}")]
    Malformed(&'static str),
    #[error("the backup is of format {0}, which this otherixd does not know")]
    Format(u32),
    #[error("the backup is damaged: `{name}` {what}")]
    Damaged { name: String, what: &'static str },
    #[error("what was read again is not what was written")]
    NotAsWritten,
    #[error("the manifest says `{0}` otherwise than the files")]
    Manifest(&'static str),
    #[error("cannot open the copied journal")]
    Open(#[from] OpenError),
    #[error("cannot read the copied journal")]
    Store(#[from] StoreError),
    #[error("the journal is not intact")]
    Journal(#[from] LoadError),
    #[error("the log and the journal do not belong together")]
    Log(#[from] LogCheckError),
    #[error("the key `{0}` is missing in the folder `identity`")]
    NoKey(String),
    #[error("there are more than 1000 files")]
    TooMany,
    #[error("`{}` is a mount point: it cannot be created as a whole", .0.display())]
    MountPoint(PathBuf),
    #[error("cannot encode the manifest")]
    Json(#[from] serde_json::Error),
}

impl BackupError {
    /// A file cannot be accessed.
    pub(super) fn file(attempt: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { attempt, path: path.to_owned(), source }
    }

    /// What an operator can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exists(_) => Some("choose another name, or replace it with --force once the new backup is complete"),
            Self::NotEmpty(_) => Some(
                "a backup is restored into an empty folder: move the present state folder away, and afterwards its \
                 folder `nats` into the restored one, which may have events that the backup lacks",
            ),
            Self::InUse(_) => Some("wait until it has ended"),
            Self::Foreign(_) => Some("remove it, or choose another folder: it would contain keys"),
            Self::KeysChange(_) => Some("repeat it when no otherixd is being started and no key is rotated"),
            Self::Malformed(_) | Self::Damaged { .. } => Some(
                "nothing was restored: use another copy. A file that was unpacked and packed again is refused, too; \
                 `tar -xOf FILE SHA256SUMS` shows what was written",
            ),
            Self::Format(_) => Some("restore it with the version of otherixd that made it, or a newer one"),
            Self::Log(LogCheckError::Root { .. } | LogCheckError::Ahead { .. } | LogCheckError::Tile(_)) => Some(
                "somebody has changed the journal or its log: keep earlier backups, and run `otherix audit status` \
                 and `otherixd journal verify --stream`",
            ),
            Self::NoJournal(_) => Some("name the state folder with --state"),
            Self::NoKey(_) => Some(
                "it is not the whole state of a control plane: without this key, nodes and users would need new \
                 credentials. A first start that was interrupted is completed by `otherixd run`",
            ),
            Self::TooMany => Some("remove what is not otherixd's from the folders `identity` and `credentials`"),
            Self::MountPoint(_) => Some(
                "restore into a new folder of that file system, such as `--state MOUNT/state`, and run otherixd with \
                 it; or unmount it, and mount the restored folder there afterwards",
            ),
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(
                "a backup takes twice the size of journal.db and log.db while it is written, and once afterwards; a \
                 restore as much as the backup",
            ),
            Self::Open(error) => Some(error.hint()),
            Self::Store(error) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::NoName(_)
            | Self::File { .. }
            | Self::Copy(_)
            | Self::Name(_)
            | Self::NotAsWritten
            | Self::Manifest(_)
            | Self::Log(_)
            | Self::Json(_) => None,
        }
    }
}
