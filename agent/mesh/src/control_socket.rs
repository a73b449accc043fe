//! The local socket, on which clients read the device's status and change its configuration. Owns the socket file and
//! the lock that excludes a second process. Never blocks: a client that is idle too long or sends too much is
//! disconnected.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{FlockOperation, Mode, flock};
use zeroize::Zeroizing;

use super::uapi;

/// Clients connected at a time. A further one replaces the one that has been idle longest.
const CLIENTS_MAX: usize = 16;

/// Maximum size of a request in bytes: enough for some ten thousand peers.
const REQUEST_MAX: usize = 16 << 20;

/// Size of a read in bytes.
const READ_SIZE: usize = 64 << 10;

/// Requests answered or chunks read from a client per event, so that it cannot hold up the event loop.
const STEPS_PER_EVENT: usize = 8;

/// Interval of checks whether the socket file still exists.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Within this time after an answer, a client must have read it and sent the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the local socket cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("another process serves `{}`", .0.display())]
    Taken(PathBuf),
    #[error("`{}` exists and is not a socket", .0.display())]
    NotSocket(PathBuf),
    #[error("cannot create `{}`", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

pub(super) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<ClientConnection>,
    /// Held until the process exits.
    lock: File,
    /// The time of the next check of the socket file.
    check_at: Instant,
}

struct ClientConnection {
    stream: UnixStream,
    input: Zeroizing<Vec<u8>>,
    /// Bytes of `input` that contain no end of a request.
    searched: usize,
    output: Zeroizing<String>,
    written: usize,
    /// `input` may contain a complete request.
    may_have_request: bool,
    /// When it is disconnected unless a request arrives.
    deadline: Instant,
}

/// An exclusive lock on the name of a device, acquired before anything else of the device is touched.
pub(super) struct SocketLock {
    lock: File,
    path: PathBuf,
}

impl SocketLock {
    /// Acquires the lock, and checks that no other program listens on the socket.
    pub(super) fn acquire(folder: &Path, name: &str) -> Result<Self, ControlError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ControlError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        let path = folder.join(format!("{name}.sock"));
        let lock_path = folder.join(format!("{name}.lock"));
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(failed(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ControlError::Taken(path)),
            Err(source) => return Err(failed(&lock_path)(source.into())),
        }
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path)(error)),
            Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NotSocket(path)),
            // A program without our lock, e.g. wireguard-go, may listen. If none does, the file is left over.
            Ok(_) => match UnixStream::connect(&path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(&path).map_err(failed(&path))?;
                }
                Err(error) => return Err(failed(&path)(error)),
                Ok(_) => return Err(ControlError::Taken(path)),
            },
        }
        Ok(Self { lock, path })
    }

    /// Creates the socket, accessible to its owner only.
    pub(super) fn listen(self) -> Result<ControlSocket, ControlError> {
        let (listener, path, lock) = self.bind()?;
        Ok(ControlSocket { listener, path, clients: Vec::new(), lock, check_at: Instant::now() + CHECK_INTERVAL })
    }

    fn bind(self) -> Result<(UnixListener, PathBuf, File), ControlError> {
        let Self { lock, path } = self;
        let previous_mask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = UnixListener::bind(&path);
        rustix::process::umask(previous_mask);
        let listener = bound.and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => Ok((listener, path, lock)),
            Err(source) => Err(ControlError::Io { path, source }),
        }
    }
}

