//! The kernel: links, ports of bridges and IPv4 over rtnetlink, the packet filter over nfnetlink, taps by `/dev/net/tun`, and
//! some switches in `/proc/sys`. Owns its sockets and the form of the messages; decides nothing.
//!
//! Never says anything of VLANs to a kernel that said nothing of them, unless a network has one: one without VLANs refuses the
//! whole message for it.

mod aio;
mod bridge;
mod bridging;
pub(crate) mod mesh;
mod message;
mod nft;
mod read;
mod requests;
mod steps;
mod sysctl;
mod tap;
mod vtep;
mod watch;
mod wireguard;

pub use steps::{Kernel, KernelError, Parts, Read};
pub use watch::{Change, Lost, Watch};
