//! Connections that break or stall, cancellation, and resumption.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otherix_image::fetch::{FetchError, FetchSettings};
use otherix_testkit::wait::wait_for_blocking;

use crate::server::{Connection, Request, Server};
use crate::{Download, content, settings};

/// Serves ranges as a file server does, and closes the connection after `step` bytes.
fn cutting(image: Arc<Vec<u8>>, step: usize, validators: &str) -> impl Fn(&Request, &mut Connection) + use<> {
    let validators = validators.to_owned();
    move |request, connection| {
        let from = request.range().unwrap_or(0);
        let (length, total) = (image.len() - from, image.len());
        let status = match request.range() {
            Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}", total - 1),
            None => "200 OK".to_owned(),
        };
        connection.write(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{validators}\r\n"));
        connection.write(&image[from..total.min(from + step)]);
    }
}

#[test]
fn a_download_continues_where_it_was_cut() {
    let image = Arc::new(content(1_000_000));
    for validators in ["ETag: \"1\"\r\n", "Last-Modified: Mon, 30 Nov 2026 09:00:00 GMT\r\n"] {
        let server = Server::start(cutting(Arc::clone(&image), 150_000, validators));
        Download::new(settings()).brings(&server.url(""), &image);
        let ranges: Vec<_> = server.requests().iter().map(Request::range).collect();
        let expected: Vec<_> = (0..7).map(|index| (index > 0).then_some(index * 150_000)).collect();
        assert_eq!(ranges, expected);
        assert!(validators.contains(server.requests()[1].header("if-range").unwrap()));
    }
}

#[test]
fn without_a_strong_validator_it_starts_anew() {
    let image = Arc::new(content(1_000_000));
    for validators in ["", "ETag: W/\"1\"\r\n"] {
        let server = Server::start(cutting(Arc::clone(&image), 150_000, validators));
        let error = Download::new(settings()).fetch(&server.url("")).unwrap_err();
        assert!(matches!(error, FetchError::Cut { received: 150_000, .. }), "{error}");
        assert!(server.requests().iter().all(|request| request.range().is_none()));
        assert_eq!(server.requests().len(), 3);
    }
}

#[test]
fn the_image_changes_between_two_attempts() {
    let (old, new) = (content(1000), content(900));
    let expected = new.clone();
    let server = Server::start(move |request, connection| match request.header("if-range") {
        None => {
            connection.write("HTTP/1.1 200 OK\r\nETag: \"old\"\r\nContent-Length: 1000\r\n\r\n");
            connection.write(&old[..600]);
        }
        Some(_) => connection.respond("200 OK", "ETag: \"new\"\r\n", &new),
    });
    Download::new(settings()).brings(&server.url(""), &expected);
}

#[test]
fn wrong_ranges_are_not_appended() {
    for range in ["bytes 0-999/1000", "bytes 601-999/1000", "bytes 600-1099/1100", "bytes */1000", "lines 600-999/1000"]
    {
        let server = Server::start(move |request, connection| match request.range() {
            None => {
                connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000\r\n\r\n");
                connection.write(vec![7; 600]);
            }
            Some(_) => connection.respond("206 Partial", &format!("Content-Range: {range}\r\n"), &[7; 400]),
        });
        let download = Download::new(settings());
        let error = download.fetch(&server.url("")).unwrap_err();
        assert!(matches!(error, FetchError::Protocol { .. }), "{range}: {error}");
        assert_eq!(download.open(&server.url("")).received(), 0);
    }
    // Another version under the same range.
    let server = Server::start(|request, connection| match request.range() {
        None => {
            connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000\r\n\r\n");
            connection.write(vec![7; 600]);
        }
        Some(_) => {
            let headers = "ETag: \"2\"\r\nContent-Range: bytes 600-999/1000\r\n";
            connection.respond("206 Partial", headers, &[7; 400]);
        }
    });
    let error = Download::new(settings()).fetch(&server.url("")).unwrap_err();
    assert!(matches!(error, FetchError::Protocol { .. }), "{error}");
}

#[test]
fn a_range_that_no_longer_exists() {
    let server = Server::start(|request, connection| match request.range() {
        None if request.path == "/first" => {
            connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000\r\n\r\n");
            connection.write(vec![7; 600]);
        }
        None => connection.respond("200 OK", "", b"short"),
        Some(_) => connection.respond("416 Range Not Satisfiable", "Content-Range: bytes */5\r\n", b""),
    });
    let server_url = server.url("image");
    let download = Download::new(FetchSettings { attempts: 1, ..settings() });
    download.fetch(&server.url("first")).unwrap_err();
    // The part belongs to another URL from here on; make it one of this.
    let record = download.folder.path().join("image.part.json");
    let text = fs::read_to_string(&record).unwrap().replace("/first", "/image");
    fs::write(&record, text).unwrap();
    assert_eq!(download.open(&server_url).received(), 600);
    download.brings(&server_url, b"short");
}

