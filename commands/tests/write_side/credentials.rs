//! Users at the command service, from outside: who is admitted, what is refused and why, and for which state of a user
//! a credential is issued.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use otherix_commands::config::ClusterConfig;
use otherix_commands::service::{
    Credential, DecisionSigning, Inputs, IssueError, Issuer, Service, Settings, decisions_of,
};
use otherix_commands::store::EventStore;
use otherix_commands::writer::Writer;
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::command::Command;
use otherix_schemas::enrollment::{
    AllJoinTokens, CreateJoinToken, EnrollNode, GetEnrolledNode, GetJoinTokenCredential, GetNodeCredential,
    JoinTokenById, JoinTokenStatus, ListJoinTokens, NewJoinToken, NewNodeKey, NodeToEnroll, RevokeJoinToken,
    RotateNodeKey,
};
use otherix_schemas::error::{ErrorCode, ErrorInfo};
use otherix_schemas::id::{JoinTokenId, NodeId, UserUuid};
use otherix_schemas::node::{DeleteNode, JoinNode, JoinRequest, NodeById, NodeReport, ReportNode};
use otherix_schemas::permission::Role;
use otherix_schemas::request::RequestType;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{
    CallerView, CreateUser, CredentialView, DeleteUser, GetCredential, Myself, RevokeUser, RotateUserKey, SetUserRole,
    UserAndKey, UserAndRole, UserById, UserCommand, UserDraft, UserOrMyself, UserRole, UserView, WhoAmI,
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
struct TestIssuer(Arc<Mutex<Vec<Credential>>>);

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

/// A command service on a messaging system in memory.
struct Control {
    network: MemoryNetwork,
    issuer: TestIssuer,
}

impl Control {
    async fn start() -> Self {
        let (runtime, store) = (SystemRuntime::shared(), Arc::new(memory_store()));
        let network = MemoryNetwork::new(Arc::clone(&runtime), Faults::NONE);
        let (writer, handle, _stored) =
            Writer::open(Arc::clone(&store), ClusterConfig::default(), Arc::clone(&runtime)).await.unwrap();
        let issuer = TestIssuer::default();
        let cluster = store.identity().cluster;
        let inputs = Inputs {
            cluster,
            issuer: Arc::new(issuer.clone()),
            consumers: None,
            writer: handle.clone(),
            durable: writer.durable(),
            roster: writer.roster(),
            callers: writer.callers(),
            telemetry: Arc::new(|_| {}),
            signing: DecisionSigning { signer: signer(), rotations: Arc::new([]) },
            decisions: decisions_of(store),
            runtime,
        };
        let control = || network.control("control".parse().unwrap()).connection();
        let connections = Connections { people: control(), nodes: control() };
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

    fn client(&self, user: impl Into<UserId>) -> MemoryConnection {
        self.network.client(user.into())
    }

    fn admin(&self) -> MemoryConnection {
        self.client(&key(ADMIN))
    }

    /// Creates a join token with a key; returns its id.
    async fn token(&self, number: u8, name: Option<&str>, max_uses: u32, ttl: Duration) -> JoinTokenId {
        let node_name = name.map(|name| name.parse().unwrap());
        let now = SystemRuntime.now().unwrap().unix_micros();
        let expires_at = Timestamp::from_unix_micros(now + i64::try_from(ttl.as_micros()).unwrap()).unwrap();
        let draft = NewJoinToken { node_name, key: key(number), expires_at, max_uses };
        call::<CreateJoinToken>(&self.admin(), &draft).await.unwrap().id
    }

    /// Has a machine redeem a token; returns a connection with its key.
    async fn node(&self, number: u8, name: &str) -> MemoryConnection {
        self.token(number + 1, Some(name), 1, HOUR).await;
        let machine = self.client(&key(number + 1));
        call::<EnrollNode>(&machine, &enrollment(number, name, Some(node_id(number)))).await.unwrap();
        self.client(&key(number))
    }

    async fn create(&self, number: u8, name: &str, role: UserRole) -> UserView {
        let (name, role) = (name.to_owned(), role.as_str().to_owned());
        let draft = UserDraft { name, role, key: key(number).to_string(), expires_at: None };
        call::<CreateUser>(&self.admin(), &draft).await.unwrap()
    }
}

fn node_id(number: u8) -> NodeId {
    NodeId::new(Uuid::from_u128(number.into()))
}

fn join(number: u8, name: &str) -> JoinRequest {
    JoinRequest { node_id: node_id(number), name: name.parse().unwrap(), mesh: None, arch: None }
}

fn enrollment(number: u8, name: &str, node_id: Option<NodeId>) -> NodeToEnroll {
    NodeToEnroll { name: name.parse().unwrap(), key: key(number), node_id }
}

const HOUR: Duration = Duration::from_secs(3600);

/// The key of the first administrator.
const ADMIN: u8 = 250;

fn key(number: u8) -> UserKey {
    UserKey::from_bytes([number; 32])
}

async fn call<R: RequestType>(client: &MemoryConnection, body: &R::Body) -> Result<R::Answer, ErrorInfo> {
    let options = CallOptions { timeout: Duration::from_secs(10), idempotency_key: None };
    match client.call::<R>(body, options).await {
        Ok(answer) => Ok(answer.data),
        Err(CallError::Refused(body)) => Err(body.error),
        Err(error) => panic!("{error}"),
    }
}

async fn whoami(client: &MemoryConnection) -> Result<CallerView, ErrorInfo> {
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

#[tokio::test]
async fn a_machine_with_a_token_becomes_a_node_with_a_key_of_its_own() {
    let control = Control::start().await;
    let id = control.token(10, None, 2, HOUR).await;
    let machine = control.client(&key(10));
    // It can redeem the token, and nothing else.
    for denied in [
        whoami(&machine).await.unwrap_err(),
        call::<JoinNode>(&machine, &join(11, "node-1")).await.unwrap_err(),
        call::<ListJoinTokens>(&machine, &AllJoinTokens {}).await.unwrap_err(),
        call::<GetNodeCredential>(&machine, &NewNodeKey { key: key(10) }).await.unwrap_err(),
    ] {
        assert_eq!(denied.code, ErrorCode::PermissionDenied, "{denied:?}");
    }
    let enrolled = call::<EnrollNode>(&machine, &enrollment(11, "node-1", None)).await.unwrap();
    // An interrupted machine repeats it, also when the token is used up.
    let second = call::<EnrollNode>(&machine, &enrollment(12, "node-2", None)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(call::<EnrollNode>(&machine, &enrollment(11, "node-1", None)).await.unwrap(), enrolled);
    }
    let in_capitals = call::<EnrollNode>(&machine, &enrollment(11, "NODE-1", None)).await.unwrap();
    assert_eq!(in_capitals, enrolled, "a name is the same in any case");
    let used_up = call::<EnrollNode>(&machine, &enrollment(13, "node-3", None)).await.unwrap_err();
    assert!(used_up.code == ErrorCode::Conflict && used_up.message.contains("is used up"), "{used_up:?}");
    let credential = call::<GetEnrolledNode>(&machine, &NewNodeKey { key: key(11) }).await.unwrap();
    assert_eq!((credential.node_id, credential.decision_key), (enrolled.node_id, signer().public()));
    let issued = control.issuer.0.lock().unwrap().last().unwrap().clone();
    assert_eq!((issued.name.as_str(), issued.role, issued.key), ("node-1", Role::Node, key(11)));
    let tokens = call::<ListJoinTokens>(&control.admin(), &AllJoinTokens {}).await.unwrap();
    assert_eq!((tokens.len(), tokens[0].id, tokens[0].uses), (1, id, 2));
    assert_eq!(tokens[0].status, JoinTokenStatus::UsedUp);
    // Another token has nothing to do with that key.
    control.token(20, None, 1, HOUR).await;
    let foreign = call::<GetEnrolledNode>(&control.client(&key(20)), &NewNodeKey { key: key(11) }).await.unwrap_err();
    assert_eq!(foreign.code, ErrorCode::NotFound);

    let (node, id) = (control.client(&key(11)), enrolled.node_id);
    let own = JoinRequest { node_id: id, ..join(0, "node-1") };
    call::<JoinNode>(&node, &own).await.unwrap();
    let renamed = call::<JoinNode>(&node, &JoinRequest { name: "node-9".parse().unwrap(), ..own.clone() }).await;
    assert_eq!(renamed.unwrap_err().code, ErrorCode::Conflict);
    let report = |node_id| NodeReport { node_id, incarnation: 1, sequence: 1, results: Vec::new() };
    call::<ReportNode>(&node, &report(id)).await.unwrap();
    for denied in [
        call::<JoinNode>(&node, &JoinRequest { node_id: second.node_id, ..join(0, "node-2") }).await.map(drop),
        call::<ReportNode>(&node, &report(second.node_id)).await.map(drop),
    ] {
        let denied = denied.unwrap_err();
        assert_eq!((denied.code, &denied.details["permission"]), (ErrorCode::PermissionDenied, &"node:report".into()));
    }

    // Removed, its key is revoked, and its id does not come back with any token.
    call::<DeleteNode>(&control.admin(), &NodeById { id }).await.unwrap();
    let revoked = call::<JoinNode>(&node, &own).await.unwrap_err();
    assert!(revoked.code == ErrorCode::Unauthenticated && revoked.message.contains("is revoked"), "{revoked:?}");
    control.token(30, Some("node-1"), 1, HOUR).await;
    let back = call::<EnrollNode>(&control.client(&key(30)), &enrollment(31, "node-1", Some(id))).await.unwrap_err();
    assert!(back.message.contains("removed from the cluster for good"), "{back:?}");
    let reused = call::<EnrollNode>(&control.client(&key(30)), &enrollment(11, "node-1", None)).await.unwrap_err();
    assert!(reused.message.contains("is or was registered"), "{reused:?}");
    let new = call::<EnrollNode>(&control.client(&key(30)), &enrollment(31, "node-1", None)).await.unwrap();
    assert_ne!(new.node_id, id);
}

#[tokio::test]
async fn tokens_are_refused_with_the_reason() {
    let control = Control::start().await;
    control.node(40, "node-1").await;
    let refused = async |token: u8, machine: &NodeToEnroll| {
        call::<EnrollNode>(&control.client(&key(token)), machine).await.unwrap_err().message
    };
    control.token(10, Some("node-7"), 1, HOUR).await;
    assert!(refused(10, &enrollment(11, "node-8", None)).await.contains("is for node `node-7`, not for `node-8`"));
    control.token(20, None, 1, HOUR).await;
    let taken = refused(20, &enrollment(21, "NODE-1", None)).await;
    assert!(taken.contains("there is a node `NODE-1`") && taken.contains("--name NODE-1"), "{taken}");
    // The id of another node, claimed with a token for a new one.
    let claimed = refused(20, &enrollment(21, "node-2", Some(node_id(40)))).await;
    assert!(claimed.contains("has joined as `node-1`"), "{claimed}");
    // The id of a user: the events of the node would name it.
    let ann = control.create(90, "ann", UserRole::Viewer).await;
    let user_id = refused(20, &enrollment(21, "node-2", Some(NodeId::new(ann.id.uuid())))).await;
    assert!(user_id.contains("is not that of a node"), "{user_id}");
    control.token(30, Some("node-1"), 1, HOUR).await;
    let foreign = refused(30, &enrollment(31, "node-1", Some(node_id(99)))).await;
    assert!(foreign.contains("the state folder is that of node"), "{foreign}");

    let revoked = control.token(50, None, 1, HOUR).await;
    call::<EnrollNode>(&control.client(&key(50)), &enrollment(51, "node-5", None)).await.unwrap();
    call::<RevokeJoinToken>(&control.admin(), &JoinTokenById { id: revoked }).await.unwrap();
    assert!(refused(50, &enrollment(52, "node-6", None)).await.contains("is revoked"));
    // What was redeemed with it, and had not joined.
    let node = call::<JoinNode>(&control.client(&key(51)), &join(51, "node-5")).await.unwrap_err();
    assert!(node.message.contains("is revoked"), "{node:?}");
    let none = call::<GetJoinTokenCredential>(&control.admin(), &JoinTokenById { id: revoked }).await.unwrap_err();
    assert_eq!(none.code, ErrorCode::NotFound);

    let begin = Instant::now();
    control.token(60, None, 1, Duration::from_millis(30)).await;
    let expired = loop {
        match call::<EnrollNode>(&control.client(&key(60)), &enrollment(61, "node-1", None)).await {
            Err(error) if error.message.contains("expired") => break error,
            other => assert!(begin.elapsed() < Duration::from_secs(10), "{other:?}"),
        }
    };
    assert!(expired.message.contains("otherix node join-token create"), "{expired:?}");
}

#[tokio::test]
async fn a_node_takes_another_key_without_a_gap() {
    let control = Control::start().await;
    let node = control.node(10, "node-1").await;
    call::<JoinNode>(&node, &join(10, "node-1")).await.unwrap();
    for _ in 0..2 {
        call::<RotateNodeKey>(&node, &NewNodeKey { key: key(21) }).await.unwrap();
    }
    // Each key that is given up is kept for ever: a node cannot make them without end.
    let limited = call::<RotateNodeKey>(&node, &NewNodeKey { key: key(20) }).await.unwrap_err();
    assert!(limited.code == ErrorCode::Unavailable && limited.message.contains("retry in"), "{limited:?}");
    // The present key is valid until the other one is used.
    for valid in [10, 21] {
        let credential = call::<GetNodeCredential>(&node, &NewNodeKey { key: key(valid) }).await.unwrap();
        assert_eq!((credential.node_id, credential.key), (node_id(10), key(valid)));
    }
    call::<JoinNode>(&node, &join(10, "node-1")).await.unwrap();
    let next = control.client(&key(21));
    call::<JoinNode>(&next, &join(10, "node-1")).await.unwrap();
    let old = call::<JoinNode>(&node, &join(10, "node-1")).await.unwrap_err();
    assert!(old.message.contains("is revoked"), "{old:?}");
    let limited = call::<RotateNodeKey>(&next, &NewNodeKey { key: key(20) }).await.unwrap_err();
    assert_eq!(limited.code, ErrorCode::Unavailable, "also after the key is in use");
    // A lost state folder: a token that names the node ends the key that it had.
    control.token(30, Some("node-1"), 1, HOUR).await;
    let again = call::<EnrollNode>(&control.client(&key(30)), &enrollment(31, "node-1", None)).await.unwrap();
    assert_eq!(again.node_id, node_id(10));
    assert!(call::<JoinNode>(&next, &join(10, "node-1")).await.unwrap_err().message.contains("is revoked"));
    call::<JoinNode>(&control.client(&key(31)), &join(10, "node-1")).await.unwrap();
}
