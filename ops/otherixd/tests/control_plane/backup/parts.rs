//! What is in a backup: all that cannot be made again, whatever else is in the folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use otherix_testkit::tempdir;

use super::super::daemon::{OtherixdProcess, create, overlay, tool};
use super::{backup, names, restored};

#[tokio::test]
async fn what_was_given_up_is_in_a_backup_and_stray_files_are_not() {
    let mut daemon = OtherixdProcess::start().await;
    create(&daemon.connect("admin").await, &overlay("a")).await;
    daemon.stop().await;
    let given_up = ["given-up-epoch-1-from-7.jsonl", "given-up-epoch-1-from-7.checkpoint"];
    for name in given_up {
        fs::write(daemon.state().join(name), name).unwrap();
    }
    fs::write(daemon.state().join("given-up-epoch-1-from-9.jsonl.new"), "half").unwrap();
    fs::write(daemon.state().join("credentials/admin.creds~"), "of an editor").unwrap();
    symlink("nowhere", daemon.state().join("identity/old.pem")).unwrap();
    let target = tempdir().unwrap();
    let file = target.path().join("a.tar");
    let (ok, output, errors) = tool(daemon.state(), &["backup", file.to_str().unwrap()]).await;
    assert!(ok, "{output}{errors}");
    for name in ["credentials/admin.creds~", "identity/old.pem"] {
        assert!(errors.contains(&format!("name=\"{name}\"")), "{errors}");
    }
    let state = restored(&file).await;
    for name in given_up {
        assert_eq!(fs::read_to_string(state.path().join(name)).unwrap(), name);
    }
    let found = names(state.path());
    assert!(!found.iter().any(|name| name.ends_with(".new")), "{found:?}");
    assert_eq!(names(&state.path().join("credentials")), ["admin.creds"]);
}

#[tokio::test]
async fn a_state_without_one_of_its_keys_is_not_backed_up() {
    let mut daemon = OtherixdProcess::start().await;
    create(&daemon.connect("admin").await, &overlay("a")).await;
    daemon.stop().await;
    let target = tempdir().unwrap();
    let identity = daemon.state().join("identity");
    for name in ["decision-key.json", "log-key.json", "account-clients.nk", "signing-admin.nk", "operator-signing.nk"] {
        fs::rename(identity.join(name), target.path().join(name)).unwrap();
        let file = target.path().join("a.tar");
        let (ok, output, errors) = tool(daemon.state(), &["backup", file.to_str().unwrap()]).await;
        assert!(!ok && errors.contains(&format!("the key `{name}` is missing")), "{name}: {output}{errors}");
        assert!(!file.exists());
        fs::rename(target.path().join(name), identity.join(name)).unwrap();
    }
    // The log's tiles can be made again, its checkpoints cannot: that it is missing is said.
    fs::remove_file(daemon.state().join("log.db")).unwrap();
    let file = target.path().join("b.tar");
    let (ok, output, errors) = tool(daemon.state(), &["backup", file.to_str().unwrap()]).await;
    assert!(ok && output.contains("without a transparency log"), "{output}{errors}");
}

#[tokio::test]
async fn a_mount_point_is_named_before_anything_is_unpacked() {
    let daemon = OtherixdProcess::start().await;
    create(&daemon.connect("admin").await, &overlay("a")).await;
    let target = tempdir().unwrap();
    let file = backup(&daemon, target.path(), "a.tar").await;
    let state = target.path().join("state");
    fs::create_dir(&state).unwrap();
    // In a mount namespace of its own: nobody else sees the mount.
    let script = "mount -t tmpfs none \"$1\" && exec \"$0\" restore --from \"$2\" --state \"$1\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_otherixd")])
        .args([&state, &file])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("is a mount point"), "{errors}");
    assert!(errors.contains("--state MOUNT/state"), "{errors}");
    assert_eq!(names(target.path()), ["a.tar", "state"]);
}

#[tokio::test]
async fn a_restore_is_of_a_backup_or_begins_an_epoch() {
    let folder = tempdir().unwrap();
    let (ok, output, errors) = tool(folder.path(), &["restore"]).await;
    assert!(!ok && errors.contains("--from") && errors.contains("--new-epoch"), "{output}{errors}");
}
