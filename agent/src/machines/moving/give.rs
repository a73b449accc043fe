//! Gives the disks of VMs that move away to the nodes that they move to.
//!
//! A disk is given while its VM's lock is held: nobody starts the VM meanwhile, and it does not change. The port is
//! open only while a VM moves away, on the mesh address, and receives only what came through the mesh device, where the
//! source address tells the node.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use otherix_runtime::{LogLimit, Runtime, Task, files};
use otherix_schemas::id::VmId;
use otherix_vm::folder::VmLock;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::OwnEnd;
use super::wire::{self, Copied, HEAD, PIECE, Question, Reply, Subject, VERSION};
use crate::machines::prepare::Origin;

/// Connections that are served at a time. Each move needs one.
const AT_ONCE: usize = 4;

/// Before the port is opened again, if it could not be.
const RETRY: Duration = Duration::from_secs(1);

/// How often the other node hears that a digest is still being computed.
const ALIVE: Duration = Duration::from_secs(2);

/// The VMs whose disks are given. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::machines) struct Gifts(Arc<Mutex<BTreeMap<VmId, Arc<Gift>>>>);

/// A VM whose disk is given to a node.
#[derive(Debug)]
struct Gift {
    generation: u64,
    to: Ipv4Addr,
    /// None if it has no disk.
    disk: Option<GivenDisk>,
    ended: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    digest: OnceLock<String>,
}

#[derive(Debug)]
struct GivenDisk {
    path: PathBuf,
    origin: Origin,
    /// The VM has no process, and gets none as long as somebody reads its disk.
    _lock: VmLock,
}

/// A disk is given until this is dropped. The lock is then released as soon as nobody reads it any more.
#[derive(Debug)]
pub(in crate::machines) struct Giving {
    gifts: Gifts,
    id: VmId,
}

