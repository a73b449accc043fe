//! The settings of a port of a bridge, by their numbers in linux/if_link.h.

/// What it does with frames, one of the states of linux/if_bridge.h.
pub(in crate::kernel) const STATE: u16 = 1;
pub(in crate::kernel) const FORWARDING: u8 = 3;
pub(in crate::kernel) const LEARNING: u16 = 8;
pub(in crate::kernel) const LOCKED: u16 = 39;

/// How the kernel makes a port: which of these are on.
pub(in crate::kernel) const PLAIN: [(u16, bool); 12] = [
    (4, false),  // IFLA_BRPORT_MODE: frames go back out where they came in
    (5, false),  // IFLA_BRPORT_GUARD
    (6, false),  // IFLA_BRPORT_PROTECT
    (7, false),  // IFLA_BRPORT_FAST_LEAVE
    (9, true),   // IFLA_BRPORT_UNICAST_FLOOD
    (10, false), // IFLA_BRPORT_PROXYARP
    (12, false), // IFLA_BRPORT_PROXYARP_WIFI
    (27, true),  // IFLA_BRPORT_MCAST_FLOOD
    (28, false), // IFLA_BRPORT_MCAST_TO_UCAST
    (30, true),  // IFLA_BRPORT_BCAST_FLOOD
    (32, false), // IFLA_BRPORT_NEIGH_SUPPRESS
    (33, false), // IFLA_BRPORT_ISOLATED
];
