//! `otherixd restore --from FILE`: makes a state folder of a backup. Nothing is there until all of it is.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use otherix_commands::relay::survey;
use otherix_runtime::files;

use super::work_folder::WorkFolder;
use super::{BackupError, archive, check, manifest::Manifest, print_summary, with_suffix};
use crate::args::{RestoreArgs, STATE_FOLDER, StateFolder};
use crate::error::BoxError;
use crate::offline::StoppedControlPlane;

/// Restores the backup in `file`, and prints what an operator has to do next.
pub(crate) async fn restore(file: &Path, args: &RestoreArgs) -> Result<(), BoxError> {
    if args.dry_run {
        return verify(file).await;
    }
    let place = place(&args.offline.state.folder)?;
    warn_of_readers(file);
    // All of it, before anything is written.
    let manifest = archive::verify(file)?;
    let work = WorkFolder::create(&with_suffix(&place, ".restoring")?)?;
    if let Err(error) = unpack(file, &manifest, &work).await {
        work.remove()?;
        return Err(error);
    }
    work.become_folder(&place)?;
    print_summary("restored", &manifest, &place)?;
    if let Err(error) = print_next(&place, args, &manifest).await {
        // All is restored: what the stream has can be asked for later.
        tracing::warn!(%error, "the stream cannot be read");
        let options = state_option(args);
        writeln!(
            io::stdout(),
            "next: as soon as NATS can be reached, see what the stream has that the backup lacks: `otherixd journal \
             adopt{options} --dry-run`"
        )?;
    }
    Ok(())
}

/// Verifies a backup: what would be restored is unpacked beside it, and removed again.
async fn verify(file: &Path) -> Result<(), BoxError> {
    warn_of_readers(file);
    let manifest = archive::verify(file)?;
    let work = WorkFolder::create(&with_suffix(file, ".verifying")?)?;
    let unpacked = unpack(file, &manifest, &work).await;
    work.remove()?;
    unpacked?;
    print_summary("verified, and not restored (dry run):", &manifest, file)?;
    Ok(())
}

/// The state folder's path. Nothing may be in it.
fn place(folder: &Path) -> Result<PathBuf, BackupError> {
    let failed = |source| BackupError::file("read", folder, source);
    let mut entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(folder.to_owned()),
        entries => entries.map_err(failed)?,
    };
    // It may be a link to a folder.
    let place = folder.canonicalize().map_err(failed)?;
    if is_mount_point(&place).map_err(failed)? {
        return Err(BackupError::MountPoint(folder.to_owned()));
    }
    if entries.next().is_some() {
        return Err(BackupError::NotEmpty(folder.to_owned()));
    }
    Ok(place)
}

fn is_mount_point(folder: &Path) -> io::Result<bool> {
    let Some(parent) = folder.parent() else { return Ok(true) };
    Ok(fs::metadata(folder)?.dev() != fs::metadata(parent)?.dev())
}

/// The option with which the next commands find the restored state folder, unless it is the default one.
fn state_option(args: &RestoreArgs) -> String {
    let state = &args.offline.state.folder;
    if state == Path::new(STATE_FOLDER) { String::new() } else { format!(" --state {}", state.display()) }
}

fn warn_of_readers(file: &Path) {
    let mode = files::open_regular(file).and_then(|file| files::shared_mode(&file));
    if let Ok(Some(mode)) = mode {
        tracing::warn!(
            file = %file.display(),
            mode = format!("{mode:04o}"),
            hint = "whoever reads it has all keys of the cluster: run `chmod 600` on it, and on its copies",
            "other users have access to the backup"
        );
    }
}

async fn unpack(file: &Path, manifest: &Manifest, work: &WorkFolder) -> Result<(), BoxError> {
    // The file may have been replaced meanwhile.
    if archive::unpack(file, work.path())? != *manifest {
        return Err(BackupError::NotAsWritten.into());
    }
    let checked = check::check(&StateFolder { folder: work.path().to_owned() }).await?;
    Ok(manifest.compare(&checked)?)
}

/// Prints what has to be done next: it depends on what the stream has, if that can be asked.
async fn print_next(place: &Path, args: &RestoreArgs, manifest: &Manifest) -> Result<(), BoxError> {
    let mut out = io::stdout();
    let (state, position, options) = (place.display(), manifest.position, state_option(args));
    if args.offline.own.settings(&args.offline.state)?.is_none() {
        writeln!(
            out,
            "next: if the folder `nats` of the earlier state folder still exists, move it to `{state}/nats`, and start \
             `otherixd run{options}`.\n  If it stops, the stream has events after position {position}: `otherixd \
             journal adopt{options}` takes them over,\n  `otherixd restore --new-epoch{options}` gives them up.\n  \
             Without that folder: if anything was recorded after the backup, first run\n  `otherixd restore \
             --new-epoch{options} --above POSITION`, so that no position is assigned twice"
        )?;
        return Ok(());
    }
    let mut control_plane = StoppedControlPlane::open(&args.offline, false).await?;
    let lost = later_events(&mut control_plane).await;
    let is_missing = control_plane.streams.is_empty();
    control_plane.close().await;
    match lost? {
        Some(first) => writeln!(
            out,
            "next: the stream has events from position {first} on: `otherixd journal adopt{options}` takes them \
             over, `otherixd restore --new-epoch{options}` gives them up, with the options of this command for NATS"
        )?,
        None if is_missing => writeln!(
            out,
            "next: there is no stream: if anything was recorded after position {position}, run `otherixd restore \
             --new-epoch{options} --above POSITION`, otherwise `otherixd run{options}`"
        )?,
        None => writeln!(out, "next: nothing was lost, as far as the stream has it: start `otherixd run{options}`")?,
    }
    Ok(())
}

/// The first event that a stream has and the journal lacks.
async fn later_events(
    control_plane: &mut StoppedControlPlane,
) -> Result<Option<otherix_schemas::position::Position>, BoxError> {
    let mut lost = None;
    for (_, context) in &control_plane.streams {
        let survey = survey(context, &control_plane.journal).await?;
        lost = lost.into_iter().chain(survey.lost).min();
    }
    Ok(lost)
}
