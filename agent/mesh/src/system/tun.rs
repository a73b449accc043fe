//! The TUN device. Owns making it, attaching to it, reading and writing it; never its address, its routes, or whether it is
//! up, which are the agent's. It is persistent: it stays, with address and routes, when this process ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use otherix_tun::ioctl;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::link;
use crate::packet::merge::Takes;
use crate::packet::virtio;

/// Packets that wait for this process where VXLAN's are not handed over in large ones: at the kernel's 500, TCP loses many.
const QUEUE: i32 = 10_000;

/// Which large packets the kernel hands over and takes. Each has what those below it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Offload {
    /// None at all, and every checksum made.
    None,
    /// TCP; every kernel that has TUN.
    Tcp,
    /// UDP; since Linux 6.2.
    Udp,
    /// TCP in VXLAN; since Linux 6.17.
    Tunnel,
}

impl Offload {
    /// From the best on.
    const ALL: [Self; 4] = [Self::Tunnel, Self::Udp, Self::Tcp, Self::None];

    /// Bits of `TUNSETOFFLOAD`: CSUM, TSO4, TSO6; USO4, USO6; UDP_TUNNEL_GSO, UDP_TUNNEL_GSO_CSUM.
    const fn bits(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Tcp => 0x07,
            Self::Udp => 0x67,
            Self::Tunnel => 0x1e7,
        }
    }

    pub(crate) fn takes(self) -> Takes {
        Takes { tcp: self >= Self::Tcp, udp: self >= Self::Udp, tunnel: self >= Self::Tunnel }
    }
}

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// Not a name that a device can have.
    #[error("`{0}` cannot be the name of a device")]
    Name(String),
    /// There is no TUN in this kernel, or no permission.
    #[error("cannot open `/dev/net/tun`")]
    Open(#[source] io::Error),
    /// Somebody else is attached.
    #[error("the device `{0}` belongs to another process")]
    Busy(String),
    /// It is something else, or a TUN device that another program made.
    #[error("there is a device `{0}`, but it is not a TUN device of this program's kind")]
    Other(String),
    /// It lacks the alias that it must have.
    #[error("there is a device `{0}` that otherix did not make: remove or rename it")]
    NotOurs(String),
    /// The kernel refused.
    #[error("cannot {attempt} the TUN device `{name}`")]
    Kernel {
        /// What was attempted.
        attempt: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The process's end of the device.
#[derive(Debug)]
pub(crate) struct Tun {
    end: OwnedFd,
    offload: Offload,
}

impl Tun {
    /// Attaches to the device of that name in this thread's network namespace; makes it, with that MTU, if there is none. With an
    /// `alias` it is one of that alias, and no other is attached to: nobody ever sees it under its name without.
    pub(crate) fn open(name: &str, mtu: u16, most: Offload, alias: Option<&str>) -> Result<Self, TunError> {
        if !ioctl::is_valid_name(name) {
            return Err(TunError::Name(name.to_owned()));
        }
        let end = ioctl::open().map_err(|source| TunError::Open(source.into()))?;
        let made = match alias {
            None => make_or_attach(&end, name)?.then(|| name.to_owned()),
            Some(alias) => attach_or_begin(&end, name, alias)?,
        };
        let (wanted, name) = (name, made.as_deref().unwrap_or(name));
        let failed =
            |attempt| move |source: Errno| TunError::Kernel { attempt, name: name.to_owned(), source: source.into() };
        let size = i32::try_from(virtio::HEADER).unwrap_or(i32::MAX);
        ioctl::set_header_size(end.as_fd(), size).map_err(failed("set the header of"))?;
        let mut offload = Offload::None;
        for level in Offload::ALL.into_iter().filter(|level| *level <= most) {
            match ioctl::set_offload(end.as_fd(), level.bits()) {
                Ok(()) => {
                    offload = level;
                    break;
                }
                Err(Errno::INVAL) => {} // a kernel that is older
                Err(source) => return Err(failed("set the offloads of")(source)),
            }
        }
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(failed("open a socket for"))?;
        if offload < Offload::Tunnel {
            ioctl::set_queue_length(socket.as_fd(), name, QUEUE).map_err(failed("set the queue of"))?;
        }
        if made.is_some() {
            ioctl::set_mtu(socket.as_fd(), name, mtu.into()).map_err(failed("set the MTU of"))?;
            if let Some(alias) = alias {
                link::rename_and_alias(name, wanted, alias).map_err(|source| TunError::Kernel {
                    attempt: "name",
                    name: wanted.to_owned(),
                    source,
                })?;
            }
            // From here on it is there without this process: it is complete.
            ioctl::set_persistent(end.as_fd(), true).map_err(failed("keep"))?;
        }
        Ok(Self { end, offload })
    }

    /// Which large packets it hands over and takes.
    pub(crate) const fn offload(&self) -> Offload {
        self.offload
    }

    /// Reads a header and a packet; what does not fit is lost. Never waits.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.end, buffer)?)
    }

    /// Writes a header and a packet. Never waits.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.end, bytes)?;
        Ok(())
    }
}

/// For polling; it says `ERR` when the device is gone.
impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// Whether an error means that the device is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BADFD.raw_os_error())
}

/// Attaches to the device of that name and alias. Gives the name of another, made down, if there is none: it goes with this
/// process until it is kept.
fn attach_or_begin(end: &OwnedFd, name: &str, alias: &str) -> Result<Option<String>, TunError> {
    let kernel = |attempt, source| TunError::Kernel { attempt, name: name.to_owned(), source };
    match link::find_link(name).map_err(|source| kernel("look for", source))? {
        Some(link) if link.alias.as_deref() == Some(alias) => {
            make_or_attach(end, name).map(|made| made.then(|| name.to_owned()))
        }
        Some(_) => Err(TunError::NotOurs(name.to_owned())),
        None => {
            let temporary = format!("otwg.{}", std::process::id());
            ioctl::set_interface(end.as_fd(), &temporary, ioctl::TUN | ioctl::EXCLUSIVE)
                .map_err(|source| kernel("make", source.into()))?;
            Ok(Some(temporary))
        }
    }
}

/// True if it was made.
fn make_or_attach(end: &OwnedFd, name: &str) -> Result<bool, TunError> {
    let failed = |attempt, source: Errno| TunError::Kernel { attempt, name: name.to_owned(), source: source.into() };
    match ioctl::set_interface(end.as_fd(), name, ioctl::TUN | ioctl::EXCLUSIVE) {
        Ok(()) => return Ok(true),
        Err(Errno::BUSY) => {} // there is one
        Err(source) => return Err(failed("make", source)),
    }
    match ioctl::set_interface(end.as_fd(), name, ioctl::TUN) {
        Ok(()) => Ok(false),
        Err(Errno::BUSY) => Err(TunError::Busy(name.to_owned())),
        Err(Errno::INVAL) => Err(TunError::Other(name.to_owned())),
        Err(source) => Err(failed("attach to", source)),
    }
}
