//! The kernel's WireGuard, behind the types of the mesh device: links of kind `wireguard`, read and changed over
//! generic netlink. Blocking, in the network namespace of the calling thread; every call opens a socket, and nothing is
//! kept.
//!
//! - `plan`: reduces a change to what the kernel has to change; `encode`, `decode`: the messages. All pure
//!
//! The messages are not built by `rtnetlink`, because they contain keys: every buffer is overwritten when it is
//! dropped.

mod constants;
mod decode;
mod encode;
mod plan;
#[cfg(test)]
mod tests;

use std::io;

use otherix_mesh::config::{WgDeviceStatus, WgDeviceUpdate};
use otherix_netlink::{Protocol, RequestError, Socket, generic};

pub use self::decode::DecodeError;
use self::decode::StatusDecoder;
use crate::kernel::{Kernel, KernelError};

/// How often a read is tried when changes interrupt it.
const ATTEMPTS: u32 = 8;

#[derive(Debug, thiserror::Error)]
pub enum WireGuardError {
    #[error(transparent)]
    Create(#[from] KernelError),
    #[error("cannot open a generic netlink socket")]
    Open(#[source] io::Error),
    #[error("cannot query whether the kernel has WireGuard")]
    Family(#[source] RequestError),
    #[error("this node's kernel has no WireGuard (CONFIG_WIREGUARD)")]
    Unsupported,
    /// It does not exist, is no WireGuard device, or the process lacks CAP_NET_ADMIN.
    #[error("cannot read the WireGuard device `{name}`")]
    Get { name: String, source: RequestError },
    #[error("cannot decode the kernel's reply about the WireGuard device `{name}`")]
    Decode { name: String, source: DecodeError },
    /// Each of [`ATTEMPTS`] was interrupted by a change.
    #[error("the WireGuard device `{0}` changes faster than it can be read")]
    Interrupted(String),
    /// Some of the change may have been applied.
    #[error("cannot change the WireGuard device `{name}`")]
    Set { name: String, source: RequestError },
}

/// Whether the kernel has WireGuard. Makes the kernel load the module, and creates nothing.
#[must_use]
pub fn is_supported() -> bool {
    match connect() {
        Ok(_) => true,
        Err(WireGuardError::Unsupported) => false,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot find out whether there is WireGuard");
            false
        }
    }
}

/// Creates a device, down and without key, peers or address. Removes first what an interrupted creation left, and
/// leaves nothing if it fails.
///
/// # Errors
/// [`WireGuardError::Create`]: the kernel has no WireGuard, the name is in use, or a value is refused.
pub fn create(name: &str, alias: &str, mtu: u32) -> Result<(), WireGuardError> {
    Ok(Kernel::open()?.create_wireguard(name, alias, mtu)?)
}

/// A device of the kernel's WireGuard, identified by its name. It may not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelDevice {
    name: String,
}

impl KernelDevice {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Reads the status of the device.
    ///
    /// # Errors
    /// [`WireGuardError`].
    pub fn get(&self) -> Result<WgDeviceStatus, WireGuardError> {
        connect()?.read(&self.name)
    }

    /// Changes the device as [`WgDeviceUpdate`] describes it. What stays as it is, sessions above all, is not affected.
    /// No other process may change the device at the same time. The kernel applies the mark, the port, the key, and
    /// then the peers in their order, and stops at the first that it refuses.
    ///
    /// # Errors
    /// [`WireGuardError`]; some of the change may have been applied.
    pub fn set(&self, config: &WgDeviceUpdate) -> Result<(), WireGuardError> {
        let mut connection = connect()?;
        let status = if plan::needs_status(config) { Some(connection.read(&self.name)?) } else { None };
        for message in encode::set(connection.family, &self.name, &plan::plan(config, status.as_ref())) {
            let reply = connection.socket.request(message, |_| {});
            reply.map_err(|source| WireGuardError::Set { name: self.name.clone(), source })?;
        }
        Ok(())
    }
}

/// A socket, and the id of the generic netlink family.
struct Connection {
    socket: Socket,
    family: u16,
}

impl Connection {
    fn read(&mut self, name: &str) -> Result<WgDeviceStatus, WireGuardError> {
        for _ in 0..ATTEMPTS {
            let mut decoder = StatusDecoder::default();
            let mut decoded = Ok(());
            let completion = self.socket.request(encode::get(self.family, name), |reply| {
                if decoded.is_ok() {
                    decoded = decoder.add(reply.payload);
                }
            });
            let completion = completion.map_err(|source| WireGuardError::Get { name: name.to_owned(), source })?;
            decoded.map_err(|source| WireGuardError::Decode { name: name.to_owned(), source })?;
            if !completion.interrupted {
                return Ok(decoder.finish());
            }
        }
        Err(WireGuardError::Interrupted(name.to_owned()))
    }
}

fn connect() -> Result<Connection, WireGuardError> {
    let mut socket = Socket::open(Protocol::Generic).map_err(WireGuardError::Open)?;
    let family = generic::resolve_family(&mut socket, constants::FAMILY).map_err(WireGuardError::Family)?;
    Ok(Connection { socket, family: family.ok_or(WireGuardError::Unsupported)? })
}
