//! Settings of `/proc/sys`: the host's IPv6 on our devices, and IPv4 forwarding.
//!
//! To change one of them the kernel needs the rtnl lock, and restarts the `write` of a process that does not get it,
//! without a pause. Here the lock is waited for instead, in the queue of those who want it: see [`super::aio`] and
//! docs/adr/0012.

use std::fs::{self, File};
use std::io::{self, Write};

use super::aio::Aio;
use super::message;
use super::requests::Requests;

/// The index of `lo`, which every network namespace has.
const LOOPBACK: u32 = 1;

/// How often the lock is waited for: between the wait and the write another process may get it. Then a plain `write` is
/// made.
const ATTEMPTS: u32 = 100;

/// How settings are written.
#[derive(Debug, Default)]
pub(super) enum Sysctls {
    /// None has been written yet.
    #[default]
    Untried,
    /// By a write that is not restarted.
    Aio(Aio),
    /// By a plain `write`, because nothing else works: before Linux 5.10, files of `/proc/sys` support no other.
    Plain,
}

impl Sysctls {
    /// Turns the host's own IPv6 off on a device of ours. Traffic between guests is not affected.
    ///
    /// A device that is set up gets a link-local address and accepts router advertisements: guests could reach the host
    /// and change its routes. It also costs: the kernel goes through the multicast routes of all such bridges when one
    /// is set up (measured with 1,000 bridges: 1.4 ms instead of 0.6 ms for a creation).
    ///
    /// A kernel without IPv6, or a device whose MTU is too small for it, has nothing to turn off. A failure is only
    /// logged: the device works.
    pub(super) fn disable_ipv6(&mut self, requests: &mut Requests, name: &str) {
        match self.set(requests, &format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), true) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, device = name, "cannot turn off the host's IPv6 on a device");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Turns a setting on or off.
    pub(super) fn set(&mut self, requests: &mut Requests, path: &str, on: bool) -> io::Result<()> {
        let value: &[u8] = if on { b"1" } else { b"0" };
        let mut file = File::options().write(true).open(path)?;
        if matches!(self, Self::Untried) {
            *self = Aio::new().map_or_else(plain, Self::Aio);
        }
        for _ in 0..ATTEMPTS {
            let Self::Aio(aio) = self else { break };
            match aio.write(&file, value) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => wait_for_rtnl(requests),
                Ok(done) => return done,
                Err(error) => *self = plain(error),
            }
        }
        file.write_all(value)
    }
}

/// Waits until it is this process's turn to take the rtnl lock, and releases it again.
fn wait_for_rtnl(requests: &mut Requests) {
    // The kernel replies while it holds the lock. The reply does not matter.
    let _answer = requests.ask(&message::get_link(LOOPBACK));
}

fn plain(error: io::Error) -> Sysctls {
    tracing::debug!(%error, "settings are changed by plain writes");
    Sysctls::Plain
}

/// Whether new links forward IPv4.
pub(crate) fn new_links_forward() -> bool {
    fs::read_to_string(forwarding("default")).is_ok_and(|on| on.trim() != "0")
}

pub(super) fn forwarding(name: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{name}/forwarding")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of this thread, which can be changed by `write` alone, as files of `/proc/sys` before Linux 5.10.
    const NAME: &str = "/proc/thread-self/comm";

    #[test]
    fn falls_back_to_plain_writes_for_good() {
        let mut requests = Requests::open().unwrap();
        let mut sysctls = Sysctls::default();
        sysctls.set(&mut requests, NAME, true).unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), "1\n");
        assert!(matches!(sysctls, Sysctls::Plain), "{sysctls:?}");
        sysctls.set(&mut requests, NAME, false).unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), "0\n");
    }
}
