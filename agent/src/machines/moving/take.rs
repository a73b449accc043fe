//! Takes the disk of a VM that moves to this node. Blocks.
//!
//! Everything is in the VM's folder, and counts only once [`Incoming::is_complete`] is written: `disk.part` is the disk
//! until its digest has been compared, and `image.part` the image under it, if this node lacks it. A copy that is
//! interrupted goes on where it was, by the offset that is written after the bytes before it are on disk.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use otherix_image::cache::{CachedImage, PullError};
use otherix_image::fetch::{Cancel, Digest, FetchError, Progress};
use otherix_image::inspect::Format;
use otherix_image::overlay::{self, Base};
use otherix_runtime::files;
use otherix_schemas::error::Causes;
use otherix_schemas::id::VmId;
use otherix_schemas::position::Position;
use otherix_vm::folder::{VmFolder, read_json, write_json};
use otherix_vm::spec::{BaseImage, ImageFormat};
use rustix::fs::OFlags;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::OwnEnd;
use super::give::digest_of;
use super::wire::{self, Copied, Question, Reply, Subject, VERSION};
use crate::machines::Host;
use crate::machines::prepare::{self, Origin};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Bytes and time after which what was received is written to the disk, and recorded.
const SYNC_BYTES: u64 = 64 << 20;
const SYNC_TIME: Duration = Duration::from_secs(5);

/// The first port that is asked from, and how many there are.
const PORTS: (u16, u16) = (512, 480);

/// Ends a copy from another thread. Clones belong together.
#[derive(Clone, Debug, Default)]
pub(in crate::machines) struct Abort {
    cancel: Cancel,
    /// The connection in use.
    stream: Arc<Mutex<Option<TcpStream>>>,
}

