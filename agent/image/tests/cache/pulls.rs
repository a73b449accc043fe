//! Pulls, one and several at a time.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otherix_image::cache::{PinOwner, PullError, PullPolicy, PullRequest};
use otherix_image::fetch::{Cancel, FetchError};
use otherix_image::inspect::{Format, ImageInfo};
use otherix_testkit::wait::wait_for_blocking;

use crate::server::Server;
use crate::{Fixture, MIB, assert_whole, digest, disk, owner, request};

/// Serves one disk, with an ETag that is known again.
fn start(content: Vec<u8>) -> Server {
    Server::start(move |request, connection| {
        if request.header("if-none-match") == Some("\"1\"") {
            connection.write("HTTP/1.1 304 Not Modified\r\n\r\n");
        } else {
            connection.respond("200 OK", "ETag: \"1\"\r\n", &content);
        }
    })
}

#[test]
fn an_image_is_fetched_once() {
    let content = disk(3 * MIB, 1);
    let server = start(content.clone());
    let fixture = Fixture::new();
    let image = fixture.pull(&request(&server.url("a"))).unwrap();
    let size = 3 << 20;
    assert_eq!(image.info, ImageInfo { format: Format::Raw, virtual_size: size, file_size: size });
    assert_eq!(image.digest, digest(&content));
    assert_whole(&image);
    assert_eq!(fixture.pull(&PullRequest { owner: owner("vm-2"), ..request(&server.url("a")) }).unwrap(), image);
    assert_eq!(server.requests().len(), 1);
    let listed = fixture.cache.list().unwrap();
    assert_eq!((listed.len(), &listed[0].image), (1, &image));
    assert_eq!(listed[0].pins, [owner("vm-1"), owner("vm-2")]);
    assert_eq!(listed[0].urls, [server.url("a")]);
    assert_eq!(fixture.cache.get(image.digest).unwrap(), Some(image));
    // A record of the image and of the URL, two pins, and nothing of the download.
    assert_eq!(fixture.files().len(), 5);
    for name in fixture.files() {
        let mode = fixture.path(&name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    for folder in ["", "images", "parts", "pins", "urls"] {
        assert_eq!(fixture.path(folder).metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_known_digest_needs_no_server() {
    let content = disk(MIB, 1);
    let server = start(content.clone());
    let fixture = Fixture::new();
    let with_digest = PullRequest { digest: Some(digest(&content)), ..request(&server.url("a")) };
    let image = fixture.pull(&with_digest).unwrap();
    drop(server);
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Always] {
        let elsewhere = PullRequest { policy, source: "http://127.0.0.1:9/x".parse().unwrap(), ..with_digest.clone() };
        assert_eq!(fixture.pull(&elsewhere).unwrap(), image);
    }
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let content = disk(MIB, 1);
    let server = start(content.clone());
    let fixture = Fixture::new();
    let wrong = PullRequest { digest: Some(digest(b"other")), ..request(&server.url("a")) };
    let error = fixture.pull(&wrong).unwrap_err();
    assert!(matches!(error, PullError::Digest { found, .. } if found == digest(&content)), "{error}");
    assert!(!error.is_transient());
    assert!(fixture.files().is_empty(), "{:?}", fixture.files());
}

#[test]
fn a_hostile_image_leaves_nothing() {
    let qcow2_with_backing_file = [&b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\x02\0\0\0\0\x0b"[..], &[0; 1000]].concat();
    for content in [qcow2_with_backing_file, b"<html>Sign in</html>".to_vec(), vec![0; 4096], Vec::new()] {
        let server = start(content);
        let fixture = Fixture::new();
        let error = fixture.pull(&request(&server.url("a"))).unwrap_err();
        assert!(matches!(error, PullError::Inspect(_)), "{error:?}");
        assert!(!error.is_transient() && !error.hint().is_empty());
        assert!(fixture.files().is_empty(), "{:?}", fixture.files());
    }
}

#[test]
fn always_asks_the_server() {
    let version = Arc::new(AtomicU8::new(1));
    let served = Arc::clone(&version);
    let server = Server::start(move |request, connection| {
        let version = served.load(Ordering::SeqCst);
        let etag = format!("\"{version}\"");
        if request.header("if-none-match") == Some(&etag) {
            connection.write("HTTP/1.1 304 Not Modified\r\n\r\n");
        } else {
            connection.respond("200 OK", &format!("ETag: {etag}\r\n"), &disk(MIB, version));
        }
    });
    let fixture = Fixture::new();
    let always = PullRequest { policy: PullPolicy::Always, ..request(&server.url("a")) };
    let first = fixture.pull(&always).unwrap();
    assert_eq!(fixture.pull(&always).unwrap(), first);
    version.store(2, Ordering::SeqCst);
    // Without asking, it is the version of before.
    assert_eq!(fixture.pull(&request(&server.url("a"))).unwrap(), first);
    let second = fixture.pull(&always).unwrap();
    assert_eq!(second.digest, digest(&disk(MIB, 2)));
    assert_eq!(fixture.pull(&request(&server.url("a"))).unwrap(), second);
    assert_eq!((server.requests().len(), fixture.cache.list().unwrap().len()), (3, 2));
    // An image that is gone is not "the same as before".
    fixture.cache.unpin(second.digest, &owner("vm-1")).unwrap();
    fixture.cache.remove(second.digest).unwrap();
    assert_eq!(fixture.pull(&always).unwrap(), second);
}

#[test]
fn pulls_at_the_same_time_fetch_once() {
    let content = disk(2 * MIB, 1);
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Always] {
        for known in [None, Some(digest(&content))] {
            let body = content.clone();
            let server = Server::start(move |_, connection| {
                // Long enough for all to be waiting.
                thread::sleep(Duration::from_millis(500));
                connection.respond("200 OK", "ETag: \"1\"\r\n", &body);
            });
            let fixture = Fixture::new();
            thread::scope(|scope| {
                for index in 0..8 {
                    let owner: PinOwner = format!("vm-{index}").parse().unwrap();
                    let request = PullRequest { policy, digest: known, owner, ..request(&server.url("a")) };
                    let fixture = &fixture;
                    scope.spawn(move || assert_whole(&fixture.pull(&request).unwrap()));
                }
            });
            assert_eq!(server.requests().len(), 1, "{policy:?} {known:?}");
            assert_eq!(fixture.cache.list().unwrap()[0].pins.len(), 8);
            assert!(!fixture.files().iter().any(|name| name.starts_with("parts")), "{:?}", fixture.files());
        }
    }
}

#[test]
fn one_digest_from_two_urls_is_fetched_once() {
    let content = disk(MIB, 1);
    let known = Some(digest(&content));
    let server = Server::start(move |_, connection| {
        thread::sleep(Duration::from_millis(500));
        connection.respond("200 OK", "", &content);
    });
    let fixture = Fixture::new();
    thread::scope(|scope| {
        for path in ["a", "b"] {
            let request = PullRequest { digest: known, ..request(&server.url(path)) };
            let fixture = &fixture;
            scope.spawn(move || fixture.pull(&request).unwrap());
        }
    });
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn waiting_can_be_cancelled() {
    let server = Server::start(|_, connection| connection.stall());
    let fixture = Fixture::new();
    let (fetching, waiting) = (Cancel::default(), Cancel::default());
    let request = request(&server.url("a"));
    thread::scope(|scope| {
        let first = scope.spawn(|| fixture.cache.pull(&request, &fetching, &|_| {}));
        wait_for_blocking(Duration::from_secs(10), "the first request", || !server.requests().is_empty());
        let second = scope.spawn(|| fixture.cache.pull(&request, &waiting, &|_| {}));
        waiting.cancel();
        let cancelled = second.join().unwrap().unwrap_err();
        assert!(matches!(cancelled, PullError::Fetch(FetchError::Cancelled)), "{cancelled}");
        let started = Instant::now();
        fetching.cancel();
        first.join().unwrap().unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(2));
    });
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_interrupted_download_is_resumed_by_the_next_pull() {
    let content = disk(2 * MIB, 1);
    let body = content.clone();
    let server = Server::start(move |request, connection| match request.range() {
        None => {
            connection.write(format!("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.write(&body[..MIB]);
        }
        Some(from) => {
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
            connection.respond("206 Partial Content", &range, &body[from..]);
        }
    });
    let fixture = Fixture::new();
    let error = fixture.pull(&request(&server.url("a"))).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(fixture.files().len(), 2, "the part and its record");
    assert_eq!(fixture.pull(&request(&server.url("a"))).unwrap().digest, digest(&content));
    assert_eq!(server.requests()[1].range(), Some(MIB));
}

#[test]
fn damaged_images_are_fetched_again() {
    let content = disk(MIB, 1);
    let server = start(content);
    let fixture = Fixture::new();
    let image = fixture.pull(&request(&server.url("a"))).unwrap();
    std::fs::write(&image.path, "short").unwrap();
    assert_eq!(fixture.cache.get(image.digest).unwrap(), None);
    assert_whole(&fixture.pull(&request(&server.url("a"))).unwrap());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn files_of_the_node() {
    let fixture = Fixture::with(|_, fetch| fetch.folders = vec![std::env::temp_dir()]);
    let path = fixture.folder.path().join("disk.raw");
    std::fs::write(&path, disk(MIB, 1)).unwrap();
    let image = fixture.pull(&request(&format!("file://{}", path.display()))).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_whole(&image);
}
