//! A NATS server that knows users by their keys, and the part of the control plane that redeems join tokens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use otherix_identity::creds::{Creds, role_tag};
use otherix_identity::jwt::{
    self, Account, AccountLimits, Claims, JetStreamLimits, Operator, Permissions, User, UserLimits, UserPermissions,
};
use otherix_identity::{JoinToken, KeyKind, KeyPair, PublicKey};
use otherix_schemas::decision_chain::{DecisionKey, DecisionSigner};
use otherix_schemas::enrollment::{NewNodeKey, NodeCredentialView, NodeKeyView, NodeToEnroll};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{ClusterId, NodeId};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta};
use otherix_schemas::value::{NodeName, UserKey};
use otherix_testkit::nats::NatsServer;
use otherix_transport::transport::{Headers, Message};
use otherix_transport::{Credentials, Nats, NatsEndpoint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(10);

/// The certificate of a CA that has issued nothing.
pub(crate) const CA: &str = "\
-----BEGIN CERTIFICATE-----
MIIBejCCASGgAwIBAgIUEOjToRmFePbXKIuonS+hv96WcsQwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHdGVzdCBDQTAgFw0yNjExMjkxOTA5NTZaGA8yMTI2MTEwNTE5
MDk1NlowEjEQMA4GA1UEAwwHdGVzdCBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABOg/K+OqCfQXMrgOW99VosPjMyxhi7+ysfD6hXB038cPoOQI1jr98eg8yLnV
eEW5tj3A6jDW0v7hCob1Wp74ZoGjUzBRMB0GA1UdDgQWBBRYswDuauQ1xoSXN072
TOgTZB/0HzAfBgNVHSMEGDAWgBRYswDuauQ1xoSXN072TOgTZB/0HzAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIGSUUi5ZDpEVlKLES8KxWMnp0iIy
vk0TnR9w9zwqUxq3AiB20p9fPJONL34DN5kR90bsEZb7ANvXKhQMM3bSaMYcmw==
-----END CERTIFICATE-----
";

/// A registered key of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeKey {
    pub(crate) node_id: NodeId,
    pub(crate) name: NodeName,
    /// The key of the token that it was registered with.
    token: UserKey,
}

/// What the control plane knows.
pub(crate) struct Registry {
    pub(crate) cluster: ClusterId,
    /// How often each token may still be redeemed.
    pub(crate) uses_left: BTreeMap<UserKey, u32>,
    pub(crate) nodes: BTreeMap<UserKey, NodeKey>,
    /// What it gives as the key in answers, in place of the right one.
    pub(crate) wrong_key: Option<UserKey>,
}

/// The server, and what answers its users.
pub(crate) struct Cluster {
    pub(crate) server: NatsServer,
    account: Arc<KeyPair>,
    registry: Arc<Mutex<Registry>>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn key(kind: KeyKind) -> KeyPair {
    KeyPair::generate(kind).unwrap()
}

pub(crate) fn user_key(pair: &KeyPair) -> UserKey {
    pair.public_key().as_str().parse().unwrap()
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let (operator, system, account) = (key(KeyKind::Operator), key(KeyKind::Account), key(KeyKind::Account));
        let body = Operator {
            signing_keys: Vec::new(),
            system_account: Some(system.public_key().clone()),
            strict_signing_key_usage: false,
        };
        let operator_jwt = jwt::encode(Claims::new(operator.public_key(), "o", now(), body), &operator).unwrap();
        let limits = AccountLimits { jetstream: JetStreamLimits::UNLIMITED, ..AccountLimits::CLIENTS_ONLY };
        let account_jwt = |account: &KeyPair, name: &str, limits| {
            let claims = Claims::new(account.public_key(), name, now(), Account::new(limits));
            format!("  {}: {}\n", account.public_key().as_str(), jwt::encode(claims, &operator).unwrap())
        };
        let accounts =
            account_jwt(&system, "SYS", AccountLimits::CLIENTS_ONLY) + &account_jwt(&account, "NODES", limits);
        let system = system.public_key().as_str();
        let server = NatsServer::start_with_config(|store| {
            format!(
                "operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\n\
                 resolver_preload: {{\n{accounts}}}\njetstream {{ store_dir: \"{}\" }}\n",
                store.display()
            )
        });
        let registry = Registry {
            cluster: ClusterId::new(Uuid::from_u128(1)),
            uses_left: BTreeMap::new(),
            nodes: BTreeMap::new(),
            wrong_key: None,
        };
        let cluster = Self { server, account: Arc::new(account), registry: Arc::new(Mutex::new(registry)) };
        cluster.serve().await;
        cluster
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap()
    }

    pub(crate) fn decision_key() -> DecisionKey {
        DecisionSigner::from_seed(&[1; 32]).public()
    }

    /// The credentials of somebody with all rights.
    pub(crate) fn control_plane(&self) -> Creds {
        let pair = key(KeyKind::User);
        Creds::new(jwt_of(&self.account, pair.public_key(), "control", None), pair).unwrap()
    }

    /// A token that can be redeemed so many times.
    pub(crate) fn token(&self, max_uses: u32) -> JoinToken {
        let token = self.token_expiring(None);
        self.registry().uses_left.insert(user_key(token.creds.key()), max_uses);
        token
    }

    /// A token that the server refuses from this Unix time in seconds on.
    pub(crate) fn token_expiring(&self, at: Option<u64>) -> JoinToken {
        self.token_signed_by(&self.account, at)
    }

