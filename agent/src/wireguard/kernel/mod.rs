//! The kernel's WireGuard behind the types of the mesh device: a link of the kind `wireguard`, told and asked over generic
//! netlink. Blocking, in the network namespace of the calling thread; every call opens a socket of its own and keeps nothing.
//!
//! - [`plan`]: what is to be said, so that what stays is not touched; [`encode`], [`decode`]: the messages as bytes. All pure
//!
//! The messages are our own, for keys pass through them: every buffer is overwritten when it is dropped.

mod decode;
mod encode;
mod plan;
#[cfg(test)]
mod tests;
mod wire;

use std::io;

use otherix_netlink::{Protocol, RequestError, Socket, generic};

pub use self::decode::DecodeError;
use self::decode::Reading;
use self::plan::plan;
use crate::kernel::{Kernel, KernelError};
use otherix_mesh::config::{WgDeviceStatus, WgDeviceUpdate};

/// How often the reading of a device is begun again when changes disturb it.
const ATTEMPTS: u32 = 8;

/// Why a device was not made, asked or changed.
#[derive(Debug, thiserror::Error)]
pub enum WireGuardError {
    /// It was not made.
    #[error(transparent)]
    Create(#[from] KernelError),
    /// There is no socket to speak of WireGuard.
    #[error("cannot open a generic netlink socket")]
    Open(#[source] io::Error),
    /// The kernel cannot be asked whether it has WireGuard.
    #[error("cannot ask the kernel for WireGuard")]
    Family(#[source] RequestError),
    /// The kernel has none.
    #[error("this node's kernel has no WireGuard (CONFIG_WIREGUARD)")]
    Unsupported,
    /// It was not read: it is not there, or no WireGuard device, or others than root ask.
    #[error("cannot read the WireGuard device `{name}`")]
    Get {
        /// Its name.
        name: String,
        /// The kernel's word.
        #[source]
        source: RequestError,
    },
    /// What the kernel told of it is not understood.
    #[error("cannot understand what the kernel tells of the WireGuard device `{name}`")]
    Answer {
        /// Its name.
        name: String,
        /// What is not.
        #[source]
        source: DecodeError,
    },
    /// It never stopped changing.
    #[error("the WireGuard device `{0}` changes faster than it can be read")]
    Restless(String),
    /// It was not changed, or not wholly.
    #[error("cannot change the WireGuard device `{name}`")]
    Set {
        /// Its name.
        name: String,
        /// The kernel's word.
        #[source]
        source: RequestError,
    },
}

/// Whether the kernel has WireGuard; it loads the module if it can. Makes nothing.
#[must_use]
pub fn is_supported() -> bool {
    match connect() {
        Ok(_) => true,
        Err(WireGuardError::Unsupported) => false,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot tell whether there is WireGuard");
            false
        }
    }
}

/// Makes a device, down and without key, peers or address. One that was left in the making is removed first; of one that cannot be
/// made nothing is left.
///
/// # Errors
/// [`WireGuardError::Create`]: when the kernel has no WireGuard, when the name is taken, when a value is refused.
pub fn create(name: &str, alias: &str, mtu: u32) -> Result<(), WireGuardError> {
    Ok(Kernel::open()?.create_wireguard(name, alias, mtu)?)
}

/// One device, by its name. Whether it is there is seen when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
}

impl Device {
    /// The device of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// What the device is.
    ///
    /// # Errors
    /// [`WireGuardError`].
    pub fn get(&self) -> Result<WgDeviceStatus, WireGuardError> {
        connect()?.read(&self.name)
    }

    /// Changes the device, in the sense of [`WgDeviceUpdate`]: what stays as it is, sessions above all, is not touched. Nobody else may
    /// change it meanwhile. The kernel takes one thing after the other and stops at the first that it refuses: the mark,
    /// the port, the key, then the peers in their order.
    ///
    /// # Errors
    /// [`WireGuardError`]; some of the change may have been made.
    pub fn set(&self, config: &WgDeviceUpdate) -> Result<(), WireGuardError> {
        let mut connection = connect()?;
        let now = if plan::needs_status(config) { Some(connection.read(&self.name)?) } else { None };
        for message in encode::set(connection.family, &self.name, &plan(config, now.as_ref())) {
            let set = connection.socket.request(message, |_| {});
            set.map_err(|source| WireGuardError::Set { name: self.name.clone(), source })?;
        }
        Ok(())
    }
}

/// A socket, and the number of the WireGuard family.
struct Connection {
    socket: Socket,
    family: u16,
}

impl Connection {
    fn read(&mut self, name: &str) -> Result<WgDeviceStatus, WireGuardError> {
        for _ in 0..ATTEMPTS {
            let mut reading = Reading::default();
            let mut understood = Ok(());
            let completion = self.socket.request(encode::get(self.family, name), |reply| {
                if understood.is_ok() {
                    understood = reading.take(reply.payload);
                }
            });
            let completion = completion.map_err(|source| WireGuardError::Get { name: name.to_owned(), source })?;
            understood.map_err(|source| WireGuardError::Answer { name: name.to_owned(), source })?;
            if !completion.interrupted {
                return Ok(reading.into_status());
            }
        }
        Err(WireGuardError::Restless(name.to_owned()))
    }
}

fn connect() -> Result<Connection, WireGuardError> {
    let mut socket = Socket::open(Protocol::Generic).map_err(WireGuardError::Open)?;
    let family = generic::resolve_family(&mut socket, wire::FAMILY).map_err(WireGuardError::Family)?;
    Ok(Connection { socket, family: family.ok_or(WireGuardError::Unsupported)? })
}
