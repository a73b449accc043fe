//! The system calls themselves. All that is unsafe is here, each call behind a safe function with the types that the kernel's
//! `include/uapi/linux/if_tun.h` and `if.h` demand.

#![expect(unsafe_code, reason = "`ioctl` is unsafe: the kernel reads and writes what the request's number says")]

use std::os::fd::BorrowedFd;

use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};

/// Ethernet frames (`IFF_TAP`), without the four bytes of packet information (`IFF_NO_PI`).
pub(crate) const TAP: u16 = 0x0002 | 0x1000;
/// Make it, or fail (`IFF_TUN_EXCL`).
pub(crate) const EXCLUSIVE: u16 = 0x8000;
/// It outlives those who are attached (`IFF_PERSIST`).
pub(crate) const PERSISTENT: u16 = 0x0800;

const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
const SET_PERSISTENT: Opcode = opcode::write::<i32>(b'T', 203);
const SET_OWNER: Opcode = opcode::write::<i32>(b'T', 204);
const GET_INTERFACE: Opcode = opcode::read::<u32>(b'T', 210);

/// `struct ifreq`: a name, ended by a zero, and a union of which flags are the first two bytes.
#[repr(C, align(8))]
pub(crate) struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == 40, "the kernel copies 40 bytes on a 64-bit machine");

impl Request {
    /// `name` has at most 15 bytes; more would be cut off.
    pub(crate) fn new(name: &str) -> Self {
        let mut request = Self { name: [0; 16], flags: 0, rest: [0; 22] };
        for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        request
    }
}

/// `TUNSETIFF`: makes the device of that name, or attaches to it.
pub(crate) fn set_interface(end: BorrowedFd<'_>, request: &mut Request, flags: u16) -> Result<()> {
    request.flags = flags;
    // SAFETY: this request reads and writes one `ifreq`, and nothing of it is a pointer.
    unsafe { ioctl(end, Updater::<SET_INTERFACE, Request>::new(request)) }
}

/// `TUNGETIFF`: the flags of the device that `end` is attached to.
pub(crate) fn flags(end: BorrowedFd<'_>) -> Result<u16> {
    let mut request = Request::new("");
    // SAFETY: this request writes one `ifreq`.
    unsafe { ioctl(end, Updater::<GET_INTERFACE, Request>::new(&mut request)) }?;
    Ok(request.flags)
}

/// `TUNSETPERSIST`.
pub(crate) fn set_persistent(end: BorrowedFd<'_>, persistent: bool) -> Result<()> {
    // SAFETY: this request takes a number, not a pointer.
    unsafe { ioctl(end, IntegerSetter::<SET_PERSISTENT>::new_usize(usize::from(persistent))) }
}

/// `TUNSETOWNER`.
pub(crate) fn set_owner(end: BorrowedFd<'_>, uid: u32) -> Result<()> {
    // SAFETY: this request takes a number, not a pointer.
    unsafe { ioctl(end, IntegerSetter::<SET_OWNER>::new_usize(uid as usize)) }
}
