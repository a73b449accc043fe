//! A notification of the kernel.

use super::ip::IpChange;
use super::link::LinkChange;
use super::tap_lock::TapLock;

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
    /// A lock of a tap was added to the guest filter, or removed.
    Lock(LockChange),
    Firewall {
        /// A table of ours, or something in it, changed; otherwise one of another program.
        ours: bool,
    },
}

/// A change of the locks of taps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockChange {
    /// The name of the tap.
    pub tap: String,
    pub lock: TapLock,
    /// Otherwise it was removed.
    pub is_added: bool,
}
