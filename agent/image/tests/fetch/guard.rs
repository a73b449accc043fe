//! Where connections are made to.

use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otherix_image::fetch::{AddressGuard, FetchError, FetchSettings, Lookup};
use otherix_testkit::netns;

use crate::server::Server;
use crate::{Download, content, fetch, settings};

/// A name server that gives these answers one after the other, the last one for ever.
#[derive(Debug)]
struct Answers {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Answers {
    fn new<const N: usize>(answers: [&[&str]; N]) -> Arc<Self> {
        let addresses = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self { answers: answers.iter().map(addresses).collect(), asked: AtomicUsize::new(0) })
    }
}

impl Lookup for Answers {
    fn lookup(&self, _host: &str, _timeout: Duration) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[asked.min(self.answers.len() - 1)].clone())
    }
}

#[track_caller]
fn assert_refused(result: Result<(), FetchError>, address: &str) {
    match result {
        Err(FetchError::Address(refused)) => assert_eq!(refused.address, address.parse::<IpAddr>().unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn loopback_is_refused_in_every_form() {
    let server = Server::start(|_, connection| connection.respond("200 OK", "", b"secret"));
    let port = server.port();
    let guarded = Download::new(FetchSettings::default());
    for (host, address) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0x7f.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("%31%32%37.0.0.1", "127.0.0.1"),
        ("１２７。0。0。1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("[::]", "::"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[::ffff:7f00:1]", "::ffff:127.0.0.1"),
        ("[64:ff9b::7f00:1]", "64:ff9b::7f00:1"),
        ("169.254.169.254", "169.254.169.254"),
    ] {
        assert_refused(guarded.fetch(&format!("http://{host}:{port}/")).map(drop), address);
    }
    assert!(matches!(guarded.fetch(&format!("http://localhost:{port}/")), Err(FetchError::Address(_))));
    assert!(server.requests().is_empty());
    // The counter-check: where the guard permits it, the same forms reach the server.
    for host in ["127.0.0.1", "2130706433", "0177.0.0.1"] {
        fetch(&format!("http://{host}:{port}/")).unwrap();
    }
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn the_nodes_own_addresses_are_refused() {
    netns::enter_new();
    netns::sh("ip addr add 192.0.2.7/32 dev lo && ip -6 addr add 2001:db8::7/128 dev lo nodad");
    let guard = AddressGuard::default();
    let reason = |address: &str| guard.reason(address.parse().unwrap());
    for own in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::7"] {
        assert_eq!(reason(own), Some("an address of the node itself"), "{own}");
    }
    assert_eq!((reason("192.0.2.8"), reason("2001:db8::8"), reason("198.51.100.1")), (None, None, None));
    // Where processes may bind any address, the node's own are still told apart.
    netns::sh("sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1");
    assert_eq!((reason("192.0.2.7").is_some(), reason("192.0.2.8")), (true, None));
}

#[test]
fn redirects_are_guarded_at_every_hop() {
    let secret = Server::start_at(
        "127.0.0.2".parse().unwrap(),
        |stream| Box::new(stream),
        |_, connection| {
            connection.respond("200 OK", "", b"secret");
        },
    );
    let port = secret.port();
    let server = Server::start(move |request, connection| match request.path.as_str() {
        "/1" => connection.redirect("/2"),
        "/2" => connection.redirect(&format!("http://127.0.0.2:{port}/")),
        "/metadata" => connection.redirect("http://169.254.169.254/latest/meta-data/"),
        "/integer" => connection.redirect(&format!("//2130706434:{port}/")),
        _ => connection.redirect(&format!("http://[::ffff:127.0.0.2]:{port}/")),
    });
    assert_refused(fetch(&server.url("1")), "127.0.0.2");
    assert_refused(fetch(&server.url("metadata")), "169.254.169.254");
    assert_refused(fetch(&server.url("integer")), "127.0.0.2");
    assert_refused(fetch(&server.url("mapped")), "::ffff:127.0.0.2");
    assert!(secret.requests().is_empty());
    let permitting = AddressGuard::default().permitting("127.0.0.0/8".parse().unwrap());
    Download::new(FetchSettings { guard: permitting, ..settings() }).fetch(&server.url("1")).unwrap();
    assert_eq!(secret.requests().len(), 1);
}

#[test]
fn names_that_change_what_they_lead_to() {
    let image = content(1000);
    let body = image.clone();
    let server = Server::start(move |request, connection| match request.path.as_str() {
        "/again" => connection.redirect("/image"),
        _ => connection.respond("200 OK", "", &body),
    });
    let port = server.port();
    let with = |lookup: &Arc<Answers>| {
        Download::new(FetchSettings { lookup: Arc::clone(lookup) as Arc<dyn Lookup>, ..settings() })
    };
    // What was checked is connected to, whatever the name leads to by then.
    let rebinding = Answers::new([&["127.0.0.1"], &["127.0.0.9"]]);
    with(&rebinding).brings(&format!("http://images.example:{port}/image"), &image);
    assert_eq!(rebinding.asked.load(Ordering::SeqCst), 1);
    // The second request checks again.
    let rebinding = Answers::new([&["127.0.0.1"], &["127.0.0.9"]]);
    assert_refused(with(&rebinding).fetch(&format!("http://images.example:{port}/again")).map(drop), "127.0.0.9");
    // One bad address among good ones.
    for addresses in [["127.0.0.1", "10.42.0.1"], ["10.42.0.1", "127.0.0.1"]] {
        let mixed = Answers::new([&addresses]);
        assert_refused(with(&mixed).fetch(&format!("http://images.example:{port}/image")).map(drop), "10.42.0.1");
    }
}

#[test]
fn a_retry_checks_again() {
    let server = Server::start(|_, connection| {
        connection.write("HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let lookup = Answers::new([&["127.0.0.1"], &["169.254.169.254"]]);
    let download = Download::new(FetchSettings { lookup, ..settings() });
    let url = format!("http://images.example:{}/", server.port());
    assert_refused(download.fetch(&url).map(drop), "169.254.169.254");
}

/// A proxy would resolve names by itself. The test runs itself once more, with a proxy in its environment.
#[test]
fn proxies_of_the_environment_are_not_used() {
    const NAME: &str = "guard::proxies_of_the_environment_are_not_used";
    if let Ok(url) = std::env::var("IMAGE_TEST_URL") {
        return fetch(&url).unwrap();
    }
    let image = Server::start(|_, connection| connection.respond("200 OK", "", b"image"));
    let proxy = Server::start(|_, connection| connection.respond("200 OK", "", b"from the proxy"));
    let proxy_url = proxy.url("");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env("IMAGE_TEST_URL", image.url(""))
        .envs(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|name| (name, proxy_url.as_str())))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((image.requests().len(), proxy.requests().len()), (1, 0));
}

/// All hosts of the requests are as in the URL, so that virtual hosts work.
#[test]
fn the_host_header_is_that_of_the_url() {
    let hosts = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&hosts);
    let server = Server::start(move |request, connection| {
        log.lock().unwrap().push(request.header("host").unwrap().to_owned());
        connection.respond("200 OK", "", b"image");
    });
    let lookup = Answers::new([&["127.0.0.1"]]);
    let url = format!("http://images.example:{}/", server.port());
    Download::new(FetchSettings { lookup, ..settings() }).fetch(&url).unwrap();
    assert_eq!(*hosts.lock().unwrap(), [format!("images.example:{}", server.port())]);
}
