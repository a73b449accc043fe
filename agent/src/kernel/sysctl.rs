//! The switches of `/proc/sys`: IPv6 of the host on our devices, and what forwards IPv4.
//!
//! To turn one the kernel must have the lock of all changes of links, and has whoever does not get it try again without a pause.
//! Here it is waited for instead, in the line of all who want it; see [`super::aio`].

use std::fs::{self, File};
use std::io::{self, Write};

use super::aio::Aio;
use super::message;
use super::steps::Kernel;

/// `lo`, which is in every network namespace.
const LOOPBACK: u32 = 1;

/// How often it is waited for the lock until somebody else turns out to have it again. Then the kernel may try as it does.
const TURNS: u32 = 100;

/// `EINVAL`: before Linux 5.8 files of `/proc/sys` could not be written so.
const EINVAL: i32 = 22;

impl Kernel {
    /// Turns the host's own IPv6 off on a device of ours. What guests send one another passes all the same.
    ///
    /// A device that is set up gets a link-local address, and believes router advertisements: guests could talk to the host, and
    /// tell it where to route. It also costs: each such bridge makes the kernel go through the multicast routes of all others
    /// when it is set up (measured with 1,000 bridges: 1.4 ms instead of 0.6 ms for a creation).
    ///
    /// A kernel without IPv6, or a device whose MTU is too small for it, has nothing to turn off; when it cannot be, that is logged
    /// and no more: the device does what it is for.
    pub(super) fn turn_off_ipv6(&mut self, name: &str) {
        match self.turn(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), true) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %error, device = name, "cannot turn off IPv6 of the host on a device");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Has a device forward IPv4, or not.
    pub(super) fn forward_ipv4(&mut self, name: &str, on: bool) -> io::Result<()> {
        self.turn(&forwarding(name), on)
    }

    fn turn(&mut self, path: &str, on: bool) -> io::Result<()> {
        let value: &[u8] = if on { b"1" } else { b"0" };
        let mut file = File::options().write(true).open(path)?;
        for _ in 0..TURNS {
            let Some(aio) = &mut self.aio else { break };
            match aio.write(&file, value) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.wait_for_links(),
                Err(error) if error.raw_os_error() == Some(EINVAL) => self.aio = None,
                done => return done,
            }
        }
        file.write_all(value)
    }

    /// Waits until it is this process's turn to have the lock of all changes of links, and lets go of it again.
    fn wait_for_links(&mut self) {
        // The kernel answers while it has the lock. What it answers does not matter.
        let _answer = self.requests.ask(&message::look(LOOPBACK));
    }
}

/// What can be written so; nothing if the kernel has no such thing.
pub(super) fn writer() -> Option<Aio> {
    Aio::new().inspect_err(|error| tracing::debug!(%error, "switches are turned by `write`")).ok()
}

/// Whether new devices forward IPv4.
pub(super) fn new_ones_forward() -> bool {
    fs::read_to_string(forwarding("default")).is_ok_and(|on| on.trim() != "0")
}

fn forwarding(name: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{name}/forwarding")
}
