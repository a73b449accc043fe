//! Read models of an export: made without a control plane, and queried with the same output.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use otherix_schemas::outcome::Outcome;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};

use crate::control_plane::ControlPlane;
use crate::events::{done, world};
use crate::node::{ProgramOutput, SimulatedNode, run};

/// A control plane whose nodes are no witnesses signs 15 s after its start.
const SIGNED_WITHIN: Duration = Duration::from_secs(45);

const QUERIES: [&str; 16] = [
    "network list",
    "network list --show-ids",
    "network list -o json",
    "network list -o yaml",
    "network list --limit 1",
    "network list --type overlay",
    "network get net-a",
    "network get net-b -o json",
    "network get net-a -o yaml",
    "network get gone",
    "vm list --show-ids",
    "vm list -o json",
    "vm get web -o json",
    "node list -o json",
    "node get node-1",
    "node get node-1 -o json",
];

/// Runs the program where nothing tells of a control plane.
fn alone(line: &str) -> ProgramOutput {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherix"));
    command.args(line.split(' ')).env_clear().env("HOME", "/nonexistent").env("OTHERIX_STATE", "/nonexistent");
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    ProgramOutput { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[track_caller]
fn refused(line: &str, code: i32, message: &str) {
    let output = alone(line);
    assert_eq!(output.code, Some(code), "{line}: {output:?}");
    assert!(output.stderr.contains(message) && output.stdout.is_empty(), "{line}: {output:?}");
}

fn head(control_plane: &ControlPlane) -> String {
    control_plane.query("SELECT MAX(position) FROM events").trim().to_owned()
}

/// An export of all events so far, and the key of the log.
struct Export {
    folder: TempDir,
    key: String,
}

impl Export {
    async fn of(control_plane: &ControlPlane) -> Self {
        let (folder, head) = (tempdir().expect("a folder"), head(control_plane));
        let export = folder.path().join("export").display().to_string();
        wait_for(SIGNED_WITHIN, "a checkpoint of all events", async || {
            let output = run(control_plane, &format!("audit export {export}")).await;
            if output.stdout.contains(&format!("positions 1 to {head},")) {
                return Ok(());
            }
            // One of fewer events, or none.
            let _removed = std::fs::remove_dir_all(&export);
            Err(output)
        })
        .await;
        let key = done(control_plane, "audit key").await.trim().to_owned();
        Self { folder, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The folder of a replay with these flags.
    #[track_caller]
    fn replayed(&self, name: &str, flags: &str) -> String {
        let (export, into, key) = (self.shown("export"), self.shown(name), &self.key);
        let output = alone(&format!("audit replay {export} --key {key} --into {into}{flags}"));
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
        assert!(output.stdout.contains("verified events") && !output.stdout.contains("takes --key"), "{output:?}");
        into
    }
}

#[track_caller]
fn same(folder: &str, query: &str, live: &ProgramOutput) {
    let offline = alone(&format!("--offline {folder} {query}"));
    let compared = |output: &ProgramOutput| (output.code, output.stdout.clone(), output.stderr.clone());
    assert_eq!(compared(&offline), compared(live), "{query}");
}

#[tokio::test]
async fn an_export_answers_as_the_control_plane_did() {
    let control_plane = ControlPlane::start();
    world(&control_plane).await;
    let then = head(&control_plane);
    let time = format!("SELECT json_extract(CAST(body AS TEXT), '$.time') FROM events WHERE position = {then}");
    let time = control_plane.query(&time).trim().to_owned();
    let mut recorded = Vec::new();
    for query in QUERIES {
        recorded.push(run(&control_plane, query).await);
    }
    for change in ["vm delete web --force", "network delete net-a --force", "network create net-c --bridge-name br-c"] {
        done(&control_plane, change).await;
    }
    let mut node = SimulatedNode::join(&control_plane, 2).await;
    let network = done(&control_plane, "network get net-b -o json").await;
    node.report(&serde_json::from_str(&network).expect("JSON"), Outcome::Failed("no bridge".to_owned())).await;
    let export = Export::of(&control_plane).await;
    let at = export.replayed("at", &format!(" --to {then}"));
    let at_time = export.replayed("at-time", &format!(" --to {time}"));
    let all = export.replayed("all", "");
    // The position of the export: a node may have become unreachable since.
    let summary = std::fs::read(Path::new(&all).join("replay.json")).expect("a file");
    let summary: serde_json::Value = serde_json::from_slice(&summary).expect("JSON");
    let last = summary["position"].as_u64().expect("a position");
    let mut changed = 0;
    for (query, then_shown) in QUERIES.iter().zip(&recorded) {
        same(&at, query, then_shown);
        same(&at_time, query, then_shown);
        let past = run(&control_plane, &format!("{query} --at {then}")).await;
        assert_eq!((past.code, &past.stdout), (then_shown.code, &then_shown.stdout), "{query}");
        let now = run(&control_plane, &format!("{query} --at {last}")).await;
        changed += usize::from(now.stdout != then_shown.stdout);
        let offline = alone(&format!("--offline {all} {query}"));
        assert_eq!((offline.code, &offline.stdout), (now.code, &now.stdout), "{query}");
    }
    assert!(changed >= QUERIES.len() / 2, "{changed}: the replays are to differ");
    for query in ["user list", "user list -o json", "user get admin"] {
        same(&all, query, &run(&control_plane, query).await);
    }
    for position in 1..=last {
        let folder = export.replayed(&format!("at-{position}"), &format!(" --to {position}"));
        for query in ["network list -o json", "vm list -o json", "node list -o json"] {
            same(&folder, query, &run(&control_plane, &format!("{query} --at {position}")).await);
        }
    }
    // Nothing is left of the control plane, and the folder cannot be written.
    let now = run(&control_plane, &format!("network list --at {last}")).await;
    drop(control_plane);
    let read_only = PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(&all, read_only).expect("a folder");
    same(&all, "network list", &now);
    refuses(&export, &all, &time);
}

fn refuses(export: &Export, all: &str, time: &str) {
    for line in [
        "network create net-d --bridge-name br-d",
        "network delete net-b --force",
        "network list --watch",
        "network get net-b --watch",
        "events list",
        "audit status",
        "audit export elsewhere",
        "user whoami",
        "node join-token create",
        "explain network net-b",
    ] {
        refused(&format!("--offline {all} {line}"), 2, "takes a control plane");
    }
    refused(&format!("--offline {all} network list --at 3"), 2, "have no history");
    refused(&format!("--offline {all} network get net-x"), 3, "there is no network `net-x`");
    refused(&format!("--offline {} network list", export.shown("export")), 3, "not a complete folder");
    refused(&format!("--offline {} network list", export.shown("nowhere")), 3, "not a complete folder");
    // A control plane that is named is not passed over silently.
    for flag in ["--server nats://127.0.0.1:1", "--credentials=none", "--context lab"] {
        refused(&format!("--offline {all} {flag} network list"), 2, "names a control plane");
    }
    let (source, key) = (export.shown("export"), &export.key);
    // Completion adds a slash; nothing is written into the export. Others cannot read what takes `audit:read`.
    assert_eq!(alone(&format!("audit replay {source}/")).code, Some(0));
    let beside = format!("{source}.replay");
    let mode = std::fs::metadata(&beside).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    std::fs::remove_dir_all(&beside).expect("a folder");
    let into = export.shown("refused");
    let replay =
        |source: &str, flags: &str| format!("audit replay {source} --into {into} {flags}").trim_end().to_owned();
    refused(&replay(&source, "--to 100000"), 2, "position 100000 is not in the export, whose last event is at");
    refused(&replay(&source, "--to 0"), 2, "before the first event");
    refused(&replay(&source, "--to 2001-01-01T00:00:00Z"), 2, "the first event of the export was recorded later, at");
    refused(&replay(&source, "--to yesterday"), 2, "must be a position, an RFC 3339 time or a time ago");
    refused(&format!("audit replay {source} --into {all}"), 1, "exists already");
    refused(&replay(&export.shown("nowhere"), ""), 3, "not a complete export");
    // Without the key nothing is verified, which is said; a time after the last event means the last one.
    let output = alone(&replay(&source, "--to 2999-01-01T00:00:00Z -o json"));
    let shown: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(shown["verified"], false, "{shown}");
    assert!(shown["not_proven"].to_string().contains("takes --key") && !time.is_empty(), "{shown}");
    std::fs::remove_dir_all(&into).expect("a folder");
    // An event of the export is another one: nothing is left, with the key, whichever position is asked for.
    let events = export.path("export").join("events.jsonl");
    let text = std::fs::read_to_string(&events).expect("events");
    std::fs::write(&events, text.replacen("br-net-b", "br-net-x", 1)).expect("a file");
    for flags in [format!("--key {key}"), format!("--key {key} --to 2")] {
        refused(&replay(&source, &flags), 1, "not the one that was signed");
    }
    let unverified = alone(&replay(&source, ""));
    assert_eq!(unverified.code, Some(0), "{unverified:?}");
    assert!(unverified.stdout.contains(" unverified events of"), "{unverified:?}");
    assert!(unverified.stdout.contains("not proven:\n  that these are the events that were signed: that takes --key"));
    let summary = std::fs::read_to_string(Path::new(&into).join("replay.json")).expect("a file");
    assert!(summary.contains("\"verified\": false"), "{summary}");
    std::fs::remove_dir_all(&into).expect("a folder");
    std::fs::write(&events, text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).expect("a file");
    refused(&replay(&source, ""), 1, "position 1: the event is missing");
    std::fs::write(&events, &text).expect("a file");
    std::fs::write(export.path("export").join("range"), "1 3\n").expect("a file");
    refused(&replay(&source, ""), 2, "the positions 1 to 3 alone: a replay takes all events");
    std::fs::remove_file(export.path("export").join("range")).expect("a file");
    assert!(!Path::new(&into).exists() && !Path::new(&format!("{into}.incomplete")).exists());
    killed(&source, &into, all);
}

/// A replay that is killed at any moment leaves nothing that is taken for one.
fn killed(source: &str, into: &str, all: &str) {
    let expected = alone(&format!("--offline {all} network list -o json")).stdout;
    let mut complete = 0;
    for delay in 0..40 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otherix"));
        command.args(["audit", "replay", source, "--into", into]).stdout(std::process::Stdio::null());
        let mut process = command.spawn().expect("the program starts");
        sleep(Duration::from_millis(4 * delay));
        process.kill().expect("killed, or ended");
        process.wait().expect("ended");
        if Path::new(into).exists() {
            let output = alone(&format!("--offline {into} network list -o json"));
            assert_eq!((output.code, output.stdout.as_str()), (Some(0), expected.as_str()), "{delay}");
            std::fs::remove_dir_all(into).expect("a folder");
            complete += 1;
        } else {
            refused(&format!("--offline {into} network list"), 3, "not a complete folder");
            let incomplete = format!("{into}.incomplete");
            refused(&format!("--offline {incomplete} network list"), 3, "not a complete folder");
        }
    }
    assert!((1..40).contains(&complete), "{complete}: some are to be killed before their end, and some after");
}

/// An export that is killed at any moment leaves nothing that is taken for one, and is whole if it has its name.
async fn exports_killed(control_plane: &ControlPlane, key: &str) {
    const KILLS: u32 = 24;
    let folder = tempdir().expect("a folder");
    let to = folder.path().join("export");
    let shown = to.display().to_string();
    let words = ["audit", "export", &shown].map(str::to_owned);
    let begin = Instant::now();
    done(control_plane, &format!("audit export {shown}")).await;
    let mut whole = begin.elapsed();
    let (mut killed, mut complete) = (0, 0);
    while killed < KILLS {
        if to.exists() {
            let output = alone(&format!("audit verify {shown} --key {key}"));
            assert_eq!(output.code, Some(0), "{output:?}");
            std::fs::remove_dir_all(&to).expect("a folder");
            complete += 1;
        } else {
            for path in [shown.clone(), format!("{shown}.incomplete")] {
                refused(&format!("audit verify {path} --key {key}"), 3, "not a complete export");
            }
        }
        let mut process = control_plane.command(&words).stdout(std::process::Stdio::null()).spawn().expect("it starts");
        sleep(whole * (killed + 1) / KILLS);
        if process.try_wait().expect("a state").is_some() {
            // It ended by itself: the next ones are killed earlier.
            whole = whole * 7 / 8;
            continue;
        }
        process.kill().expect("killed");
        process.wait().expect("ended");
        killed += 1;
    }
    assert!(complete > 0, "none had its name");
    let _last = std::fs::remove_dir_all(&to);
    // What was left behind is in nobody's way.
    done(control_plane, &format!("audit export {shown}")).await;
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

/// `audit verify --live`, which must find this, or nothing.
async fn verify_live(control_plane: &ControlPlane, key: &str, finds: Option<&str>) {
    let output = run(control_plane, &format!("audit verify --live --key {key}")).await;
    match finds {
        None => {
            assert_eq!(output.code, Some(0), "{output:?}");
            assert!(output.stdout.contains("is what the events give, up to position"), "{output:?}");
            assert!(output.stdout.contains("`otherixd journal verify`"), "{output:?}");
        }
        Some(finds) => {
            assert_eq!(output.code, Some(1), "{finds}: {output:?}");
            assert!(output.stderr.contains(finds), "{finds}: {output:?}");
        }
    }
}

#[tokio::test]
async fn what_a_control_plane_shows_is_compared_with_its_events() {
    let control_plane = ControlPlane::start();
    world(&control_plane).await;
    let mesh = SimulatedNode::join_mesh(&control_plane, 7).await.with_heartbeats();
    let _peer = SimulatedNode::join_mesh(&control_plane, 8).await;
    let export = Export::of(&control_plane).await;
    let key = &export.key;
    // Commands go on meanwhile.
    let commands = async {
        for number in 0..20 {
            done(&control_plane, &format!("network create more-{number} --bridge-name br-{number}")).await;
            let last = format!("network delete more-{number} --force");
            done(&control_plane, if number % 2 == 0 { &last } else { "network list" }).await;
        }
    };
    tokio::join!(verify_live(&control_plane, key, None), commands);
    exports_killed(&control_plane, key).await;
    let change = "UPDATE outcomes SET error = 'no bridge', status = 'failed'";
    let back = "UPDATE outcomes SET error = NULL, status = 'ready'";
    let name = "UPDATE networks SET created = replace(created, 'br-net-b', 'br-net-x')";
    let name_back = "UPDATE networks SET created = replace(created, 'br-net-x', 'br-net-b')";
    let versions = |statement: &str| statement.replace("networks SET", "networks_versions SET");
    let (in_history, history_back) = (versions(name), versions(name_back));
    for (file, alter, restore, finds) in [
        ("read-models.db", change, back, "network `net-a`"),
        ("read-models.db", name, name_back, "network `net-b`"),
        ("read-models.db", "UPDATE vms SET deleted_at = 5", "UPDATE vms SET deleted_at = NULL", "VM `web`"),
        (
            "read-models.db",
            "UPDATE nodes SET arch = 'amd64' WHERE name = 'node-8'",
            "UPDATE nodes SET arch = NULL",
            "node `node-8`",
        ),
        ("history.db", &in_history, &history_back, "is \"br-net-x\", and the events give \"br-net-b\""),
    ] {
        control_plane.alter(file, alter);
        verify_live(&control_plane, key, Some(finds)).await;
        control_plane.alter(file, restore);
    }
    let removed = control_plane.alter("read-models.db", "DELETE FROM networks WHERE name_key = 'net-b' RETURNING id");
    verify_live(&control_plane, key, Some("network `net-b`")).await;
    assert!(!removed.is_empty());
    drop(mesh);
}
