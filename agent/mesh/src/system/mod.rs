//! The kernel's side of the device: the TUN device and the UDP sockets.

mod link;
pub(super) mod tun;
pub(super) mod udp;
