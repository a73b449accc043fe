//! Users at the command service, from outside: who is admitted, what is refused and why, and for which state of a user
//! a credential is issued.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use otherix_commands::config::ClusterConfig;
use otherix_commands::refusals::RefusalLog;
use otherix_commands::service::{
    Consumers, Credential, DecisionSigning, Inputs, IssueError, Issuer, Service, Settings, decisions_of,
};
use otherix_commands::store::EventStore;
use otherix_commands::tlog::LogHandle;
use otherix_commands::writer::Writer;
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::command::Command;
use otherix_schemas::consumer::{ConsumerName, ConsumerSpec, ConsumerView};
use otherix_schemas::enrollment::{CreateJoinToken, EnrollNode, NewJoinToken, NodeToEnroll};
use otherix_schemas::error::{ErrorBody, ErrorCode, ErrorInfo};
use otherix_schemas::id::{JoinTokenId, NodeId, UserUuid};
use otherix_schemas::log::SignedLogKey;
use otherix_schemas::node::{JoinNode, JoinRequest};
use otherix_schemas::position::Position;
use otherix_schemas::request::RequestType;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{
    Caller, CallerView, CreateUser, CredentialView, DeleteUser, GetCredential, Myself, RevokeUser, RotateUserKey,
    SetUserRole, UserAndKey, UserAndRole, UserById, UserCommand, UserDraft, UserOrMyself, UserRole, UserView, WhoAmI,
};
use otherix_schemas::value::{Ipv4Subnet, UserId, UserKey};
use otherix_schemas::vm::{CreateVm, DeleteVm, VmById, VmDraft, VmView};
use otherix_transport::memory::{Faults, MemoryConnection, MemoryNetwork};
use otherix_transport::request::{CallError, CallOptions};
use otherix_transport::service::Connections;
use uuid::Uuid;

use super::relay::signer;
use super::support::{memory_store, request};

/// An issuer whose JWTs are the number of the credential, which is kept.
#[derive(Clone, Default)]
pub(super) struct TestIssuer(pub(super) Arc<Mutex<Vec<Credential>>>);

impl Issuer for TestIssuer {
    fn user_jwt(&self, credential: &Credential) -> Result<String, IssueError> {
        if credential.name.as_str() == "unlucky" {
            return Err(IssueError::new("no key"));
        }
        let mut issued = self.0.lock().unwrap();
        issued.push(credential.clone());
        Ok(issued.len().to_string())
    }
}

/// There is no stream that users could have consumers on.
struct NoConsumers;

impl Consumers for NoConsumers {
    fn create<'a>(
        &'a self,
        _: &'a Caller,
        _: ConsumerSpec,
        _: Position,
    ) -> BoxFuture<'a, Result<ConsumerView, ErrorBody>> {
        Box::pin(async { Err(ErrorBody::new(ErrorCode::Unavailable, "there is no stream")) })
    }

    fn list<'a>(&'a self, _: &'a Caller) -> BoxFuture<'a, Result<Vec<ConsumerView>, ErrorBody>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn delete<'a>(&'a self, _: &'a Caller, _: ConsumerName) -> BoxFuture<'a, Result<ConsumerView, ErrorBody>> {
        Box::pin(async { Err(ErrorBody::new(ErrorCode::NotFound, "there is no such consumer")) })
    }
}

/// A command service on a messaging system in memory.
pub(super) struct Control {
    network: MemoryNetwork,
    pub(super) issuer: TestIssuer,
}

