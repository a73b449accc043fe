//! TLS as a user of the program meets it: what is trusted, what the errors say, and what it costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use otherix_testkit::nats::NatsServer;
use otherix_testkit::tempdir;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::fake::FakeControlPlane;

/// A CA for tests.
pub(crate) struct TestCa {
    params: CertificateParams,
    key: KeyPair,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().expect("a key") }
    }

    /// Writes the CA's certificate.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, self.params.self_signed(&self.key).expect("a certificate").pem()).expect("written");
        path
    }

    /// Writes a certificate for a host, with its key.
    fn issue(&self, folder: &Path, host: &str) -> PathBuf {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).expect("a certificate");
        let path = folder.join(format!("{host}.pem"));
        fs::write(&path, format!("{}{}", certificate.pem(), key.serialize_pem())).expect("written");
        path
    }
}

fn server(certificate: &Path) -> NatsServer {
    let certificate = certificate.display();
    NatsServer::start_with_config(|_| format!("tls {{ cert_file: \"{certificate}\", key_file: \"{certificate}\" }}\n"))
}

#[test]
fn a_server_that_is_not_trusted_is_exit_code_6_with_the_reason() {
    let (ca, folder) = (TestCa::new(), tempdir().expect("a directory"));
    let trusted = ca.write(folder.path(), "ca.pem");
    let other = TestCa::new().write(folder.path(), "other.pem");
    let good = ca.issue(folder.path(), "127.0.0.1");
    let misnamed = ca.issue(folder.path(), "nats.example");
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
    let fake = FakeControlPlane::on(server(&ca.issue(folder.path(), "127.0.0.1")));
    let mut command = fake.command("network list");
    let run: crate::fake::ProgramOutput = command.env("OTHERIX_CA", &trusted).output().expect("it starts").into();
    // On a busy machine the last attempt may time out instead.
    assert_eq!(run.code, 7, "{}", run.stderr);
    assert!(run.stderr.contains("control plane"), "{}", run.stderr);
    let missing = fake.run("--ca /nonexistent/ca.pem network list");
    assert_eq!(missing.code, 6);
    assert!(missing.stderr.starts_with("error: cannot read the CA file `/nonexistent/ca.pem`: "), "{}", missing.stderr);
}
