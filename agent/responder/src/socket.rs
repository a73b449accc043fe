//! The packet socket of a tap, and all unsafe code of this crate.
#![expect(unsafe_code, reason = "the kernel reads options and addresses of packet sockets through pointers")]

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::filter::Instruction;

/// `PACKET_IGNORE_OUTGOING` (since Linux 4.20), which `libc` does not have.
const IGNORE_OUTGOING: libc::c_int = 23;

/// What a guest sends beyond its receive buffer is lost: that of DHCP, and that of DNS, in bytes. A small frame takes
/// some 400 of them, as the kernel doubles what is set.
pub const DHCP_BUFFER: libc::c_int = 32 * 1024;
/// See [`DHCP_BUFFER`].
pub const DNS_BUFFER: libc::c_int = 128 * 1024;

/// A packet socket that receives what comes out of one device, as far as the filter accepts it, and sends to it.
#[derive(Debug)]
pub struct TapSocket(AsyncFd<OwnedFd>);

impl TapSocket {
    /// Opens a socket on the device with this index, in the network namespace of the calling thread, with a receive
    /// buffer of this size.
    ///
    /// # Errors
    /// There is no such device, or the process lacks `CAP_NET_RAW`.
    pub fn open(index: u32, program: &[Instruction], buffer: libc::c_int) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Of no protocol: it receives nothing before it has its filter.
        // SAFETY: `socket` takes no pointers.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        attach_filter(&socket, program)?;
        set(&socket, libc::SOL_PACKET, IGNORE_OUTGOING, &1)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &buffer)?;
        bind(&socket, index)?;
        // SAFETY: the descriptor stays open as long as it is registered: `AsyncFd` owns it.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits for the next frame. Returns its length.
    ///
    /// # Errors
    /// The device is down or was deleted. It can be used on if the device is up again.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|socket| Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?));
            if let Ok(received) = received {
                return received;
            }
        }
    }

    /// Sends a frame to the guest. It is lost if the device has no room.
    ///
    /// # Errors
    /// The device is down or was deleted, or has no room.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}

fn attach_filter(socket: &OwnedFd, program: &[Instruction]) -> io::Result<()> {
    let instruction = |Instruction { code, skip: (jt, jf), value }: &Instruction| libc::sock_filter {
        code: *code,
        jt: *jt,
        jf: *jf,
        k: *value,
    };
    let mut filter: Vec<_> = program.iter().map(instruction).collect();
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len, filter: filter.as_mut_ptr() })
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes of the value, and the filter that it may point to, which has as many
    // instructions as it says.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), length) })
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET.try_into().map_err(io::Error::other)?,
        // All protocols: a socket for one of them receives nothing of a bridge's port.
        sll_protocol: u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be(),
        sll_ifindex: index.try_into().map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes of the address.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
