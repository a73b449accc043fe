//! TLS as a user of the program meets it: what is trusted, what the errors say, and what it costs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use otherix_testkit::nats::NatsServer;
use otherix_testkit::tempdir;

use crate::fake::FakeControlPlane;

#[path = "../../../schemas/transport/tests/secure/pki.rs"]
#[expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod pki;

pub(crate) use pki::TestCa;

/// A certificate that is valid now.
pub(crate) fn issue(ca: &TestCa, folder: &Path, host: &str) -> PathBuf {
    ca.issue(folder, host, -1..10)
}

pub(crate) fn server(certificate: &Path) -> NatsServer {
    let certificate = certificate.display();
    NatsServer::start_with_config(|_| format!("tls {{ cert_file: \"{certificate}\", key_file: \"{certificate}\" }}\n"))
}

#[test]
fn a_server_that_is_not_trusted_is_exit_code_6_with_the_reason() {
    let (ca, folder) = (TestCa::new(), tempdir().expect("a directory"));
    let trusted = ca.write(folder.path(), "ca.pem");
    let other = TestCa::new().write(folder.path(), "other.pem");
    let good = issue(&ca, folder.path(), "127.0.0.1");
    let misnamed = issue(&ca, folder.path(), "nats.example");
    for (server, ca, text) in [
        (server(&good), &other, format!("was not issued by the CA in `{}`\nhint: copy the CA", other.display())),
        (server(&misnamed), &trusted, "is not for `127.0.0.1`, but for `nats.example`\nhint: use one".to_owned()),
        (NatsServer::start(), &trusted, "offers no TLS, and plain text is refused\nhint: check the address".to_owned()),
    ] {
        let fake = FakeControlPlane::on(server);
        let url = fake.server.url();
        let begin = Instant::now();
        let run = fake.run(&format!("--ca {} network list", ca.display()));
        assert_eq!((run.code, run.stdout.as_str()), (6, ""), "{}", run.stderr);
        assert!(run.stderr.starts_with(&format!("error: NATS at `{url}` is not trusted: ")), "{}", run.stderr);
        assert!(run.stderr.contains(&text), "{}", run.stderr);
        assert!(begin.elapsed().as_secs() < 2, "it does not try again: {:?}", begin.elapsed());
        let json = fake.run(&format!("--ca {} network list -o json", ca.display()));
        assert_eq!(json.error()["code"], "unauthenticated");
    }
}

#[test]
fn a_trusted_server_without_a_control_plane_is_exit_code_7() {
    let (ca, folder) = (TestCa::new(), tempdir().expect("a directory"));
    let trusted = ca.write(folder.path(), "ca.pem");
    let fake = FakeControlPlane::on(server(&issue(&ca, folder.path(), "127.0.0.1")));
    let mut command = fake.command("network list");
    let run: crate::fake::ProgramOutput = command.env("OTHERIX_CA", &trusted).output().expect("it starts").into();
    // On a busy machine the last attempt may time out instead.
    assert_eq!(run.code, 7, "{}", run.stderr);
    assert!(run.stderr.contains("control plane"), "{}", run.stderr);
    let missing = fake.run("--ca /nonexistent/ca.pem network list");
    assert_eq!(missing.code, 6);
    assert!(missing.stderr.starts_with("error: cannot read the CA file `/nonexistent/ca.pem`: "), "{}", missing.stderr);
}
