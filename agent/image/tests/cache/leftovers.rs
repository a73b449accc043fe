//! What earlier processes have left.

use std::fs;
use std::time::Duration;

use otherix_image::cache::Cache;

use crate::server::Server;
use crate::{Fixture, MIB, disk, request, settings};

#[test]
fn what_belongs_to_nothing_is_removed() {
    let server = Server::start(|_, connection| connection.respond("200 OK", "", &disk(MIB, 1)));
    let fixture = Fixture::new();
    let image = fixture.pull(&request(&server.url("a"))).unwrap();
    let before = fixture.files();
    let other = "00".repeat(32);
    for name in [
        format!("images/{other}"),                   // an image without its record
        format!("images/{}.json", "11".repeat(32)),  // a record without its image
        format!("images/{}.json.new", image.digest), // of a write that was interrupted
        "images/unknown".to_owned(),
        format!("pins/{other}.vm-1"),
        "urls/damaged.json".to_owned(),
        format!("parts/{other}.json"),
        format!("parts/{other}.lock"),
        format!("parts/{other}.json.new"),
    ] {
        fs::write(fixture.path(&name), "{").unwrap();
    }
    fs::write(fixture.path(&format!("images/{}.json", "22".repeat(32))), "{").unwrap();
    fixture.cache.clean().unwrap();
    assert_eq!(fixture.files(), before);
}

#[test]
fn parts_are_kept_for_a_while() {
    let server = Server::start(|_, connection| {
        connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000\r\n\r\nhalf");
    });
    let fixture = Fixture::new();
    fixture.pull(&request(&server.url("a"))).unwrap_err();
    let (mut cache, fetch) = settings(&fixture.path(""));
    Cache::open(cache.clone(), fetch.clone()).unwrap();
    assert_eq!(fixture.files().len(), 2, "{:?}", fixture.files());
    cache.part_max_age = Duration::ZERO;
    Cache::open(cache, fetch).unwrap();
    assert!(fixture.files().is_empty(), "{:?}", fixture.files());
}

#[test]
fn parts_that_are_being_fetched_stay() {
    let server = Server::start(|_, connection| {
        connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1048576\r\n\r\n");
        connection.write(&disk(MIB, 1)[..1000]);
        std::thread::sleep(Duration::from_millis(500));
        connection.write(&disk(MIB, 1)[1000..]);
    });
    let fixture = Fixture::with(|cache, _| cache.part_max_age = Duration::ZERO);
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| fixture.pull(&request(&server.url("a"))));
        let is_fetching = || fixture.files().iter().any(|name| name.ends_with(".json"));
        otherix_testkit::wait::wait_for_blocking(Duration::from_secs(10), "the part", is_fetching);
        fixture.cache.clean().unwrap();
        pull.join().unwrap().unwrap();
    });
}
