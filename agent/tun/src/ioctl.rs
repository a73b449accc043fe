//! Safe wrappers of the system calls of TUN and TAP devices, and all unsafe code of this crate. Request numbers and
//! structures are those of the kernel's `include/uapi/linux/if_tun.h`, `if.h` and `sockios.h`.

#![expect(unsafe_code, reason = "`ioctl` is unsafe: the request number determines what memory the kernel accesses")]

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};

/// The character device that TUN and TAP devices are created through.
pub const DEVICE: &str = "/dev/net/tun";

/// Maximum length of an interface name in bytes (`IFNAMSIZ` without the terminating zero).
pub const NAME_MAX: usize = 15;

/// A TUN device: IP packets (`IFF_TUN`) with a virtio header (`IFF_VNET_HDR`), without packet information
/// (`IFF_NO_PI`).
pub const TUN: u16 = 0x0001 | 0x1000 | 0x4000;
/// A TAP device: Ethernet frames (`IFF_TAP`) without packet information (`IFF_NO_PI`).
pub const TAP: u16 = 0x0002 | 0x1000;
/// A virtio header precedes each packet (`IFF_VNET_HDR`). Of an existing device it is that of the last attachment.
pub const HEADER: u16 = 0x4000;
/// Fail if the device exists (`IFF_TUN_EXCL`).
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

/// `struct ifreq`: a zero-terminated name, and a union that starts with flags or a number.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; NAME_MAX + 1],
    value: [u8; 4],
    rest: [u8; 20],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40, "`ifreq` has 40 bytes on 64-bit machines");

impl InterfaceRequest {
    /// A name longer than [`NAME_MAX`] is truncated.
    fn new(name: &str, value: [u8; 4]) -> Self {
        let mut request = Self { name: [0; NAME_MAX + 1], value, rest: [0; 20] };
        for (target, byte) in request.name.iter_mut().take(NAME_MAX).zip(name.bytes()) {
            *target = byte;
        }
        request
    }
}

/// Whether the kernel accepts the name unchanged. It would replace `%d` with a number.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['\0', '/', ':', '%'])
        && !name.contains(char::is_whitespace)
}

/// Opens [`DEVICE`] in non-blocking mode.
///
/// # Errors
/// Those of `open`: `ENOENT` or `ENODEV` if the kernel lacks TUN, `EACCES` without permission.
pub fn open() -> Result<OwnedFd> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

/// `TUNSETIFF`: attaches the descriptor to the device of that name, which is created if it does not exist.
///
/// # Errors
/// `EBUSY` if it exists or is in use, `EINVAL` if it is of another type, `EPERM` without `CAP_NET_ADMIN`.
pub fn set_interface(descriptor: BorrowedFd<'_>, name: &str, flags: u16) -> Result<()> {
    let [low, high] = flags.to_ne_bytes();
    let mut request = InterfaceRequest::new(name, [low, high, 0, 0]);
    // SAFETY: the kernel reads and writes one `ifreq`, which contains no pointer for this request.
    unsafe { ioctl(descriptor, Updater::<SET_INTERFACE, InterfaceRequest>::new(&mut request)) }
}

/// `TUNGETIFF`: the flags of the device that the descriptor is attached to.
///
/// # Errors
/// `EBADFD` if it is not attached.
pub fn flags(descriptor: BorrowedFd<'_>) -> Result<u16> {
    let mut request = InterfaceRequest::new("", [0; 4]);
    // SAFETY: the kernel writes one `ifreq`.
    unsafe { ioctl(descriptor, Updater::<GET_INTERFACE, InterfaceRequest>::new(&mut request)) }?;
    let [low, high, _, _] = request.value;
    Ok(u16::from_ne_bytes([low, high]))
}

/// `TUNSETPERSIST`: whether the device remains when no process is attached.
///
/// # Errors
/// `EBADFD` if the device was deleted.
pub fn set_persistent(descriptor: BorrowedFd<'_>, persistent: bool) -> Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { ioctl(descriptor, IntegerSetter::<SET_PERSISTENT>::new_usize(usize::from(persistent))) }
}

/// `TUNSETOWNER`: the user that may attach without `CAP_NET_ADMIN`.
///
/// # Errors
/// `EBADFD` if the device was deleted.
pub fn set_owner(descriptor: BorrowedFd<'_>, uid: u32) -> Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { ioctl(descriptor, IntegerSetter::<SET_OWNER>::new_usize(uid as usize)) }
}

/// `TUNSETOFFLOAD`: the checksum and segmentation offloads that the process supports (`TUN_F_*` bits).
///
/// # Errors
/// `EINVAL` if the kernel lacks one of them.
pub fn set_offload(descriptor: BorrowedFd<'_>, bits: u16) -> Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { ioctl(descriptor, IntegerSetter::<SET_OFFLOAD>::new_usize(usize::from(bits))) }
}

/// `TUNSETVNETHDRSZ`: the length in bytes of the virtio header before each packet.
///
/// # Errors
/// `EINVAL` if it is too short.
pub fn set_header_size(descriptor: BorrowedFd<'_>, size: i32) -> Result<()> {
    // SAFETY: the kernel reads one `int`.
    unsafe { ioctl(descriptor, Setter::<SET_HEADER_SIZE, i32>::new(size)) }
}

/// `SIOCSIFMTU`: sets the MTU in bytes. The socket may be of any type.
///
/// # Errors
/// `ENODEV` if there is no such device, `EINVAL` if the MTU is out of range.
pub fn set_mtu(socket: BorrowedFd<'_>, name: &str, mtu: i32) -> Result<()> {
    set_number::<SET_MTU>(socket, name, mtu)
}

/// `SIOCSIFTXQLEN`: sets how many packets the kernel queues for the process. The socket may be of any type.
///
/// # Errors
/// `ENODEV` if there is no such device.
pub fn set_queue_length(socket: BorrowedFd<'_>, name: &str, packets: i32) -> Result<()> {
    set_number::<SET_QUEUE_LENGTH>(socket, name, packets)
}

fn set_number<const OPCODE: Opcode>(socket: BorrowedFd<'_>, name: &str, value: i32) -> Result<()> {
    let mut request = InterfaceRequest::new(name, value.to_ne_bytes());
    // SAFETY: for both opcodes the kernel reads and writes one `ifreq`, which contains no pointer.
    unsafe { ioctl(socket, Updater::<OPCODE, InterfaceRequest>::new(&mut request)) }
}
