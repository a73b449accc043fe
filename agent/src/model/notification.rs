//! A notification of the kernel.

use super::ip::IpChange;
use super::link::LinkChange;

/// A change on the node that the kernel notified of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    Link(LinkChange),
    /// The bridge port with this interface index changed; the notification does not say how.
    Port(u32),
    Ip(IpChange),
    Firewall {
        /// Our table of the packet filter changed; otherwise a chain of another table.
        ours: bool,
    },
}