#[test]
fn a_part_survives_the_process() {
    let image = Arc::new(content(1_000_000));
    let server = Server::start(cutting(Arc::clone(&image), 600_000, "ETag: \"1\"\r\n"));
    let download = Download::new(FetchSettings { attempts: 1, ..settings() });
    let error = download.fetch(&server.url("")).unwrap_err();
    assert!(error.is_transient() && matches!(error, FetchError::Cut { received: 600_000, .. }), "{error}");
    // What a kill or a loss of power leaves behind what was durable is not used.
    let mut file = fs::OpenOptions::new().append(true).open(download.path()).unwrap();
    file.write_all(&[0; 100_000]).unwrap();
    download.brings(&server.url(""), &image);
    assert_eq!(server.requests()[1].range(), Some(600_000));
    // A part without a record, of another URL, or shorter than its record is not used either.
    let record = download.folder.path().join("image.part.json");
    assert_eq!(download.open(&server.url("")).received(), 1_000_000);
    assert_eq!(download.open(&server.url("other")).received(), 0);
    assert_eq!(download.open(&server.url("")).received(), 0);
    for damage in [true, false] {
        let again = Download::new(settings());
        again.brings(&server.url(""), &image);
        let record = again.folder.path().join("image.part.json");
        if damage {
            fs::write(record, "{").unwrap()
        } else {
            fs::write(again.path(), "short").unwrap()
        }
        assert_eq!(again.open(&server.url("")).received(), 0);
    }
    assert!(!record.exists());
}

#[test]
fn a_server_that_says_nothing() {
    let server = Server::start(|request, connection| {
        if request.path == "/body" {
            connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000\r\n\r\nhalf");
        }
        connection.stall();
    });
    let limit = Duration::from_millis(300);
    let hasty = FetchSettings { idle_timeout: limit, attempts: 2, ..settings() };
    for path in ["head", "body"] {
        let started = Instant::now();
        let error = Download::new(hasty.clone()).fetch(&server.url(path)).unwrap_err();
        assert!(matches!(&error, FetchError::Stalled { limit: found, .. } if *found == limit), "{path}: {error:?}");
        assert!(error.is_transient() && started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}

/// Each read brings a byte, so that no time-out of a single read ends it.
#[test]
fn a_server_that_drips() {
    let server = Server::start(|request, connection| {
        if request.path == "/body" {
            connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000000\r\n\r\n");
        } else {
            connection.write("HTTP/1.1 200 OK\r\nX: ");
        }
        while connection.write("x") {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let hasty = FetchSettings {
        grace: Duration::from_millis(500),
        connect_timeout: Duration::from_millis(500),
        attempts: 1,
        ..settings()
    };
    for path in ["head", "body"] {
        let started = Instant::now();
        let error = Download::new(hasty.clone()).fetch(&server.url(path)).unwrap_err();
        assert!(matches!(error, FetchError::Stalled { .. } | FetchError::TooSlow { .. }), "{path}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{path}: {:?}", started.elapsed());
    }
}

/// A server that sends one more byte with each connection does not keep a download going for ever.
#[test]
fn a_server_that_cuts_again_and_again() {
    let image = Arc::new(content(100_000));
    let server = Server::start(cutting(image, 1, "ETag: \"1\"\r\n"));
    let hasty = FetchSettings { grace: Duration::from_millis(500), ..settings() };
    let error = Download::new(hasty).fetch(&server.url("")).unwrap_err();
    assert!(matches!(error, FetchError::TooSlow { .. }), "{error:?}");
    assert!(server.requests().len() > 3);
}

#[test]
fn nobody_listens() {
    let server = Server::start(|_, _| {});
    let url = server.url("");
    drop(server);
    let error = Download::new(settings()).fetch(&url).unwrap_err();
    assert!(matches!(error, FetchError::Connection { .. }) && error.is_transient(), "{error:?}");
}

#[test]
fn cancellation_does_not_wait_for_the_server() {
    for path in ["head", "body", "delay"] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = Server::start(move |request, connection| {
            if request.path == "/body" {
                connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 1000\r\n\r\nhalf");
            }
            count.fetch_add(1, Ordering::SeqCst);
            if request.path != "/delay" {
                connection.stall();
            }
        });
        // Long limits, which are not waited for.
        let minute = Duration::from_secs(60);
        let patient = FetchSettings { idle_timeout: minute, retry_delay: minute, attempts: 100, ..settings() };
        let download = Download::new(patient);
        let cancel = download.cancel.clone();
        let canceller = thread::spawn(move || {
            wait_for_blocking(Duration::from_secs(10), "a request", || asked.load(Ordering::SeqCst) > 0);
            cancel.cancel();
            Instant::now()
        });
        let error = download.fetch(&server.url(path)).unwrap_err();
        let cancelled = canceller.join().unwrap();
        assert!(matches!(error, FetchError::Cancelled), "{path}: {error:?}");
        assert!(cancelled.elapsed() < Duration::from_secs(2), "{path}: {:?}", cancelled.elapsed());
        assert!(matches!(download.fetch(&server.url(path)), Err(FetchError::Cancelled)));
    }
}
