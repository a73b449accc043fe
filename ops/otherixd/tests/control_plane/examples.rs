//! The examples for programs in `ops/examples/`, run as the documentation says.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use otherix_testkit::python::{interpreter, modules};
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};

use crate::daemon::{DEADLINE, OtherixdProcess, create, list_all, overlay};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn example(name: &str) -> PathBuf {
    Path::new(PROJECT).join("ops/examples").join(name)
}

/// Runs an example as the first administrator: in Python or, if its name ends with `.mjs`, in JavaScript.
async fn run(daemon: &OtherixdProcess, name: &str, arguments: &[&str]) -> Output {
    run_with(daemon, name, arguments, Path::new("none")).await
}

/// Runs an example that also reads the buckets of the state, with this credentials file.
pub(crate) async fn run_with(daemon: &OtherixdProcess, name: &str, arguments: &[&str], state: &Path) -> Output {
    let (mut command, _kept) = command(daemon, name, arguments, state).await;
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The command, and a folder that it needs.
async fn command(daemon: &OtherixdProcess, name: &str, arguments: &[&str], state: &Path) -> (Command, TempDir) {
    let folder = tempdir().unwrap();
    let mut command = if name.ends_with(".mjs") {
        // Modules are looked up beside the file that imports them.
        let installed = Path::new(PROJECT).join(".tools/node/node_modules");
        assert!(installed.is_dir(), "`{}` does not exist: run `make setup`", installed.display());
        symlink(installed, folder.path().join("node_modules")).unwrap();
        let copy = folder.path().join(name);
        std::fs::copy(example(name), &copy).unwrap();
        let mut command = Command::new("node");
        command.arg(copy);
        command
    } else {
        let mut command = Command::new(interpreter());
        command.arg(example(name)).env("PYTHONPATH", modules());
        command
    };
    command.args(arguments).env("OTHERIX_NATS_URL", daemon.url().await);
    command.env("OTHERIX_CREDENTIALS", daemon.credentials("admin")).env_remove("OTHERIX_CA");
    command.env("OTHERIX_STATE_CREDENTIALS", state);
    (command, folder)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Follows the events until there were so many; returns their positions.
async fn follow(daemon: &OtherixdProcess, name: &str, note: &Path, count: usize) -> Vec<u64> {
    let output = run(daemon, name, &[note.to_str().unwrap(), &count.to_string()]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn events_are_followed_live_and_after_the_stream_has_deleted_them() {
    let daemon = OtherixdProcess::start_with(&["--stream-max-age", "2s"]).await;
    let admin = daemon.connect("admin").await;
    for name in ["a", "b", "c"] {
        create(&admin, &overlay(name)).await;
    }
    let first = daemon.position(1);
    let notes = tempdir().unwrap();
    for (name, network) in [("follow.py", "d"), ("follow.mjs", "e")] {
        let note = notes.path().join(name);
        let before = usize::try_from(first).unwrap() - 1;
        assert_eq!(follow(&daemon, name, &note, before + 1).await, (1..=first).collect::<Vec<_>>(), "{name}");
        // It was interrupted, and continues with what happened meanwhile, and then live.
        let waiting = follow(&daemon, name, &note, 3);
        let next = async {
            create(&admin, &overlay(network)).await;
        };
        let (found, ()) = tokio::join!(waiting, next);
        assert_eq!(found, [first + 1, first + 2, first + 3], "{name}");
        assert_eq!(std::fs::read_to_string(&note).unwrap().trim(), (first + 3).to_string());
    }
}

/// The control plane and its server are killed while programs follow events, and are away for so long that
/// requests of them fail.
#[tokio::test]
async fn programs_that_follow_events_go_on_after_an_outage() {
    let mut daemon = OtherixdProcess::start().await;
    let notes = tempdir().unwrap();
    let mut followers = Vec::new();
    for name in ["follow.py", "follow.mjs"] {
        let path = notes.path().join(name);
        let first = usize::try_from(daemon.position(0)).unwrap();
        // What there is, one before the outage, two after it.
        let arguments = [path.to_str().unwrap(), &(first + 3).to_string()];
        let (command, kept) = command(&daemon, name, &arguments, Path::new("none")).await;
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        followers.push((path, child, kept));
    }
    let admin = daemon.connect("admin").await;
    create(&admin, &overlay("before")).await;
    let last = daemon.position(1).to_string();
    for (path, ..) in &followers {
        wait_for(DEADLINE, "the event before the outage", async || {
            let note = std::fs::read_to_string(path).unwrap_or_default();
            if note.trim() == last { Ok(()) } else { Err(note) }
        })
        .await;
    }
    daemon.kill();
    daemon.wait_for_no_servers().await;
    // They look for events after 10 s without one, and wait for an answer for 5 s.
    tokio::time::sleep(Duration::from_secs(16)).await;
    daemon.start_again().await;
    let admin = daemon.connect("admin").await;
    for name in ["after", "last"] {
        create(&admin, &overlay(name)).await;
    }
    let expected: Vec<u64> = (1..=daemon.position(3)).collect();
    for (path, child, _kept) in followers {
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), text(&output.stderr));
        assert!(text(&output.stderr).contains("no answer"), "{}: the outage was too short", path.display());
        let stdout = text(&output.stdout);
        let found: Vec<u64> = stdout.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(found, expected, "{}", path.display());
    }
}

#[tokio::test]
async fn a_network_is_created_once_however_often_it_is_requested() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for (number, name) in [(0, "create_network.py"), (1, "create_network.mjs")] {
        let arguments = [&format!("net-{number}"), &format!("br-{number}"), &format!("order-{number}")];
        let arguments = arguments.map(String::as_str);
        let first = run(&daemon, name, &arguments).await;
        assert!(first.status.success(), "{}", text(&first.stderr));
        let again = run(&daemon, name, &arguments).await;
        assert_eq!(text(&again.stdout), text(&first.stdout), "{}", text(&again.stderr));
        let networks = list_all(&admin).await;
        assert_eq!(networks.len(), number + 1);
        assert!(text(&first.stdout).contains(&networks[number].id.to_string()), "{}", text(&first.stdout));
    }

    // Another key is another request; the same key for something else is refused.
    for name in ["create_network.py", "create_network.mjs"] {
        let taken = run(&daemon, name, &["net-0", "br-0"]).await;
        assert!(text(&taken.stderr).starts_with("conflict: "), "{}", text(&taken.stderr));
        let other = run(&daemon, name, &["net-b", "br-b", "order-0"]).await;
        assert!(text(&other.stderr).starts_with("idempotency_key_mismatch: "), "{}", text(&other.stderr));
    }
    assert_eq!(list_all(&admin).await.len(), 2);
}

/// Runs the command-line program as the first administrator; returns stdout if it succeeds.
pub(crate) async fn otherix(daemon: &OtherixdProcess, arguments: &[&str]) -> Result<String, String> {
    let program = Path::new(env!("CARGO_BIN_EXE_otherixd")).with_file_name("otherix");
    assert!(program.is_file(), "`{}` is not there: `cargo build --workspace` makes it", program.display());
    let mut command = Command::new(program);
    command.args(arguments).env("OTHERIX_NATS_URL", daemon.url().await).env_remove("OTHERIX_CA");
    command.env_remove("OTHERIX_OFFLINE").env("OTHERIX_CREDENTIALS", daemon.credentials("admin"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn a_proof_is_verified_without_code_of_otherix() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    for number in 0..20 {
        create(&admin, &overlay(&format!("net-{number}"))).await;
    }
    let folder = tempdir().unwrap();
    let export = folder.path().join("export").display().to_string();
    // A control plane without nodes signs 15 s after its start.
    wait_for(Duration::from_secs(45), "a checkpoint", async || otherix(&daemon, &["audit", "export", &export]).await)
        .await;
    let key = otherix(&daemon, &["audit", "key"]).await.unwrap();
    let events = std::fs::read_to_string(folder.path().join("export/events.jsonl")).unwrap();
    let count = events.lines().count();
    assert!(count > 20, "{events}");
    for name in ["verify_proof.py", "verify_proof.mjs"] {
        for position in [1, 2, count / 2, count - 1, count] {
            let file = folder.path().join(format!("{name}-{position}.tlog-proof")).display().to_string();
            let position_text = position.to_string();
            let prove = ["audit", "prove", &position_text, "--out", &file];
            otherix(&daemon, &prove).await.unwrap();
            let verified = run(&daemon, name, &[&file, &key]).await;
            let event = events.lines().nth(position - 1).unwrap();
            assert_eq!(text(&verified.stdout).trim_end(), event, "{}", text(&verified.stderr));
            refused(&daemon, name, (&file, &key), event).await;
        }
    }
}

/// Whatever is changed in a proof, or another key, is refused.
async fn refused(daemon: &OtherixdProcess, name: &str, (file, key): (&str, &str), event: &str) {
    let proof = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = proof.lines().collect();
    let line = |start: &str| lines.iter().position(|line| line.starts_with(start)).unwrap();
    let empty = lines.iter().position(|line| line.is_empty()).unwrap();
    let changed = |number: usize, new: &str| {
        let mut lines = lines.clone();
        *lines.get_mut(number).unwrap() = new;
        lines.join("\n") + "\n"
    };
    let other = event.replace("net-", "nat-").replace("\"admin\"", "\"owner\"");
    let other = format!("extra {}", BASE64_STANDARD.encode(other));
    let zero = BASE64_STANDARD.encode([0; 32]);
    let signature = lines.last().unwrap();
    let (name_of_key, encoded) = signature.rsplit_once(' ').unwrap();
    let mut bytes = BASE64_STANDARD.decode(encoded).unwrap();
    *bytes.get_mut(20).unwrap() ^= 1;
    let forged = format!("{name_of_key} {}", BASE64_STANDARD.encode(bytes));
    let mut proofs = vec![
        changed(line("extra "), &other),
        changed(line("index "), "index 9999"),
        changed(line("index "), "index 7"),
        changed(empty - 1, &zero),
        changed(empty + 2, "1"),
        changed(empty + 3, &zero),
        changed(lines.len() - 1, &forged),
        changed(0, "c2sp.org/tlog-proof@v2"),
    ];
    let mut shorter = lines.clone();
    shorter.remove(empty - 1);
    proofs.push(shorter.join("\n") + "\n");
    let altered = format!("{file}.altered");
    for proof in proofs {
        std::fs::write(&altered, &proof).unwrap();
        let output = run(daemon, name, &[&altered, key]).await;
        assert!(!output.status.success() && output.stdout.is_empty(), "{name} accepts\n{proof}");
        assert!(text(&output.stderr).starts_with("not proven: "), "{name}: {}", text(&output.stderr));
    }
    let other_key = key.replacen("/1+", "/2+", 1);
    for other_key in [other_key.as_str(), "a+b+", "a+00000000+AQ==", "", "x"] {
        let output = run(daemon, name, &[file, other_key]).await;
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{name} accepts another key");
        assert!(text(&output.stderr).starts_with("not proven: "), "{name}: {}", text(&output.stderr));
    }
    for (arguments, says) in [(&["/none", key][..], "cannot read `/none`"), (&[file], "usage: "), (&[], "usage: ")] {
        let output = run(daemon, name, arguments).await;
        let errors = text(&output.stderr);
        assert!(output.status.code() == Some(2) && errors.starts_with(says) && errors.lines().count() == 1, "{errors}");
    }
}
