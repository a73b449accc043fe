//! A notification of the kernel.

use super::ip::IpChange;
use super::link::LinkChange;

/// A change on the node that the kernel notified of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    Link(LinkChange),
    /// The host's own IPv6 was enabled or disabled on the link with this interface index.
    Ipv6 {
        index: u32,
        on: bool,
    },
    /// The host's own IPv6 was enabled or disabled on all links.
    Ipv6OfAll,
    /// The bridge port with this interface index changed; the notification does not say how.
    Port(u32),
    Ip(IpChange),
    Firewall {
        /// A table of ours, or something in it, changed; otherwise one of another program.
        ours: bool,
    },
}
