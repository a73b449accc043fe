//! A client of the local socket of a mesh device, or of another implementation of WireGuard's userspace protocol.
//! Blocking, with a timeout.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::config::{WgDeviceStatus, WgDeviceUpdate};
use super::uapi::{self, UapiAnswerError};

/// Within this time a device must answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of an answer in bytes: enough for a hundred thousand peers.
const ANSWER_MAX: usize = 128 << 20;

/// Size of a read in bytes.
const READ_SIZE: usize = 64 << 10;

/// Why a request of a client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no mesh device serves `{}`", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the connection to the mesh device failed")]
    Io(#[source] io::Error),
    #[error(transparent)]
    Answer(#[from] UapiAnswerError),
}

/// A client of one device's local socket. Each request has its own connection.
#[derive(Clone, Debug)]
pub struct UapiClient {
    path: PathBuf,
}

impl UapiClient {
    /// Creates a client of the device `name`, whose socket is in `folder`. Does not connect yet.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!("{name}.sock")) }
    }

    /// Returns configuration and state of the device.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self) -> Result<WgDeviceStatus, ClientError> {
        Ok(uapi::decode_status(&self.exchange(uapi::GET_REQUEST)?)?)
    }

    /// Changes the device. The mesh device applies either the whole update or, if it refuses it, nothing.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Io`] the update may have been applied.
    pub fn set(&self, update: &WgDeviceUpdate) -> Result<(), ClientError> {
        Ok(uapi::decode_set_answer(&self.exchange(&uapi::encode_set_request(update))?)?)
    }

    fn exchange(&self, request: &str) -> Result<Zeroizing<String>, ClientError> {
        let connected = UnixStream::connect(&self.path);
        let mut stream = connected.map_err(|source| ClientError::Connect { path: self.path.clone(), source })?;
        send_and_receive(&mut stream, request.as_bytes()).map_err(ClientError::Io)
    }
}

fn send_and_receive(stream: &mut UnixStream, request: &[u8]) -> io::Result<Zeroizing<String>> {
    let deadline = Instant::now() + TIMEOUT;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request)?;
    let mut answer = Zeroizing::new(Vec::new());
    let mut chunk = Zeroizing::new([0; READ_SIZE]);
    let mut searched = 0;
    loop {
        let remaining = deadline.checked_duration_since(Instant::now()).filter(|remaining| !remaining.is_zero());
        stream.set_read_timeout(Some(remaining.ok_or(io::ErrorKind::TimedOut)?))?;
        let length = match stream.read(&mut *chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        answer.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if let Some(end) = uapi::message_end(&answer, searched) {
            let text = str::from_utf8(answer.get(..end).unwrap_or_default());
            return text.map(|text| Zeroizing::new(text.to_owned())).map_err(|_| io::ErrorKind::InvalidData.into());
        }
        if answer.len() > ANSWER_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        searched = answer.len();
    }
}
