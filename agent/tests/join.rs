//! Tests of how a machine becomes a node, with a simulated control plane on a server that knows users by their keys:
//! - a join writes what the agent needs, for its owner only; repeated, it asks for nothing;
//! - stopped at any step, any number of times, and repeated, it is completed with one key and one use of the token;
//! - every refusal says what to do, and leaves nothing that is in the way of the next attempt;
//! - a rotation of the key leaves one key that works at every step, and a running agent changes to the new one.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use otherix_agent::connection::ConnectionSettings;
use otherix_agent::identity::{FolderLock, Identity};
use otherix_agent::join::{JoinError, JoinOptions, JoinStep, join};
use otherix_agent::key_rotation::{KeyRotationError, RotationStep, rotate};
use otherix_agent::trust::Trust;
use otherix_identity::{Creds, JoinToken, KeyKind, KeyPair};
use otherix_runtime::SystemRuntime;
use otherix_schemas::decision_chain::DecisionSigner;
use otherix_schemas::id::ClusterId;
use otherix_testkit::netns::enter_new;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{CredentialsFile, Nats, NatsEndpoint};
use support::Control;
use support::enrollment::{Cluster, user_key};
use support::program::Program;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(20);

const STEPS: [JoinStep; 9] = [
    JoinStep::WriteKey,
    JoinStep::Enroll,
    JoinStep::ObtainCredential,
    JoinStep::WriteNodeId,
    JoinStep::WriteDecisionKey,
    JoinStep::WriteCa,
    JoinStep::WriteCredentials,
    JoinStep::WriteSettings,
    JoinStep::RemoveKey,
];

const ROTATION_STEPS: [RotationStep; 6] = [
    RotationStep::WriteKey,
    RotationStep::Offer,
    RotationStep::ObtainCredential,
    RotationStep::WriteCredential,
    RotationStep::RemoveKey,
    RotationStep::Wait,
];

fn options(state: &Path, token: &JoinToken) -> JoinOptions {
    JoinOptions { token: token.clone(), state: state.to_owned(), name: Some("node-7".parse().unwrap()), server: None }
}

async fn complete(options: JoinOptions) -> Result<ConnectionSettings, JoinError> {
    join(options, &mut |_| Ok(())).await
}

async fn stop_before(options: JoinOptions, stop: JoinStep) {
    let mut on_step = |step| if step == stop { Err(JoinError::Stopped(step)) } else { Ok(()) };
    let stopped = join(options, &mut on_step).await;
    assert!(matches!(stopped, Err(JoinError::Stopped(_))), "{stopped:?}");
}

