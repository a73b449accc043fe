//! The budget, eviction and pins.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use otherix_image::cache::{Cache, CacheError, CachedImage, PullError, PullRequest};
use otherix_image::fetch::{FetchError, NoRoom};

use crate::server::Server;
use crate::{Fixture, MIB, disk, owner, request, settings};

/// Serves disks of 1 MiB, each path another one; `/large` has 3 MiB.
fn start() -> Server {
    Server::start(|request, connection| {
        let length = if request.path == "/large" { 3 * MIB } else { MIB };
        connection.respond("200 OK", "ETag: \"1\"\r\n", &disk(length, request.path.as_bytes()[1]));
    })
}

fn small() -> Fixture {
    Fixture::with(|cache, _| cache.budget = 5 << 19)
}

/// Pulls an image and sets when it was used last, in seconds ago.
fn pull(fixture: &Fixture, server: &Server, path: &str, age: u64) -> CachedImage {
    let image = fixture.pull(&request(&server.url(path))).unwrap();
    let record = fixture.path(&format!("images/{}.json", image.digest));
    let used = SystemTime::now() - Duration::from_secs(age);
    fs::OpenOptions::new().write(true).open(record).unwrap().set_modified(used).unwrap();
    image
}

fn digests(fixture: &Fixture) -> Vec<String> {
    fixture.cache.list().unwrap().iter().map(|listed| listed.image.digest.to_string()).collect()
}

#[test]
fn what_was_used_last_stays() {
    let server = start();
    let fixture = small();
    let (a, b) = (pull(&fixture, &server, "a", 20), pull(&fixture, &server, "b", 10));
    for image in [&a, &b] {
        fixture.cache.unpin(image.digest, &owner("vm-1")).unwrap();
    }
    // Using it makes it the one used last.
    fixture.pull(&request(&server.url("a"))).unwrap();
    fixture.cache.unpin(a.digest, &owner("vm-1")).unwrap();
    let c = pull(&fixture, &server, "c", 0);
    assert_eq!(digests(&fixture), [c.digest.to_string(), a.digest.to_string()]);
    assert!(!b.path.exists());
}

#[test]
fn what_is_in_use_stays() {
    let server = start();
    let fixture = small();
    let (a, b) = (pull(&fixture, &server, "a", 20), pull(&fixture, &server, "b", 10));
    let error = fixture.pull(&request(&server.url("c"))).unwrap_err();
    let PullError::Fetch(FetchError::NoRoom(NoRoom::Budget { needed, budget, pinned })) = error else {
        panic!("{error:?}")
    };
    assert_eq!((needed, budget, pinned), (1 << 20, 5 << 19, 2 << 20));
    assert_eq!(digests(&fixture), [b.digest.to_string(), a.digest.to_string()]);
    assert!(!fixture.files().iter().any(|name| name.starts_with("parts")));
    // The pins are those of the owners, and are there for the next process, too.
    fixture.cache.unpin(a.digest, &owner("vm-2")).unwrap();
    let (cache, fetch) = settings(&fixture.path(""));
    let other = Cache::open(cache, fetch).unwrap();
    assert_eq!(other.list().unwrap()[1].pins, [owner("vm-1")]);
    assert!(matches!(other.remove(a.digest), Err(CacheError::InUse { pins, .. }) if pins == [owner("vm-1")]));
    other.unpin(a.digest, &owner("vm-1")).unwrap();
    let c = fixture.pull(&request(&server.url("c"))).unwrap();
    assert_eq!(digests(&fixture), [c.digest.to_string(), b.digest.to_string()]);
}

#[test]
fn nothing_is_evicted_for_what_cannot_fit() {
    let server = start();
    let fixture = small();
    let a = pull(&fixture, &server, "a", 0);
    fixture.cache.unpin(a.digest, &owner("vm-1")).unwrap();
    let error = fixture.pull(&request(&server.url("large"))).unwrap_err();
    assert!(matches!(error, PullError::Fetch(FetchError::NoRoom(NoRoom::Budget { pinned: 0, .. }))), "{error:?}");
    assert_eq!(digests(&fixture), [a.digest.to_string()]);
    assert_eq!(fixture.files().len(), 3, "{:?}", fixture.files());
}

/// Each alone fits, but not both: the sizes of downloads that are under way count.
#[test]
fn downloads_share_the_budget() {
    let server = Server::start(|request, connection| {
        connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 2097152\r\n\r\n");
        connection.write(vec![7; 1000]);
        if request.path == "/slow" {
            thread::sleep(Duration::from_millis(500));
        }
    });
    let fixture = small();
    thread::scope(|scope| {
        let slow = scope.spawn(|| fixture.pull(&request(&server.url("slow"))));
        otherix_testkit::wait::wait_for_blocking(Duration::from_secs(10), "the part", || {
            fixture.files().iter().any(|name| name.starts_with("parts/") && name.ends_with(".json"))
        });
        let error = fixture.pull(&request(&server.url("other"))).unwrap_err();
        assert!(matches!(error, PullError::Fetch(FetchError::NoRoom(_))), "{error:?}");
        let cut = slow.join().unwrap().unwrap_err();
        assert!(matches!(cut, PullError::Fetch(FetchError::Cut { .. })), "{cut:?}");
    });
}

#[test]
fn removal() {
    let server = start();
    let fixture = Fixture::new();
    let image = fixture.pull(&PullRequest { owner: owner("vm-9"), ..request(&server.url("a")) }).unwrap();
    assert!(matches!(fixture.cache.remove(image.digest), Err(CacheError::InUse { .. })));
    fixture.cache.unpin(image.digest, &owner("vm-9")).unwrap();
    fixture.cache.remove(image.digest).unwrap();
    assert!(matches!(fixture.cache.remove(image.digest), Err(CacheError::Absent { .. })));
    fixture.cache.clean().unwrap();
    assert!(fixture.files().is_empty(), "{:?}", fixture.files());
}
