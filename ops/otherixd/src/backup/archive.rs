//! The file of a backup: a tar archive (POSIX ustar) of `manifest.json`, the parts in the manifest's order, and
//! `SHA256SUMS`. All headers follow from the manifest, and reading compares every byte of them: whatever `otherixd`
//! would not have written is refused, such as other members, links, or paths that lead elsewhere.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use otherix_runtime::files;
use rustix::fs::{Advice, fadvise};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::BackupError;
use super::manifest::{FORMAT, MANIFEST, Manifest, PARTS_MAX, Part, SUMS, hex};

/// Bytes of a block: headers have one, and contents are filled up with zeros.
const BLOCK: usize = 512;

/// The archive ends with two blocks of zeros.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The longest manifest: some 200 bytes a part.
const MANIFEST_MAX: u64 = 1024 * PARTS_MAX as u64;

/// Bytes copied at once.
const BUFFER: usize = 1 << 18;

/// Why a member cannot be used.
const CUT_OFF: &str = "is cut off";
const OTHER_HEADER: &str = "has another header than the manifest says";
const OTHER_CONTENT: &str = "has another SHA-256 than the manifest says";
const OTHER_PADDING: &str = "is followed by something";

fn damaged(name: &str, what: &'static str) -> BackupError {
    BackupError::Damaged { name: name.to_owned(), what }
}

/// The only version of the manifest that can be told before it is decoded.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The header of a member: a regular file of the owner's, as old as the manifest.
fn header(name: &str, bytes: u64, manifest: &Manifest) -> Result<Header, BackupError> {
    let mut header = Header::new_ustar();
    header.set_path(name).map_err(|_| BackupError::Name(name.to_owned()))?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(manifest.created_at.unix_micros() / 1_000_000).unwrap_or_default());
    header.set_size(bytes);
    header.set_cksum();
    Ok(header)
}

/// Zeros after a content.
fn padding(bytes: u64) -> usize {
    usize::try_from(bytes % BLOCK as u64).map_or(0, |rest| (BLOCK - rest) % BLOCK)
}

/// Writes the archive at `path` with mode 0600; the parts are in `folder`. It is on the disk when this returns.
///
/// # Errors
/// If something cannot be read or written.
pub(super) fn write(path: &Path, manifest: &Manifest, folder: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::file("write", path, source);
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let text = manifest.to_bytes()?;
    let sums = manifest.sums(&text);
    write_member(&mut out, &header(MANIFEST, text.len() as u64, manifest)?, &mut text.as_slice()).map_err(failed)?;
    for Part { name, bytes, .. } in &manifest.parts {
        let from = folder.join(name);
        let mut part = File::open(&from).map_err(|source| BackupError::file("read", &from, source))?;
        write_member(&mut out, &header(name, *bytes, manifest)?, &mut part).map_err(failed)?;
        // A disk that has a gigabyte to write holds up the control plane's flushes.
        out.flush().and_then(|()| out.get_ref().sync_data()).map_err(failed)?;
    }
    write_member(&mut out, &header(SUMS, sums.len() as u64, manifest)?, &mut sums.as_bytes()).map_err(failed)?;
    out.write_all(&END).and_then(|()| out.flush()).map_err(failed)?;
    out.get_ref().sync_all().map_err(failed)?;
    // What is read again should come from the disk; where that cannot be asked for, it comes from memory.
    let _result = fadvise(out.get_ref(), 0, None, Advice::DontNeed);
    Ok(())
}

fn write_member(out: &mut BufWriter<File>, header: &Header, content: &mut impl Read) -> io::Result<()> {
    out.write_all(header.as_bytes())?;
    let mut buffer = vec![0; BUFFER];
    let mut written = 0_u64;
    loop {
        let read = content.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        out.write_all(bytes)?;
        // Half a gigabyte at once would hold up the control plane's flushes.
        if (written >> 24) != ((written + read as u64) >> 24) {
            out.flush()?;
            out.get_ref().sync_data()?;
        }
        written += read as u64;
    }
    let zeros = [0; BLOCK];
    out.write_all(zeros.get(..padding(written)).unwrap_or_default())
}

/// Reads the whole archive, and changes nothing.
///
/// # Errors
/// If it cannot be read, or is not exactly what was written.
pub(super) fn verify(path: &Path) -> Result<Manifest, BackupError> {
    read(path, None)
}

/// Reads the whole archive again, and writes its parts to a folder, each with mode 0600.
///
/// # Errors
/// As [`verify`], or if a part cannot be written. Some parts may have been written then.
pub(super) fn unpack(path: &Path, to: &Path) -> Result<Manifest, BackupError> {
    read(path, Some(to))
}