fn files(state: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn creds(state: &Path) -> Creds {
    Creds::load(&state.join("node.creds")).unwrap()
}

fn text(error: &JoinError) -> String {
    otherix_schemas::error::Causes(error).to_string()
}

struct StateFolder {
    folder: TempDir,
}

impl StateFolder {
    fn new() -> Self {
        Self { folder: tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

#[tokio::test]
async fn a_join_writes_what_the_agent_needs_for_its_owner_only() {
    let cluster = Cluster::start().await;
    let (folder, token) = (StateFolder::new(), cluster.token(1));
    let settings = complete(options(&folder.path(), &token)).await.unwrap();
    assert_eq!((settings.server.as_str(), settings.name.as_str()), (cluster.server.url().as_str(), "node-7"));
    let written = files(&folder.path());
    assert_eq!(written, ["connection.json", "decision-key.json", "lock", "node.creds", "node.json"]);
    for name in written {
        let mode = fs::metadata(folder.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let key = user_key(creds(&folder.path()).key());
    let node = cluster.registry().nodes[&key].clone();
    assert_eq!(node.name.as_str(), "node-7");
    assert_eq!(Trust::load(&folder.path()).unwrap().key(), Some(Cluster::decision_key()));
    let identity = Identity::claim(&folder.path(), &SystemRuntime).unwrap();
    assert_eq!((identity.node_id, identity.incarnation), (node.node_id, 1));
    drop(identity);

    // Repeated, it asks for nothing.
    cluster.registry().nodes.clear();
    assert_eq!(complete(options(&folder.path(), &token)).await.unwrap(), settings);
    assert_eq!(user_key(creds(&folder.path()).key()), key);
    let program = Program::without_settings();
    let refused = program.other_command(&["run"]).output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("run `otherix-agent join`"), "{error}");
}

#[tokio::test]
async fn a_join_that_is_stopped_at_any_step_is_completed_with_one_key_and_one_use() {
    let cluster = Cluster::start().await;
    for first in STEPS {
        for second in STEPS {
            let (folder, token) = (StateFolder::new(), cluster.token(1));
            let state = folder.path();
            for stop in [first, second] {
                stop_before(options(&state, &token), stop).await;
            }
            let settings = complete(options(&state, &token)).await.unwrap();
            assert_eq!(settings.token, user_key(token.creds.key()));
            let registered: Vec<_> = cluster.registry().nodes.keys().cloned().collect();
            assert_eq!(registered, [user_key(creds(&state).key())], "{first:?} {second:?}");
            assert_eq!(files(&state), ["connection.json", "decision-key.json", "lock", "node.creds", "node.json"]);
            let node_id = cluster.registry().nodes[&registered[0]].node_id;
            assert_eq!(Identity::claim(&state, &SystemRuntime).unwrap().node_id, node_id);
            cluster.registry().nodes.clear();
        }
    }
}

#[tokio::test]
async fn a_join_that_was_interrupted_has_one_name() {
    let cluster = Cluster::start().await;
    let (folder, token) = (StateFolder::new(), cluster.token(1));
    stop_before(options(&folder.path(), &token), JoinStep::ObtainCredential).await;
    let other = JoinOptions { name: Some("node-8".parse().unwrap()), ..options(&folder.path(), &token) };
    let error = text(&complete(other).await.unwrap_err());
    assert!(error.contains("repeat it with `--name node-7`"), "{error}");
    let without = JoinOptions { name: None, ..options(&folder.path(), &token) };
    assert_eq!(complete(without).await.unwrap().name.as_str(), "node-7");
}

#[tokio::test]
async fn every_refusal_says_what_to_do_and_is_not_in_the_way_of_the_next_attempt() {
    let cluster = Cluster::start().await;
    let folder = StateFolder::new();
    complete(options(&StateFolder::new().path(), &cluster.token(1))).await.unwrap();
    let name = |name: &str| Some(name.parse().unwrap());
    let good = cluster.token(1);
    let refusals = [
        (options(&folder.path(), &good), "there is a node of this name"),
        (
            JoinOptions { name: name("node-8"), ..options(&folder.path(), &cluster.token(0)) },
            "the join token is used up",
        ),
        (
            options(&folder.path(), &cluster.token_expiring(Some(1))),
            "the join token expired at 1970-01-01T00:00:01.000000Z: create another with `otherix node join-token",
        ),
        (options(&folder.path(), &cluster.foreign_token()), "it is revoked, or of another cluster"),
        (
            options(&folder.path(), &JoinToken { name: name("node-9"), ..good.clone() }),
            "the join token is for node `node-9`, not for `node-7`: join as `node-9`",
        ),
        (
            options(&folder.path(), &JoinToken { ca: Some(support::enrollment::CA.to_owned()), ..good.clone() }),
            "is not that of the join token: the server offers no TLS",
        ),
        (
            options(&folder.path(), &JoinToken { ca: Some("nonsense".to_owned()), ..good.clone() }),
            "the CA in the join token has no certificate",
        ),
        (
            JoinOptions { server: Some("nats://127.0.0.1:1".to_owned()), ..options(&folder.path(), &good) },
            "nothing was changed; check address and network, and repeat this command",
        ),
    ];
    for (options, expected) in refusals {
        let error = complete(options).await.unwrap_err();
        assert!(text(&error).contains(expected), "{expected}: {}", text(&error));
        assert_eq!(error.is_temporary(), matches!(error, JoinError::Connect(_)));
        assert!(!folder.path().join("connection.json").exists() && !folder.path().join("node.creds").exists());
    }
    let options = JoinOptions { name: name("node-8"), ..options(&folder.path(), &good) };
    assert_eq!(complete(options).await.unwrap().name.as_str(), "node-8");
}

#[tokio::test]
async fn state_folders_of_others_are_refused() {
    let cluster = Cluster::start().await;
    let folder = StateFolder::new();
    let token = cluster.token(9);
    let running = FolderLock::take(&folder.path()).unwrap();
    let error = complete(options(&folder.path(), &token)).await.unwrap_err();
    assert!(matches!(error, JoinError::AgentRuns(_)) && text(&error).contains("stop it"), "{}", text(&error));
    drop(running);

    // A node that has followed another control plane.
    let other_key = DecisionSigner::from_seed(&[2; 32]).public();
    Trust::load(&folder.path()).unwrap().keep(other_key).unwrap();
    let error = complete(options(&folder.path(), &token)).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherControlPlane { .. }), "{}", text(&error));
    assert_eq!(cluster.registry().uses_left[&user_key(token.creds.key())], 9, "the token was not redeemed");
    fs::remove_file(folder.path().join("decision-key.json")).unwrap();

    // The folder of a node that has joined, with a token of a cluster with another id.
    complete(options(&folder.path(), &token)).await.unwrap();
    let before = fs::read(folder.path().join("node.creds")).unwrap();
    cluster.registry().cluster = ClusterId::new(Uuid::from_u128(2));
    let renamed =
        || JoinOptions { name: Some("node-8".parse().unwrap()), ..options(&folder.path(), &cluster.token(1)) };
    let error = complete(renamed()).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherCluster { .. }), "{}", text(&error));
    cluster.registry().cluster = ClusterId::new(Uuid::from_u128(1));
    cluster.registry().wrong_key = Some(user_key(&KeyPair::generate(KeyKind::User).unwrap()));
    cluster.registry().nodes.clear();
    let error = complete(renamed()).await.unwrap_err();
    assert!(matches!(error, JoinError::OtherKey), "{}", text(&error));
    assert_eq!(fs::read(folder.path().join("node.creds")).unwrap(), before);
}

/// Whether one of the keys in the folder connects; uses them as the agent does.
async fn expect_a_key_that_works(cluster: &Cluster, state: &Path) {
    let file = CredentialsFile::load(&state.join("node.creds"), Some(&state.join("next.creds"))).unwrap();
    let endpoint = NatsEndpoint { credentials: Arc::new(file), ..cluster.endpoint(cluster.control_plane()) };
    let nats = Nats::lasting(&endpoint, "test").await.unwrap();
    wait_for(DEADLINE, "a connection", async || nats.is_connected()).await;
    let user = nats.user();
    assert!(cluster.registry().nodes.keys().any(|key| key.as_str() == user.as_str()), "{user}");
}

#[tokio::test]
async fn a_rotation_that_is_stopped_at_any_step_is_completed_and_one_key_works_throughout() {
    let cluster = Cluster::start().await;
    let folder = StateFolder::new();
    let state = folder.path();
    complete(options(&state, &cluster.token(1))).await.unwrap();
    for stop in ROTATION_STEPS {
        let before = creds(&state).public_key().clone();
        let mut on_step = |step| if step == stop { Err(KeyRotationError::Timeout(Duration::ZERO)) } else { Ok(()) };
        rotate(&state, Duration::ZERO, &mut on_step).await.unwrap_err();
        expect_a_key_that_works(&cluster, &state).await;
        // Without an agent, it waits in vain; if the agent has changed to the new key meanwhile, it is complete.
        match rotate(&state, Duration::ZERO, &mut |_| Ok(())).await {
            Ok(_) => assert_eq!(stop, RotationStep::RemoveKey),
            Err(error) => assert!(matches!(error, KeyRotationError::Timeout(_)), "{stop:?}: {error:?}"),
        }
        expect_a_key_that_works(&cluster, &state).await;
        assert_ne!(*creds(&state).public_key(), before, "{stop:?}");
        let left = ["next.creds", "next.nk"].map(|name| state.join(name).exists());
        assert_eq!(left, [false, false], "{stop:?}");
    }
}

#[tokio::test]
async fn a_next_credential_that_is_not_valid_any_more_is_replaced() {
    let cluster = Cluster::start().await;
    let folder = StateFolder::new();
    let state = folder.path();
    complete(options(&state, &cluster.token(1))).await.unwrap();
    let present = user_key(creds(&state).key());
    let rotated = rotate(&state, Duration::ZERO, &mut |_| Ok(())).await;
    assert!(matches!(rotated, Err(KeyRotationError::Timeout(_))), "{rotated:?}");
    let stale = fs::read(state.join("next.creds")).unwrap();
    // While it is valid, it is waited for.
    rotate(&state, Duration::ZERO, &mut |_| Ok(())).await.unwrap_err();
    assert_eq!(fs::read(state.join("next.creds")).unwrap(), stale);
    cluster.registry().nodes.retain(|key, _| *key == present);
    rotate(&state, Duration::ZERO, &mut |_| Ok(())).await.unwrap_err();
    assert_ne!(fs::read(state.join("next.creds")).unwrap(), stale);
    expect_a_key_that_works(&cluster, &state).await;
    assert_ne!(user_key(creds(&state).key()), present);
}

/// Keys that are refused are not taken for keys that were replaced.
#[tokio::test]
async fn a_rotation_whose_keys_are_both_revoked_says_so() {
    let cluster = Cluster::start().await;
    let folder = StateFolder::new();
    let state = folder.path();
    complete(options(&state, &cluster.token(1))).await.unwrap();
    let offered = rotate(&state, Duration::ZERO, &mut |_| Ok(())).await;
    assert!(matches!(offered, Err(KeyRotationError::Timeout(_))), "{offered:?}");
    let (present, next) = (creds(&state), Creds::load(&state.join("next.creds")).unwrap());
    // The agent has used the next one, and was killed before it removed the present one.
    cluster.registry().nodes.remove(&user_key(present.key()));
    let replaced = rotate(&state, Duration::ZERO, &mut |_| Ok(())).await;
    assert!(matches!(replaced, Err(KeyRotationError::Timeout(_))), "{replaced:?}");
    cluster.registry().nodes.remove(&user_key(next.key()));
    let revoked = rotate(&state, Duration::ZERO, &mut |_| Ok(())).await.unwrap_err();
    let text = otherix_schemas::error::Causes(&revoked).to_string();
    assert!(matches!(revoked, KeyRotationError::Revoked(_)) && text.contains("--name NODE"), "{text}");
}

/// The key in it may be registered: it is not thrown away.
#[tokio::test]
async fn a_damaged_record_of_an_interrupted_join_is_an_error() {
    let cluster = Cluster::start().await;
    let (folder, token) = (StateFolder::new(), cluster.token(1));
    let state = folder.path();
    stop_before(options(&state, &token), JoinStep::ObtainCredential).await;
    let path = state.join("join.json");
    let intact = fs::read(&path).unwrap();
    let mut readable = fs::metadata(&path).unwrap().permissions();
    for (content, mode) in [(&b"{}"[..], 0o600), (&intact[..intact.len() / 2], 0o600), (&intact, 0o644)] {
        fs::write(&path, content).unwrap();
        readable.set_mode(mode);
        fs::set_permissions(&path, readable.clone()).unwrap();
        let error = complete(options(&state, &token)).await.unwrap_err();
        assert!(matches!(error, JoinError::Pending { .. }), "{error:?}");
        assert!(text(&error).contains("join.json") && text(&error).contains("Remove the file"), "{}", text(&error));
        assert_eq!(fs::read(&path).unwrap(), content, "it is kept");
    }
    readable.set_mode(0o600);
    fs::set_permissions(&path, readable).unwrap();
    complete(options(&state, &token)).await.unwrap();
    assert_eq!(cluster.registry().uses_left[&user_key(token.creds.key())], 0);
}

#[tokio::test]
async fn two_rotations_at_once_are_not_begun() {
    let cluster = Cluster::start().await;
    let folder = StateFolder::new();
    let state = folder.path();
    complete(options(&state, &cluster.token(1))).await.unwrap();
    let mut on_step = |step| {
        if step == RotationStep::Offer {
            let file = fs::File::options().write(true).open(state.join("rotation.lock")).unwrap();
            let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
            assert_eq!(locked, Err(rustix::io::Errno::WOULDBLOCK));
        }
        Ok(())
    };
    rotate(&state, Duration::ZERO, &mut on_step).await.unwrap_err();
    let file = fs::File::options().write(true).open(state.join("rotation.lock")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let busy = rotate(&state, Duration::ZERO, &mut |_| Ok(())).await;
    assert!(matches!(busy, Err(KeyRotationError::Busy)), "{busy:?}");
}

#[tokio::test]
async fn a_running_agent_changes_to_the_new_key() {
    enter_new();
    let cluster = Cluster::start().await;
    let options = ConnectOptions::with_credentials(&cluster.control_plane().render()).unwrap();
    let control = Control::start_with(&cluster.server.url(), options).await;
    let mut program = Program::without_settings();
    complete(self::options(&program.state(), &cluster.token(1))).await.unwrap();
    program.spawn();
    wait_for(DEADLINE, "the join", async || program.state().join("joined").exists()).await;
    let status = program.status();
    assert!(status.contains("name:         node-7") && status.contains(&cluster.server.url()), "{status}");
    let before = creds(&program.state()).public_key().as_str().to_owned();
    assert_eq!(control.state().senders.last(), Some(&before));

    let mut command = program.other_command(&["rotate-key", "--key", "nats"]);
    let rotated = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(rotated.status.success(), "{rotated:?}");

    let after = creds(&program.state()).public_key().as_str().to_owned();
    assert_ne!(after, before);
    wait_for(DEADLINE, "a heartbeat with the new key", async || control.state().senders.last() == Some(&after)).await;
    assert_eq!(program.log_count("the credentials were replaced"), 1);
    assert!(!program.log().contains("ERROR"), "{}", program.log());
}
