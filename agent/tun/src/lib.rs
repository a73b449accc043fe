//! TAP devices. Owns the calls of `/dev/net/tun` and all that is unsafe about them; never configures a device otherwise (address,
//! MTU, bridge, up or down), which is rtnetlink's.
//!
//! A device is looked for, and made, in the network namespace of the thread that asks; the [`Tap`] belongs to that namespace
//! wherever it is used later. It carries bare Ethernet frames: no packet information, no virtio header, one queue.

mod error;
mod request;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

pub use crate::error::TapError;
use crate::request::Request;

const DEVICE: &str = "/dev/net/tun";

/// Bytes of a device's name (`IFNAMSIZ`), the final zero not counted.
const NAME_MAX: usize = 15;

/// Enough for any frame: the largest MTU that a tap can have is 65,521, and its header 14 bytes.
pub const FRAME_MAX: usize = 65_536;

/// An end of a TAP device: what the kernel sends to the device is read from it, what is written to it is what the device
/// receives. When it is dropped the device is gone, unless it is persistent.
#[derive(Debug)]
pub struct Tap {
    name: String,
    end: OwnedFd,
}

impl Tap {
    /// Makes a device; it is down, and has a random MAC. A `%` in the name is refused: the kernel would put a number in its place.
    ///
    /// # Errors
    /// [`TapError::Exists`] if there is a device of that name, of whatever kind; [`TapError::Name`], [`TapError::Open`],
    /// [`TapError::Kernel`] (it needs `CAP_NET_ADMIN`).
    pub fn create(name: &str) -> Result<Self, TapError> {
        let (end, mut request) = (open()?, checked(name)?);
        match request::set_interface(end.as_fd(), &mut request, request::TAP | request::EXCLUSIVE) {
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
        let (end, mut request) = (open()?, checked(name)?);
        if !exists(name)? {
            return Err(TapError::Absent(name.to_owned()));
        }
        match request::set_interface(end.as_fd(), &mut request, request::TAP) {
            Ok(()) => {}
            Err(Errno::BUSY) => return Err(TapError::Busy(name.to_owned())),
            Err(Errno::INVAL) => return Err(TapError::NotTap(name.to_owned())),
            Err(source) => return Err(failed("attach to", name, source)),
        }
        // Had it gone since it was looked for, the kernel would have made a new one, which goes with `end`.
        let flags = request::flags(end.as_fd()).map_err(|source| failed("attach to", name, source))?;
        if flags & request::PERSISTENT == 0 {
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
        request::set_persistent(self.as_fd(), persistent).map_err(|source| failed("keep", &self.name, source))
    }

    /// Who may attach without `CAP_NET_ADMIN`: this user id only. Without an owner everybody may who can open `/dev/net/tun`.
    ///
    /// # Errors
    /// [`TapError::Kernel`], if the device is gone.
    pub fn set_owner(&self, uid: u32) -> Result<(), TapError> {
        request::set_owner(self.as_fd(), uid).map_err(|source| failed("set the owner of", &self.name, source))
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
impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

fn open() -> Result<OwnedFd, TapError> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|source| TapError::Open(source.into()))
}

fn checked(name: &str) -> Result<Request, TapError> {
    let fits = (1..=NAME_MAX).contains(&name.len())
        && !name.contains(['\0', '/', ':', '%'])
        && !name.contains(char::is_whitespace);
    if fits && name != "." && name != ".." { Ok(Request::new(name)) } else { Err(TapError::Name(name.to_owned())) }
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
