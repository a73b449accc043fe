//! The TUN device. Creates it, attaches to it, reads and writes packets. Address, routes and link state are the
//! agent's. The device is persistent: it remains, with address and routes, when this process ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use otherix_tun::ioctl;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::link;
use crate::packet::merge::OffloadSupport;
use crate::packet::virtio;

/// Packets that the kernel queues for this process without tunnel offload. With the kernel's default of 500, TCP in a
/// VXLAN loses many packets.
const QUEUE_LENGTH: i32 = 10_000;

/// Which GSO packets the kernel passes to the device and accepts from it. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Offload {
    /// None, and no checksum offload.
    None,
    /// TCP and checksums; every kernel with TUN.
    Tcp,
    /// UDP; since Linux 6.2.
    Udp,
    /// TCP in VXLAN; since Linux 6.17.
    Tunnel,
}

impl Offload {
    /// All levels, the highest first.
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

    pub(crate) fn support(self) -> OffloadSupport {
        OffloadSupport { tcp: self >= Self::Tcp, udp: self >= Self::Udp, tunnel: self >= Self::Tunnel }
    }
}

/// Why the TUN device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    #[error("`{0}` is not a valid name of a device")]
    Name(String),
    /// The kernel lacks TUN, or this process may not use it.
    #[error("cannot open `/dev/net/tun`")]
    Open(#[source] io::Error),
    #[error("the device `{0}` belongs to another process")]
    Busy(String),
    /// It is not a TUN device, or has other flags.
    #[error("there is a device `{0}`, but it is not a TUN device that this program can use")]
    Other(String),
    /// It lacks the required alias.
    #[error("there is a device `{0}` that otherix did not create: remove or rename it")]
    NotOurs(String),
    #[error("cannot {attempt} the TUN device `{name}`")]
    Kernel {
        attempt: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
}

/// The process's attachment to the device.
#[derive(Debug)]
pub(crate) struct Tun {
    descriptor: OwnedFd,
    offload: Offload,
}

impl Tun {
    /// Attaches to the device of this name in this thread's network namespace. If there is none, creates it with this
    /// MTU. With an `alias`, an existing device must have it, and a new one has it from the moment on at which it has
    /// its name.
    pub(crate) fn open(name: &str, mtu: u16, max_offload: Offload, alias: Option<&str>) -> Result<Self, TunError> {
        if !ioctl::is_valid_name(name) {
            return Err(TunError::Name(name.to_owned()));
        }
        let descriptor = ioctl::open().map_err(|source| TunError::Open(source.into()))?;
        // The name that a new device has for now.
        let created = match alias {
            None => create_or_attach(&descriptor, name)?.then(|| name.to_owned()),
            Some(alias) => attach_or_create_temporary(&descriptor, name, alias)?,
        };
        let (final_name, name) = (name, created.as_deref().unwrap_or(name));
        let failed =
            |attempt| move |source: Errno| TunError::Kernel { attempt, name: name.to_owned(), source: source.into() };
        let header_size = i32::try_from(virtio::HEADER_LEN).unwrap_or(i32::MAX);
        ioctl::set_header_size(descriptor.as_fd(), header_size).map_err(failed("set the header size of"))?;
        let mut offload = Offload::None;
        for level in Offload::ALL.into_iter().filter(|level| *level <= max_offload) {
            match ioctl::set_offload(descriptor.as_fd(), level.bits()) {
                Ok(()) => {
                    offload = level;
                    break;
                }
                Err(Errno::INVAL) => {} // This kernel is older.
                Err(source) => return Err(failed("set the offloads of")(source)),
            }
        }
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(failed("open a socket for"))?;
        if offload < Offload::Tunnel {
            ioctl::set_queue_length(socket.as_fd(), name, QUEUE_LENGTH).map_err(failed("set the queue length of"))?;
        }
        if created.is_some() {
            ioctl::set_mtu(socket.as_fd(), name, mtu.into()).map_err(failed("set the MTU of"))?;
            if let Some(alias) = alias {
                link::rename_and_alias(name, final_name, alias).map_err(|source| TunError::Kernel {
                    attempt: "rename",
                    name: final_name.to_owned(),
                    source,
                })?;
            }
            // Last, so that an incomplete device is deleted when this process fails.
            ioctl::set_persistent(descriptor.as_fd(), true).map_err(failed("set the persistence of"))?;
        }
        Ok(Self { descriptor, offload })
    }

    /// The offload level that is enabled.
    pub(crate) const fn offload(&self) -> Offload {
        self.offload
    }

    /// Reads a virtio header and a packet, truncated to the length of `buffer`. Never blocks.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.descriptor, buffer)?)
    }

    /// Writes a virtio header and a packet. Never blocks.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.descriptor, bytes)?;
        Ok(())
    }
}

/// For polling, which reports `POLLERR` once the device was deleted.
impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether a read or write failed because the device was deleted.
pub(crate) fn is_deleted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BADFD.raw_os_error())
}

/// Attaches to the device of this name and alias. If there is none, creates one with a temporary name, which is not
/// persistent yet, and returns that name.
fn attach_or_create_temporary(descriptor: &OwnedFd, name: &str, alias: &str) -> Result<Option<String>, TunError> {
    let failed = |attempt, source| TunError::Kernel { attempt, name: name.to_owned(), source };
    match link::find_link(name).map_err(|source| failed("look up", source))? {
        Some(link) if link.alias.as_deref() == Some(alias) => {
            create_or_attach(descriptor, name).map(|created| created.then(|| name.to_owned()))
        }
        Some(_) => Err(TunError::NotOurs(name.to_owned())),
        None => {
            let temporary = format!("otwg.{}", std::process::id());
            ioctl::set_interface(descriptor.as_fd(), &temporary, ioctl::TUN | ioctl::EXCLUSIVE)
                .map_err(|source| failed("create", source.into()))?;
            Ok(Some(temporary))
        }
    }
}

/// Returns whether the device was created.
fn create_or_attach(descriptor: &OwnedFd, name: &str) -> Result<bool, TunError> {
    let failed = |attempt, source: Errno| TunError::Kernel { attempt, name: name.to_owned(), source: source.into() };
    match ioctl::set_interface(descriptor.as_fd(), name, ioctl::TUN | ioctl::EXCLUSIVE) {
        Ok(()) => return Ok(true),
        Err(Errno::BUSY) => {} // It exists.
        Err(source) => return Err(failed("create", source)),
    }
    match ioctl::set_interface(descriptor.as_fd(), name, ioctl::TUN) {
        Ok(()) => Ok(false),
        Err(Errno::BUSY) => Err(TunError::Busy(name.to_owned())),
        Err(Errno::INVAL) => Err(TunError::Other(name.to_owned())),
        Err(source) => Err(failed("attach to", source)),
    }
}
