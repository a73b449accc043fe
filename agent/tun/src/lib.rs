//! TUN and TAP devices: the system calls of both ([`ioctl`]), and TAP devices with Ethernet frames ([`TapDevice`]).
//! Other settings (address, MTU, bridge, up or down) are made through rtnetlink.
//!
//! A device is created or looked up in the network namespace of the calling thread; the [`TapDevice`] may then be used
//! from any thread. It carries plain Ethernet frames: no packet information, no virtio header, a single queue.

mod error;
pub mod ioctl;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

pub use crate::error::TapError;

/// A buffer size in bytes that fits any frame: the maximum MTU of a TAP device is 65,521, the Ethernet header has 14
/// bytes.
pub const FRAME_MAX: usize = 65_536;

/// A process's attachment to a TAP device: reads frames that the kernel sends through the device, and writes frames
/// that the device receives. Unless the device is persistent, dropping this deletes it.
#[derive(Debug)]
pub struct TapDevice {
    name: String,
    descriptor: OwnedFd,
}

impl TapDevice {
    /// Creates a device, which is down and has a random MAC address.
    ///
    /// # Errors
    /// [`TapError::Exists`] if there is a device of that name, of whatever type; [`TapError::Name`] also for a name
    /// with a `%`, which the kernel would replace; [`TapError::Open`]; [`TapError::Kernel`], e.g. without
    /// `CAP_NET_ADMIN`.
    pub fn create(name: &str) -> Result<Self, TapError> {
        let descriptor = open(name)?;
        match ioctl::set_interface(descriptor.as_fd(), name, ioctl::TAP | ioctl::EXCLUSIVE) {
            Ok(()) => Ok(Self { name: name.to_owned(), descriptor }),
            Err(Errno::BUSY) => Err(TapError::Exists(name.to_owned())),
            Err(source) => Err(failed("create", name, source)),
        }
    }

    /// Attaches to an existing persistent device, as a hypervisor does. The device then has carrier.
    ///
    /// # Errors
    /// [`TapError::Absent`] if there is no such device; [`TapError::Busy`] if another process is attached;
    /// [`TapError::NotTap`]; [`TapError::Name`], [`TapError::Open`], [`TapError::Kernel`].
    pub fn attach(name: &str) -> Result<Self, TapError> {
        Ok(Self { name: name.to_owned(), descriptor: attach(name, ioctl::TAP)? })
    }

    /// The name at the time of creation or attachment. The device may have been renamed since.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets whether the device remains when no process is attached.
    ///
    /// # Errors
    /// [`TapError::Kernel`] if the device was deleted.
    pub fn set_persistent(&self, persistent: bool) -> Result<(), TapError> {
        ioctl::set_persistent(self.as_fd(), persistent)
            .map_err(|source| failed("set the persistence of", &self.name, source))
    }

    /// Restricts attaching without `CAP_NET_ADMIN` to this user. Without an owner, every user that can open
    /// `/dev/net/tun` may attach.
    ///
    /// # Errors
    /// [`TapError::Kernel`] if the device was deleted.
    pub fn set_owner(&self, uid: u32) -> Result<(), TapError> {
        ioctl::set_owner(self.as_fd(), uid).map_err(|source| failed("set the owner of", &self.name, source))
    }

    /// Reads one frame, truncated to the length of `buffer`, and returns its length. Never blocks.
    ///
    /// # Errors
    /// `WouldBlock` if no frame is queued; `EBADFD` or `EFAULT` if the device was deleted.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.descriptor, buffer)?)
    }

    /// Writes one frame. Never blocks.
    ///
    /// # Errors
    /// `EIO` if the device is down; `EINVAL` if the bytes are not a frame; `EBADFD` if the device was deleted.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.descriptor, frame)?;
        Ok(())
    }
}

/// For polling, which reports `POLLERR` once the device was deleted.
impl AsFd for TapDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// As [`TapDevice::attach`], for a process that is to inherit the descriptor. With `offload` each frame is preceded by
/// a virtio header, by which checksums and segmentation are left to the other side.
///
/// # Errors
/// Those of [`TapDevice::attach`].
pub fn attach_descriptor(name: &str, offload: bool) -> Result<OwnedFd, TapError> {
    attach(name, if offload { ioctl::TAP | ioctl::HEADER } else { ioctl::TAP })
}

fn attach(name: &str, flags: u16) -> Result<OwnedFd, TapError> {
    let descriptor = open(name)?;
    if !exists(name)? {
        return Err(TapError::Absent(name.to_owned()));
    }
    match ioctl::set_interface(descriptor.as_fd(), name, flags) {
        Ok(()) => {}
        Err(Errno::BUSY) => return Err(TapError::Busy(name.to_owned())),
        Err(Errno::INVAL) => return Err(TapError::NotTap(name.to_owned())),
        Err(source) => return Err(failed("attach to", name, source)),
    }
    // If it was deleted after the lookup, the kernel created a new one, which is deleted with the descriptor.
    let flags = ioctl::flags(descriptor.as_fd()).map_err(|source| failed("attach to", name, source))?;
    if flags & ioctl::PERSISTENT == 0 {
        return Err(TapError::Absent(name.to_owned()));
    }
    Ok(descriptor)
}

fn open(name: &str) -> Result<OwnedFd, TapError> {
    if !ioctl::is_valid_name(name) {
        return Err(TapError::Name(name.to_owned()));
    }
    ioctl::open().map_err(|source| TapError::Open(source.into()))
}

/// Whether the network namespace of this thread has a device of that name.
fn exists(name: &str) -> Result<bool, TapError> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    match socket.and_then(|socket| netdevice::name_to_index(socket, name)) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV) => Ok(false),
        Err(source) => Err(failed("look up", name, source)),
    }
}

fn failed(attempt: &'static str, name: &str, source: Errno) -> TapError {
    TapError::Kernel { attempt, name: name.to_owned(), source: source.into() }
}
