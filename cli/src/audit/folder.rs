//! An export in a folder: the events as they are stored, one a line, in `events.jsonl`; `checkpoint` and `tile/…` as in
//! C2SP tlog-tiles. An export of some positions has `range`, and the events with which epochs began before it in
//! `epochs.jsonl`. It is written under another name, and renamed when it is complete. It has no key: trust comes from
//! elsewhere.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use otherix_runtime::files::open_regular;
use otherix_tlog::note::NOTE_MAX;
use otherix_tlog::tile::ENTRY_MAX;
use otherix_tlog::{KeyName, Tile, TileSource};

const EVENTS: &str = "events.jsonl";
const EPOCHS: &str = "epochs.jsonl";
const CHECKPOINT: &str = "checkpoint";
const RANGE: &str = "range";

/// Two numbers of 20 digits, a space and a line feed.
const RANGE_MAX: u64 = 42;

/// The end of the name of an export that is not complete.
pub(super) const INCOMPLETE: &str = ".incomplete";

/// The longest line that is read: longer ones are faults.
pub(super) const LINE_MAX: u64 = 8 * ENTRY_MAX as u64;

/// A complete export.
#[derive(Clone, Debug)]
pub(super) struct ExportFolder(PathBuf);

/// The lines of a file, without line feeds; memory for one.
pub(super) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::with_capacity(1 << 18, open_regular(path)?), line: Vec::new() })
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = io::Read::take(&mut self.reader, LINE_MAX).read_until(b'\n', &mut self.line)?;
        // A line that was cut off is no event: it keeps its form, and is refused.
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        Ok((read > 0).then_some(self.line.as_slice()))
    }
}

impl ExportFolder {
    /// An export at this path.
    ///
    /// # Errors
    /// If there is none, or it is not complete.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let is_incomplete = path.to_string_lossy().trim_end_matches('/').ends_with(INCOMPLETE);
        if is_incomplete || !path.join(CHECKPOINT).is_file() || !path.join(EVENTS).is_file() {
            let text = format!("`{}` is not a complete export of `otherix audit export`", path.display());
            return Err(io::Error::new(ErrorKind::NotFound, text));
        }
        Ok(Self(path.to_owned()))
    }

    pub(super) fn checkpoint(&self) -> io::Result<Vec<u8>> {
        otherix_runtime::files::read_at_most(open_regular(&self.0.join(CHECKPOINT))?, NOTE_MAX as u64)
    }

    /// The name of the log, as the checkpoint has it, which nobody vouches for.
    pub(super) fn claimed_origin(&self) -> io::Result<KeyName> {
        let checkpoint = self.checkpoint()?;
        let first_line = checkpoint.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(first_line).parse().map_err(|_| io::Error::other("the checkpoint has no origin"))
    }

    pub(super) fn events(&self) -> io::Result<Lines> {
        Lines::open(&self.0.join(EVENTS))
    }

    /// The file with the events, to be read in parts.
    pub(super) fn events_file(&self) -> io::Result<File> {
        open_regular(&self.0.join(EVENTS))
    }

    /// The first and last position, if the export does not have all events.
    pub(super) fn range(&self) -> io::Result<Option<(u64, u64)>> {
        let file = match open_regular(&self.0.join(RANGE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let text = otherix_runtime::files::read_at_most(file, RANGE_MAX)?;
        let text = String::from_utf8_lossy(&text);
        let numbers = text.trim_end().split_once(' ').and_then(|(from, to)| from.parse().ok().zip(to.parse().ok()));
        numbers.map(Some).ok_or_else(|| io::Error::other(format!("`{RANGE}` is malformed")))
    }

    /// The events with which epochs began before the range.
    pub(super) fn epochs(&self) -> io::Result<Option<Lines>> {
        match Lines::open(&self.0.join(EPOCHS)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            lines => lines.map(Some),
        }
    }

    /// The tiles, which nobody vouches for.
    pub(super) fn tiles(&self) -> FolderTiles {
        FolderTiles(self.0.clone())
    }
}

/// Tiles in a folder.
#[derive(Clone, Debug)]
pub(super) struct FolderTiles(PathBuf);

impl TileSource for FolderTiles {
    type Error = io::Error;

    fn tile(&mut self, tile: Tile) -> io::Result<Option<Vec<u8>>> {
        match open_regular(&self.0.join(tile.to_string())) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            file => otherix_runtime::files::read_at_most(file?, 256 * 32).map(Some),
        }
    }
}

/// An export that is being written.
pub(super) struct NewExport {
    folder: PathBuf,
    to: PathBuf,
    events: BufWriter<File>,
}

impl NewExport {
    /// Begins an export, in place of one that was not completed.
    ///
    /// # Errors
    /// If there is something at the path, or it cannot be written.
    pub(super) fn begin(to: &Path) -> io::Result<Self> {
        let folder = begin(to)?;
        let events = BufWriter::with_capacity(1 << 18, File::create(folder.join(EVENTS))?);
        Ok(Self { folder, to: to.to_owned(), events })
    }

    pub(super) fn event(&mut self, body: &[u8]) -> io::Result<()> {
        self.events.write_all(body)?;
        self.events.write_all(b"\n")
    }

    pub(super) fn tile(&self, tile: Tile, content: &[u8]) -> io::Result<()> {
        let path = self.folder.join(tile.to_string());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)
    }

    pub(super) fn range(&self, from: u64, to: u64, epochs: &[String]) -> io::Result<()> {
        fs::write(self.folder.join(RANGE), format!("{from} {to}\n"))?;
        let lines: String = epochs.iter().map(|event| format!("{event}\n")).collect();
        if lines.is_empty() { Ok(()) } else { fs::write(self.folder.join(EPOCHS), lines) }
    }

    /// Completes the export: all is on the disk before it has its name.
    pub(super) fn finish(mut self, checkpoint: &[u8]) -> io::Result<()> {
        self.events.flush()?;
        fs::write(self.folder.join(CHECKPOINT), checkpoint)?;
        sync(&self.folder)?;
        otherix_runtime::files::rename(&self.folder, &self.to)
    }
}

/// Makes the folder in which something is written that is to be at `to` when it is complete. What was not completed
/// before is removed.
///
/// # Errors
/// If there is something at `to`, or the folder cannot be made.
pub(super) fn begin(to: &Path) -> io::Result<PathBuf> {
    if to.exists() {
        let text = format!("`{}` exists already", to.display());
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    let name = to.file_name().ok_or_else(|| io::Error::other("the path has no last part"))?;
    let mut name = name.to_owned();
    name.push(INCOMPLETE);
    let folder = to.with_file_name(name);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    // Events name people, and take the permission `audit:read`.
    DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Flushes a folder, and all that is in it, to the disk.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}
