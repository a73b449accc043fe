//! Responses that are complete, lie, or are refused.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use otherix_image::fetch::{
    FetchError, FetchRequest, FetchSettings, Fetched, Fetcher, ImageSource, Observer, Progress, SourceError, Validator,
};

use crate::server::Server;
use crate::{Download, content, fetch, settings};

#[derive(Default)]
struct Log(Mutex<Vec<Progress>>);

impl Observer for Log {
    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

#[test]
fn a_whole_image() {
    let image = content(3_000_000);
    let body = image.clone();
    let server = Server::start(move |_, connection| connection.respond("200 OK", "ETag: \"1\"\r\n", &body));
    let download = Download::new(settings());
    let log = Log::default();
    let part = download.fetch_observed(&server.url("image?x=y"), &log).unwrap();
    assert_eq!(part.digest(), crate::digest(&image));
    assert_eq!(std::fs::read(download.path()).unwrap(), image);
    for entry in std::fs::read_dir(download.folder.path()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let reports = log.0.lock().unwrap();
    let last = reports.last().unwrap();
    assert_eq!((last.received, last.total), (3_000_000, Some(3_000_000)));
    assert!(reports.iter().all(|report| report.total == Some(3_000_000)) && reports[0].rate > 0);
    let request = &server.requests()[0];
    assert_eq!((request.path.as_str(), request.header("accept-encoding")), ("/image?x=y", Some("identity")));
    assert_eq!((request.header("range"), request.header("authorization")), (None, None));
}

#[test]
fn chunks_and_the_end_of_the_connection() {
    let image = content(5000);
    let body = image.clone();
    let server = Server::start(move |request, connection| {
        if request.path == "/chunked" {
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(999) {
                connection.write(format!("{:x}\r\n", chunk.len()));
                connection.write([chunk, b"\r\n"].concat());
            }
            connection.write("0\r\n\r\n");
        } else {
            connection.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            connection.write(&body);
        }
    });
    Download::new(settings()).brings(&server.url("chunked"), &image);
    assert!(matches!(fetch(&server.url("close")), Err(FetchError::LengthUnknown { .. })));
    let mut with_digest = Download::new(settings());
    with_digest.digest_is_known = true;
    with_digest.brings(&server.url("close"), &image);
}

#[test]
fn redirects() {
    let server = Server::start(|request, connection| match request.path.as_str() {
        "/image" => connection.respond("200 OK", "", b"image"),
        "/relative/" => connection.redirect("../image"),
        "/loop" => connection.redirect("/loop"),
        "/file" => connection.redirect("file:///etc/passwd"),
        "/ftp" => connection.redirect("ftp://127.0.0.1/x"),
        "/secret" => connection.redirect("http://user:secret@127.0.0.1/x"),
        "/malformed" => connection.redirect("http://[::1/"),
        "/nowhere" => connection.respond("302 Found", "", b""),
        path => match path[1..].parse::<u32>().unwrap() {
            0 => connection.respond("200 OK", "", b"image"),
            left => connection.redirect(&format!("/{}", left - 1)),
        },
    });
    for path in ["image", "relative/", "5"] {
        Download::new(settings()).brings(&server.url(path), b"image");
    }
    for path in ["6", "loop"] {
        assert!(matches!(fetch(&server.url(path)), Err(FetchError::TooManyRedirects { max: 5 })), "{path}");
    }
    let rule = |path: &str| match fetch(&server.url(path)) {
        Err(FetchError::Redirect { source, .. }) => source,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(
        (rule("file"), rule("ftp"), rule("secret")),
        (SourceError::Scheme, SourceError::Scheme, SourceError::Secret)
    );
    assert!(matches!(rule("malformed"), SourceError::Syntax(_)));
    assert!(matches!(fetch(&server.url("nowhere")), Err(FetchError::RedirectWithoutTarget { .. })));
}

#[test]
fn statuses() {
    let server = Server::start(|request, connection| {
        connection.respond(&format!("{} Because", &request.path[1..]), "", b"");
    });
    for (status, requests) in [(404, 1), (403, 1), (401, 1), (204, 1), (206, 1), (304, 1), (503, 3), (429, 3), (500, 3)]
    {
        let before = server.requests().len();
        let error = fetch(&server.url(&status.to_string())).unwrap_err();
        assert_eq!(server.requests().len() - before, requests, "{status}");
        if status == 206 {
            assert!(matches!(error, FetchError::Protocol { .. }), "{error}");
            continue;
        }
        assert!(matches!(error, FetchError::Status { status: found, .. } if found == status), "{error}");
        assert_eq!(error.is_transient(), requests > 1);
    }
}

#[test]
fn lies_about_the_length() {
    let server = Server::start(|request, connection| match request.path.as_str() {
        "/more" => {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
        }
        "/less" => {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore than this");
        }
        "/huge" => {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx");
            connection.stall();
        }
        "/none" => {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx");
        }
        "/endless" => {
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while connection.write(&chunk) {}
        }
        "/chunk" => {
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\nx");
        }
        "/head" => while connection.write("X-Header: endless\r\n") {},
        "/gzip" => connection.respond("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b"),
        _ => {
            connection.write("SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let small = FetchSettings { max_size: 1 << 20, ..settings() };
    let error = |path: &str| Download::new(small.clone()).fetch(&server.url(path)).unwrap_err();
    let cut = error("more");
    assert!(matches!(&cut, FetchError::Cut { received: 9, .. }), "{cut}");
    for path in ["huge", "endless"] {
        let found = error(path);
        assert!(matches!(found, FetchError::TooLarge { max: 0x0010_0000 }), "{path}: {found}");
    }
    for path in ["chunk", "gzip", "ssh", "none"] {
        let found = error(path);
        let is_refused = matches!(found, FetchError::Protocol { .. } | FetchError::LengthUnknown { .. });
        assert!(is_refused && !found.is_transient(), "{path}: {found:?}");
    }
    let endless_head = error("head");
    assert!(matches!(endless_head, FetchError::Protocol { .. }), "{endless_head:?}");
    // What is sent beyond the length is not read; a digest tells that something is wrong.
    Download::new(small.clone()).brings(&server.url("less"), b"more");
}

#[test]
fn an_unchanged_image_is_not_fetched() {
    let server = Server::start(|request, connection| {
        let is_known =
            request.header("if-none-match") == Some("\"1\"") && request.header("if-modified-since").is_some();
        if is_known {
            connection.write("HTTP/1.1 304 Not Modified\r\n\r\n")
        } else {
            connection.write("HTTP/1.1 500 No\r\n\r\n")
        };
    });
    let download = Download::new(settings());
    let source: ImageSource = server.url("").parse().unwrap();
    let known = Validator { etag: Some("\"1\"".into()), last_modified: Some("Mon, 30 Nov 2026 09:00:00 GMT".into()) };
    let request = FetchRequest {
        source: &source,
        known: Some(&known),
        digest_is_known: false,
        cancel: &download.cancel,
        observer: &(),
    };
    let mut part = download.open(source.as_str());
    let fetched = Fetcher::new(settings()).unwrap().fetch(request, &mut part).unwrap();
    assert!(matches!(fetched, Fetched::NotModified));
}
