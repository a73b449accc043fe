//! A cluster of NATS servers that is not otherix's: with TLS, an operator, a system account and a full resolver. Its
//! JWTs are written here, field by field, and not by the code that is tested.
#![expect(clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use otherix_identity::{Creds, KeyKind, KeyPair, PublicKey};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::transport::Message;
use otherix_transport::{Credentials, Nats, NatsEndpoint, TrustedCa};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use serde_json::{Value, json};

use crate::daemon::DEADLINE;

/// A JWT of NATS.
pub(crate) fn token(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let claims = json!({
        "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": nats,
    });
    signed(&claims, issuer)
}

fn signed(claims: &Value, issuer: &KeyPair) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let [header, claims] = [&header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes())))
}

/// The claims of a JWT.
pub(crate) fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The same claims, signed by somebody else.
pub(crate) fn resigned(claims: &Value, issuer: &KeyPair) -> String {
    let mut claims = claims.clone();
    claims["iss"] = json!(issuer.public_key());
    signed(&claims, issuer)
}

fn key(kind: KeyKind) -> KeyPair {
    KeyPair::generate(kind).unwrap()
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The servers of somebody else.
pub(crate) struct OwnNats {
    pub(crate) servers: Vec<NatsServer>,
    /// The operator's signing key, and its own, which signs nothing else.
    pub(crate) operator: KeyPair,
    pub(crate) operator_identity: KeyPair,
    /// With the keys and certificates.
    pub(crate) folder: TempDir,
    has_tls: bool,
}

/// How they are set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// More than one are a cluster.
    pub(crate) servers: usize,
    pub(crate) tls: bool,
    /// The `resolver` of their configuration; `DIR` stands for a folder of each server.
    pub(crate) resolver: &'static str,
    pub(crate) jetstream: bool,
}

impl Setup {
    pub(crate) const ONE: Self = Self { servers: 1, tls: false, resolver: "{ type: full, dir: DIR }", jetstream: true };
    pub(crate) const CLUSTER: Self = Self { servers: 3, tls: true, ..Self::ONE };
}

