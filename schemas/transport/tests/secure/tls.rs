//! TLS: who is trusted, and attacks by somebody in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::nats::ConnectFailure;
use otherix_transport::tls::{CaError, TlsFailure};
use otherix_transport::transport::Message;
use otherix_transport::{Credentials, JetStream, Nats, NatsEndpoint, TrustedCa};

use crate::pki::TestCa;

const DEADLINE: Duration = Duration::from_secs(10);

/// A server with a certificate for its address from a CA in `ca.pem`.
struct Fixture {
    ca: TestCa,
    trusted: TrustedCa,
    folder: TempDir,
    server: NatsServer,
}

fn server(certificate: &Path) -> NatsServer {
    NatsServer::start_with_config(|store| {
        let (store, certificate) = (store.display(), certificate.display());
        format!(
            "jetstream {{ store_dir: \"{store}\" }}\n\
             tls {{ cert_file: \"{certificate}\", key_file: \"{certificate}\" }}\n"
        )
    })
}

impl Fixture {
    fn start() -> Self {
        let (ca, folder) = (TestCa::new(), tempdir().unwrap());
        let trusted = TrustedCa::load(&ca.write(folder.path(), "ca.pem")).unwrap();
        let server = server(&ca.issue(folder.path(), "127.0.0.1", -1..1));
        Self { ca, trusted, folder, server }
    }

    fn endpoint(&self, ca: Option<&TrustedCa>) -> NatsEndpoint {
        endpoint(&self.server.url(), ca)
    }
}

fn endpoint(url: &str, ca: Option<&TrustedCa>) -> NatsEndpoint {
    NatsEndpoint::new(url, Credentials::password("ann".parse().unwrap(), "secret")).with_ca(ca.cloned())
}

