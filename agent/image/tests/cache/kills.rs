//! `kill -9`. The tests start themselves again as a process that pulls, and kill that.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use otherix_image::cache::{Cache, PullPolicy, PullRequest};
use otherix_image::fetch::Cancel;
use otherix_testkit::wait::wait_for_blocking;

use crate::server::Server;
use crate::{Fixture, MIB, assert_whole, digest, disk, owner, request, settings};

const CHILD: &str = "kills::the_process_that_is_killed";

/// Pulls again and again from where its environment says.
#[test]
#[ignore = "the other tests start it"]
fn the_process_that_is_killed() {
    let url = std::env::var("CACHE_TEST_URL").unwrap();
    let folder = std::env::var("CACHE_TEST_FOLDER").unwrap();
    let (cache, fetch) = settings(Path::new(&folder));
    let cache = Cache::open(cache, fetch).unwrap();
    let always = PullRequest { policy: PullPolicy::Always, owner: owner("child"), ..request(&url) };
    loop {
        let image = cache.pull(&always, &Cancel::default(), &|_| {}).unwrap();
        cache.unpin(image.digest, &owner("child")).unwrap();
        if std::env::var_os("CACHE_TEST_ONCE").is_some() {
            cache.pull(&always, &Cancel::default(), &|_| {}).unwrap();
            std::thread::park();
        }
        cache.remove(image.digest).unwrap();
    }
}

fn start(fixture: &Fixture, url: &str, once: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--ignored"]).env("CACHE_TEST_URL", url).env("CACHE_TEST_FOLDER", fixture.path(""));
    if once {
        command.env("CACHE_TEST_ONCE", "1");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    assert!(child.try_wait().unwrap().is_none(), "the process ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn pins_outlive_the_process() {
    let server = Server::start(|_, connection| connection.respond("200 OK", "ETag: \"1\"\r\n", &disk(MIB, 1)));
    let fixture = Fixture::new();
    let child = start(&fixture, &server.url("a"), true);
    wait_for_blocking(Duration::from_secs(20), "the second pull", || {
        server.requests().len() == 2 && fixture.files().iter().any(|name| name.ends_with(".child"))
    });
    wait_for_blocking(Duration::from_secs(20), "the pin", || {
        fixture.cache.list().unwrap().first().is_some_and(|listed| !listed.pins.is_empty())
    });
    kill(child);
    let listed = &fixture.cache.list().unwrap()[0];
    assert_eq!(listed.pins, [owner("child")]);
    fixture.cache.remove(listed.image.digest).unwrap_err();
}

/// Less than 64 MiB were received, which were not durable yet.
#[test]
fn a_download_that_was_killed_is_no_image() {
    let content = disk(2 * MIB, 1);
    let body = content.clone();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_, connection| {
        if asked.fetch_add(1, Ordering::SeqCst) > 0 {
            return connection.respond("200 OK", "", &body);
        }
        connection.write(format!("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n", body.len()));
        connection.write(&body[..MIB]);
        connection.stall();
    });
    let fixture = Fixture::new();
    let child = start(&fixture, &server.url("a"), false);
    let received = || {
        let part = fixture.files().into_iter().find(|name| name.starts_with("parts/") && !name.contains('.'));
        part.is_some_and(|part| fixture.path(&part).metadata().is_ok_and(|found| found.len() == 1 << 20))
    };
    wait_for_blocking(Duration::from_secs(20), "the first MiB", received);
    kill(child);
    // Nothing of it is taken for an image, and the lock is free.
    assert!(fixture.cache.list().unwrap().is_empty());
    assert_eq!(fixture.pull(&request(&server.url("a"))).unwrap().digest, digest(&content));
}

#[test]
fn kills_at_any_moment() {
    let content = disk(4 * MIB, 1);
    let server = Server::start(move |_, connection| connection.respond("200 OK", "ETag: \"1\"\r\n", &content));
    let fixture = Fixture::new();
    let (mut state, mut found) = (7_u64, 0);
    for _ in 0..40 {
        let before = server.requests().len();
        let child = start(&fixture, &server.url("a"), false);
        wait_for_blocking(Duration::from_secs(20), "a request", || server.requests().len() > before);
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((state >> 33) % 150_000));
        kill(child);
        for listed in fixture.cache.list().unwrap() {
            assert_whole(&listed.image);
            found += 1;
        }
    }
    assert!(found > 0, "no kill came while there was an image");
    let (mut cache, fetch) = settings(&fixture.path(""));
    cache.part_max_age = Duration::ZERO;
    let cache = Cache::open(cache, fetch).unwrap();
    assert_whole(&cache.pull(&request(&server.url("a")), &Cancel::default(), &|_| {}).unwrap());
    for listed in cache.list().unwrap() {
        for pin in &listed.pins {
            cache.unpin(listed.image.digest, pin).unwrap();
        }
        cache.remove(listed.image.digest).unwrap();
    }
    cache.clean().unwrap();
    assert!(fixture.files().is_empty(), "{:?}", fixture.files());
}
