//! Access to the kernel: links, bridge ports and IPv4 over rtnetlink, the packet filter over nfnetlink, and some
//! settings of `/proc/sys`. Contains the sockets and the form of the messages, and no decisions.
//!
//! - [`handle`]: [`Kernel`], which reads and changes; `requests`: its rtnetlink socket
//! - [`message`]: the requests; `read`: the replies and notifications
//! - `watch`: notifications; `nft`: the packet filter; `conntrack`: connections; `sysctl`, `aio`: settings
//! - `uplink_record`: the links that forward because of this agent
//! - `mesh`, `wireguard`: the mesh device
//!
//! Messages contain VLAN attributes only if the kernel has reported some or a network has a VLAN: a kernel without VLAN
//! filtering refuses the whole message.

mod aio;
mod conntrack;
mod error;
mod handle;
pub(crate) mod mesh;
pub(crate) mod message;
mod nft;
mod read;
mod requests;
mod settings_watch;
mod sysctl;
mod uplink_record;
mod watch;
mod wireguard;

pub use error::KernelError;
pub use handle::{FilterChanges, Kernel, KernelState};
pub use watch::{KernelWatch, NotificationsLost};

pub(crate) use handle::first_error;
pub(crate) use requests::{RequestError, RequestResult};
pub(crate) use sysctl::new_links_forward;
