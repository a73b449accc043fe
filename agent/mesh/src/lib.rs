//! The mesh device: WireGuard in a process of its own, on the core of `boringtun::noise` with a device of ours around it. Owns
//! one TUN device, its UDP sockets and its local socket; never depends on the agent, which configures it, or on anything
//! else: started again, it goes on where the TUN device was left, and its keys and peers are set anew.
//!
//! - [`config`], [`key`], [`prefix`]: what it is told and tells; [`uapi`]: the same as text, in WireGuard's userspace protocol
//! - [`client`]: asks and changes it over its local socket, which [`control`] serves
//! - [`run`]: the loop; [`device`]: packets to messages and back; [`peer`], [`table`]: with whom; [`allowed`]: whose address is whose
//! - [`packet`]: large packets cut and put together; [`outbox`]: messages in trains; [`load`]: floods; [`system`]: the kernel
//!
//! What pays: a system call moves 64 KiB at a time in each direction, and the kernel's network stack sees one packet for fifty.

mod allowed;
pub mod args;
pub mod client;
pub mod config;
mod control;
mod device;
pub mod key;
mod load;
mod outbox;
mod packet;
mod peer;
pub mod prefix;
mod run;
mod signals;
mod system;
mod table;
pub mod uapi;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use self::config::WgDeviceUpdate;
use self::control::Claim;
pub use self::control::ControlError;
pub use self::device::DeviceError;
use self::device::{Device, Interface};
use self::key::WgPrivateKey;
pub use self::system::tun::{Offload, TunError};

/// The file in the state folder that may hold the private key, in base64.
pub const KEY_FILE: &str = "mesh.key";

/// How a device is run.
#[derive(Clone, Debug)]
pub struct MeshOptions {
    /// The TUN device's name.
    pub name: String,
    /// The folder of the local socket.
    pub socket_folder: PathBuf,
    /// The folder that may hold the private key.
    pub state: Option<PathBuf>,
    /// The UDP port.
    pub port: u16,
    /// The MTU that the TUN device gets when it is made; one that is there keeps its own.
    pub mtu: u16,
    /// The best offload to be asked for.
    pub offload: Offload,
    /// The alias that the TUN device is given when it is made, and must have if it is there; without one any will do.
    pub alias: Option<String>,
}

/// Why the device does not run.
#[derive(Debug, thiserror::Error)]
pub enum MeshRunError {
    /// No local socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// No TUN device, or no UDP socket.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No key where there is a file for it.
    #[error("cannot take the private key from `{}`", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    #[error("cannot run in a session of its own")]
    Detach(#[source] io::Error),
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("the mesh device cannot wait for packets")]
    Wait(#[source] io::Error),
}

/// Runs a device in this thread, in its network namespace, until something can be read from `stop` or its other end is closed.
/// The TUN device stays.
///
/// # Errors
/// [`MeshRunError`]; another process that runs the same device is left alone.
pub fn run(options: &MeshOptions, stop: impl AsFd) -> Result<(), MeshRunError> {
    let MeshOptions { name, socket_folder, state, port, mtu, offload, alias } = options;
    let claim = Claim::take(socket_folder, name)?;
    let key = state.as_deref().map(|state| read_key(&state.join(KEY_FILE))).transpose()?.flatten();
    let interface = Interface { name: name.clone(), mtu: *mtu, offload: *offload, alias: alias.clone() };
    let mut device = Device::new(interface, *port)?;
    if let Some(key) = key {
        let config = WgDeviceUpdate { private_key: Some(Some(key)), ..WgDeviceUpdate::default() };
        device.apply(config).map_err(MeshRunError::Wait)?;
    }
    let mut control = claim.listen()?;
    tracing::info!("mesh device {name} listens on UDP port {}, offload {:?}", device.port(), device.offload());
    run::run(&mut device, &mut control, stop.as_fd()).map_err(MeshRunError::Wait)
}

/// Reads a private key, if there is a file for it. A file that others may read is refused.
pub fn read_key(path: &Path) -> Result<Option<WgPrivateKey>, MeshRunError> {
    let failed = |source| MeshRunError::Key { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(failed(io::Error::other("others than its owner may use it; its mode must be 0600")));
    }
    let mut text = Zeroizing::new(String::with_capacity(256));
    file.take(256).read_to_string(&mut text).map_err(failed)?;
    let key = WgPrivateKey::from_base64(&text).map_err(|error| failed(io::Error::other(error)))?;
    Ok(Some(key))
}
