//! Certificates of the server: which it makes, keeps and renews, and that clients accept them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use otherix_schemas::permission::Role;
use otherix_testkit::tempdir;
use otherix_transport::{Credentials, Nats, NatsEndpoint, TrustedCa};

use super::super::tls::issue::Authority;
use super::super::tls::{GivenCertificate, ServerTls, TlsSettings, now, shifted};
use super::super::{NatsError, NatsSupervisor, parse_name};
use super::{DEADLINE, settings};

const DAY: i64 = 24 * 3600;

fn named(names: &[&str]) -> TlsSettings {
    TlsSettings { given: None, names: names.iter().map(ToString::to_string).collect() }
}

fn prepare(state: &Path, settings: &TlsSettings) -> Result<Option<ServerTls>, NatsError> {
    ServerTls::prepare(state, Ipv4Addr::new(192, 0, 2, 1).into(), settings)
}

fn files(state: &Path) -> [String; 3] {
    ["ca.pem", "ca.key", "server.pem"].map(|name| fs::read_to_string(state.join("identity/tls").join(name)).unwrap())
}

#[test]
fn only_loopback_is_not_encrypted() {
    let folder = tempdir().unwrap();
    let at = |address: IpAddr| ServerTls::prepare(folder.path(), address, &TlsSettings::default()).unwrap().is_some();
    let addresses = ["127.0.0.1", "127.1.2.3", "::1", "192.0.2.1", "0.0.0.0", "::", "2001:db8::1"];
    let encrypted = addresses.map(|address| at(address.parse().unwrap()));
    assert_eq!(encrypted, [false, false, false, true, true, true, true]);
}

