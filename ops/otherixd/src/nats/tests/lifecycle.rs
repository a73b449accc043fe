//! Start, restart and end of the server process, and its files.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs, thread};

use otherix_testkit::tempdir;
use otherix_testkit::wait::{wait_for, wait_for_blocking};
use otherix_transport::Credentials;
use rustix::process::{Pid, Signal, kill_process};

use super::super::accounts::AccountName;
use super::super::program;
use super::super::{FormerUsers, NatsError};
use super::{DEADLINE, NatsFixture, NatsSupervisor, STREAM, publish, settings};

/// Set to a state folder for the copy of this test program that starts a server and is then killed.
const PARENT_STATE: &str = "OTHERIXD_NATS_PARENT_STATE";

/// The process ids of this state folder's servers.
fn servers(state: &Path) -> Vec<i32> {
    let config = state.join("nats/nats.conf");
    let runs_server = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(runs_server).collect()
}

fn kill9(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

async fn only_server(state: &Path, except: &[i32]) -> i32 {
    wait_for(DEADLINE, "one server", async || match servers(state).as_slice() {
        [pid] if !except.contains(pid) => Ok(*pid),
        other => Err(other.to_vec()),
    })
    .await
}

const CREDENTIALS: &str = "identity/signing-node.nk";

#[tokio::test]
async fn credentials_are_private_and_kept() {
    let fixture = NatsFixture::start().await;
    let mode = |path: &str| fs::metadata(fixture.state().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("credentials"), mode("identity"), mode("nats")), (0o700, 0o700, 0o700, 0o700));
    for name in [CREDENTIALS, "nats/nats.conf"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let read = |state: &Path| fs::read_to_string(state.join(CREDENTIALS)).unwrap();
    let before = read(fixture.state());
    let (url, state) = (fixture.supervisor.url(), fixture.state().to_owned());
    let folder = fixture.stop().await;
    assert_eq!(servers(&state), Vec::<i32>::new());

    let restarted = NatsSupervisor::start(settings(&state)).await.unwrap();
    assert_eq!(read(&state), before);
    assert!(url.starts_with("nats://127.0.0.1:") && !url.ends_with(":0"), "{url}");
    restarted.stop().await;
    assert_no_seed(&state);
    drop(folder);
}

/// Asserts that no seed is in another file than those for keys and credentials.
fn assert_no_seed(state: &Path) {
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let files = |folder: &str| fs::read_dir(state.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let is_seed = |line: &&str| line.len() == 58 && line.starts_with('S');
    let secret: String =
        files("identity").chain(files("credentials")).filter(|path| path.is_file()).map(|p| text(&p)).collect();
    let seeds: Vec<&str> = secret.lines().filter(is_seed).collect();
    assert!(seeds.len() > 15, "{} seeds", seeds.len());
    for path in files("nats").filter(|path| path.is_file()) {
        let content = text(&path);
        assert!(!seeds.iter().any(|seed| content.contains(seed)), "{}", path.display());
    }
}

#[tokio::test]
async fn static_users_are_replaced_and_their_streams_kept() {
    let fixture = NatsFixture::start().await;
    let context = fixture.create_stream(1).await;
    publish(&context, "otherix.evt.v1.network.created.a", "one").await;
    fixture.ensure_mirror().await;
    let created = fixture.mirror().await.created;
    let (control, events) = {
        let identity = fixture.supervisor.access().identity;
        let [control, events] =
            [AccountName::Control, AccountName::Events].map(|name| identity.account(name).unwrap().to_string());
        (control, events)
    };
    let state = fixture.state().to_owned();
    let folder = fixture.stop().await;
    // As an earlier version left it.
    let store = state.join("nats/jetstream/jetstream");
    fs::rename(store.join(&control), store.join("CONTROL")).unwrap();
    fs::rename(store.join(&events), store.join("CLIENTS")).unwrap();
    for name in ["admin", "node", "otherixd", "otherixd-clients"] {
        fs::write(state.join(format!("credentials/{name}.json")), r#"{"user":"u","password":"geheim"}"#).unwrap();
    }
    fs::write(state.join("credentials/node.creds"), "of all nodes").unwrap();
    fs::remove_file(state.join("credentials/admin.creds")).unwrap();
    FormerUsers::load(&state).unwrap();

    let supervisor = NatsSupervisor::start(settings(&state)).await.unwrap();
    let fixture = NatsFixture { supervisor, folder };
    assert_eq!(fixture.mirror().await.created, created, "the mirror is the same");
    let relay = fixture.connect(&fixture.supervisor.access().relay).await;
    let stream = relay.context().get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.last_sequence, 1);
    let left: Vec<_> =
        fs::read_dir(state.join("credentials")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn restarts_killed_server_unless_held() {
    let mut fixture = NatsFixture::start().await;
    let state = fixture.state().to_owned();
    let url = fixture.supervisor.url();
    let user = Credentials::load(&state.join("credentials/admin.creds")).unwrap();
    let first = only_server(&state, &[]).await;
    let hold = state.join("nats/hold");
    let log = state.join("test.log");
    let logging = tracing_subscriber::fmt().with_writer(Arc::new(fs::File::create(&log).unwrap())).finish();
    let _logging = tracing::subscriber::set_default(logging); // for this thread, on which the whole runtime runs

    let check = async {
        kill9(first);
        let second = only_server(&state, &[first]).await;
        fs::write(&hold, "").unwrap();
        kill9(second);
        wait_for(DEADLINE, "the end of the server", async || servers(&state).is_empty()).await;
        let is_logged = async || fs::read_to_string(&log).unwrap().contains("not started while this file exists");
        wait_for(DEADLINE, "the hold in the log", is_logged).await;
        assert_eq!(servers(&state), Vec::<i32>::new());
        fs::remove_file(&hold).unwrap();
        only_server(&state, &[first, second]).await;
    };
    tokio::select! {
        never = fixture.supervisor.run() => match never {},
        () = check => {}
    }
    // `run` was dropped, perhaps before the server was ready; the next call continues.
    let endpoint = otherix_transport::NatsEndpoint::new(url.clone(), user);
    tokio::select! {
        never = fixture.supervisor.run() => match never {},
        () = wait_for(DEADLINE, "a connection", async || {
            otherix_transport::JetStream::once(&endpoint, "test", DEADLINE).await.map(drop)
        }) => {}
    }
    assert_eq!(fixture.supervisor.url(), url);
    fixture.supervisor.stop().await;
    assert_eq!(servers(&state), Vec::<i32>::new());
}

#[tokio::test]
async fn start_waits_while_held() {
    let folder = tempdir().unwrap();
    let hold = folder.path().join("nats/hold");
    fs::create_dir(folder.path().join("nats")).unwrap();
    fs::write(&hold, "").unwrap();
    let mut starting = Box::pin(NatsSupervisor::start(settings(folder.path())));
    let keys = folder.path().join("identity/operator.jwt");
    tokio::select! {
        _ = &mut starting => panic!("started despite the hold"),
        () = wait_for(DEADLINE, "the keys", async || keys.exists()) => {}
    }
    fs::remove_file(&hold).unwrap();
    starting.await.unwrap().stop().await;
}

#[tokio::test]
async fn retries_a_start_that_was_killed() {
    let folder = tempdir().unwrap();
    let mut settings = settings(folder.path());
    let server = program::find(settings.server.as_deref()).unwrap();
    let (program, killed) = (folder.path().join("nats-server"), folder.path().join("killed"));
    // The first server ends immediately.
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -c ] && [ ! -e '{killed}' ]; then : > '{killed}'; kill -9 $$; fi\n\
         exec '{server}' \"$@\"\n",
        killed = killed.display(),
        server = server.display(),
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    settings.server = Some(program);
    let supervisor = NatsSupervisor::start(settings).await.unwrap();
    assert!(killed.exists());
    only_server(folder.path(), &[]).await;
    supervisor.stop().await;
}

#[tokio::test]
async fn rejects_store_in_use() {
    let fixture = NatsFixture::start().await;
    let error = NatsSupervisor::start(settings(fixture.state())).await.err().unwrap();
    assert!(matches!(error, NatsError::InUse { .. }), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(servers(fixture.state()).len(), 1);
}

#[tokio::test]
async fn reports_error_of_server_that_cannot_listen() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.listen = taken.local_addr().unwrap();
    let error = NatsSupervisor::start(settings).await.err().unwrap();
    assert!(error.to_string().contains("address already in use"), "{error}");
    assert_eq!(servers(folder.path()), Vec::<i32>::new());
}

/// In the copy of this program: starts a server and waits to be killed.
async fn run_as_parent(state: PathBuf) -> Infallible {
    NatsSupervisor::start(settings(&state)).await.unwrap().run().await
}

#[tokio::test]
async fn server_ends_with_killed_parent() {
    if let Some(state) = env::var_os(PARENT_STATE) {
        match run_as_parent(state.into()).await {}
    }
    let folder = tempdir().unwrap();
    let name = thread::current().name().unwrap().to_owned();
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", &name])
        .env(PARENT_STATE, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let orphan = only_server(folder.path(), &[]).await;
    parent.kill().unwrap();
    parent.wait().unwrap();
    let restarted = NatsSupervisor::start(settings(folder.path())).await.unwrap();
    assert_ne!(only_server(folder.path(), &[]).await, orphan);
    restarted.stop().await;
    wait_for_blocking(DEADLINE, "no server", || servers(folder.path()).is_empty());
}

#[test]
fn uses_the_chosen_program() {
    assert_eq!(program::find(Some(Path::new("/some/server"))).unwrap(), PathBuf::from("/some/server"));
}
