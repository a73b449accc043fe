//! What makes and serves the mesh's device: the kernel's WireGuard, or a process of ours. Told the same and telling the same.

use std::os::unix::net::UnixStream;

use super::kernel::{self, WireGuardError};
use super::process::{Process, ProcessError};
use crate::model::link::{Link, TUN};
use crate::model::mesh_device::{MESH, MESH_ALIAS};
use otherix_mesh::client::ClientError;
use otherix_mesh::config::{WgDeviceStatus, WgDeviceUpdate};

/// The kind of the kernel's WireGuard devices, as the kernel calls it.
const WIREGUARD: &str = "wireguard";

/// Which is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's where it has one; else the process. A device that is there already stays what it is.
    #[default]
    Auto,
    /// The kernel's.
    Kernel,
    /// The process `otherix-mesh`.
    Userspace,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The process refused, or did not answer.
    #[error("cannot configure the mesh's device")]
    Client(#[from] ClientError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] WireGuardError),
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Kernel,
    Process,
}

/// What makes and serves the device.
pub(super) struct Engine {
    backend: Backend,
    port: u16,
    process: Process,
    /// Which serves it, and whether there is a device, since [`Engine::begin`].
    now: (Which, bool),
}

impl Engine {
    /// The kinds of links that it makes, as the kernel calls them.
    pub(super) const KINDS: [&str; 2] = [TUN, WIREGUARD];

    pub(super) const fn new(backend: Backend, process: Process, port: u16) -> Self {
        Self { backend, port, process, now: (Which::Process, false) }
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether a device of ours is of a kind that may be.
    pub(super) fn fits(&self, link: &Link) -> bool {
        match self.backend {
            Backend::Auto => true,
            Backend::Kernel => link.kind == WIREGUARD,
            Backend::Userspace => link.kind == TUN,
        }
    }

    /// To be told first of each pass: the device, if there is one.
    pub(super) fn begin(&mut self, link: Option<&Link>) {
        let which = match (link, self.backend) {
            (Some(link), _) if link.kind == WIREGUARD => Which::Kernel,
            (None, Backend::Kernel) => Which::Kernel,
            // A process that still serves makes its device again.
            (None, Backend::Auto) if !self.process.serves() && kernel::is_supported() => Which::Kernel,
            (Some(_) | None, Backend::Auto | Backend::Kernel | Backend::Userspace) => Which::Process,
        };
        self.now = (which, link.is_some());
    }

    /// What the device is; made if there is none.
    pub(super) fn serve(&mut self, mtu: u32) -> Result<WgDeviceStatus, EngineError> {
        match self.now {
            (Which::Process, _) => Ok(self.process.serve(mtu)?),
            (Which::Kernel, is_there) => {
                if !is_there {
                    tracing::info!("making `{MESH}` of the kernel's WireGuard");
                    kernel::create(MESH, MESH_ALIAS, mtu)?;
                    self.now = (Which::Kernel, true);
                }
                Ok(kernel::Device::new(MESH).get()?)
            }
        }
    }

    /// Tells the device.
    pub(super) fn set(&self, config: &WgDeviceUpdate) -> Result<(), EngineError> {
        match self.now.0 {
            Which::Process => Ok(self.process.client().set(config)?),
            Which::Kernel => Ok(kernel::Device::new(MESH).set(config)?),
        }
    }

    /// A connection with what serves the device, which ends with it; the kernel never does.
    pub(super) fn watch(&self) -> Option<UnixStream> {
        match self.now.0 {
            Which::Process => self.process.watch(),
            Which::Kernel => None,
        }
    }

    /// Has the process end, if it is one that serves the device.
    pub(super) fn end(&mut self) -> Result<(), EngineError> {
        Ok(self.process.end()?)
    }
}