fn read(path: &Path, to: Option<&Path>) -> Result<Manifest, BackupError> {
    let file = files::open_regular(path).map_err(|source| BackupError::file("read", path, source))?;
    let mut members = Members { path, reader: BufReader::with_capacity(BUFFER, file) };
    let (manifest, text) = members.manifest()?;
    for part in &manifest.parts {
        members.part(part, &manifest, to)?;
    }
    let sums = manifest.sums(&text);
    members.header(SUMS, &header(SUMS, sums.len() as u64, &manifest)?)?;
    let mut found = Vec::new();
    members.content(SUMS, sums.len() as u64, &mut found)?;
    if found != sums.as_bytes() {
        return Err(damaged(SUMS, "has other sums than the files"));
    }
    let mut end = END;
    members.exact(SUMS, &mut end)?;
    let mut more = [0];
    let read = members.reader.read(&mut more).map_err(|source| BackupError::file("read", path, source))?;
    if end != END || read != 0 {
        return Err(damaged(SUMS, OTHER_PADDING));
    }
    Ok(manifest)
}

/// The members of an archive, in order.
struct Members<'a> {
    path: &'a Path,
    reader: BufReader<File>,
}

impl Members<'_> {
    fn exact(&mut self, name: &str, buffer: &mut [u8]) -> Result<(), BackupError> {
        match self.reader.read_exact(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged(name, CUT_OFF)),
            Err(source) => Err(BackupError::file("read", self.path, source)),
            Ok(()) => Ok(()),
        }
    }

    /// Reads the first member.
    fn manifest(&mut self) -> Result<(Manifest, Vec<u8>), BackupError> {
        let mut found = Header::new_old();
        self.exact(MANIFEST, found.as_mut_bytes())?;
        let length = found.entry_size().ok().filter(|length| *length <= MANIFEST_MAX);
        let Some(length) = length.filter(|_| *found.path_bytes() == *MANIFEST.as_bytes()) else {
            return Err(BackupError::Malformed("it does not begin with a manifest"));
        };
        let mut text = Vec::new();
        self.content(MANIFEST, length, &mut text)?;
        let malformed = |_| BackupError::Malformed("its manifest cannot be read");
        let FormatOnly { format } = serde_json::from_slice(&text).map_err(malformed)?;
        if format != FORMAT {
            return Err(BackupError::Format(format));
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(malformed)?;
        manifest.check()?;
        if found.as_bytes() != header(MANIFEST, length, &manifest)?.as_bytes() {
            return Err(damaged(MANIFEST, OTHER_HEADER));
        }
        Ok((manifest, text))
    }

    /// Reads the header of a member, which must be this one.
    fn header(&mut self, name: &str, expected: &Header) -> Result<(), BackupError> {
        let mut found = [0; BLOCK];
        self.exact(name, &mut found)?;
        if found == *expected.as_bytes() { Ok(()) } else { Err(damaged(name, OTHER_HEADER)) }
    }

    /// Copies the content of a member, and returns its SHA-256.
    fn content(&mut self, name: &str, bytes: u64, to: &mut dyn Write) -> Result<String, BackupError> {
        let (mut hash, mut left, mut buffer) = (Sha256::new(), bytes, vec![0; BUFFER]);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let Some(buffer) = buffer.get_mut(..most) else { break };
            self.exact(name, buffer)?;
            hash.update(&*buffer);
            to.write_all(buffer).map_err(|source| BackupError::file("unpack to", Path::new(name), source))?;
            left -= most as u64;
        }
        let mut zeros = vec![0; padding(bytes)];
        self.exact(name, &mut zeros)?;
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(damaged(name, OTHER_PADDING));
        }
        Ok(hex(&hash.finalize()))
    }

    fn part(&mut self, part: &Part, manifest: &Manifest, to: Option<&Path>) -> Result<(), BackupError> {
        let Part { name, bytes, sha256 } = part;
        self.header(name, &header(name, *bytes, manifest)?)?;
        let found = match to {
            None => self.content(name, *bytes, &mut io::sink())?,
            Some(folder) => {
                let path = folder.join(name);
                let mut file = create(&path).map_err(|source| BackupError::file("unpack to", &path, source))?;
                self.content(name, *bytes, &mut file)?
            }
        };
        if found == *sha256 { Ok(()) } else { Err(damaged(name, OTHER_CONTENT)) }
    }
}

/// Creates a file with mode 0600, and its folders with mode 0700.
fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)
}