impl Control {
    pub(super) async fn start() -> Self {
        let (runtime, store) = (SystemRuntime::shared(), Arc::new(memory_store()));
        let network = MemoryNetwork::new(Arc::clone(&runtime), Faults::NONE);
        let (writer, handle, _stored) =
            Writer::open(Arc::clone(&store), ClusterConfig::default(), Arc::clone(&runtime)).await.unwrap();
        let issuer = TestIssuer::default();
        let cluster = store.identity().cluster;
        let inputs = Inputs {
            cluster,
            issuer: Arc::new(issuer.clone()),
            consumers: Arc::new(NoConsumers),
            writer: handle.clone(),
            durable: writer.durable(),
            roster: writer.roster(),
            callers: writer.callers(),
            telemetry: Arc::new(|_| {}),
            signing: DecisionSigning { signer: signer(), rotations: Arc::new([]) },
            log: LogHandle::idle(SignedLogKey::new("log+00000000+AQ==".to_owned(), &signer()), Arc::clone(&runtime)),
            refusals: RefusalLog::none(),
            decisions: decisions_of(store),
            runtime,
        };
        let control = || network.control("control".parse().unwrap()).connection();
        let connections = Connections { people: control(), nodes: control(), observer: Arc::new(|_| {}) };
        let settings = Settings { mesh: Ipv4Subnet::DEFAULT_MESH, unreachable_after: Duration::from_secs(3600) };
        let service = Service::start(&connections, settings, inputs).await.unwrap();
        tokio::spawn(writer.run());
        tokio::spawn(service.run());
        let first = UserCommand::CreateFirst {
            user_id: UserUuid::new(Uuid::now_v7()),
            name: "admin".parse().unwrap(),
            key: key(ADMIN),
        };
        handle.execute(request(Command::User(first))).await.unwrap();
        Self { network, issuer }
    }

    pub(super) fn client(&self, user: impl Into<UserId>) -> MemoryConnection {
        self.network.client(user.into())
    }

    pub(super) fn admin(&self) -> MemoryConnection {
        self.client(&key(ADMIN))
    }

    /// Creates a join token with a key; returns its id.
    pub(super) async fn token(&self, number: u8, name: Option<&str>, max_uses: u32, ttl: Duration) -> JoinTokenId {
        let node_name = name.map(|name| name.parse().unwrap());
        let now = SystemRuntime.now().unwrap().unix_micros();
        let expires_at = Timestamp::from_unix_micros(now + i64::try_from(ttl.as_micros()).unwrap()).unwrap();
        let draft = NewJoinToken { node_name, key: key(number), expires_at, max_uses };
        call::<CreateJoinToken>(&self.admin(), &draft).await.unwrap().id
    }

    /// Has a machine redeem a token; returns a connection with its key.
    pub(super) async fn node(&self, number: u8, name: &str) -> MemoryConnection {
        self.token(number + 1, Some(name), 1, HOUR).await;
        let machine = self.client(&key(number + 1));
        call::<EnrollNode>(&machine, &enrollment(number, name, Some(node_id(number)))).await.unwrap();
        self.client(&key(number))
    }

    pub(super) async fn create(&self, number: u8, name: &str, role: UserRole) -> UserView {
        let (name, role) = (name.to_owned(), role.as_str().to_owned());
        let draft = UserDraft { name, role, key: key(number).to_string(), expires_at: None };
        call::<CreateUser>(&self.admin(), &draft).await.unwrap()
    }
}

pub(super) fn node_id(number: u8) -> NodeId {
    NodeId::new(Uuid::from_u128(number.into()))
}

pub(super) fn join(number: u8, name: &str) -> JoinRequest {
    JoinRequest { node_id: node_id(number), name: name.parse().unwrap(), mesh: None, arch: None }
}

pub(super) fn enrollment(number: u8, name: &str, node_id: Option<NodeId>) -> NodeToEnroll {
    NodeToEnroll { name: name.parse().unwrap(), key: key(number), node_id }
}

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// The key of the first administrator.
const ADMIN: u8 = 250;

pub(super) fn key(number: u8) -> UserKey {
    UserKey::from_bytes([number; 32])
}

