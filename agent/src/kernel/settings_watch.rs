//! Notices that IPv6 was enabled or disabled on all links at once: the kernel does not notify of links that have no
//! carrier. One file is watched, whatever the number of links.
//!
//! Cancel-safety: [`SettingsWatch::readable`] receives nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The setting of all links in the network namespace of the thread that opens it.
const ALL: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// Notices writes to the setting.
pub(super) struct SettingsWatch(AsyncFd<OwnedFd>);

impl SettingsWatch {
    /// Begins to watch the setting in this thread's network namespace.
    #[expect(unsafe_code, reason = "registering a file descriptor requires that it stays open")]
    pub(super) fn open() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&inotify, ALL, WatchFlags::MODIFY)?;
        // SAFETY: an `OwnedFd` owns its file descriptor, and closes it when it is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// Waits until the setting was written.
    pub(super) async fn readable(&self) {
        let _ready = self.0.readable().await;
    }

    /// Whether the setting was written since the last call.
    pub(super) fn drain(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut is_written = false;
        let mut read = || inotify::Reader::new(self.0.get_ref(), &mut buffer).next().map(drop);
        loop {
            match self.0.try_io(Interest::READABLE, |_| read().map_err(Into::into)) {
                Ok(()) => is_written = true,
                Err(_) => return is_written,
            }
        }
    }
}
