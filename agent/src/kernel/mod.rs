//! The kernel: links, bridge ports and IPv4 over rtnetlink, the packet filter over nfnetlink, and some settings of
//! `/proc/sys`. Owns the sockets and the form of the messages; decides nothing.
//!
//! - [`handle`]: [`Kernel`], which reads and changes; `requests`: its rtnetlink socket
//! - [`message`]: the requests; `read`: the replies and notifications
//! - `watch`: notifications; `nft`: the packet filter; `sysctl`, `aio`: settings
//! - `mesh`, `wireguard`: the mesh device
//!
//! Never mentions VLANs to a kernel that has not mentioned them, unless a network has one: a kernel without VLAN
//! filtering refuses the whole message.

mod aio;
mod error;
mod handle;
pub(crate) mod mesh;
pub(crate) mod message;
mod nft;
mod read;
mod requests;
mod sysctl;
mod watch;
mod wireguard;

pub use error::KernelError;
pub use handle::{Kernel, Read};
pub use watch::{Lost, Watch};

pub(crate) use handle::refusal;
pub(crate) use requests::{Answer, RequestError};
pub(crate) use sysctl::new_links_forward;
