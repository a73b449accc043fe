//! The kernel's side of the device: the TUN end and the UDP sockets, with safe interfaces. All that is unsafe is in `request`.

mod link;
mod request;
pub(super) mod tun;
pub(super) mod udp;
