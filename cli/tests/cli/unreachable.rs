//! NATS or the control plane is unreachable, or rejects the user.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_testkit::nats::NatsServer;

use crate::fake::{FakeControlPlane, FakeReply, ProgramOutput};

const COMMANDS: [&str; 4] =
    ["network create n --bridge-name b", "network list", "network get n", "network delete n --force"];

/// The program's time limit, plus the start of a process on a busy machine.
const LIMIT: Duration = Duration::from_secs(3);

#[track_caller]
fn within_limit(run: impl FnOnce() -> ProgramOutput) -> ProgramOutput {
    let start = Instant::now();
    let run = run();
    assert!(start.elapsed() < LIMIT, "{:?}: {}", start.elapsed(), run.stderr);
    run
}

#[test]
fn reports_unreachable_nats() {
    let mut fake = FakeControlPlane::without_service();
    fake.server.kill9();
    let url = fake.server.url();
    for command in COMMANDS {
        let run = within_limit(|| fake.run(command));
        assert_eq!((run.code, run.stdout.as_str()), (7, ""), "{}", run.stderr);
        assert!(run.stderr.starts_with(&format!("error: cannot reach NATS at `{url}`: ")), "{}", run.stderr);
        assert!(run.stderr.contains("\nhint: "), "{}", run.stderr);
        let run = within_limit(|| fake.run(&format!("{command} -o json")));
        assert_eq!((run.code, run.error()["code"].as_str()), (7, Some("unavailable")));
    }
}

#[test]
fn reports_a_server_that_never_replies() {
    let fake = FakeControlPlane::without_service();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let run = within_limit(|| fake.run(&format!("--server {url} network list")));
    assert_eq!(run.code, 7);
    assert!(run.stderr.contains(&url), "{}", run.stderr);
}

#[test]
fn reports_a_missing_control_plane() {
    let fake = FakeControlPlane::without_service();
    let message = format!(
        "error: no control plane responds at `{}`: NATS is running but `otherixd` is not\nhint: ",
        fake.server.url()
    );
    thread::scope(|scope| {
        for command in COMMANDS {
            let (fake, message) = (&fake, &message);
            scope.spawn(move || {
                let run = within_limit(|| fake.run(command));
                assert_eq!((run.code, run.stdout.as_str()), (7, ""), "{}", run.stderr);
                assert!(run.stderr.starts_with(message), "{}", run.stderr);
            });
        }
    });
}

#[test]
fn reports_a_control_plane_that_never_replies() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::None);
    assert_gives_up(&fake, &fake.server.url());
}

#[test]
fn reports_an_unavailable_control_plane() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Error(ErrorBody::new(ErrorCode::Unavailable, "busy")));
    assert_gives_up(&fake, "busy");
}

/// Runs all commands concurrently, since each takes the whole time limit.
#[track_caller]
fn assert_gives_up(fake: &FakeControlPlane, what: &str) {
    thread::scope(|scope| {
        for command in COMMANDS {
            scope.spawn(move || {
                let run = within_limit(|| fake.run(command));
                assert_eq!((run.code, run.stdout.as_str()), (7, ""), "{}", run.stderr);
                assert!(run.stderr.contains(what), "{}", run.stderr);
            });
        }
    });
    assert!(fake.received().len() >= 2 * COMMANDS.len(), "each request was repeated: {:?}", fake.received());
}

#[test]
fn reports_rejected_credentials() {
    let server = NatsServer::start_with_config(|_| "authorization { user: tester, password: other }\n".to_owned());
    let fake = FakeControlPlane::on(server);
    let run = within_limit(|| fake.run("network list"));
    let url = fake.server.url();
    assert_eq!(run.code, 6);
    assert!(
        run.stderr.starts_with(&format!(
            "error: NATS at `{url}` rejected the credentials: the user is unknown, or the password is wrong\nhint: "
        )),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("geheim"));
    let run = fake.run("network list -o json");
    assert_eq!((run.code, run.error()["code"].as_str()), (6, Some("unauthenticated")));
}