impl Abort {
    pub(in crate::machines) fn abort(&self) {
        self.cancel.cancel();
        if let Some(stream) = self.stream().take() {
            // It may have ended by itself.
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_aborted(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Ends with this connection, too.
    fn follow(&self, stream: &TcpStream) -> io::Result<()> {
        *self.stream() = Some(stream.try_clone()?);
        if self.is_aborted() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn stream(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the copy of a disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::machines) struct Incoming {
    /// Position of the decision that the VM moves.
    pub(in crate::machines) generation: u64,
    /// Bytes of the disk's file that are on this disk.
    received: u64,
    /// Of the image's file.
    image_received: u64,
    /// The disk is in its place, or there is none.
    pub(in crate::machines) is_complete: bool,
}

/// What is taken, and how.
pub(in crate::machines) struct Taking<'a> {
    pub(in crate::machines) id: VmId,
    pub(in crate::machines) generation: Position,
    /// Size of the disk as it was decided, in bytes; `None` for that of the image.
    pub(in crate::machines) size: Option<u64>,
    pub(in crate::machines) own_end: OwnEnd,
    /// The node that has the disk.
    pub(in crate::machines) other: Ipv4Addr,
    /// Any number: where the search for a port of this node begins.
    pub(in crate::machines) first_port: u16,
    pub(in crate::machines) abort: &'a Abort,
    /// Told how far the copy of the disk is.
    pub(in crate::machines) progress: &'a dyn Fn(Progress),
}

/// Why a disk was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::machines) enum TakeError {
    /// The same may succeed later.
    #[error("{0}")]
    Later(String),
    /// The VM cannot be moved to this node.
    #[error("{0}")]
    Never(String),
    #[error("it was cancelled")]
    Cancelled,
}

impl Incoming {
    /// Where it is.
    pub(in crate::machines) fn path(folder: &VmFolder) -> PathBuf {
        folder.path().join("incoming.json")
    }

    /// What this folder has of a move; `None` if it is none of a VM that moves here.
    pub(in crate::machines) fn read(folder: &VmFolder) -> io::Result<Option<Self>> {
        read_json(&Self::path(folder))
    }

    /// Begins in an empty folder.
    pub(in crate::machines) fn begin(folder: &VmFolder, generation: Position) -> io::Result<()> {
        folder.create()?;
        write_json(&Self::path(folder), &Self { generation: generation.get(), ..Self::default() })
    }

    fn write(&self, folder: &VmFolder) -> Result<(), TakeError> {
        write_json(&Self::path(folder), self).map_err(own)
    }
}

/// An error of this node's disk.
fn own(error: io::Error) -> TakeError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
        return TakeError::Never(format!("the disk of the node that it would move to is full: {error}"));
    }
    TakeError::Later(format!("cannot write the copy of the disk: {error}"))
}

/// Takes the disk, until it is complete: then it is this node's, as soon as the VM is.
pub(in crate::machines) fn take(host: &Host, taking: &Taking<'_>) -> Result<(), TakeError> {
    let folder = prepare::folder_of(&host.folder, taking.id);
    let missing = || TakeError::Later("the VM's folder is not there yet".to_owned());
    let mut incoming = Incoming::read(&folder).map_err(own)?.ok_or_else(missing)?;
    if incoming.is_complete {
        return Ok(());
    }
    let copied = match taking.ask(Subject::Copy)?.0 {
        Reply::Copy(copied) => copied,
        Reply::NoDisk => {
            incoming.is_complete = true;
            return incoming.write(&folder);
        }
        Reply::Wait => {
            return Err(TakeError::Later("its node shuts it down".to_owned()));
        }
        Reply::Failed(text) => return Err(TakeError::Never(text)),
        Reply::Pieces | Reply::Digest(_) => return Err(unexpected()),
    };
    let image = taking.take_image(host, &folder, &copied, &mut incoming)?;
    taking.check_size(&folder, &copied, &image)?;
    taking.take_disk(&folder, &copied, &mut incoming)?;
    taking.compare(&folder, &mut incoming)?;
    adopt(host, taking.id, &folder, &copied, image)?;
    incoming.is_complete = true;
    incoming.write(&folder)
}

/// Makes the copy the VM's disk: the header names the image where it is on this node.
fn adopt(host: &Host, id: VmId, folder: &VmFolder, copied: &Copied, image: CachedImage) -> Result<(), TakeError> {
    let never = |text: String| TakeError::Never(text);
    let part = part(folder);
    let base = Base { path: image.path.clone(), format: image.info.format };
    overlay::rebase(&part, &base).map_err(|error| never(Causes(&error).to_string()))?;
    let user = host.users.lock().ok().and_then(|mut users| users.take(id));
    let user = user.ok_or_else(|| never("the node that it would move to has no user id left".to_owned()))?;
    let base = BaseImage { path: image.path, format: copied.format };
    let origin = Origin { image: image.digest.to_string(), base, size: image.info.virtual_size, user };
    write_json(&folder.origin(), &origin).map_err(own)?;
    files::rename(&part, &folder.disk()).map_err(own)
}

fn part(folder: &VmFolder) -> PathBuf {
    folder.path().join("disk.part")
}

fn unexpected() -> TakeError {
    TakeError::Later("the VM's node has answered something else than it was asked".to_owned())
}

/// Bytes as MiB, in a text.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl Taking<'_> {
    /// Returns the image under the disk: of this node, or of the VM's node if this one lacks it.
    fn take_image(
        &self,
        host: &Host,
        folder: &VmFolder,
        copied: &Copied,
        incoming: &mut Incoming,
    ) -> Result<CachedImage, TakeError> {
        let refused = |error: &PullError| {
            if matches!(error, PullError::Fetch(FetchError::Cancelled)) {
                TakeError::Cancelled
            } else if error.is_transient() {
                TakeError::Later(Causes(error).to_string())
            } else {
                TakeError::Never(format!("the image under the disk: {}", Causes(error)))
            }
        };
        let digest: Digest = copied.image.parse().map_err(|_| unexpected())?;
        let owner = prepare::owner(self.id).map_err(|error| TakeError::Never(error.to_string()))?;
        if let Some(image) = host.cache.pin(digest, &owner).map_err(|error| refused(&error))? {
            return Ok(image);
        }
        let path = folder.path().join("image.part");
        self.check_room(folder, &path, copied.image_length)?;
        let mut file = PartFile::open(&path, copied.image_length, incoming.image_received)?;
        self.receive(Subject::Image, &mut file, &mut |received| {
            incoming.image_received = received;
            incoming.write(folder)
        })?;
        match host.cache.add(&path, digest, &owner, &self.abort.cancel) {
            Ok(image) => Ok(image),
            Err(error @ PullError::Digest { .. }) => {
                // From the beginning, the next time.
                files::remove(&path).map_err(own)?;
                Err(TakeError::Later(Causes(&error).to_string()))
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// The disk is not larger than one of its size can be, and has room.
    fn check_size(&self, folder: &VmFolder, copied: &Copied, image: &CachedImage) -> Result<(), TakeError> {
        let size = self.size.unwrap_or(0).max(image.info.virtual_size);
        let format = match copied.format {
            ImageFormat::Qcow2 => Format::Qcow2,
            ImageFormat::Raw => Format::Raw,
        };
        if format != image.info.format {
            return Err(TakeError::Never("the image under the disk is of another format".to_owned()));
        }
        if copied.length > overlay::file_max(size) {
            let (length, size) = (mib(copied.length), mib(size));
            let text = format!("the file of the disk has {length} MiB, which is too much for a disk of {size} MiB");
            return Err(TakeError::Never(text));
        }
        self.check_room(folder, &part(folder), copied.allocated.min(copied.length))
    }

    fn check_room(&self, folder: &VmFolder, part: &Path, needed: u64) -> Result<(), TakeError> {
        let has = std::fs::metadata(part).map_or(0, |part| part.blocks().saturating_mul(512));
        let free = rustix::fs::statvfs(folder.path());
        // A file system that does not tell is full when it is.
        let free = free.map_or(u64::MAX, |free| free.f_bavail.saturating_mul(free.f_frsize));
        if needed.saturating_sub(has) <= free {
            return Ok(());
        }
        let (needed, free) = (mib(needed), mib(free));
        Err(TakeError::Never(format!(
            "the node that it would move to has {free} MiB of disk space left, and the copy needs {needed} MiB"
        )))
    }

    fn take_disk(&self, folder: &VmFolder, copied: &Copied, incoming: &mut Incoming) -> Result<(), TakeError> {
        let mut file = PartFile::open(&part(folder), copied.length, incoming.received)?;
        self.receive(Subject::Disk, &mut file, &mut |received| {
            incoming.received = received;
            (self.progress)(Progress { received, total: Some(copied.length), rate: 0 });
            incoming.write(folder)
        })
    }

    /// Both nodes read the whole disk once more.
    fn compare(&self, folder: &VmFolder, incoming: &mut Incoming) -> Result<(), TakeError> {
        let own_digest = digest_of(&part(folder), || {
            if self.abort.is_aborted() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        });
        if self.abort.is_aborted() {
            return Err(TakeError::Cancelled);
        }
        let Reply::Digest(theirs) = self.ask(Subject::Digest)?.0 else { return Err(unexpected()) };
        if own_digest.map_err(own)? == theirs {
            tracing::info!(vm = %self.id, sha256 = theirs, "the disk of a VM that moves here is copied");
            return Ok(());
        }
        // From the beginning, the next time.
        incoming.received = 0;
        incoming.write(folder)?;
        Err(TakeError::Later("the copy differs from the disk: copying it again".to_owned()))
    }

    /// Receives what is missing of a file.
    fn receive(
        &self,
        about: fn(u64) -> Subject,
        file: &mut PartFile,
        record: &mut dyn FnMut(u64) -> Result<(), TakeError>,
    ) -> Result<(), TakeError> {
        let (Reply::Pieces, mut stream) = self.ask(about(file.received))? else { return Err(unexpected()) };
        let (mut buffer, mut synced, mut synced_at) = (Vec::new(), file.received, Instant::now());
        record(file.received)?;
        loop {
            if self.abort.is_aborted() {
                return Err(TakeError::Cancelled);
            }
            let piece = wire::read_piece(&mut stream, &mut buffer).map_err(|error| self.broken(&error))?;
            let Some(offset) = piece else { break };
            let end = offset.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
            if end > file.length {
                return Err(TakeError::Never("the VM's node sends more than its disk has".to_owned()));
            }
            file.file.write_all_at(&buffer, offset).map_err(own)?;
            // The head comes first, whatever was there.
            file.received = end.max(file.received);
            if file.received - synced >= SYNC_BYTES || synced_at.elapsed() >= SYNC_TIME {
                file.file.sync_data().map_err(own)?;
                record(file.received)?;
                (synced, synced_at) = (file.received, Instant::now());
            }
        }
        file.received = file.length;
        file.file.sync_all().map_err(own)?;
        record(file.received)
    }

    fn broken(&self, error: &io::Error) -> TakeError {
        if self.abort.is_aborted() {
            return TakeError::Cancelled;
        }
        let other = self.other;
        TakeError::Later(format!("the copy from {other} through the mesh was interrupted: {error}; it goes on"))
    }

    /// Asks the other node, and returns the connection for what follows the answer.
    fn ask(&self, about: Subject) -> Result<(Reply, TcpStream), TakeError> {
        let question = Question { version: VERSION, vm: self.id, generation: self.generation.get(), about };
        let asked = self.connect().and_then(|mut stream| {
            self.abort.follow(&stream)?;
            wire::limit(&stream)?;
            wire::write_line(&mut stream, &question)?;
            Ok((wire::read_line(&mut stream)?, stream))
        });
        asked.map_err(|error| {
            TakeError::Later(format!("cannot reach its node at {} through the mesh: {error}", self.other))
        })
    }

    /// Connects from a port that only root may use.
    fn connect(&self) -> io::Result<TcpStream> {
        let (first, number) = PORTS;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for step in 0..number {
            let port = first + (self.first_port % number + step) % number;
            let connected = self.connect_from(port);
            match connected {
                Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                    last = error;
                }
                Err(_) | Ok(_) => return connected,
            }
        }
        Err(last)
    }

    fn connect_from(&self, port: u16) -> io::Result<TcpStream> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        if let Some(device) = self.own_end.device {
            setsockopt(&socket, sockopt::BindToDevice, &OsString::from(device))?;
        }
        bind(&socket, &SocketAddrV4::new(self.own_end.own, port))?;
        set_socket_timeout(&socket, Timeout::Send, Some(CONNECT))?;
        connect(&socket, &SocketAddrV4::new(self.other, self.own_end.port))?;
        Ok(socket.into())
    }
}

/// A file that is not complete.
struct PartFile {
    file: File,
    length: u64,
    /// What is before this offset is there.
    received: u64,
}

impl PartFile {
    /// Opens it, or begins it if it is not the one of this length.
    fn open(path: &Path, length: u64, mut received: u64) -> Result<Self, TakeError> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(path).map_err(own)?;
        if received == 0 || file.metadata().map_err(own)?.len() != length {
            received = 0;
            file.set_len(0).and_then(|()| file.set_len(length)).map_err(own)?;
        }
        Ok(Self { file, length, received })
    }
}
