//! NATS or the control plane are not there, or do not know the user.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_testkit::nats::NatsServer;

use crate::fake::{Fake, Reply, Run};

const COMMANDS: [&str; 4] =
    ["network create n --bridge-name b", "network list", "network get n", "network delete n --force"];

/// The bound, and what starting a process on a busy machine may add.
const SOON: Duration = Duration::from_secs(3);

#[track_caller]
fn soon(run: impl FnOnce() -> Run) -> Run {
    let start = Instant::now();
    let run = run();
    assert!(start.elapsed() < SOON, "{:?}: {}", start.elapsed(), run.stderr);
    run
}

#[test]
fn nats_down() {
    let mut fake = Fake::without_service();
    fake.server.kill9();
    let url = fake.server.url();
    for command in COMMANDS {
        let run = soon(|| fake.run(command));
        assert_eq!((run.code, run.stdout.as_str()), (7, ""), "{}", run.stderr);
        assert!(run.stderr.starts_with(&format!("error: cannot reach NATS at `{url}`: ")), "{}", run.stderr);
        assert!(run.stderr.contains("\nhint: "), "{}", run.stderr);
        let run = soon(|| fake.run(&format!("{command} -o json")));
        assert_eq!((run.code, run.error()["code"].as_str()), (7, Some("unavailable")));
    }
}

#[test]
fn somebody_who_never_speaks() {
    let fake = Fake::without_service();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let run = soon(|| fake.run(&format!("--server {url} network list")));
    assert_eq!(run.code, 7);
    assert!(run.stderr.contains(&url), "{}", run.stderr);
}

#[test]
fn nats_without_a_control_plane() {
    let fake = Fake::without_service();
    let message = format!(
        "error: no control plane responds at `{}`: NATS is running but `otherixd` is not\nhint: ",
        fake.server.url()
    );
    thread::scope(|scope| {
        for command in COMMANDS {
            let (fake, message) = (&fake, &message);
            scope.spawn(move || {
                let run = soon(|| fake.run(command));
                assert_eq!((run.code, run.stdout.as_str()), (7, ""), "{}", run.stderr);
                assert!(run.stderr.starts_with(message), "{}", run.stderr);
            });
        }
    });
}

#[test]
fn a_control_plane_that_is_silent() {
    let fake = Fake::start(|_, _| Reply::Silence);
    given_up(&fake, &fake.server.url());
}

#[test]
fn a_control_plane_that_is_busy() {
    let fake = Fake::start(|_, _| Reply::Error(ErrorBody::new(ErrorCode::Unavailable, "busy")));
    given_up(&fake, "busy");
}

/// Every command at once, since each uses the whole bound.
#[track_caller]
fn given_up(fake: &Fake, what: &str) {
    thread::scope(|scope| {
        for command in COMMANDS {
            scope.spawn(move || {
                let run = soon(|| fake.run(command));
                assert_eq!((run.code, run.stdout.as_str()), (7, ""), "{}", run.stderr);
                assert!(run.stderr.contains(what), "{}", run.stderr);
            });
        }
    });
    assert!(fake.seen().len() >= 2 * COMMANDS.len(), "each was asked again: {:?}", fake.seen());
}

#[test]
fn nats_refuses_the_credentials() {
    let server = NatsServer::start_with_config(|_| "authorization { user: tester, password: other }\n".to_owned());
    let fake = Fake::on(server);
    let run = soon(|| fake.run("network list"));
    let url = fake.server.url();
    assert_eq!(run.code, 6);
    assert!(
        run.stderr.starts_with(&format!("error: NATS at `{url}` rejected the credentials\nhint: ")),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("geheim"));
    let run = fake.run("network list -o json");
    assert_eq!((run.code, run.error()["code"].as_str()), (6, Some("unauthenticated")));
}
