//! The mesh device: a userspace WireGuard implementation in its own process, with `boringtun::noise` as the protocol
//! state machine. It owns one TUN device, its UDP sockets and its local socket, and depends on nothing else; the agent
//! configures it. After a restart it attaches to the existing TUN device and must be given its keys and peers again.
//!
//! - [`config`], [`key`], [`prefix`]: configuration and status; [`uapi`]: their text form, WireGuard's userspace
//!   protocol
//! - [`client`]: a client of the local socket, which [`control_socket`] serves
//! - [`event_loop`]; [`device`]: the path of packets between TUN device and UDP sockets
//! - [`peer`], [`peer_table`]: peers and their sessions; [`allowed_ips`]: the peer of an address; [`handshake_limit`]
//! - [`packet`]: segmentation and merging of packets; [`send_queue`]: messages to be sent in GSO batches
//! - [`tun`], [`link`], [`udp`]: the kernel's TUN device and UDP sockets
//!
//! Throughput depends on batching: a system call moves up to 64 KiB in either direction, and the kernel's network stack
//! processes some fifty packets as one.

mod allowed_ips;
pub mod args;
pub mod client;
pub mod config;
mod control_socket;
mod device;
mod error;
mod event_loop;
mod handshake_limit;
pub mod key;
mod link;
mod packet;
mod peer;
mod peer_table;
pub mod prefix;
mod send_queue;
mod signals;
mod tun;
pub mod uapi;
mod udp;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use self::config::WgDeviceUpdate;
pub use self::control_socket::ControlError;
use self::control_socket::SocketLock;
use self::device::{MeshDevice, TunSettings};
pub use self::error::MeshRunError;
use self::key::WgPrivateKey;
pub use self::tun::{Offload, TunError};

/// The file in the state folder that may contain the private key, in base64.
pub const KEY_FILE: &str = "mesh.key";

/// Maximum size of the key file in bytes; a key takes 45 with the line feed.
const KEY_FILE_MAX: u16 = 256;

/// Settings of a mesh device.
#[derive(Clone, Debug)]
pub struct MeshOptions {
    /// The name of the TUN device.
    pub name: String,
    /// The folder of the local socket.
    pub socket_folder: PathBuf,
    /// The folder that may contain the private key.
    pub state: Option<PathBuf>,
    /// The UDP port; 0 for any free port.
    pub port: u16,
    /// The MTU in bytes that the TUN device is created with; an existing device keeps its own.
    pub mtu: u16,
    /// The highest offload level to enable.
    pub offload: Offload,
    /// The alias that the TUN device is created with, and without which an existing device is refused. `None` accepts
    /// any device.
    pub alias: Option<String>,
}

/// Runs a device in this thread and in its network namespace, until `stop` is readable or its other end is closed. The
/// TUN device remains.
///
/// # Errors
/// [`MeshRunError`], also if another process serves the device, which is not disturbed.
pub fn run(options: &MeshOptions, stop: impl AsFd) -> Result<(), MeshRunError> {
    let MeshOptions { name, socket_folder, state, port, mtu, offload, alias } = options;
    let lock = SocketLock::acquire(socket_folder, name)?;
    let key = state.as_deref().map(|state| read_key(&state.join(KEY_FILE))).transpose()?.flatten();
    let settings = TunSettings { name: name.clone(), mtu: *mtu, offload: *offload, alias: alias.clone() };
    let mut device = MeshDevice::new(settings, *port)?;
    if let Some(key) = key {
        let update = WgDeviceUpdate { private_key: Some(Some(key)), ..WgDeviceUpdate::default() };
        device.apply(update).map_err(MeshRunError::Poll)?;
    }
    let mut control = lock.listen()?;
    tracing::info!("mesh device {name} listens on UDP port {}, offload {:?}", device.port(), device.offload());
    event_loop::run(&mut device, &mut control, stop.as_fd()).map_err(MeshRunError::Poll)
}

/// Reads a private key from a file; `None` if the file does not exist.
///
/// # Errors
/// [`MeshRunError::Key`], also if users other than the owner have access to the file.
pub fn read_key(path: &Path) -> Result<Option<WgPrivateKey>, MeshRunError> {
    let failed = |source| MeshRunError::Key { path: path.to_owned(), source };
    // A FIFO would block until something writes to it.
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(failed(io::Error::other("users other than its owner have access to it; its mode must be 0600")));
    }
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_MAX.into()));
    file.take(KEY_FILE_MAX.into()).read_to_string(&mut text).map_err(failed)?;
    let key = WgPrivateKey::from_base64(&text).map_err(|error| failed(io::Error::other(error)))?;
    Ok(Some(key))
}
