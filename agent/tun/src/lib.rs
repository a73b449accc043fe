//! TUN and TAP devices: the system calls of both ([`ioctl`]), and TAP devices with Ethernet frames ([`TapDevice`]). Does not
//! configure a device otherwise (address, MTU, bridge, up or down); that is rtnetlink's.
//!
//! A device is looked up, and created, in the network namespace of the calling thread; the [`TapDevice`] belongs to that
//! namespace wherever it is used later. It carries bare Ethernet frames: no packet information, no virtio header, one queue.

mod error;
pub mod ioctl;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

pub use crate::error::TapError;

/// Enough for any frame: the largest MTU that a tap can have is 65,521, and its header 14 bytes.
pub const FRAME_MAX: usize = 65_536;

/// An end of a TAP device: what the kernel sends to the device is read from it, what is written to it is what the device
/// receives. When it is dropped the device is gone, unless it is persistent.
#[derive(Debug)]
pub struct TapDevice {
    name: String,
    end: OwnedFd,
}

impl TapDevice {
    /// Makes a device; it is down, and has a random MAC. A `%` in the name is refused: the kernel would put a number in its place.
    ///
    /// # Errors
    /// [`TapError::Exists`] if there is a device of that name, of whatever kind; [`TapError::Name`], [`TapError::Open`],
    /// [`TapError::Kernel`] (it needs `CAP_NET_ADMIN`).
    pub fn create(name: &str) -> Result<Self, TapError> {
        let end = open(name)?;
        match ioctl::set_interface(end.as_fd(), name, ioctl::TAP | ioctl::EXCLUSIVE) {
            Ok(()) => Ok(Self { name: name.to_owned(), end }),
            Err(Errno::BUSY) => Err(TapError::Exists(name.to_owned())),
            Err(source) => Err(failed("make", name, source)),
        }
    }

    /// Attaches to a persistent device that is there, as a hypervisor does. It gives the device its carrier.
    ///
    /// # Errors
    /// [`TapError::Absent`] if there is no such device; [`TapError::Busy`] if somebody else is attached;
    /// [`TapError::NotTap`]; [`TapError::Name`], [`TapError::Open`], [`TapError::Kernel`].
    pub fn attach(name: &str) -> Result<Self, TapError> {
        let end = open(name)?;
        if !exists(name)? {
            return Err(TapError::Absent(name.to_owned()));
        }
        match ioctl::set_interface(end.as_fd(), name, ioctl::TAP) {
            Ok(()) => {}
            Err(Errno::BUSY) => return Err(TapError::Busy(name.to_owned())),
            Err(Errno::INVAL) => return Err(TapError::NotTap(name.to_owned())),
            Err(source) => return Err(failed("attach to", name, source)),
        }
        // Had it gone since it was looked for, the kernel would have made a new one, which goes with `end`.
        let flags = ioctl::flags(end.as_fd()).map_err(|source| failed("attach to", name, source))?;
        if flags & ioctl::PERSISTENT == 0 {
            return Err(TapError::Absent(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), end })
    }

    /// The name by which it was made or found; the device may have another by now.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device stays when nobody is attached any more.
    ///
    /// # Errors
    /// [`TapError::Kernel`], if the device is gone.
    pub fn set_persistent(&self, persistent: bool) -> Result<(), TapError> {
        ioctl::set_persistent(self.as_fd(), persistent).map_err(|source| failed("keep", &self.name, source))
    }

    /// Who may attach without `CAP_NET_ADMIN`: this user id only. Without an owner everybody may who can open `/dev/net/tun`.
    ///
    /// # Errors
    /// [`TapError::Kernel`], if the device is gone.
    pub fn set_owner(&self, uid: u32) -> Result<(), TapError> {
        ioctl::set_owner(self.as_fd(), uid).map_err(|source| failed("set the owner of", &self.name, source))
    }

    /// Reads one frame; what does not fit into `buffer` is lost. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; `EBADFD` or `EFAULT` if the device is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.end, buffer)?)
    }

    /// Writes one frame. Never waits.
    ///
    /// # Errors
    /// `EIO` if the device is down; `EINVAL` if it is no frame; `EBADFD` if the device is gone.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.end, frame)?;
        Ok(())
    }
}

/// For polling; it says `ERR` when the device is gone.
impl AsFd for TapDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// Opens an end for a device of that name.
fn open(name: &str) -> Result<OwnedFd, TapError> {
    if !ioctl::is_valid_name(name) {
        return Err(TapError::Name(name.to_owned()));
    }
    ioctl::open().map_err(|source| TapError::Open(source.into()))
}

/// True if this thread's namespace has a device of that name.
fn exists(name: &str) -> Result<bool, TapError> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    match socket.and_then(|socket| netdevice::name_to_index(socket, name)) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV) => Ok(false),
        Err(source) => Err(failed("look for", name, source)),
    }
}

fn failed(attempt: &'static str, name: &str, source: Errno) -> TapError {
    TapError::Kernel { attempt, name: name.to_owned(), source: source.into() }
}