#[test]
fn the_ca_stays_and_the_certificate_is_renewed_in_time() {
    let folder = tempdir().unwrap();
    let state = folder.path();
    prepare(state, &TlsSettings::default()).unwrap().unwrap();
    let first = files(state);
    for (path, mode) in [("ca.pem", 0o600), ("ca.key", 0o600), ("server.pem", 0o600), (".", 0o700), ("..", 0o700)] {
        let found = fs::metadata(state.join("identity/tls").join(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    prepare(state, &TlsSettings::default()).unwrap();
    assert_eq!(files(state), first, "nothing is made anew");
    // Another name.
    prepare(state, &named(&["nats.example"])).unwrap();
    let second = files(state);
    assert_eq!((&second[..2], second[2] == first[2]), (&first[..2], false));
    let ca = TrustedCa::load(&state.join("identity/tls/ca.pem")).unwrap();
    let now = now().unwrap();
    for name in ["nats.example", "192.0.2.1", "127.0.0.1", "::1", "localhost"] {
        ca.check(second[2].as_bytes(), name, now).unwrap();
        ca.check(second[2].as_bytes(), name, shifted(now, 729 * DAY).unwrap()).unwrap();
        ca.check(second[2].as_bytes(), name, shifted(now, 731 * DAY).unwrap()).unwrap_err();
    }
    ca.check(second[2].as_bytes(), "other.example", now).unwrap_err();
    // Of 364 days, of 366 days, and what is no certificate.
    let names = ["192.0.2.1", "127.0.0.1", "::1", "localhost"].map(str::to_owned);
    let names = [&names[..], &super::super::tls::host_name().into_iter().collect::<Vec<_>>()].concat();
    let authority = Authority::load(first[1].as_bytes()).unwrap();
    for (left, is_renewed) in [(364, true), (366, false)] {
        let old = authority.issue(&names, shifted(now, (left - 730) * DAY).unwrap()).unwrap();
        fs::write(state.join("identity/tls/server.pem"), &old).unwrap();
        prepare(state, &TlsSettings::default()).unwrap();
        assert_eq!(files(state)[2] != old, is_renewed, "{left} days");
    }
    fs::write(state.join("identity/tls/server.pem"), "nonsense").unwrap();
    prepare(state, &TlsSettings::default()).unwrap();
    ca.check(files(state)[2].as_bytes(), "192.0.2.1", now).unwrap();
}

#[test]
fn an_interrupted_first_start_continues() {
    let folder = tempdir().unwrap();
    let state = folder.path();
    prepare(state, &TlsSettings::default()).unwrap();
    let [_, key, _] = files(state);
    for lost in ["ca.pem", "server.pem"] {
        fs::remove_file(state.join("identity/tls").join(lost)).unwrap();
        let tls = prepare(state, &TlsSettings::default()).unwrap().unwrap();
        let [_, same, server] = files(state);
        assert_eq!(same, key);
        tls.ca.check(server.as_bytes(), "192.0.2.1", now().unwrap()).unwrap();
    }
    // With another CA, clients would refuse the server.
    fs::remove_file(state.join("identity/tls/ca.key")).unwrap();
    let error = prepare(state, &TlsSettings::default()).err().unwrap();
    assert!(error.to_string().contains("ca.key") && error.hint().unwrap().contains("from a backup"), "{error}");
    assert!(state.join("identity/tls/ca.pem").exists());
}

#[test]
fn an_operators_certificate_is_checked_before_nodes_see_it() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let authority = Authority::generate().unwrap();
    let now = now().unwrap();
    write("ca.pem", &authority.certificate_pem(now).unwrap(), 0o644);
    write("other.pem", &Authority::generate().unwrap().certificate_pem(now).unwrap(), 0o644);
    write("good.pem", &authority.issue(&["nats.example".to_owned()], now).unwrap(), 0o600);
    write("old.pem", &authority.issue(&["nats.example".to_owned()], shifted(now, -800 * DAY).unwrap()).unwrap(), 0o600);
    let given = |cert: &str, ca: &str, name: &str| TlsSettings {
        given: Some(GivenCertificate { cert: path(cert), key: path(cert), ca: Some(path(ca)) }),
        ..named(&[name])
    };
    prepare(folder.path(), &given("good.pem", "ca.pem", "nats.example")).unwrap().unwrap();
    for (cert, ca, name, text) in [
        ("good.pem", "other.pem", "nats.example", "was not issued by the CA"),
        ("good.pem", "ca.pem", "other.example", "is not for `other.example`, but for `nats.example`"),
        ("old.pem", "ca.pem", "nats.example", "has expired"),
        ("missing.pem", "ca.pem", "nats.example", "cannot read"),
    ] {
        let error = prepare(folder.path(), &given(cert, ca, name)).unwrap_err();
        let error = otherix_schemas::error::Causes(&error).to_string();
        assert!(error.contains(text), "{error}");
    }
    write("good.pem", &authority.issue(&["nats.example".to_owned()], now).unwrap(), 0o640);
    let error = prepare(folder.path(), &given("good.pem", "ca.pem", "nats.example")).unwrap_err().to_string();
    assert!(error.ends_with(&format!("(mode 0640): run `chmod 600 {}`", path("good.pem").display())), "{error}");
    assert!(!path("identity").exists(), "nothing is generated");
}

#[test]
fn names_are_host_names_or_addresses() {
    for good in ["nats.example", "a", "10.0.0.1", "2001:db8::1", "NATS.example"] {
        assert_eq!(parse_name(good).unwrap(), good.to_ascii_lowercase());
    }
    for bad in ["", "a b", "*.example", "-a", "a-", "a..b", "ä", "a/b", &"a".repeat(64)] {
        parse_name(bad).unwrap_err();
    }
}

#[tokio::test]
async fn the_control_plane_and_clients_connect_with_tls_only() {
    let folder = tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.tls = named(&["nats.example"]);
    let supervisor = NatsSupervisor::start(settings).await.unwrap();
    let access = supervisor.access();
    let own = Nats::once(&access.people, "test", DEADLINE).await.unwrap();
    own.settled().await.unwrap();
    super::make_user(folder.path(), &supervisor, Role::Admin);
    let admin = Credentials::load(&folder.path().join("credentials/admin.creds")).unwrap();
    let ca = TrustedCa::load(&folder.path().join("identity/tls/ca.pem")).unwrap();
    let endpoint = NatsEndpoint::new(supervisor.url(), admin.clone()).with_ca(Some(ca));
    Nats::once(&endpoint, "test", DEADLINE).await.unwrap();
    let untrusting = NatsEndpoint::new(supervisor.url(), admin);
    Nats::once(&untrusting, "test", Duration::from_secs(5)).await.unwrap_err();
    // A client that does not encrypt gets no answer but an error.
    let port = supervisor.url().rsplit_once(':').unwrap().1.parse().unwrap();
    let mut plain = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    plain.set_read_timeout(Some(DEADLINE)).unwrap();
    std::io::Write::write_all(&mut plain, b"CONNECT {}\r\nPING\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset = std::io::Read::read_to_end(&mut plain, &mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("INFO ") && !answer.contains("PONG"), "{answer}");
    supervisor.stop().await;
}