    /// A token of another cluster at the same address.
    pub(crate) fn foreign_token(&self) -> JoinToken {
        self.token_signed_by(&key(KeyKind::Account), None)
    }

    fn token_signed_by(&self, account: &KeyPair, expires_at: Option<u64>) -> JoinToken {
        let pair = key(KeyKind::User);
        let creds = Creds::new(jwt_of(account, pair.public_key(), "node-join", expires_at), pair).unwrap();
        JoinToken { server: self.server.url(), ca: None, creds, decision_key: Self::decision_key(), name: None }
    }

    pub(crate) fn endpoint(&self, creds: Creds) -> NatsEndpoint {
        NatsEndpoint::new(self.server.url(), Credentials::Key(creds.into()))
    }

    async fn serve(&self) {
        let nats = Nats::once(&self.endpoint(self.control_plane()), "enrollment", DEADLINE).await.unwrap();
        let mut requests = nats.subscribe("otherix.req.v1.*.node.*").await.unwrap();
        nats.settled().await.unwrap();
        let (account, registry) = (Arc::clone(&self.account), Arc::clone(&self.registry));
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let rest = request.subject.strip_prefix("otherix.req.v1.").unwrap();
                let (caller, verb) = rest.split_once(".node.").unwrap();
                let caller: UserKey = caller.parse().unwrap();
                let answered = registry.lock().unwrap().answer(&account, &caller, verb, &request.payload);
                let Some(answered) = answered else { continue };
                let reply = request.reply.clone().unwrap();
                let message = match answered {
                    Ok(body) => Message::new(reply, body),
                    Err(error) => {
                        let mut headers = Headers::new();
                        headers.insert("Nats-Service-Error", "refused").unwrap();
                        headers.insert("Nats-Service-Error-Code", "409").unwrap();
                        Message::new(reply, serde_json::to_vec(&error).unwrap()).with_headers(headers)
                    }
                };
                nats.publish(message).await.unwrap();
            }
        });
    }
}

/// The JWT of a user with all rights in the account.
fn jwt_of(account: &KeyPair, key: &PublicKey, role: &str, expires_at: Option<u64>) -> String {
    let permissions = UserPermissions {
        subjects: Permissions::default(),
        limits: UserLimits::NONE,
        allowed_connection_types: Vec::new(),
    };
    let user = User::with_permissions(account.public_key(), permissions);
    let body = User { issuer_account: None, tags: vec![role_tag(role)], ..user };
    jwt::encode(Claims { expires_at, ..Claims::new(key, role, now(), body) }, account).unwrap()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).unwrap()
}

fn success(data: impl Serialize) -> Result<Vec<u8>, ErrorBody> {
    Ok(serde_json::to_vec(&Answer { data, meta: Meta::at(Position::ZERO) }).unwrap())
}

fn conflict(text: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Conflict, text)
}

impl Registry {
    /// `None` for requests that somebody else answers.
    fn answer(
        &mut self,
        account: &KeyPair,
        caller: &UserKey,
        verb: &str,
        body: &[u8],
    ) -> Option<Result<Vec<u8>, ErrorBody>> {
        if ["rotate-key", "credential"].contains(&verb) && !self.nodes.contains_key(caller) {
            return Some(Err(ErrorBody::new(ErrorCode::Unauthenticated, "the credential is revoked")));
        }
        Some(match verb {
            "enroll" => self.enroll(caller, parse(body)),
            "rotate-key" => self.offer(caller, parse(body)),
            "enrolled" | "credential" => {
                let NewNodeKey { key } = parse(body);
                let Some(NodeKey { node_id, name, .. }) = self.nodes.get(&key).cloned() else {
                    return Some(Err(ErrorBody::new(ErrorCode::NotFound, "there is no such key")));
                };
                success(NodeCredentialView {
                    cluster: self.cluster,
                    node_id,
                    name,
                    jwt: jwt_of(account, &key.as_str().parse().unwrap(), "node", None),
                    key: self.wrong_key.clone().unwrap_or(key),
                    decision_key: Cluster::decision_key(),
                })
            }
            _ => return None,
        })
    }

    fn enroll(&mut self, token: &UserKey, request: NodeToEnroll) -> Result<Vec<u8>, ErrorBody> {
        let NodeToEnroll { name, key, node_id } = request;
        if let Some(NodeKey { node_id, .. }) = self.nodes.get(&key).filter(|node| node.token == *token) {
            return success(NodeKeyView { node_id: *node_id, name, key });
        }
        if self.nodes.values().any(|node| node.name == name) {
            return Err(conflict("there is a node of this name"));
        }
        match self.uses_left.get_mut(token) {
            Some(left) if *left > 0 => *left -= 1,
            Some(_) | None => return Err(conflict("the join token is used up")),
        }
        let node_id = node_id.unwrap_or_else(|| NodeId::new(Uuid::now_v7()));
        self.nodes.insert(key.clone(), NodeKey { node_id, name: name.clone(), token: token.clone() });
        success(NodeKeyView { node_id, name, key })
    }

    fn offer(&mut self, caller: &UserKey, NewNodeKey { key }: NewNodeKey) -> Result<Vec<u8>, ErrorBody> {
        let Some(node) = self.nodes.get(caller).cloned() else { return Err(conflict("not a node")) };
        let NodeKey { node_id, name, .. } = node.clone();
        self.nodes.insert(key.clone(), node);
        success(NodeKeyView { node_id, name, key })
    }
}
