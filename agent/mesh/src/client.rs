//! A client of a mesh device's local socket, or of any other WireGuard device's that speaks the same protocol. Blocking, with a
//! deadline; the parsing is in [`super::uapi`].

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::config::{WgDeviceStatus, WgDeviceUpdate};
use super::uapi::{self, UapiAnswerError};

/// How long a device may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer at most: enough for a hundred thousand peers.
const ANSWER: usize = 128 << 20;

/// Why a device was not asked, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no mesh device serves `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or took too long.
    #[error("the connection to the mesh device broke")]
    Io(#[source] io::Error),
    /// The device refused, or did not answer as it should.
    #[error(transparent)]
    Answer(#[from] UapiAnswerError),
}

/// Asks the device of one local socket; each request on a connection of its own.
#[derive(Clone, Debug)]
pub struct UapiClient {
    path: PathBuf,
}

impl UapiClient {
    /// Of the device `name` that has its socket in `folder`. Nothing is connected yet.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!("{name}.sock")) }
    }

    /// What the device is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self) -> Result<WgDeviceStatus, ClientError> {
        Ok(uapi::status(&self.exchange(uapi::GET)?)?)
    }

    /// Changes the device. A device of ours makes all of the change or, refusing, none of it.
    ///
    /// # Errors
    /// [`ClientError`]; after a broken connection the change may have been made.
    pub fn set(&self, config: &WgDeviceUpdate) -> Result<(), ClientError> {
        Ok(uapi::set_answer(&self.exchange(&uapi::set(config))?)?)
    }

    fn exchange(&self, request: &str) -> Result<Zeroizing<String>, ClientError> {
        let connected = UnixStream::connect(&self.path);
        let mut stream = connected.map_err(|source| ClientError::Connect { path: self.path.clone(), source })?;
        talk(&mut stream, request.as_bytes()).map_err(ClientError::Io)
    }
}

fn talk(stream: &mut UnixStream, request: &[u8]) -> io::Result<Zeroizing<String>> {
    let until = Instant::now() + PATIENCE;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Zeroizing::new(Vec::new());
    let mut portion = Zeroizing::new([0; 64 << 10]);
    let mut searched = 0;
    loop {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let length = match stream.read(&mut *portion) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        answer.extend_from_slice(portion.get(..length).unwrap_or_default());
        if let Some(end) = uapi::end(&answer, searched) {
            let text = str::from_utf8(answer.get(..end).unwrap_or_default());
            return text.map(|text| Zeroizing::new(text.to_owned())).map_err(|_| io::ErrorKind::InvalidData.into());
        }
        if answer.len() > ANSWER {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        searched = answer.len();
    }
}
