//! The local socket: clients that ask for the device's status, or for changes. Owns the socket's file and the lock that keeps a
//! second process away; never waits for a client: one that hangs, or sends without end, is let go.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, flock};
use zeroize::Zeroizing;

use super::uapi;

/// Clients at a time; one more takes the place of the one that has been silent longest.
const CLIENTS: usize = 16;
/// Bytes of a request at most: enough for some ten thousand peers.
const REQUEST: usize = 16 << 20;
/// Bytes read from a client at a time.
const PORTION: usize = 64 << 10;
/// Requests answered, or portions read, in a row.
const REQUESTS: usize = 8;
/// How often it is looked whether the socket's file is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long a client may take from one answer to the next request's end, and for reading its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process has it.
    #[error("another process serves `{}`", .0.display())]
    Taken(PathBuf),
    /// It is something else.
    #[error("`{}` is not a socket; nothing that is not ours is removed", .0.display())]
    NotSocket(PathBuf),
    /// The system refused.
    #[error("cannot make `{}`", path.display())]
    Io {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    /// Held as long as the process lives.
    lock: File,
    /// When the file is looked for next.
    look_at: Instant,
}

struct Client {
    stream: UnixStream,
    input: Zeroizing<Vec<u8>>,
    searched: usize,
    output: Zeroizing<String>,
    written: usize,
    /// A complete request may be in `input`.
    left: bool,
    until: Instant,
}

/// A lock on the name, taken before anything else is touched.
pub(super) struct Claim {
    lock: File,
    path: PathBuf,
}

impl Claim {
    /// Takes the lock, and makes sure that no other program listens there.
    pub(super) fn take(folder: &Path, name: &str) -> Result<Self, ControlError> {
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
            // Of a process that has died, unless somebody answers.
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

    /// Makes the socket, for its owner only.
    pub(super) fn listen(self) -> Result<Control, ControlError> {
        let (listener, path, lock) = self.bind()?;
        Ok(Control { listener, path, clients: Vec::new(), lock, look_at: Instant::now() + LOOK })
    }

    fn bind(self) -> Result<(UnixListener, PathBuf, File), ControlError> {
        let Self { lock, path } = self;
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = UnixListener::bind(&path);
        rustix::process::umask(before);
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

impl Control {
    /// What to wait for: the listener, then each client, and whether it is to be written to.
    pub(super) fn sources(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let clients = self.clients.iter().map(|client| (client.stream.as_fd(), client.wants_turn()));
        std::iter::once((self.listener.as_fd(), false)).chain(clients)
    }

    /// When the next client's patience ends, or the file is looked for.
    pub(super) fn due(&self) -> Instant {
        self.clients.iter().map(|client| client.until).fold(self.look_at, Instant::min)
    }

    /// Makes the socket anew if somebody removed its file, with the folder or without: nobody could reach this process any more, and no
    /// other could take its place, for the device is this one's.
    fn look(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        let is_gone = fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let Some((folder, name)) = is_gone.then(|| self.path.parent().zip(self.path.file_stem())).flatten() else {
            return;
        };
        // The lock's file may have gone as well, so that this lock keeps nobody away.
        let _unlocked_or_closed_later = flock(&self.lock, FlockOperation::NonBlockingUnlock);
        match Claim::take(folder, &name.to_string_lossy()).and_then(Claim::bind) {
            Ok((listener, _, lock)) => {
                (self.listener, self.lock) = (listener, lock);
                tracing::warn!("`{}` was removed: made it anew", self.path.display());
            }
            // Another agent's process may be at it, and end.
            Err(error) => tracing::debug!("`{}` was removed, and is not made anew yet: {error}", self.path.display()),
        }
    }

    /// Serves whoever has something to say. `ready` tells of each source whether it has.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        mut ready: impl FnMut(usize) -> bool,
        mut answer: impl FnMut(&[u8]) -> Zeroizing<String>,
    ) {
        let mut number = 0;
        self.clients.retain_mut(|client| {
            number += 1;
            (!ready(number) || client.serve(now, &mut answer).is_ok()) && now < client.until
        });
        if ready(0) {
            self.accept(now);
        }
        self.look(now);
    }

    fn accept(&mut self, now: Instant) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!("a client of the local socket was not accepted: {error}");
                }
                return;
            }
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= CLIENTS
            && let Some(silent) =
                (0..self.clients.len()).min_by_key(|at| self.clients.get(*at).map(|client| client.until))
        {
            self.clients.swap_remove(silent);
        }
        self.clients.push(Client {
            stream,
            input: Zeroizing::new(Vec::new()),
            searched: 0,
            output: Zeroizing::new(String::new()),
            written: 0,
            left: false,
            until: now + PATIENCE,
        });
    }
}

/// The socket's file goes with it; the lock's stays, for removing it would let two in.
impl Drop for Control {
    fn drop(&mut self) {
        let _gone_or_left_over = fs::remove_file(&self.path);
    }
}

/// The client is to be let go.
struct Gone;

/// What reading gave.
enum Read {
    /// Bytes, or there may be a request among those that were read before.
    More,
    /// Nothing at present.
    Later,
    /// Nothing will come any more.
    End,
}

impl Client {
    /// Whether it is waited for until it can be written to, which it can be at once if a request is left to be answered.
    fn wants_turn(&self) -> bool {
        self.left || self.has_output()
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Answers requests, as many as are due at once, as far as the client reads the answers.
    fn serve(&mut self, now: Instant, answer: &mut impl FnMut(&[u8]) -> Zeroizing<String>) -> Result<(), Gone> {
        for _ in 0..REQUESTS {
            self.write()?;
            if self.has_output() {
                break;
            }
            let more = if self.left { Read::More } else { self.read()? };
            self.left = false;
            if let Some(end) = uapi::end(&self.input, self.searched) {
                let request = Zeroizing::new(self.input.drain(..end).collect::<Vec<u8>>());
                (self.output, self.written, self.searched) = (answer(&request), 0, 0);
                self.until = now + PATIENCE;
                self.left = true; // there may be another behind it
                continue;
            }
            self.searched = self.input.len();
            match more {
                Read::More if self.input.len() <= REQUEST => {}
                Read::Later => break,
                Read::More | Read::End => return Err(Gone),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Read, Gone> {
        let mut portion = Zeroizing::new([0; PORTION]);
        match self.stream.read(&mut *portion) {
            Ok(0) => Ok(Read::End),
            Ok(length) => {
                self.input.extend_from_slice(portion.get(..length).unwrap_or_default());
                Ok(Read::More)
            }
            Err(error) if is_later(&error) => Ok(Read::Later),
            Err(_) => Err(Gone),
        }
    }

    fn write(&mut self) -> Result<(), Gone> {
        while let Some(rest) = self.output.as_bytes().get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(length) => self.written += length,
                Err(error) if is_later(&error) => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