pub(super) async fn call<R: RequestType>(client: &MemoryConnection, body: &R::Body) -> Result<R::Answer, ErrorInfo> {
    let options = CallOptions { timeout: Duration::from_secs(10), idempotency_key: None };
    match client.call::<R>(body, options).await {
        Ok(answer) => Ok(answer.data),
        Err(CallError::Refused(body)) => Err(body.error),
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn whoami(client: &MemoryConnection) -> Result<CallerView, ErrorInfo> {
    call::<WhoAmI>(client, &Myself {}).await
}

async fn credential(client: &MemoryConnection, id: Option<UserUuid>) -> Result<CredentialView, ErrorInfo> {
    call::<GetCredential>(client, &UserOrMyself { id }).await
}

#[tokio::test]
async fn a_user_is_admitted_as_long_as_the_registry_says() {
    let control = Control::start().await;
    let (client, admin) = (control.client(&key(1)), control.admin());
    let unknown = whoami(&client).await.unwrap_err();
    assert!(unknown.code == ErrorCode::Unauthenticated && unknown.message.contains("knows no user"), "{unknown:?}");
    let user = control.create(1, "ann", UserRole::Operator).await;
    let me = whoami(&client).await.unwrap();
    assert_eq!((me.id, me.name.as_str(), me.role.as_str()), (user.id.into(), "ann", "operator"));
    assert!(me.permissions.contains(&"vm:move".to_owned()) && !me.permissions.contains(&"user:manage".to_owned()));
    let denied = call::<RevokeUser>(&client, &UserById { id: user.id }).await.unwrap_err();
    assert_eq!((denied.code, &denied.details["permission"]), (ErrorCode::PermissionDenied, &"user:manage".into()));

    let role = UserAndRole { id: user.id, role: UserRole::Developer };
    call::<SetUserRole>(&admin, &role).await.unwrap();
    let me = whoami(&client).await.unwrap();
    assert_eq!((me.role.as_str(), me.permissions_for_own.contains(&"vm:delete".to_owned())), ("developer", true));
    call::<RevokeUser>(&admin, &UserById { id: user.id }).await.unwrap();
    let revoked = whoami(&client).await.unwrap_err();
    assert!(revoked.code == ErrorCode::Unauthenticated && revoked.message.contains("is revoked"), "{revoked:?}");
    let rotated = UserAndKey { id: user.id, key: key(2), expires_at: None };
    call::<RotateUserKey>(&admin, &rotated).await.unwrap();
    assert_eq!(whoami(&control.client(&key(2))).await.unwrap().name, "ann");
    assert!(whoami(&client).await.unwrap_err().message.contains("is revoked"));
    call::<DeleteUser>(&admin, &UserById { id: user.id }).await.unwrap();
    assert!(whoami(&control.client(&key(2))).await.unwrap_err().message.contains("is revoked"));
}

#[tokio::test]
async fn credentials_are_issued_for_the_present_state_only() {
    let control = Control::start().await;
    let admin = control.admin();
    let user = control.create(1, "ann", UserRole::Viewer).await;
    let mut earlier = Vec::new();
    for role in [UserRole::Viewer, UserRole::Developer, UserRole::Operator, UserRole::Viewer] {
        let view = call::<SetUserRole>(&admin, &UserAndRole { id: user.id, role }).await.unwrap();
        let issued = credential(&admin, Some(user.id)).await.unwrap();
        assert_eq!((issued.role, &issued.key, view.role), (role, &user.key, role));
        let credential = control.issuer.0.lock().unwrap().last().unwrap().clone();
        assert_eq!((credential.role, &credential.key), (role.into(), &user.key));
        // A change revokes what was issued before, within one second, too.
        assert!(earlier.iter().all(|issued_at| *issued_at < credential.issued_at), "{earlier:?}");
        earlier.push(credential.issued_at);
    }
    // The same state has the same credential.
    let again = control.issuer.0.lock().unwrap().last().unwrap().clone();
    credential(&admin, Some(user.id)).await.unwrap();
    assert_eq!(*control.issuer.0.lock().unwrap().last().unwrap(), again);
    call::<RevokeUser>(&admin, &UserById { id: user.id }).await.unwrap();
    assert_eq!(credential(&admin, Some(user.id)).await.unwrap_err().code, ErrorCode::NotFound);
    let unlucky = control.create(2, "unlucky", UserRole::Viewer).await;
    assert_eq!(credential(&admin, Some(unlucky.id)).await.unwrap_err().code, ErrorCode::Internal);
}

#[tokio::test]
async fn a_user_obtains_its_own_credential_and_an_admin_those_of_others() {
    let control = Control::start().await;
    let (ann, bob) =
        (control.create(1, "ann", UserRole::Viewer).await, control.create(2, "bob", UserRole::Operator).await);
    let client = control.client(&key(1));
    for id in [None, Some(ann.id)] {
        assert_eq!(credential(&client, id).await.unwrap().id, ann.id);
    }
    let nobody = UserUuid::new(Uuid::nil());
    for id in [bob.id, nobody] {
        let denied = credential(&client, Some(id)).await.unwrap_err();
        assert_eq!((denied.code, &denied.details["permission"]), (ErrorCode::PermissionDenied, &"user:manage".into()));
    }
    assert_eq!(credential(&control.admin(), Some(bob.id)).await.unwrap().name, bob.name);
    assert_eq!(credential(&control.admin(), Some(nobody)).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(credential(&control.admin(), None).await.unwrap().key, key(ADMIN));
    let node = control.node(3, "node-1").await;
    assert_eq!(credential(&node, Some(ann.id)).await.unwrap_err().code, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn nobody_rotates_the_own_key_or_takes_over_that_of_a_node() {
    let control = Control::start().await;
    let ann = control.create(1, "ann", UserRole::Admin).await;
    let rotate = |number| UserAndKey { id: ann.id, key: key(number), expires_at: None };
    let own = call::<RotateUserKey>(&control.client(&key(1)), &rotate(2)).await.unwrap_err();
    assert!(own.code == ErrorCode::Conflict && own.message.contains("own key"), "{own:?}");
    control.node(200, "node-1").await;
    let taken = call::<RotateUserKey>(&control.admin(), &rotate(200)).await.unwrap_err();
    assert!(taken.code == ErrorCode::Conflict && taken.message.contains("is or was registered"), "{taken:?}");
    call::<RotateUserKey>(&control.admin(), &rotate(2)).await.unwrap();
    assert_eq!(whoami(&control.client(&key(2))).await.unwrap().name, "ann");
}

#[tokio::test]
async fn a_developer_deletes_own_vms_only() {
    let control = Control::start().await;
    let node = control.node(200, "node-1").await;
    call::<JoinNode>(&node, &join(200, "node-1")).await.unwrap();
    control.create(1, "dev-1", UserRole::Developer).await;
    control.create(2, "dev-2", UserRole::Developer).await;
    control.create(3, "op", UserRole::Operator).await;
    let [one, two, operator] = [1, 2, 3].map(|number| control.client(&key(number)));
    let create = async |client: &MemoryConnection, name: &str| -> VmView {
        let (image_url, arch) = (Some("https://images.example/a".to_owned()), Some("amd64".to_owned()));
        let draft = VmDraft { name: name.to_owned(), image_url, arch, ..VmDraft::default() };
        call::<CreateVm>(client, &draft).await.unwrap()
    };
    let delete = async |client: &MemoryConnection, vm: &VmView| call::<DeleteVm>(client, &VmById { id: vm.id }).await;
    let (first, second) = (create(&one, "vm-1").await, create(&one, "vm-2").await);
    assert_eq!(first.owner.as_ref().unwrap().name.as_deref(), Some("dev-1"));
    let denied = delete(&two, &first).await.unwrap_err();
    assert_eq!((denied.code, &denied.details["permission"]), (ErrorCode::PermissionDenied, &"vm:delete".into()));
    assert_eq!(delete(&one, &first).await.unwrap().owner, first.owner);
    delete(&operator, &second).await.unwrap();
}
