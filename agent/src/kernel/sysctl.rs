//! Settings of `/proc/sys`: the host's IPv6 on our devices, and IPv4 forwarding.
//!
//! To change one of them the kernel needs the rtnl lock. If another process holds it, the kernel restarts the `write`
//! immediately, again and again. This module queues for the lock instead: see [`super::aio`] and docs/adr/0012.

use std::fs::{self, File};
use std::io::{self, Write};

use otherix_runtime::LogLimit;

use super::aio::Aio;
use super::message;
use super::requests::Requests;

/// The index of `lo`, which every network namespace has.
const LOOPBACK: u32 = 1;

/// How often the lock is waited for: another process may take it between the wait and the write. After that, a plain
/// `write` is used.
const ATTEMPTS: u32 = 100;

/// How settings are written.
#[derive(Debug, Default)]
pub(super) enum Sysctls {
    /// Not known yet.
    #[default]
    Untried,
    /// By a write that is not restarted.
    Aio(Aio),
    /// By a plain `write`, because nothing else is supported: files of `/proc/sys` before Linux 5.10.
    Plain,
}

impl Sysctls {
    /// Disables the host's own IPv6 on a device of ours. Traffic between guests is not affected.
    ///
    /// A device that is set up gets a link-local address and accepts router advertisements: guests could reach the host
    /// and change its routes. IPv6 also makes creations slower, because the kernel then iterates over the multicast
    /// routes of all bridges (measured with 1,000 bridges: 1.4 ms instead of 0.6 ms).
    ///
    /// In a kernel without IPv6, or on a device whose MTU is too small for it, there is nothing to disable. A failure
    /// is only logged, because the device works.
    pub(super) fn disable_ipv6(&mut self, requests: &mut Requests, name: &str) {
        match self.set(requests, &format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), true) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                static FAILED: LogLimit = LogLimit::new();
                if let Some(hits) = FAILED.hit() {
                    tracing::warn!(%error, device = name, hits, "cannot disable the host's IPv6 on a device");
                }
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Writes 1 or 0 to a file of `/proc/sys`.
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

/// Waits until the rtnl lock is available.
fn wait_for_rtnl(requests: &mut Requests) {
    // The kernel takes the lock to process the request. The reply does not matter.
    let _reply = requests.request_uncounted(message::get_link(LOOPBACK));
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

    /// The name of this thread, which supports plain writes only, like files of `/proc/sys` before Linux 5.10.
    const NAME: &str = "/proc/thread-self/comm";

    #[test]
    fn falls_back_to_plain_writes_permanently() {
        let mut requests = Requests::open().unwrap();
        let mut sysctls = Sysctls::default();
        sysctls.set(&mut requests, NAME, true).unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), "1\n");
        assert!(matches!(sysctls, Sysctls::Plain), "{sysctls:?}");
        sysctls.set(&mut requests, NAME, false).unwrap();
        assert_eq!(fs::read_to_string(NAME).unwrap(), "0\n");
    }
}
