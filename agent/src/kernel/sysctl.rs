//! The switches of `/proc/sys`: IPv6 of the host on our devices, and what forwards IPv4.
//!
//! To turn one the kernel must have the lock of all changes of links (rtnl), and restarts the `write` of whoever does not get it, without a
//! pause. Here the lock is waited for instead, in the queue of all who want it: see [`super::aio`] and docs/adr/0012.

use std::fs::{self, File};
use std::io::{self, Write};

use super::aio::Aio;
use super::message;
use super::steps::Kernel;

/// `lo`, which is in every network namespace.
const LOOPBACK: u32 = 1;

/// How often the lock is waited for: between the wait and the write somebody else may get it. After that a plain `write` is made.
const TURNS: u32 = 100;

/// With what switches are turned.
#[derive(Debug, Default)]
pub(super) enum Switches {
    /// None has been turned yet.
    #[default]
    Untried,
    /// A write that is not restarted.
    Aio(Aio),
    /// A plain `write`: there is nothing else. Before Linux 5.10 files of `/proc/sys` know no other, either.
    Plain,
}

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
        if matches!(self.switches, Switches::Untried) {
            self.switches = Aio::new().map_or_else(plain, Switches::Aio);
        }
        for _ in 0..TURNS {
            let Switches::Aio(aio) = &mut self.switches else { break };
            match aio.write(&file, value) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => self.wait_for_links(),
                Ok(done) => return done,
                Err(error) => self.switches = plain(error),
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

fn plain(error: io::Error) -> Switches {
    tracing::debug!(%error, "switches are turned by plain writes");
    Switches::Plain
}

/// Whether new devices forward IPv4.
pub(super) fn new_ones_forward() -> bool {
    fs::read_to_string(forwarding("default")).is_ok_and(|on| on.trim() != "0")
}

fn forwarding(name: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{name}/forwarding")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes this thread's name by `write` alone, in any version, as files of `/proc/sys` before Linux 5.10.
    const NAME: &str = "/proc/thread-self/comm";

    #[test]
    fn what_can_only_be_written_plainly_is_and_from_then_on() {
        let mut kernel = Kernel::open().unwrap();
        kernel.turn(NAME, true).unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), "1\n");
        assert!(matches!(kernel.switches, Switches::Plain), "{:?}", kernel.switches);
        kernel.turn(NAME, false).unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), "0\n");
    }
}