impl ControlSocket {
    /// The descriptors to poll and the events to poll for: the listener, then each client.
    pub(super) fn sources(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|client| (client.stream.as_fd(), client.events()));
        std::iter::once((self.listener.as_fd(), PollFlags::IN)).chain(clients)
    }

    /// When the next client times out or the socket file is checked, whichever is earlier.
    pub(super) fn next_deadline(&self) -> Instant {
        self.clients.iter().map(|client| client.deadline).fold(self.check_at, Instant::min)
    }

    /// Creates the socket again if its file was removed: no client could reach this process, and no other process could
    /// replace it while it is attached to the TUN device.
    fn check_socket_file(&mut self, now: Instant) {
        if now < self.check_at {
            return;
        }
        self.check_at = now + CHECK_INTERVAL;
        let is_removed = fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let Some((folder, name)) = is_removed.then(|| self.path.parent().zip(self.path.file_stem())).flatten() else {
            return;
        };
        // The lock file may have been removed as well. Release the lock, so that it can be acquired on either file.
        let _released_or_closed_later = flock(&self.lock, FlockOperation::NonBlockingUnlock);
        match SocketLock::acquire(folder, &name.to_string_lossy()).and_then(SocketLock::bind) {
            Ok((listener, _, lock)) => {
                (self.listener, self.lock) = (listener, lock);
                tracing::warn!("created `{}` again after it was removed", self.path.display());
            }
            // Another process may have acquired the lock, which ends because it cannot attach to the TUN device.
            Err(error) => tracing::debug!("`{}` was removed and cannot be created yet: {error}", self.path.display()),
        }
    }

    /// Serves the clients that are ready, accepts a new one, and disconnects those that timed out. `is_ready` tells by
    /// index whether a source of [`sources`](Self::sources) has an event.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        mut is_ready: impl FnMut(usize) -> bool,
        mut answer: impl FnMut(&[u8]) -> Zeroizing<String>,
    ) {
        let mut index = 0;
        self.clients.retain_mut(|client| {
            index += 1;
            (!is_ready(index) || client.serve(now, &mut answer).is_ok()) && now < client.deadline
        });
        if is_ready(0) {
            self.accept(now);
        }
        self.check_socket_file(now);
    }

    fn accept(&mut self, now: Instant) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!("cannot accept a client of the local socket: {error}");
                }
                return;
            }
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= CLIENTS_MAX
            && let Some(idle) =
                (0..self.clients.len()).min_by_key(|index| self.clients.get(*index).map(|client| client.deadline))
        {
            self.clients.swap_remove(idle);
        }
        self.clients.push(ClientConnection {
            stream,
            input: Zeroizing::new(Vec::new()),
            searched: 0,
            output: Zeroizing::new(String::new()),
            written: 0,
            may_have_request: false,
            deadline: now + IDLE_TIMEOUT,
        });
    }
}

/// Removes the socket file but not the lock file: without it, two processes could each lock a file of that name.
impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _removed_or_left_over = fs::remove_file(&self.path);
    }
}

/// The client must be disconnected.
struct Disconnect;

/// The result of reading from a client.
enum ReadOutcome {
    /// `input` has new bytes, or may contain a complete request.
    Data,
    WouldBlock,
    EndOfStream,
}

impl ClientConnection {
    /// A client that may have a request left is polled for writing, which is possible at once after it read its answer.
    fn events(&self) -> PollFlags {
        if self.may_have_request || self.has_output() { PollFlags::OUT } else { PollFlags::IN }
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Answers requests, each after the answer to the one before has been written, up to [`STEPS_PER_EVENT`].
    fn serve(&mut self, now: Instant, answer: &mut impl FnMut(&[u8]) -> Zeroizing<String>) -> Result<(), Disconnect> {
        for _ in 0..STEPS_PER_EVENT {
            self.write()?;
            if self.has_output() {
                break;
            }
            let outcome = if self.may_have_request { ReadOutcome::Data } else { self.read()? };
            self.may_have_request = false;
            if let Some(end) = uapi::message_end(&self.input, self.searched) {
                let request = Zeroizing::new(self.input.drain(..end).collect::<Vec<u8>>());
                (self.output, self.written, self.searched) = (answer(&request), 0, 0);
                self.deadline = now + IDLE_TIMEOUT;
                self.may_have_request = true;
                continue;
            }
            self.searched = self.input.len();
            match outcome {
                ReadOutcome::Data if self.input.len() <= REQUEST_MAX => {}
                ReadOutcome::WouldBlock => break,
                ReadOutcome::Data | ReadOutcome::EndOfStream => return Err(Disconnect),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<ReadOutcome, Disconnect> {
        let mut chunk = Zeroizing::new([0; READ_SIZE]);
        match self.stream.read(&mut *chunk) {
            Ok(0) => Ok(ReadOutcome::EndOfStream),
            Ok(length) => {
                self.input.extend_from_slice(chunk.get(..length).unwrap_or_default());
                Ok(ReadOutcome::Data)
            }
            Err(error) if is_temporary(&error) => Ok(ReadOutcome::WouldBlock),
            Err(_) => Err(Disconnect),
        }
    }

    fn write(&mut self) -> Result<(), Disconnect> {
        while let Some(rest) = self.output.as_bytes().get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(length) => self.written += length,
                Err(error) if is_temporary(&error) => break,
                Err(_) => return Err(Disconnect),
            }
        }
        Ok(())
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
