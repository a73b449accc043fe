//! Properties of the test server: its own port, a store that survives SIGKILL, no process or file left behind.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::{env, fs, path::Path, process::Command, thread, time::Duration};

use async_nats::jetstream::{self, stream};
use otherix_testkit::{
    nats::NatsServer,
    python,
    wait::{wait_for, wait_for_blocking},
};
use rustix::process::{Pid, Signal, WaitOptions, getpid, set_child_subreaper, waitpid};

const DEADLINE: Duration = Duration::from_secs(20);
/// Set, to a folder, for the copy of this test program that starts a server and is then killed.
const VICTIM: &str = "OTHERIX_TESTKIT_VICTIM";

fn is_alive(pid: u32) -> bool {
    // A zombie has no command line, and holds no resources.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| !text.is_empty())
}

async fn jetstream(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

#[tokio::test]
async fn kill9_and_restart_keep_port_and_stored_messages() {
    let mut server = NatsServer::start();
    let (port, pid) = (server.port(), server.pid());
    let stream = stream::Config { name: "KEPT".into(), subjects: vec!["kept".into()], ..Default::default() };
    let client = jetstream(&server).await;
    client.create_stream(stream).await.unwrap();
    client.publish("kept", "one".into()).await.unwrap().await.unwrap();

    server.kill9();
    assert!(!server.is_running());
    assert!(!is_alive(pid));
    server.restart();

    assert!(server.is_running());
    assert_eq!(server.port(), port);
    let client = jetstream(&server).await;
    let stored = wait_for(DEADLINE, "the stored message", async || {
        client.get_stream("KEPT").await?.get_raw_message(1).await.map_err(Box::<dyn std::error::Error>::from)
    })
    .await;
    assert_eq!(stored.payload.as_ref(), b"one");
}

#[test]
fn servers_are_independent() {
    let (one, other) = (NatsServer::start(), NatsServer::start());
    assert_ne!(one.port(), other.port());
    assert_ne!(one.pid(), other.pid());
}

#[tokio::test]
async fn uses_configuration_of_the_test() {
    let server = NatsServer::start_with_config(|store| {
        let store = store.display();
        format!("jetstream {{ store_dir: \"{store}\" }}\nauthorization {{ user: lab, password: secret }}\n")
    });
    async_nats::connect(server.url()).await.unwrap_err();
    async_nats::ConnectOptions::with_user_and_password("lab".into(), "secret".into())
        .connect(server.url())
        .await
        .unwrap();
}

#[test]
#[should_panic(expected = "unknown field \"no_such_option\"")]
fn reports_rejected_configuration() {
    let _server = NatsServer::start_with_config(|_| "no_such_option: 1\n".to_owned());
}

#[test]
fn drop_removes_process_and_folder() {
    let server = NatsServer::start();
    let pid = server.pid();
    let log = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap();
    assert!(server.log().contains("Server is ready"));

    drop(server);

    assert!(!is_alive(pid));
    assert!(!log.parent().unwrap().exists());
}

/// In the copy of this program: starts a server on a thread that ends at once, writes its pid, and waits to be killed.
fn run_as_victim(folder: &Path) -> ! {
    let server = thread::spawn(NatsServer::start).join().unwrap();
    fs::write(folder.join("new"), server.pid().to_string()).unwrap();
    fs::rename(folder.join("new"), folder.join("pid")).unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn outlives_calling_thread_but_not_test_process() {
    if let Some(folder) = env::var_os(VICTIM) {
        run_as_victim(Path::new(&folder));
    }
    set_child_subreaper(Some(getpid())).unwrap(); // the orphan is reparented to this process
    let folder = otherix_testkit::tempdir().unwrap();
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "outlives_calling_thread_but_not_test_process"])
        .env(VICTIM, folder.path())
        .env("TMPDIR", folder.path()) // it is killed, so that this process must remove its files
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid: u32 = wait_for_blocking(DEADLINE, "the victim's server", || fs::read_to_string(folder.path().join("pid")))
        .parse()
        .unwrap();
    assert!(is_alive(pid));

    victim.kill().unwrap();
    victim.wait().unwrap();

    let orphan = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let (_, status) =
        wait_for_blocking(DEADLINE, "the end of the victim's server", || waitpid(orphan, WaitOptions::NOHANG).unwrap());
    assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()));
}

#[tokio::test]
async fn nats_py_reads_stored_message() {
    let server = NatsServer::start();
    let stream = stream::Config { name: "READ".into(), subjects: vec!["read".into()], ..Default::default() };
    let client = jetstream(&server).await;
    client.create_stream(stream).await.unwrap();
    client.publish("read", "hello".into()).await.unwrap().await.unwrap();
    let script = r#"
import asyncio, sys
import nats

async def main():
    client = await nats.connect(sys.argv[1])
    message = await client.jetstream().get_msg("READ", 1)
    print(message.seq, message.data.decode())
    await client.close()

asyncio.run(main())
"#;

    assert_eq!(python::nats_py(script, &[&server.url()]).await, "1 hello\n");
}

#[tokio::test]
#[should_panic(expected = "no such thing")]
async fn reports_output_of_failed_python_script() {
    python::nats_py("raise SystemExit('no such thing')", &[]).await;
}
