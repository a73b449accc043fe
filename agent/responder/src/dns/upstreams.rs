//! The resolvers of the node: those of its configuration, or else those of `/etc/resolv.conf`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::time::Instant;

/// The port of resolvers.
pub const PORT: u16 = 53;

/// The file, and how often it is looked at: only while guests ask.
const FILE: &str = "/etc/resolv.conf";
const LOOK: Duration = Duration::from_secs(1);

/// As many resolvers of the file are used, as by the C library. A longer file is no configuration of resolvers.
const MOST: usize = 3;
const FILE_MAX: u64 = 1 << 20;

/// What tells that a file is another one: device, inode, size, and when it was changed.
type Stamp = (u64, u64, u64, i64, i64);

/// Where resolvers come from.
#[derive(Debug)]
pub enum Upstreams {
    Given(Vec<SocketAddr>),
    File(ResolverFile),
}

/// A file in the format of `/etc/resolv.conf`.
#[derive(Debug)]
pub struct ResolverFile {
    path: PathBuf,
    state: Mutex<FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    looked_at: Option<Instant>,
    stamp: Option<Stamp>,
    resolvers: Vec<SocketAddr>,
}

impl Upstreams {
    /// Returns these resolvers; if there are none, those of `/etc/resolv.conf`, as it is at the time.
    pub fn new(given: Vec<SocketAddr>) -> Self {
        if given.is_empty() { Self::of_file(FILE.into()) } else { Self::Given(given) }
    }

    /// Returns the resolvers of a file, as it is at the time.
    pub fn of_file(path: PathBuf) -> Self {
        Self::File(ResolverFile { path, state: Mutex::default() })
    }

    /// Returns the resolvers, the first first.
    pub(super) fn current(&self) -> Vec<SocketAddr> {
        match self {
            Self::Given(given) => given.clone(),
            Self::File(file) => file.current(),
        }
    }
}

impl ResolverFile {
    fn current(&self) -> Vec<SocketAddr> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.looked_at.is_none_or(|at| now.duration_since(at) >= LOOK) {
            state.looked_at = Some(now);
            let found = std::fs::metadata(&self.path).ok().filter(|file| file.is_file() && file.len() <= FILE_MAX);
            let stamp = found.map(|file| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
            if state.stamp != stamp || stamp.is_none() {
                let text = stamp.and_then(|_| std::fs::read(&self.path).ok()).unwrap_or_default();
                let resolvers = parse(&String::from_utf8_lossy(&text));
                if resolvers != state.resolvers {
                    tracing::info!(path = %self.path.display(), ?resolvers, "the resolvers of guests' questions");
                }
                (state.resolvers, state.stamp) = (resolvers, stamp);
            }
        }
        state.resolvers.clone()
    }
}

/// Returns the resolvers in a text of this format.
fn parse(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    lines.filter_map(resolver).take(MOST).collect()
}

/// Returns the resolver at an address, which may have a zone (`fe80::1%eth0`).
fn resolver(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, PORT));
    }
    let (address, zone) = text.split_once('%')?;
    let scope = zone.parse().ok().or_else(|| if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(address.parse::<Ipv6Addr>().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_a_file() {
        let text = "# a comment\nnameserver 192.0.2.1 # one\n;nameserver 192.0.2.9\nsearch nameserver 192.0.2.8\n\
                    nameserver\nnameserver none\n  nameserver\t2001:db8::1\nnameserver fe80::1%lo\n\
                    nameserver 192.0.2.4";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again() {
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let upstreams = Upstreams::of_file(path.clone());
        assert_eq!(upstreams.current(), []);
        for text in ["192.0.2.1", "192.0.2.22", ""] {
            // Replaced as a whole, as it is by other programs.
            std::fs::write(path.with_extension("new"), format!("nameserver {text}\n")).unwrap();
            std::fs::rename(path.with_extension("new"), &path).unwrap();
            tokio::time::advance(LOOK).await;
            let expected: Vec<SocketAddr> = text.parse().map(|ip| SocketAddr::new(ip, PORT)).into_iter().collect();
            assert_eq!(upstreams.current(), expected);
        }
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(LOOK).await;
        assert_eq!(upstreams.current(), []);
        assert_eq!(Upstreams::new(vec!["192.0.2.5:53".parse().unwrap()]).current().len(), 1);
    }
}
