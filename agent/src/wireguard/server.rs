//! Creates and serves the mesh device with the kernel's WireGuard or with the process `otherix-mesh`, behind the same
//! functions.

use std::os::unix::net::UnixStream;

use otherix_mesh::client::ClientError;
use otherix_mesh::config::{WgDeviceStatus, WgDeviceUpdate};

use super::kernel::{self, KernelDevice, WireGuardError};
use super::process::{MeshProcess, ProcessError};
use crate::model::link::{Link, TUN};
use crate::model::mesh_device::{MESH, MESH_ALIAS};

/// The link kind of the kernel's WireGuard devices.
const WIREGUARD: &str = "wireguard";

/// The requested implementation of WireGuard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's if it has one, otherwise the process. An existing device keeps its implementation.
    #[default]
    Auto,
    Kernel,
    /// The process `otherix-mesh`.
    Userspace,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("cannot configure the mesh device")]
    Client(#[from] ClientError),
    #[error(transparent)]
    Kernel(#[from] WireGuardError),
}

/// The implementation that serves the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Implementation {
    Kernel,
    Process,
}

pub(super) struct DeviceServer {
    backend: Backend,
    port: u16,
    process: MeshProcess,
    /// As selected for the current pass.
    implementation: Implementation,
    device_exists: bool,
}

impl DeviceServer {
    /// The link kinds of the devices that it creates.
    pub(super) const KINDS: [&str; 2] = [TUN, WIREGUARD];

    pub(super) const fn new(backend: Backend, process: MeshProcess, port: u16) -> Self {
        Self { backend, port, process, implementation: Implementation::Process, device_exists: false }
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the kernel serves the device, as selected for the current pass.
    pub(super) const fn is_kernel(&self) -> bool {
        matches!(self.implementation, Implementation::Kernel)
    }

    /// Whether a mesh device of this kind may stay.
    pub(super) fn accepts(&self, link: &Link) -> bool {
        match self.backend {
            Backend::Auto => true,
            Backend::Kernel => link.kind == WIREGUARD,
            Backend::Userspace => link.kind == TUN,
        }
    }

    /// Selects the implementation for a pass. `link` is the mesh device, if it exists. To be called before
    /// [`Self::status`] and [`Self::configure`].
    pub(super) fn select(&mut self, link: Option<&Link>) {
        self.implementation = match (link, self.backend) {
            (Some(link), _) if link.kind == WIREGUARD => Implementation::Kernel,
            (None, Backend::Kernel) => Implementation::Kernel,
            // A process that still runs creates its device again.
            (None, Backend::Auto) if !self.process.is_serving() && kernel::is_supported() => Implementation::Kernel,
            (Some(_) | None, Backend::Auto | Backend::Kernel | Backend::Userspace) => Implementation::Process,
        };
        self.device_exists = link.is_some();
    }

    /// Returns the status of the device, which is created with this MTU if it does not exist.
    pub(super) fn status(&mut self, mtu: u32) -> Result<WgDeviceStatus, ServerError> {
        match self.implementation {
            Implementation::Process => Ok(self.process.status(mtu)?),
            Implementation::Kernel => {
                if !self.device_exists {
                    tracing::info!("creating `{MESH}` with the kernel's WireGuard");
                    kernel::create(MESH, MESH_ALIAS, mtu)?;
                    self.device_exists = true;
                }
                Ok(KernelDevice::new(MESH).get()?)
            }
        }
    }

    /// Changes the configuration of the device.
    pub(super) fn configure(&self, config: &WgDeviceUpdate) -> Result<(), ServerError> {
        match self.implementation {
            Implementation::Process => Ok(self.process.client().set(config)?),
            Implementation::Kernel => Ok(KernelDevice::new(MESH).set(config)?),
        }
    }

    /// Returns a connection that is closed when the process that serves the device ends; `None` if the kernel does.
    pub(super) fn watch(&self) -> Option<UnixStream> {
        match self.implementation {
            Implementation::Process => self.process.watch(),
            Implementation::Kernel => None,
        }
    }

    /// Terminates the process, if one serves the device.
    pub(super) fn terminate(&mut self) -> Result<(), ServerError> {
        Ok(self.process.terminate()?)
    }
}
