//! The serial console of a VM: one connection to QEMU, for any number of readers and one writer.
//!
//! QEMU stops the guest while a connected client does not read: after some hundred characters, each of which may be a
//! message of its own. The relay therefore always reads; a reader that does not keep up is dropped. It also bounds the
//! log, which QEMU only appends to.

mod history;
pub mod log;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_runtime::{Runtime, Task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use self::history::{ConsoleLog, LogPiece, LogPosition, LogPositionError};
use crate::folder::VmFolder;

/// Pieces of output that may wait for a reader: up to 1 MiB.
const READER_QUEUE: usize = 256;
/// Pieces of input that may wait for the guest.
const WRITER_QUEUE: usize = 16;
/// Largest piece, in bytes.
pub const PIECE_MAX: usize = 4096;
/// Between attempts to connect, while the VM has no process.
const CONNECT_INTERVAL: Duration = Duration::from_millis(250);
/// Between looks at the size of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// A piece of output, shared by all readers.
pub type Piece = Arc<[u8]>;

/// The relay of a VM's console; ends when this is dropped.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    writers: Arc<Semaphore>,
    input: mpsc::Sender<Vec<u8>>,
    task: Task<()>,
}

#[derive(Debug)]
struct Shared {
    folder: VmFolder,
    log: Arc<ConsoleLog>,
    readers: Mutex<Vec<mpsc::Sender<Piece>>>,
}

/// The output from now on. Ends when the reader was too slow, or the relay has ended.
#[derive(Debug)]
pub struct Output(mpsc::Receiver<Piece>);

/// The right to type; there is one.
#[derive(Debug)]
pub struct Input {
    sender: mpsc::Sender<Vec<u8>>,
    _permit: OwnedSemaphorePermit,
}

/// Somebody else has the console's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("somebody else is typing at this console")]
pub struct InUseError;

impl Console {
    /// Starts the relay, whether the VM has a process or not: it connects to each.
    pub fn start(runtime: &Arc<dyn Runtime>, folder: VmFolder, log: Arc<ConsoleLog>) -> Self {
        let shared = Arc::new(Shared { folder, log, readers: Mutex::default() });
        let (input, typed) = mpsc::channel(WRITER_QUEUE);
        let task = runtime.spawn("console", relay(Arc::clone(&shared), typed));
        Self { shared, writers: Arc::new(Semaphore::new(1)), input, task }
    }

    /// A new reader.
    pub fn read(&self) -> Output {
        let (sender, receiver) = mpsc::channel(READER_QUEUE);
        self.shared.readers().push(sender);
        Output(receiver)
    }

    /// The console's input, until it is dropped.
    ///
    /// # Errors
    /// [`InUseError`] if somebody has it.
    pub fn write(&self) -> Result<Input, InUseError> {
        let permit = Arc::clone(&self.writers).try_acquire_owned().map_err(|_| InUseError)?;
        Ok(Input { sender: self.input.clone(), _permit: permit })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Output {
    /// The next piece; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Piece> {
        self.0.recv().await
    }
}

impl Input {
    /// Types bytes; waits while the guest does not take what was typed before. Cancelled, it may have typed the
    /// beginning. What is typed while the VM has no process is dropped.
    ///
    /// # Errors
    /// `BrokenPipe` if the relay has ended.
    pub async fn type_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_MAX) {
            let sent = self.sender.send(piece.to_vec()).await;
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(())
    }
}

impl Shared {
    fn readers(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Piece>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a piece to all readers, and drops those that are gone or too slow.
    fn publish(&self, bytes: &[u8]) {
        let piece: Piece = bytes.into();
        self.readers().retain(|reader| match reader.try_send(Arc::clone(&piece)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
        });
        self.log.note_activity();
    }

    fn bound_log(&self) {
        if let Err(error) = self.log.bound(log::LOG_MAX) {
            let path = self.folder.console_log();
            tracing::warn!(%error, path = %path.display(), "cannot bound the log of a console");
        }
    }
}

async fn relay(shared: Arc<Shared>, mut typed: mpsc::Receiver<Vec<u8>>) {
    let mut log_timer = tokio::time::interval(LOG_INTERVAL);
    log_timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok(stream) = crate::socket::connect(&shared.folder.console_socket()).await else {
            // What is typed in vain must not be typed at the next start.
            while typed.try_recv().is_ok() {}
            log_timer.tick().await;
            tokio::time::sleep(CONNECT_INTERVAL).await;
            continue;
        };
        serve(&shared, stream, &mut typed, &mut log_timer).await;
    }
}

/// Relays until QEMU closes the connection.
async fn serve(
    shared: &Shared,
    stream: UnixStream,
    typed: &mut mpsc::Receiver<Vec<u8>>,
    log_timer: &mut tokio::time::Interval,
) {
    let (mut output, mut input): (OwnedReadHalf, OwnedWriteHalf) = stream.into_split();
    let mut pending: Vec<u8> = Vec::new();
    let mut bytes = [0; PIECE_MAX];
    // Whether the log may have grown. An idle guest costs nothing.
    let mut has_grown = true;
    loop {
        tokio::select! {
            read = output.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    has_grown = true;
                    shared.publish(bytes.get(..length).unwrap_or_default());
                }
            },
            // A guest that takes no input does not keep its output from being read.
            written = input.write(&pending), if !pending.is_empty() => match written {
                Ok(length) => drop(pending.drain(..length.min(pending.len()))),
                Err(_) => return,
            },
            Some(piece) = typed.recv(), if pending.is_empty() => pending = piece,
            _ = log_timer.tick(), if has_grown => {
                has_grown = false;
                shared.bound_log();
            }
        }
    }
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
