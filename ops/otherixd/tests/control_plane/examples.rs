//! The examples for programs in `ops/examples/`, run as the documentation says.

use std::path::Path;
use std::process::{Command, Output};

use otherix_testkit::python::{interpreter, modules};

use crate::daemon::{OtherixdProcess, list_all};

/// Runs an example in Python as the first administrator.
async fn python(daemon: &OtherixdProcess, name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(interpreter());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)).args(arguments);
    command.env("PYTHONPATH", modules()).env("OTHERIX_NATS_URL", daemon.url().await);
    command.env("OTHERIX_CREDENTIALS", daemon.credentials("admin")).env_remove("OTHERIX_CA");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_network_is_created_once_however_often_it_is_requested() {
    let daemon = OtherixdProcess::start().await;
    let first = python(&daemon, "create_network.py", &["net-a", "br-a", "order-17"]).await;
    assert!(first.status.success(), "{}", text(&first.stderr));
    let again = python(&daemon, "create_network.py", &["net-a", "br-a", "order-17"]).await;
    assert_eq!(text(&again.stdout), text(&first.stdout));
    let admin = daemon.connect("admin").await;
    let networks = list_all(&admin).await;
    assert_eq!(networks.len(), 1);
    assert!(text(&first.stdout).contains(&networks[0].id.to_string()), "{}", text(&first.stdout));

    // Another key is another request; the same key for something else is refused.
    let taken = python(&daemon, "create_network.py", &["net-a", "br-a"]).await;
    assert!(text(&taken.stderr).starts_with("conflict: "), "{}", text(&taken.stderr));
    let other = python(&daemon, "create_network.py", &["net-b", "br-b", "order-17"]).await;
    assert!(text(&other.stderr).starts_with("idempotency_key_mismatch: "), "{}", text(&other.stderr));
    assert_eq!(list_all(&admin).await.len(), 1);
}