impl OwnNats {
    pub(crate) fn start(setup: Setup) -> Self {
        let Setup { servers: count, tls, resolver, jetstream } = setup;
        let folder = tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // The operator signs with a signing key, as is recommended.
        let (root, operator, system) = (key(KeyKind::Operator), key(KeyKind::Operator), key(KeyKind::Account));
        let of_operator = json!({
            "signing_keys": [operator.public_key()], "system_account": system.public_key(),
            "strict_signing_key_usage": true, "type": "operator", "version": 2,
        });
        // Without the permission to sign for the system account's own key, users of it would need a signing key.
        let system_signing = key(KeyKind::Account);
        let of_system = json!({
            "limits": { "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                "conn": -1, "leaf": -1 },
            "signing_keys": [system_signing.public_key()], "type": "account", "version": 2,
        });
        for (name, denied) in [("system", &[][..]), ("limited", &["$SYS.REQ.SERVER.*.VARZ"])] {
            let user = key(KeyKind::User);
            let of_user = json!({
                "pub": { "deny": denied }, "sub": {}, "subs": -1, "data": -1, "payload": -1,
                "issuer_account": system.public_key(), "type": "user", "version": 2,
            });
            let creds = token(&system_signing, &user, name, &of_user);
            write_private(&path(&format!("{name}.creds")), &Creds::new(creds, user).unwrap().render());
        }
        write_private(&path("operator.nk"), &operator.seed());
        let common = format!(
            "operator: {}\nsystem_account: {}\nresolver_preload: {{ {}: {} }}\n",
            token(&root, &root, "theirs", &of_operator),
            system.public_key(),
            system.public_key(),
            token(&operator, &system, "SYS", &of_system),
        );
        let routes = route_addresses(count);
        let (client_tls, route_tls) =
            if tls { certificates(folder.path(), &routes) } else { (String::new(), String::new()) };
        let settings = |number: usize, route: &str| {
            let (common, client_tls, route_tls) = (common.clone(), client_tls.clone(), route_tls.clone());
            let all: Vec<String> = routes.iter().map(|route| format!("\"nats://{route}:6222\"")).collect();
            let (all, route) = (all.join(", "), route.to_owned());
            move |store: &Path| {
                let dir = format!("\"{}\"", store.with_file_name("resolver").display());
                let resolver = resolver.replace("DIR", &dir);
                let mut text = format!("server_name: n{number}\n{common}resolver: {resolver}\n{client_tls}");
                if jetstream {
                    text += &format!("jetstream {{ store_dir: \"{}\" }}\n", store.display());
                }
                if count > 1 {
                    text += &format!(
                        "cluster {{ name: theirs, listen: \"{route}:6222\", routes: [{all}]\n{route_tls} }}\n"
                    );
                }
                text
            }
        };
        let numbered = (1..).zip(&routes);
        let servers = numbered.map(|(number, route)| NatsServer::start_with_config(settings(number, route))).collect();
        Self { servers, operator, operator_identity: root, folder, has_tls: tls }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URLs of all servers, as `--nats` takes them.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(NatsServer::url).collect();
        urls.join(",")
    }

    pub(crate) fn ca(&self) -> Option<TrustedCa> {
        self.has_tls.then(|| TrustedCa::load(&self.path("ca.pem")).unwrap())
    }

    /// Where a user connects: to one server.
    pub(crate) fn endpoint(&self, server: usize, creds: &Creds) -> NatsEndpoint {
        let url = self.servers.get(server).unwrap().url();
        NatsEndpoint::new(url, Credentials::Key(creds.clone().into())).with_ca(self.ca())
    }

    pub(crate) async fn system(&self) -> Nats {
        let creds = Creds::load(&self.path("system.creds")).unwrap();
        Nats::once(&self.endpoint(0, &creds), "test", DEADLINE).await.unwrap()
    }

    /// Waits until all servers know each other, and returns them.
    pub(crate) async fn formed(self) -> Self {
        let system = self.system().await;
        wait_for(DEADLINE, "a cluster", async || {
            let pong = system.request(Message::new("$SYS.REQ.SERVER.PING", ""), DEADLINE).await.unwrap();
            let pong: Value = serde_json::from_slice(&pong.payload).unwrap();
            let known = pong["statsz"]["active_servers"].as_u64().unwrap();
            if known == u64::try_from(self.servers.len()).unwrap() { Ok(()) } else { Err(known) }
        })
        .await;
        self
    }

    /// Pushes an account as another tool does.
    pub(crate) async fn push(&self, token: &str) {
        let update = Message::new("$SYS.REQ.CLAIMS.UPDATE", token.to_owned());
        let answer = self.system().await.request(update, DEADLINE).await.unwrap().payload;
        assert!(String::from_utf8_lossy(&answer).contains("\"code\":200"), "{answer:?}");
    }

    /// The JWT of an account; empty if the server has none.
    pub(crate) async fn lookup(&self, account: &PublicKey) -> String {
        let lookup = Message::new(format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP"), "");
        let answer = self.system().await.request(lookup, DEADLINE).await.unwrap().payload;
        String::from_utf8(answer.to_vec()).unwrap()
    }
}

/// Addresses on loopback for the connections between the servers, which all of them must know before they start. Those
/// of other tests are others.
fn route_addresses(count: usize) -> Vec<String> {
    let [one, two, ..] = uuid::Uuid::new_v4().into_bytes();
    (1..=count).map(|number| format!("127.{}.{two}.{number}", one.max(1))).collect()
}

/// Writes a CA and a certificate for 127.0.0.1 and the routes. Returns the blocks `tls` for clients and for routes.
fn certificates(folder: &Path, routes: &[String]) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "their CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    fs::write(folder.join("ca.pem"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
    let mut server = CertificateParams::new([&["127.0.0.1".to_owned()], routes].concat()).unwrap();
    // Servers of a cluster are clients of each other.
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = server.signed_by(&key, &Issuer::from_params(&params, &ca_key)).unwrap();
    write_private(&folder.join("server.pem"), &format!("{}{}", certificate.pem(), key.serialize_pem()));
    let (server, ca) = (folder.join("server.pem"), folder.join("ca.pem"));
    let files = format!("cert_file: \"{0}\", key_file: \"{0}\"", server.display());
    let mutual = format!("{files}, ca_file: \"{}\", verify: true", ca.display());
    (format!("tls {{ {files} }}\n"), format!("tls {{ {mutual} }}"))
}
