//! The system calls themselves. All that is unsafe is here, each call behind a safe function with the types that the kernel's
//! `include/uapi/linux/if_tun.h`, `if.h` and `sockios.h` demand.

#![expect(unsafe_code, reason = "`ioctl` is unsafe: the kernel reads and writes what the request's number says")]

use std::os::fd::BorrowedFd;

use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};

/// IP packets (`IFF_TUN`), without the four bytes of packet information (`IFF_NO_PI`), with a virtio header (`IFF_VNET_HDR`).
pub(super) const TUN: u16 = 0x0001 | 0x1000 | 0x4000;
/// Make it, or fail (`IFF_TUN_EXCL`).
pub(super) const EXCLUSIVE: u16 = 0x8000;

const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
const SET_PERSISTENT: Opcode = opcode::write::<i32>(b'T', 203);
const SET_OFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const SET_HEADER_SIZE: Opcode = opcode::write::<i32>(b'T', 216);
const SET_MTU: Opcode = 0x8922;
const SET_QUEUE_LENGTH: Opcode = 0x8943;

/// `struct ifreq`: a name, ended by a zero, and a union, whose first bytes are flags or a number.
#[repr(C, align(8))]
pub(super) struct Request {
    name: [u8; 16],
    value: [u8; 4],
    rest: [u8; 20],
}

const _: () = assert!(size_of::<Request>() == 40, "the kernel copies 40 bytes on a 64-bit machine");

impl Request {
    /// `name` has at most 15 bytes; more would be cut off.
    pub(super) fn new(name: &str) -> Self {
        let mut request = Self { name: [0; 16], value: [0; 4], rest: [0; 20] };
        for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        request
    }
}

/// `TUNSETIFF`: makes the device of that name, or attaches to it.
pub(super) fn set_interface(end: BorrowedFd<'_>, name: &str, flags: u16) -> Result<()> {
    let mut request = Request::new(name);
    let [low, high] = flags.to_ne_bytes();
    request.value = [low, high, 0, 0];
    // SAFETY: this request reads and writes one `ifreq`, and nothing of it is a pointer.
    unsafe { ioctl(end, Updater::<SET_INTERFACE, Request>::new(&mut request)) }
}

/// `TUNSETPERSIST`: it outlives those who are attached.
pub(super) fn set_persistent(end: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: this request takes a number, not a pointer.
    unsafe { ioctl(end, IntegerSetter::<SET_PERSISTENT>::new_usize(1)) }
}

/// `TUNSETOFFLOAD`: which large packets the kernel may hand over.
pub(super) fn set_offload(end: BorrowedFd<'_>, bits: u16) -> Result<()> {
    // SAFETY: this request takes a number, not a pointer.
    unsafe { ioctl(end, IntegerSetter::<SET_OFFLOAD>::new_usize(usize::from(bits))) }
}

/// `TUNSETVNETHDRSZ`: how long the header of each packet is.
pub(super) fn set_header_size(end: BorrowedFd<'_>, size: i32) -> Result<()> {
    // SAFETY: this request reads one `int`.
    unsafe { ioctl(end, Setter::<SET_HEADER_SIZE, i32>::new(size)) }
}

/// `SIOCSIFMTU`, on a socket of any kind.
pub(super) fn set_mtu(socket: BorrowedFd<'_>, name: &str, mtu: i32) -> Result<()> {
    set_number::<SET_MTU>(socket, name, mtu)
}

/// `SIOCSIFTXQLEN`, on a socket of any kind.
pub(super) fn set_queue_length(socket: BorrowedFd<'_>, name: &str, packets: i32) -> Result<()> {
    set_number::<SET_QUEUE_LENGTH>(socket, name, packets)
}

fn set_number<const OPCODE: Opcode>(socket: BorrowedFd<'_>, name: &str, value: i32) -> Result<()> {
    let mut request = Request::new(name);
    request.value = value.to_ne_bytes();
    // SAFETY: the requests that this is called with read and write one `ifreq`, and nothing of it is a pointer.
    unsafe { ioctl(socket, Updater::<OPCODE, Request>::new(&mut request)) }
}
