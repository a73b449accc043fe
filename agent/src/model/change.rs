//! What the kernel notifies of.

use super::ip::IpChange;
use super::link::LinkChange;

/// A change that the kernel notified of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Link(LinkChange),
    /// The link with this index changed as a bridge port; how is to be read.
    Port(u32),
    Ip(IpChange),
    /// A route to a single address changed: one of the mesh, or one that conflicts with it.
    HostRoute,
    /// Our table of the packet filter changed, or a chain of another.
    Firewall {
        ours: bool,
    },
}