impl Drop for Giving {
    fn drop(&mut self) {
        let Some(gift) = self.gifts.lock().remove(&self.id) else { return };
        gift.ended.store(true, Ordering::SeqCst);
        for stream in gift.connections().drain(..) {
            // It may have ended by itself.
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Gift {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Gifts {
    /// Gives a VM's disk to a node. `lock` is that of the VM; without one it has no folder.
    pub(in crate::machines) fn give(
        &self,
        id: VmId,
        generation: u64,
        to: Ipv4Addr,
        lock: Option<(VmLock, Option<Origin>)>,
    ) -> Giving {
        let disk = lock.and_then(|(lock, origin)| {
            let path = lock.folder().disk();
            Some(GivenDisk { origin: origin.filter(|_| path.exists())?, path, _lock: lock })
        });
        let (ended, connections, digest) = (AtomicBool::new(false), Mutex::default(), OnceLock::new());
        self.lock().insert(id, Arc::new(Gift { generation, to, disk, ended, connections, digest }));
        Giving { gifts: self.clone(), id }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<VmId, Arc<Gift>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the question of one connection.
    pub(super) fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let std::net::SocketAddr::V4(peer) = stream.peer_addr()? else { return Ok(()) };
        if !is_privileged(peer.port()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{peer} is not an agent")));
        }
        wire::limit(&stream)?;
        let question: Question = wire::read_line(&mut stream)?;
        if question.version != VERSION {
            let text = "the agents of the two nodes are of versions that do not understand each other";
            return wire::write_line(&mut stream, &Reply::Failed(text.to_owned()));
        }
        let gift = self.lock().get(&question.vm).filter(|gift| gift.generation == question.generation).cloned();
        let Some(gift) = gift else { return wire::write_line(&mut stream, &Reply::Wait) };
        if gift.to != *peer.ip() {
            let text = format!("{} is not the node that VM {} moves to", peer.ip(), question.vm);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let Some(disk) = &gift.disk else { return wire::write_line(&mut stream, &Reply::NoDisk) };
        gift.connections().push(stream.try_clone()?);
        let given = match question.about {
            Subject::Copy => describe(disk).and_then(|copied| wire::write_line(&mut stream, &Reply::Copy(copied))),
            Subject::Disk(from) => send(&mut stream, &gift, &disk.path, from),
            Subject::Image(from) => send(&mut stream, &gift, &disk.origin.base.path, from),
            Subject::Digest => tell_digest(&mut stream, &gift, disk),
        };
        gift.connections().retain(|other| other.peer_addr().is_ok_and(|other| other != peer.into()));
        given
    }
}

pub(super) const fn is_privileged(port: u16) -> bool {
    port < 1024
}

fn describe(disk: &GivenDisk) -> io::Result<Copied> {
    let (found, image) = (files::open_regular(&disk.path)?.metadata()?, files::open_regular(&disk.origin.base.path)?);
    Ok(Copied {
        length: found.len(),
        allocated: found.blocks().saturating_mul(512),
        image: disk.origin.image.clone(),
        image_length: image.metadata()?.len(),
        format: disk.origin.base.format,
    })
}

/// Sends the head of a file, and what it has from an offset on, without its holes.
fn send(stream: &mut TcpStream, gift: &Gift, path: &Path, from: u64) -> io::Result<()> {
    let file = files::open_regular(path)?;
    wire::write_line(stream, &Reply::Pieces)?;
    let (length, mut buffer) = (file.metadata()?.len(), vec![0; PIECE]);
    for (from, end) in [(0, HEAD.min(length)), (from.max(HEAD), length)] {
        let mut at = from;
        while let Some((begin, hole)) = next_data(&file, at, end)? {
            at = begin;
            while at < hole {
                if gift.has_ended() {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "the move has ended"));
                }
                let wanted = usize::try_from(hole - at).unwrap_or(PIECE).min(PIECE);
                let piece = buffer.get_mut(..wanted).unwrap_or_default();
                file.read_exact_at(piece, at)?;
                wire::write_piece(stream, at, piece)?;
                at = at.saturating_add(u64::try_from(wanted).unwrap_or(u64::MAX));
            }
        }
    }
    wire::write_end(stream)
}

/// The next part of a file that is no hole, from an offset on and before `end`.
fn next_data(file: &File, from: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= end {
        return Ok(None);
    }
    let begin = match seek(file, SeekFrom::Data(from)) {
        Ok(begin) if begin < end => begin,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((begin, seek(file, SeekFrom::Hole(begin))?.min(end))))
}

fn tell_digest(stream: &mut TcpStream, gift: &Gift, disk: &GivenDisk) -> io::Result<()> {
    let digest = match gift.digest.get() {
        Some(digest) => digest.clone(),
        None => {
            let mut told = Instant::now();
            let found = digest_of(&disk.path, || {
                if gift.has_ended() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                if told.elapsed() < ALIVE {
                    return Ok(());
                }
                told = Instant::now();
                io::Write::write_all(stream, b"\n")
            })?;
            gift.digest.get_or_init(|| found).clone()
        }
    };
    wire::write_line(stream, &Reply::Digest(digest))
}

/// SHA-256 of a file, in hexadecimal digits. `go_on` is asked after each piece.
pub(super) fn digest_of(path: &Path, mut go_on: impl FnMut() -> io::Result<()>) -> io::Result<String> {
    let (mut file, mut hasher, mut buffer) = (files::open_regular(path)?, Sha256::new(), vec![0; PIECE]);
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(otherix_image::fetch::Digest::from(<[u8; 32]>::from(hasher.finalize())).to_string());
        }
        hasher.update(buffer.get(..length).unwrap_or_default());
        go_on()?;
    }
}

/// Serves the disks on the mesh address until the task is aborted.
pub(in crate::machines) fn serve(runtime: &Arc<dyn Runtime>, own_end: OwnEnd, gifts: Gifts) -> Task<()> {
    let own = Arc::clone(runtime);
    runtime.spawn("gifts", async move {
        let limit = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            match open(&own_end).and_then(tokio::net::TcpListener::from_std) {
                Ok(listener) => accept(&own, &listener, &limit, &gifts).await,
                // The mesh device is about to be made.
                Err(error) => tracing::debug!(%error, "cannot open the port for disks of VMs yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    })
}

async fn accept(runtime: &Arc<dyn Runtime>, listener: &tokio::net::TcpListener, limit: &Arc<Semaphore>, gifts: &Gifts) {
    static REFUSED: LogLimit = LogLimit::new();
    loop {
        // As many connections wait as the kernel keeps.
        let Ok(permit) = Arc::clone(limit).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else { return };
        let Ok(stream) = stream.into_std() else { continue };
        let gifts = gifts.clone();
        let work = move || {
            if let Err(error) = gifts.answer(stream)
                && let Some(hits) = REFUSED.hit()
            {
                tracing::info!(%peer, %error, hits, "a disk of a VM was not given, or not all of it");
            }
            drop(permit);
        };
        // It ends by itself, or when its VM does not move any more.
        drop(runtime.run_blocking("gift", work));
    }
}

fn open(own_end: &OwnEnd) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if let Some(device) = own_end.device {
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(device))?;
    }
    bind(&socket, &SocketAddrV4::new(own_end.own, own_end.port))?;
    listen(&socket, 16)?;
    Ok(socket.into())
}