async fn failure(endpoint: &NatsEndpoint) -> TlsFailure {
    match Nats::once(endpoint, "test", DEADLINE).await.expect_err("no connection").source {
        ConnectFailure::Tls(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_encrypted_connection_works_like_any_other() {
    let fixture = Fixture::start();
    let endpoint = fixture.endpoint(Some(&fixture.trusted));
    let nats = Nats::once(&endpoint, "test", DEADLINE).await.unwrap();
    let mut echo = nats.subscribe("echo").await.unwrap();
    // More than one TLS record, in both directions.
    let payload = Bytes::from(vec![7; 900_000]);
    let answering = async {
        let asked = echo.next().await.unwrap();
        nats.publish(Message::new(asked.reply.unwrap(), asked.payload)).await.unwrap();
    };
    let (answer, ()) = tokio::join!(nats.request(Message::new("echo", payload.clone()), DEADLINE), answering);
    assert_eq!(answer.unwrap().payload, payload);
    let jetstream = JetStream::once(&endpoint, "test", DEADLINE).await.unwrap();
    jetstream.context().query_account().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_lost_is_encrypted_again() {
    let mut fixture = Fixture::start();
    let nats = Nats::lasting(&fixture.endpoint(Some(&fixture.trusted)), "test").await.unwrap();
    let mut connects = nats.connects();
    tokio::time::timeout(DEADLINE, connects.wait_for(|count| *count == 1)).await.unwrap().unwrap();
    fixture.server.restart();
    tokio::time::timeout(DEADLINE, connects.wait_for(|count| *count == 2)).await.unwrap().unwrap();
}

#[tokio::test]
async fn another_ca_is_not_trusted_even_under_the_same_name() {
    let fixture = Fixture::start();
    let other = TrustedCa::load(&TestCa::new().write(fixture.folder.path(), "other.pem")).unwrap();
    let endpoint = fixture.endpoint(Some(&other));
    let failure = failure(&endpoint).await;
    assert!(matches!(failure, TlsFailure::UnknownCa { .. }), "{failure:?}");
    let path = fixture.folder.path().join("other.pem");
    assert_eq!(
        failure.to_string(),
        format!("the server's certificate was not issued by the CA in `{}`", path.display())
    );
    JetStream::once(&endpoint, "test", DEADLINE).await.unwrap_err();
}

#[tokio::test]
async fn without_a_ca_those_of_this_machine_are_trusted() {
    let fixture = Fixture::start();
    let failure = failure(&fixture.endpoint(None)).await;
    assert!(matches!(failure, TlsFailure::UnknownCa { .. } | TlsFailure::Ca(CaError::System(_))), "{failure:?}");
}

#[tokio::test]
async fn a_certificate_must_be_for_the_address() {
    let fixture = Fixture::start();
    let server = server(&fixture.ca.issue(fixture.folder.path(), "nats.example", -1..1));
    let failure = failure(&endpoint(&server.url(), Some(&fixture.trusted))).await;
    let text = "the server's certificate is not for `127.0.0.1`, but for `nats.example`";
    assert_eq!(failure.to_string(), text, "{failure:?}");
    let named = fixture.trusted.clone().for_name("nats.example").unwrap();
    Nats::once(&endpoint(&server.url(), Some(&named)), "test", DEADLINE).await.unwrap();
    let misnamed = fixture.trusted.clone().for_name("other.example").unwrap();
    Nats::once(&endpoint(&server.url(), Some(&misnamed)), "test", DEADLINE).await.unwrap_err();
}

#[tokio::test]
async fn a_certificate_must_be_valid_now() {
    let fixture = Fixture::start();
    for (days, is_expected) in [
        (-3..-1, (|failure| matches!(failure, TlsFailure::Expired)) as fn(&TlsFailure) -> bool),
        (1..3, |failure| matches!(failure, TlsFailure::NotYetValid)),
    ] {
        let server = server(&fixture.ca.issue(fixture.folder.path(), "127.0.0.1", days));
        let failure = failure(&endpoint(&server.url(), Some(&fixture.trusted))).await;
        assert!(is_expected(&failure), "{failure:?}");
    }
}

#[tokio::test]
async fn plain_text_is_refused_where_tls_is_expected() {
    let fixture = Fixture::start();
    let plain = NatsServer::start();
    for endpoint in
        [endpoint(&plain.url(), Some(&fixture.trusted)), endpoint(&plain.url().replace("nats://", "tls://"), None)]
    {
        let failure = failure(&endpoint).await;
        assert!(matches!(failure, TlsFailure::NotOffered), "{failure:?}");
        JetStream::once(&endpoint, "test", DEADLINE).await.unwrap_err();
    }
    Nats::once(&endpoint(&plain.url(), None), "test", DEADLINE).await.expect("else it is accepted");
}

/// Somebody between client and server, who changes the server's greeting. Returns its URL, and what the client sends.
fn in_between(server: u16, change: impl Fn(String) -> String + Send + 'static) -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let (sender, sent) = mpsc::channel();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut greeting = String::new();
        BufReader::new(TcpStream::connect(("127.0.0.1", server)).unwrap()).read_line(&mut greeting).unwrap();
        client.write_all(change(greeting).as_bytes()).unwrap();
        let mut all = Vec::new();
        // Until the client gives up.
        let _reset = client.read_to_end(&mut all);
        sender.send(all).unwrap();
    });
    (url, sent)
}

#[tokio::test]
async fn a_downgrade_in_between_is_refused_and_nothing_is_sent() {
    let fixture = Fixture::start();
    let downgrade = |greeting: String| {
        assert!(greeting.contains("\"tls_required\":true"), "{greeting}");
        greeting.replace("\"tls_required\":true", "\"tls_required\":false")
    };
    let (url, sent) = in_between(fixture.server.port(), downgrade);
    let failure = failure(&endpoint(&url, Some(&fixture.trusted))).await;
    assert!(matches!(failure, TlsFailure::NotOffered), "{failure:?}");
    assert_eq!(sent.recv_timeout(DEADLINE).unwrap(), b"");
}

#[tokio::test]
async fn what_is_added_before_the_handshake_is_not_used() {
    let fixture = Fixture::start();
    let (url, sent) = in_between(fixture.server.port(), |greeting| greeting + "PING\r\n");
    let failure = failure(&endpoint(&url, Some(&fixture.trusted))).await;
    assert!(matches!(failure, TlsFailure::Injected), "{failure:?}");
    assert_eq!(sent.recv_timeout(DEADLINE).unwrap(), b"");
}

#[tokio::test]
async fn a_man_in_the_middle_with_another_ca_learns_nothing() {
    let fixture = Fixture::start();
    let other = TestCa::new();
    let impostor = server(&other.issue(fixture.folder.path(), "127.0.0.1", -1..1));
    let failure = failure(&endpoint(&impostor.url(), Some(&fixture.trusted))).await;
    assert!(matches!(failure, TlsFailure::UnknownCa { .. }), "{failure:?}");
    assert!(!impostor.log().contains("ann"), "{}", impostor.log());
}

#[test]
fn a_ca_file_must_be_a_certificate_that_others_cannot_change() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    let path = TestCa::new().write(folder.path(), "ca.pem");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    TrustedCa::load(&path).unwrap();
    for shared in [0o664, 0o646] {
        mode(shared);
        let error = TrustedCa::load(&path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("(mode {shared:04o}): run `chmod go-w {}`", path.display())), "{error}");
    }
    mode(0o644);
    for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(TrustedCa::load(&path), Err(CaError::Malformed { .. })), "{text}");
    }
    assert!(matches!(TrustedCa::load(folder.path()), Err(CaError::Read { .. })));
}
