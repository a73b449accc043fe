//! Ensures that one agent runs in a network namespace: two of them, with a state folder each, would undo each other's
//! changes for ever.
//!
//! The agent listens on a Unix socket with an abstract name. Such names are per network namespace, and end with their
//! process, however it ends. The socket answers with the agent's state folder.

use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Runtime, TaskSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// The name of the socket; the first byte makes it abstract.
const NAME: &str = "\0otherix-agent";

/// How long another agent may take to answer. One that is stopped does not.
const ANSWER: Duration = Duration::from_secs(1);

/// How often the name is tried: the process that had it may have ended when it is asked.
const ATTEMPTS: u32 = 3;

/// Delay after an error of the socket.
const RETRY: Duration = Duration::from_secs(1);

/// Longest path of a state folder.
const PATH_MAX: u64 = 4096;

/// No other agent can start in this network namespace until this is dropped.
#[derive(Debug)]
pub struct OnlyAgent {
    _answering: TaskSet<()>,
}

/// Another agent runs in this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherAgent {
    /// In this agent's process namespace; `None` if it is in another one.
    pid: Option<i32>,
    /// `None` if it did not answer.
    state: Option<PathBuf>,
}

impl fmt::Display for OtherAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, state } = self;
        match pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => write!(f, "a process of a container")?,
        }
        match state {
            Some(state) => write!(f, ", with the state folder `{}`", state.display()),
            None => write!(f, ", which does not answer"),
        }
    }
}

/// The errors of starting as the only agent.
#[derive(Debug, thiserror::Error)]
pub enum OnlyAgentError {
    #[error("the state folder `{}` is in use by another otherix-agent, {other}", .folder.display())]
    SameFolder { folder: PathBuf, other: OtherAgent },
    #[error(
        "another otherix-agent runs in this network namespace: {other}. Both would change the same devices: a machine \
         is one node. Stop that agent, or start this one with `ip netns exec` in a network namespace of its own"
    )]
    Running { other: OtherAgent },
    #[error("cannot find out whether another otherix-agent runs in this network namespace")]
    Socket(#[source] io::Error),
}

/// Becomes the only agent of this network namespace.
///
/// # Errors
/// [`OnlyAgentError`] if there is another one.
pub async fn become_only_agent(folder: &Path, runtime: &Arc<dyn Runtime>) -> Result<Option<OnlyAgent>, OnlyAgentError> {
    // Absolute, for processes with another working directory.
    let own = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        match UnixListener::bind(NAME) {
            Ok(listener) => {
                let mut answering = TaskSet::default();
                answering.add(runtime.spawn("only agent", answer(listener, Arc::from(own.as_path()))));
                return Ok(Some(OnlyAgent { _answering: answering }));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(OnlyAgentError::Socket(error)),
        }
        let connection = match UnixStream::connect(NAME).await {
            Ok(connection) => connection,
            // Its process has ended; or its queue is full, because it is stopped.
            Err(error) => {
                last = error;
                sleep(RETRY / 10).await;
                continue;
            }
        };
        let peer = connection.peer_cred().map_err(OnlyAgentError::Socket)?;
        if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
            // Anyone can take the name, but no one else can run an agent.
            tracing::warn!(uid = peer.uid(), pid = peer.pid(), "a process that is no agent has the agents' socket");
            return Ok(None);
        }
        let other = OtherAgent { pid: peer.pid().filter(|pid| *pid > 0), state: ask(connection).await };
        return Err(if other.state.as_ref() == Some(&own) {
            OnlyAgentError::SameFolder { folder: own, other }
        } else {
            OnlyAgentError::Running { other }
        });
    }
    Err(OnlyAgentError::Socket(last))
}

async fn answer(listener: UnixListener, state: Arc<Path>) {
    loop {
        match listener.accept().await {
            // A path fits into the socket's buffer: nobody is waited for.
            Ok((mut connection, _)) => {
                let _may_be_closed = timeout(ANSWER, connection.write_all(state.as_os_str().as_bytes())).await;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot answer another agent");
                sleep(RETRY).await;
            }
        }
    }
}

async fn ask(connection: UnixStream) -> Option<PathBuf> {
    let mut path = Vec::new();
    timeout(ANSWER, connection.take(PATH_MAX).read_to_end(&mut path)).await.ok()?.ok()?;
    (!path.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(path)))
}
