//! A server in operator mode: one account with users of one role, and the system account to change it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use otherix_identity::creds::{Creds, role_tag};
use otherix_identity::jwt::{
    self, Account, AccountLimits, Claims, Operator, Permissions, Scope, ScopeKind, SubjectPermissions, User,
    UserLimits, UserPermissions,
};
use otherix_identity::{KeyKind, KeyPair, PublicKey};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::transport::Message;
use otherix_transport::{Credentials, Nats, NatsEndpoint};

const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct OperatorServer {
    pub(crate) server: NatsServer,
    operator: KeyPair,
    account: KeyPair,
    /// Signs users that may make the requests `network.list` and nothing else.
    viewers: KeyPair,
    system_user: NatsEndpoint,
    /// What the server's configuration says about accounts.
    accounts: String,
    folder: TempDir,
}

fn key(kind: KeyKind) -> KeyPair {
    KeyPair::generate(kind).unwrap()
}

/// Unix time in seconds.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

impl OperatorServer {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with further settings.
    pub(crate) fn start_with(settings: &str) -> Self {
        let folder = tempdir().unwrap();
        let (operator, system, account, viewers) =
            (key(KeyKind::Operator), key(KeyKind::Account), key(KeyKind::Account), key(KeyKind::Account));
        let body = Operator {
            signing_keys: Vec::new(),
            system_account: Some(system.public_key().clone()),
            strict_signing_key_usage: false,
        };
        let operator_jwt = jwt::encode(Claims::new(operator.public_key(), "o", now(), body), &operator).unwrap();
        let body = Account::new(AccountLimits::CLIENTS_ONLY);
        let system_jwt = jwt::encode(Claims::new(system.public_key(), "SYS", now(), body), &operator).unwrap();
        let account_jwt = account_jwt(&operator, &account, &viewers, BTreeMap::new());
        let preload = [(system.public_key(), system_jwt), (account.public_key(), account_jwt)];
        let preload: String = preload.iter().map(|(key, jwt)| format!("  {}: {jwt}\n", key.as_str())).collect();
        let accounts = format!(
            "operator: {operator_jwt}\nsystem_account: {}\nresolver_preload: {{\n{preload}}}\n",
            system.public_key().as_str(),
        );
        let server = NatsServer::start_with_config(|store| format!("{accounts}{}{settings}", resolver(store)));
        let user = key(KeyKind::User);
        let claims = Claims::new(user.public_key(), "sys", now(), User { issuer_account: None, ..all(&system) });
        let creds = Creds::new(jwt::encode(claims, &system).unwrap(), user).unwrap();
        let system_user = NatsEndpoint::new(server.url(), Credentials::Key(creds.into()));
        Self { server, operator, account, viewers, system_user, accounts, folder }
    }

    /// Starts another server with the same accounts.
    pub(crate) fn another(&self, settings: &str) -> NatsServer {
        NatsServer::start_with_config(|store| format!("{}{}{settings}", self.accounts, resolver(store)))
    }

    /// A viewer, whose credentials expire at this Unix time.
    pub(crate) fn viewer(&self, expires_at: Option<u64>) -> (Credentials, PublicKey) {
        self.viewer_signed_by(&self.viewers, expires_at)
    }

    /// A user that this server does not know.
    pub(crate) fn foreigner(&self) -> Credentials {
        self.viewer_signed_by(&key(KeyKind::Account), None).0
    }

    fn viewer_signed_by(&self, signer: &KeyPair, expires_at: Option<u64>) -> (Credentials, PublicKey) {
        let user = key(KeyKind::User);
        let body = User { tags: vec![role_tag("viewer")], ..User::scoped(self.account.public_key()) };
        let claims = Claims { expires_at, ..Claims::new(user.public_key(), "ann", now(), body) };
        let public = user.public_key().clone();
        let creds = Creds::new(jwt::encode(claims, signer).unwrap(), user).unwrap();
        let path: PathBuf = self.folder.path().join("ann.creds");
        fs::write(&path, creds.render().as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (Credentials::load(&path).unwrap(), public)
    }

    pub(crate) fn endpoint(&self, credentials: Credentials) -> NatsEndpoint {
        NatsEndpoint::new(self.server.url(), credentials)
    }

    /// Credentials with all rights in the account.
    pub(crate) fn anyone(&self) -> Credentials {
        let user = key(KeyKind::User);
        let body = User { issuer_account: None, ..all(&self.account) };
        let claims = Claims::new(user.public_key(), "bob", now(), body);
        Credentials::Key(Creds::new(jwt::encode(claims, &self.account).unwrap(), user).unwrap().into())
    }

    /// A connection with all rights in the account.
    pub(crate) async fn anything(&self) -> Nats {
        Nats::once(&self.endpoint(self.anyone()), "test", DEADLINE).await.unwrap()
    }

    /// Revokes a user: connections with credentials that were issued until now are cut.
    pub(crate) async fn revoke(&self, user: &PublicKey) {
        let revoked = BTreeMap::from([(user.to_string(), now())]);
        let jwt = account_jwt(&self.operator, &self.account, &self.viewers, revoked);
        let system = Nats::once(&self.system_user, "test", DEADLINE).await.unwrap();
        let update = Message::new("$SYS.REQ.CLAIMS.UPDATE", Bytes::from(jwt));
        let answer = system.request(update, DEADLINE).await.unwrap();
        assert!(String::from_utf8_lossy(&answer.payload).contains("\"code\":200"), "{answer:?}");
    }
}

/// Where the server keeps the JWTs of accounts: beside its JetStream store.
fn resolver(store: &Path) -> String {
    format!("resolver: {{ type: full, dir: \"{}\" }}\n", store.with_file_name("resolver").display())
}

/// A user that may do anything in the account.
fn all(account: &KeyPair) -> User {
    let permissions = UserPermissions {
        subjects: Permissions::default(),
        limits: UserLimits::NONE,
        allowed_connection_types: Vec::new(),
    };
    User::with_permissions(account.public_key(), permissions)
}

fn account_jwt(operator: &KeyPair, account: &KeyPair, viewers: &KeyPair, revocations: BTreeMap<String, u64>) -> String {
    let allow = |subjects: &[&str]| SubjectPermissions {
        allow: subjects.iter().map(ToString::to_string).collect(),
        deny: Vec::new(),
    };
    let template = UserPermissions {
        subjects: Permissions {
            publish: allow(&["otherix.req.v1.{{subject()}}.network.list"]),
            subscribe: allow(&["_INBOX_{{subject()}}.>"]),
        },
        limits: UserLimits::NONE,
        allowed_connection_types: Vec::new(),
    };
    let scope =
        Scope { kind: ScopeKind::UserScope, key: viewers.public_key().clone(), role: "viewer".to_owned(), template };
    let body = Account { signing_keys: vec![scope], revocations, ..Account::new(AccountLimits::CLIENTS_ONLY) };
    jwt::encode(Claims::new(account.public_key(), "CLIENTS", now(), body), operator).unwrap()
}
