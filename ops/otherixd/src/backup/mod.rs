//! `otherixd backup` and `otherixd restore --from`: all that a control plane needs to go on, in one file
//! (docs/adr/0039).

mod archive;
mod check;
mod copy;
mod error;
mod kept;
mod manifest;
mod restore;
mod work_folder;

use std::io::Write;
use std::path::{Path, PathBuf};

use otherix_runtime::{Runtime, SystemRuntime, files};

use crate::args::{BackupArgs, StateFolder};
use crate::error::BoxError;

pub(crate) use error::BackupError;
pub(crate) use restore::restore;

use self::manifest::Manifest;
use self::work_folder::WorkFolder;

/// The file in the work folder that becomes the backup.
const ARCHIVE: &str = "backup.tar";

/// Added to the scheduling priority of the process: a backup can wait, commands cannot.
const NICENESS: i32 = 10;

/// Writes a backup of the control plane, which may be running, and prints what is in it.
pub(crate) async fn backup(args: &BackupArgs) -> Result<(), BoxError> {
    let BackupArgs { file, into, keep_days, state, force } = args;
    if let Some(folder) = into {
        return kept::backup(folder, state, *keep_days).await;
    }
    let Some(file) = file else { return Err(BackupError::NoName(PathBuf::new()).into()) };
    write_file(file, state, *force).await
}

/// Writes a backup to a file.
async fn write_file(file: &Path, state: &StateFolder, force: bool) -> Result<(), BoxError> {
    if !force && file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(file.to_owned()).into());
    }
    // Without effect where it is not permitted.
    let _result = rustix::process::nice(NICENESS);
    let work = WorkFolder::create(&with_suffix(file, ".part")?)?;
    let written = write(state, &work).await;
    let manifest = match written {
        Ok(manifest) => manifest,
        Err(error) => {
            work.remove()?;
            return Err(error);
        }
    };
    let moved = work_folder::put_in_place(&work.path().join(ARCHIVE), file, force);
    work.remove()?;
    moved?;
    print_summary("backup", &manifest, file)?;
    Ok(())
}

/// Copies everything to the work folder, checks the copies, writes the archive and reads it again.
async fn write(state: &StateFolder, work: &WorkFolder) -> Result<Manifest, BoxError> {
    copy::copy_state(state, work.path())?;
    let copied = StateFolder { folder: work.path().to_owned() };
    let checked = check::check(&copied).await?;
    let manifest = Manifest::of(&checked, work.path(), SystemRuntime.now()?)?;
    let path = work.path().join(ARCHIVE);
    archive::write(&path, &manifest, work.path())?;
    let read = archive::verify(&path)?;
    if read != manifest {
        return Err(BackupError::NotAsWritten.into());
    }
    Ok(manifest)
}

fn print_summary(what: &str, manifest: &Manifest, path: &Path) -> std::io::Result<()> {
    let Manifest { events, position, epoch, cluster, digest, checkpoint, contradictions, .. } = manifest;
    let mut out = std::io::stdout();
    writeln!(out, "{what} `{}`", path.display())?;
    writeln!(out, "  cluster {cluster}, {events} events up to position {position}, epoch {epoch}, digest {digest}")?;
    match checkpoint {
        Some(checkpoint) => writeln!(out, "  the newest checkpoint of the log covers {} events", checkpoint.size)?,
        None => writeln!(out, "  the log of this epoch has no checkpoint yet")?,
    }
    if !manifest.parts.iter().any(|part| part.name == manifest::LOG) {
        writeln!(out, "  without a transparency log: there is none in the state folder")?;
    }
    if *contradictions > 0 {
        writeln!(out, "  the log has stopped, as its checkpoints contradict the journal: see `otherix audit status`")?;
    }
    Ok(())
}

/// The path with something added to its last part.
fn with_suffix(path: &Path, suffix: &str) -> Result<PathBuf, BackupError> {
    let mut name = path.file_name().ok_or_else(|| BackupError::NoName(path.to_owned()))?.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

/// Makes a file or folder that was written durable: its entry in the folder that has it.
fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

/// Removes what is there, file or nothing.
fn remove_file(path: &Path) -> Result<(), BackupError> {
    files::remove(path).map_err(|source| BackupError::file("remove", path, source))
}
