//! QEMU's control protocol (QMP): a client that takes nothing on trust from the process, which a guest may have taken
//! over. Lines and queued events are bounded, and every call has a deadline.
//!
//! QEMU serves one client at a time and lets a second one wait without a word: a VM has one owner of its client.

mod lines;
mod message;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use self::lines::LineBuffer;
use self::message::Message;
pub use self::message::{QmpEvent, RunState, ShutdownReason};

/// Events that may wait to be taken; QEMU sends a few in a VM's life.
const EVENTS_MAX: usize = 256;
/// Bytes read at once.
const READ_MAX: usize = 4 << 10;
/// How often a socket is tried that nobody listens on yet.
const CONNECT_INTERVAL: Duration = Duration::from_millis(5);

/// Why a command was not answered. After any error but [`QmpError::Refused`] the connection is of no use.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("cannot connect to QEMU")]
    Connect(#[source] io::Error),
    #[error("QEMU does not answer within {0:?}")]
    TimedOut(Duration),
    #[error("QEMU closed the connection")]
    Closed,
    #[error("cannot exchange messages with QEMU")]
    Io(#[source] io::Error),
    #[error("QEMU sent a line of more than {} bytes", lines::LINE_MAX)]
    TooLong,
    #[error("QEMU sent more than {EVENTS_MAX} events that nobody took")]
    TooMany,
    #[error("QEMU sent what is not a message of its protocol: {0}")]
    Malformed(String),
    #[error("process {found} serves the VM's socket, not process {expected}")]
    Foreign { expected: i32, found: i32 },
    /// The class and the description of QEMU's error.
    #[error("QEMU refused `{command}`: {class}: {description}")]
    Refused { command: &'static str, class: String, description: String },
}

/// What QEMU can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QmpCommand {
    /// Presses the power button; returns before the guest reacts, if it does.
    PowerDown,
    /// Resets the machine, as its reset button does.
    Reset,
    /// Stops the virtual CPUs.
    Pause,
    /// Lets the virtual CPUs run.
    Resume,
    /// Ends the process, after writing what is buffered.
    Quit,
}

impl QmpCommand {
    const fn name(self) -> &'static str {
        match self {
            Self::PowerDown => "system_powerdown",
            Self::Reset => "system_reset",
            Self::Pause => "stop",
            Self::Resume => "cont",
            Self::Quit => "quit",
        }
    }
}

/// A connection to the QEMU of one VM.
#[derive(Debug)]
pub struct QmpClient {
    stream: UnixStream,
    lines: LineBuffer,
    events: VecDeque<QmpEvent>,
    last_id: u64,
    timeout: Duration,
}

impl QmpClient {
    /// Connects, and waits for the greeting: QEMU sends it when the VM is set up. `pid` is the process that must serve
    /// the socket. `timeout` bounds this and later calls, each.
    ///
    /// # Errors
    /// [`QmpError`]; also if there is no socket within the time, as of a process that has failed.
    pub async fn connect(socket: &Path, pid: i32, timeout: Duration) -> Result<Self, QmpError> {
        let deadline = Instant::now() + timeout;
        let stream = loop {
            match crate::socket::connect(socket).await {
                Ok(stream) => break stream,
                // The process has not come to it yet, or the backlog is full.
                Err(error) if Instant::now() >= deadline => return Err(QmpError::Connect(error)),
                Err(_) => tokio::time::sleep(CONNECT_INTERVAL).await,
            }
        };
        // That of `listen`, by the launcher, whose process has become QEMU.
        let found = stream.peer_cred().map_err(QmpError::Connect)?.pid().unwrap_or(0);
        if found != pid {
            return Err(QmpError::Foreign { expected: pid, found });
        }
        let mut client = Self { stream, lines: LineBuffer::default(), events: VecDeque::new(), last_id: 0, timeout };
        match client.within(deadline, |message| matches!(message, Message::Greeting).then_some(())).await {
            Ok(()) => {}
            Err(error) => return Err(error),
        }
        client.request("qmp_capabilities", deadline).await?;
        Ok(client)
    }

    /// Changes the bound of later calls.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Executes a command.
    ///
    /// # Errors
    /// [`QmpError`]. After [`QmpCommand::Quit`] QEMU may end before it answers: [`QmpError::Closed`] or
    /// [`QmpError::Io`].
    pub async fn execute(&mut self, command: QmpCommand) -> Result<(), QmpError> {
        self.request(command.name(), Instant::now() + self.timeout).await?;
        Ok(())
    }

    /// Asks what the machine does.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn status(&mut self) -> Result<RunState, QmpError> {
        let answer = self.request("query-status", Instant::now() + self.timeout).await?;
        let status = answer.get("status").and_then(Value::as_str);
        status.map(RunState::from_name).ok_or_else(|| QmpError::Malformed("a status without a name".to_owned()))
    }

    /// Waits for an event of those that [`QmpEvent`] names. Cancel-safe. Without a deadline.
    ///
    /// # Errors
    /// [`QmpError::Closed`] when QEMU ends; others if it misbehaves.
    pub async fn next_event(&mut self) -> Result<QmpEvent, QmpError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            // Answers to commands whose callers have given up are not of interest.
            let _message = self.message().await?;
        }
    }

    /// The answer is recognised by its id: one to a command whose caller gave up is skipped.
    async fn request(&mut self, command: &'static str, deadline: Instant) -> Result<Value, QmpError> {
        self.last_id += 1;
        let id = self.last_id;
        let line = message::request(command, id);
        match timeout_at(deadline, self.stream.write_all(&line)).await {
            Err(_) => return Err(QmpError::TimedOut(self.timeout)),
            Ok(Err(error)) => return Err(QmpError::Io(error)),
            Ok(Ok(())) => {}
        }
        self.within(deadline, |message| match message {
            Message::Answer { id: found, result } if found == id => Some(result),
            Message::Answer { .. } | Message::Greeting | Message::Event(_) | Message::OtherEvent => None,
        })
        .await?
        .map_err(|(class, description)| QmpError::Refused { command, class, description })
    }

    /// Reads messages until one is wanted, or the deadline has passed.
    async fn within<T>(&mut self, deadline: Instant, wanted: impl Fn(Message) -> Option<T>) -> Result<T, QmpError> {
        let timeout = self.timeout;
        let read = async {
            loop {
                if let Some(found) = wanted(self.message().await?) {
                    return Ok(found);
                }
                // A process that never stops sending must not keep the deadline from being seen.
                tokio::task::yield_now().await;
                if Instant::now() >= deadline {
                    return Err(QmpError::TimedOut(timeout));
                }
            }
        };
        timeout_at(deadline, read).await.unwrap_or(Err(QmpError::TimedOut(timeout)))
    }

    /// Reads the next message; events are queued, too. Cancel-safe.
    async fn message(&mut self) -> Result<Message, QmpError> {
        loop {
            if let Some(line) = self.lines.take() {
                let message = message::parse(&line).map_err(QmpError::Malformed)?;
                if let Message::Event(event) = &message {
                    if self.events.len() >= EVENTS_MAX {
                        return Err(QmpError::TooMany);
                    }
                    self.events.push_back(event.clone());
                }
                return Ok(message);
            }
            let mut bytes = [0; READ_MAX];
            match self.stream.read(&mut bytes).await {
                Ok(0) => return Err(QmpError::Closed),
                Ok(read) => self.lines.add(bytes.get(..read).unwrap_or_default()).map_err(|_| QmpError::TooLong)?,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(QmpError::Closed),
                Err(error) => return Err(QmpError::Io(error)),
            }
        }
    }
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod tests;
