//! `/dev/net/tun`: its system calls, behind safe functions with the types that the kernel's `include/uapi/linux/if_tun.h`,
//! `if.h` and `sockios.h` define. Everything unsafe about TUN and TAP devices is here.

#![expect(unsafe_code, reason = "`ioctl` is unsafe: the kernel reads and writes what the request's number says")]

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};

/// The device file.
pub const DEVICE: &str = "/dev/net/tun";

/// Longest interface name, in bytes (`IFNAMSIZ` without the terminating zero).
pub const NAME_MAX: usize = 15;

/// IP packets (`IFF_TUN`), without packet information (`IFF_NO_PI`), with a virtio header (`IFF_VNET_HDR`).
pub const TUN: u16 = 0x0001 | 0x1000 | 0x4000;
/// Ethernet frames (`IFF_TAP`), without packet information (`IFF_NO_PI`).
pub const TAP: u16 = 0x0002 | 0x1000;
/// Create the device, or fail (`IFF_TUN_EXCL`).
pub const EXCLUSIVE: u16 = 0x8000;
/// The device outlives the processes attached to it (`IFF_PERSIST`).
pub const PERSISTENT: u16 = 0x0800;

const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
const SET_PERSISTENT: Opcode = opcode::write::<i32>(b'T', 203);
const SET_OWNER: Opcode = opcode::write::<i32>(b'T', 204);
const SET_OFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const GET_INTERFACE: Opcode = opcode::read::<u32>(b'T', 210);
const SET_HEADER_SIZE: Opcode = opcode::write::<i32>(b'T', 216);
const SET_MTU: Opcode = 0x8922;
const SET_QUEUE_LENGTH: Opcode = 0x8943;

/// `struct ifreq`: a zero-terminated name, and a union whose first bytes are flags or a number.
#[repr(C, align(8))]
struct Request {
    name: [u8; NAME_MAX + 1],
    value: [u8; 4],
    rest: [u8; 20],
}

const _: () = assert!(size_of::<Request>() == 40, "the kernel copies 40 bytes on a 64-bit machine");

impl Request {
    /// A name longer than [`NAME_MAX`] is truncated.
    fn new(name: &str, value: [u8; 4]) -> Self {
        let mut request = Self { name: [0; NAME_MAX + 1], value, rest: [0; 20] };
        for (to, from) in request.name.iter_mut().take(NAME_MAX).zip(name.bytes()) {
            *to = from;
        }
        request
    }
}

/// Whether the kernel accepts the text as an interface name as it stands: it would replace a `%` by a number.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['\0', '/', ':', '%'])
        && !name.contains(char::is_whitespace)
}

/// Opens the device file, non-blocking.
///
/// # Errors
/// Those of `open`: `ENOENT` or `ENODEV` without TUN in the kernel, `EACCES` without permission.
pub fn open() -> Result<OwnedFd> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// `TUNSETIFF`: creates the device of that name, or attaches to it.
///
/// # Errors
/// `EBUSY` if it exists or is in use, `EINVAL` if it is of another type, `EPERM` without `CAP_NET_ADMIN`.
pub fn set_interface(end: BorrowedFd<'_>, name: &str, flags: u16) -> Result<()> {
    let [low, high] = flags.to_ne_bytes();
    let mut request = Request::new(name, [low, high, 0, 0]);
    // SAFETY: this request reads and writes one `ifreq`, and nothing of it is a pointer.
    unsafe { ioctl(end, Updater::<SET_INTERFACE, Request>::new(&mut request)) }
}

/// `TUNGETIFF`: the flags of the device that `end` is attached to.
///
/// # Errors
/// `EBADFD` if it is attached to none.
pub fn flags(end: BorrowedFd<'_>) -> Result<u16> {
    let mut request = Request::new("", [0; 4]);
    // SAFETY: this request writes one `ifreq`.
    unsafe { ioctl(end, Updater::<GET_INTERFACE, Request>::new(&mut request)) }?;
    let [low, high, _, _] = request.value;
    Ok(u16::from_ne_bytes([low, high]))
}

/// `TUNSETPERSIST`: whether the device outlives the processes attached to it.
///
/// # Errors
/// `EBADFD` if the device is gone.
pub fn set_persistent(end: BorrowedFd<'_>, persistent: bool) -> Result<()> {
    // SAFETY: this request takes a number, not a pointer.
    unsafe { ioctl(end, IntegerSetter::<SET_PERSISTENT>::new_usize(usize::from(persistent))) }
}

/// `TUNSETOWNER`: the user id that may attach without `CAP_NET_ADMIN`.
///
/// # Errors
/// `EBADFD` if the device is gone.
pub fn set_owner(end: BorrowedFd<'_>, uid: u32) -> Result<()> {
    // SAFETY: this request takes a number, not a pointer.
    unsafe { ioctl(end, IntegerSetter::<SET_OWNER>::new_usize(uid as usize)) }
}

/// `TUNSETOFFLOAD`: the kinds of large packets that the kernel may hand over (`TUN_F_*` bits).
///
/// # Errors
/// `EINVAL` if the kernel does not know a bit.
pub fn set_offload(end: BorrowedFd<'_>, bits: u16) -> Result<()> {
    // SAFETY: this request takes a number, not a pointer.
    unsafe { ioctl(end, IntegerSetter::<SET_OFFLOAD>::new_usize(usize::from(bits))) }
}

/// `TUNSETVNETHDRSZ`: the length of the virtio header before each packet, in bytes.
///
/// # Errors
/// `EINVAL` if it is too short.
pub fn set_header_size(end: BorrowedFd<'_>, size: i32) -> Result<()> {
    // SAFETY: this request reads one `int`.
    unsafe { ioctl(end, Setter::<SET_HEADER_SIZE, i32>::new(size)) }
}

/// `SIOCSIFMTU`, on a socket of any kind.
///
/// # Errors
/// `ENODEV` if there is no such device, `EINVAL` if the MTU is out of range.
pub fn set_mtu(socket: BorrowedFd<'_>, name: &str, mtu: i32) -> Result<()> {
    set_number::<SET_MTU>(socket, name, mtu)
}

/// `SIOCSIFTXQLEN`, on a socket of any kind: how many packets wait for the process.
///
/// # Errors
/// `ENODEV` if there is no such device.
pub fn set_queue_length(socket: BorrowedFd<'_>, name: &str, packets: i32) -> Result<()> {
    set_number::<SET_QUEUE_LENGTH>(socket, name, packets)
}

fn set_number<const OPCODE: Opcode>(socket: BorrowedFd<'_>, name: &str, value: i32) -> Result<()> {
    let mut request = Request::new(name, value.to_ne_bytes());
    // SAFETY: the requests that this is called with read and write one `ifreq`, and nothing of it is a pointer.
    unsafe { ioctl(socket, Updater::<OPCODE, Request>::new(&mut request)) }
}
