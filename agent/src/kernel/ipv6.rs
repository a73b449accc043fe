//! The host's own IPv6 on our bridges: there is none. What guests send one another passes all the same.
//!
//! A bridge that is set up gets a link-local address, and believes router advertisements: guests could talk to the host, and
//! tell it where to route. It also costs: each such bridge makes the kernel go through the multicast routes of all others
//! when it is set up (measured with 1,000 bridges: 1.4 ms instead of 0.6 ms for a creation).

use std::fs;
use std::io;

/// Turns it off on the device of this name. A kernel without IPv6, or a device whose MTU is too small for it, has nothing to
/// turn off; when it cannot be, that is logged and no more: the bridge does what it is for.
pub(super) fn turn_off(name: &str) {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(error = %error, device = name, "cannot turn off IPv6 of the host on a bridge");
        }
        Ok(()) | Err(_) => {}
    }
}
