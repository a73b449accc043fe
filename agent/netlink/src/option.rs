//! Netlink socket options that `rustix` has no wrapper for.

#![expect(unsafe_code, reason = "`setsockopt` is unsafe: the kernel reads memory through a pointer")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Adds the socket to a multicast group.
pub(crate) fn add_membership(socket: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    set(socket, libc::NETLINK_ADD_MEMBERSHIP, group)
}

/// Enables extended acknowledgements: errors have an explanation, and omit the payload of the request.
pub(crate) fn enable_extended_acknowledgements(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::NETLINK_EXT_ACK, 1)?;
    set(socket, libc::NETLINK_CAP_ACK, 1)
}

fn set(socket: BorrowedFd<'_>, option: libc::c_int, value: u32) -> io::Result<()> {
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes through the pointer, which points to a `u32` that outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
