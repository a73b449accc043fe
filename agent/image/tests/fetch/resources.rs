//! Disk space.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use otherix_image::fetch::{FetchError, NoRoom, Observer, Part};
use otherix_testkit::tempdir;

use crate::server::Server;
use crate::{Download, content, settings};

/// A small file system, unmounted on drop.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success(), "mounting needs root");
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0).status().unwrap();
        assert!(unmounted.success());
    }
}

/// How many bytes the server was able to send tells whether space is reserved before they are received.
#[test]
fn a_full_disk_is_found_out_first() {
    let image = content(8 << 20);
    let server = Server::start(move |request, connection| {
        if request.path == "/known" {
            connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 8388608\r\n\r\n");
            // It is not sent: the disk is too small for it.
            connection.stall();
        } else {
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            connection.write(format!("{:x}\r\n", image.len()));
            connection.write(&image);
            connection.write("\r\n0\r\n\r\n");
        }
    });
    let disk = tempdir().unwrap();
    let _mounted = SmallDisk::mount(disk.path(), "4m");
    for path in ["known", "unknown"] {
        let mut download = Download::new(settings());
        download.folder = otherix_testkit::TempDir::new_in(disk.path()).unwrap();
        let error = download.fetch(&server.url(path)).unwrap_err();
        assert!(matches!(error, FetchError::NoRoom(NoRoom::Disk { .. })), "{path}: {error:?}");
        assert!(!error.is_transient());
        let part: Part = download.open(&server.url(path));
        assert_eq!(part.received(), 0, "{path}");
        part.discard().unwrap();
        assert_eq!(fs::read_dir(download.folder.path()).unwrap().count(), 0);
    }
}

struct Room {
    limit: u64,
    asked: Mutex<Vec<u64>>,
}

impl Observer for Room {
    fn make_room(&self, bytes: u64) -> Result<(), NoRoom> {
        self.asked.lock().unwrap().push(bytes);
        if bytes > self.limit {
            return Err(NoRoom::Budget { needed: bytes, budget: self.limit, pinned: 0 });
        }
        Ok(())
    }
}

#[test]
fn the_observer_makes_room() {
    let server = Server::start(|_, connection| {
        connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 5000\r\n\r\n");
        connection.write(vec![7; 5000]);
    });
    let room = |limit| Room { limit, asked: Mutex::default() };
    let enough = room(5000);
    Download::new(settings()).fetch_observed(&server.url(""), &enough).unwrap();
    assert_eq!(*enough.asked.lock().unwrap(), [5000]);
    let error = Download::new(settings()).fetch_observed(&server.url(""), &room(4999)).unwrap_err();
    assert!(matches!(error, FetchError::NoRoom(NoRoom::Budget { needed: 5000, .. })), "{error:?}");
}
