//! `apply -f` and `diff -f` against a real control plane: what is said of each document, what is recorded, and that
//! applying twice sends nothing.

use serde_json::Value;

use crate::workspace::{ProgramOutput, Workspace};

/// A managed bridge with these further lines of `spec`.
fn network(name: &str, number: u8, spec: &str) -> String {
    format!(
        "apiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: {name}\nspec:\n  bridgeName: br-{number}\n  \
         managed: true\n{spec}"
    )
}

fn with_label(document: &str, label: &str) -> String {
    document.replacen("spec:", &format!("  labels: {{{label}}}\nspec:"), 1)
}

/// The position of the last event.
fn position(workspace: &Workspace) -> u64 {
    workspace.control_plane.query("SELECT max(position) FROM events").trim().parse().expect("a position")
}

#[test]
fn applies_a_folder_and_says_what_became_of_each_document() {
    let workspace = Workspace::new();
    let (a, b) = (network("net-a", 1, "  mtu: 1500\n"), network("net-b", 2, ""));
    workspace.file("one.yaml", &a);
    workspace.file("two.yml", &b);
    workspace.file("ignored.txt", "no manifest");
    let folder = workspace.directory().to_str().expect("UTF-8");
    let would = "network net-a would be created\nnetwork net-b would be created\n2 would be created, 0 unchanged\n";
    workspace.run(&["apply", "-f", folder, "--dry-run"], "").assert_output(0, would, "");
    assert_eq!(workspace.names(), "");
    let created = "network net-a created\nnetwork net-b created\n2 created, 0 changed, 0 unchanged\n";
    workspace.run(&["apply", "-f", folder], "").assert_output(0, created, "");
    let before = position(&workspace);
    let unchanged = "network net-a unchanged\nnetwork net-b unchanged\n0 created, 0 changed, 2 unchanged\n";
    workspace.run(&["apply", "-f", folder], "").assert_output(0, unchanged, "");
    workspace.run(&["diff", "-f", folder], "").assert_output(0, "", "");
    assert_eq!(position(&workspace), before, "nothing is recorded");

    workspace.file("one.yaml", &with_label(&a.replace("1500", "1400"), "env: prod"));
    let would = "network net-a would be changed: labels.env none -> prod, mtu 1500 -> 1400\nnetwork net-b unchanged\n\
                 1 would be changed, 1 unchanged\n";
    workspace.run(&["apply", "-f", folder, "--dry-run"], "").assert_output(0, would, "");
    let diff = workspace.run(&["diff", "-f", folder], "");
    let lines: Vec<_> = diff.stdout.lines().filter(|line| line.starts_with(['+', '-'])).collect();
    let heading = format!("+++ net-a ({folder}/one.yaml:1)");
    let expected = ["--- net-a (now)", &heading, "+  labels:", "+    env: prod", "-  mtu: 1500", "+  mtu: 1400"];
    assert_eq!((diff.code, diff.stderr.as_str(), lines), (1, "", expected.to_vec()), "{}", diff.stdout);
    assert_eq!(position(&workspace), before, "nothing is recorded");
    let changed = "network net-a changed: labels.env none -> prod, mtu 1500 -> 1400\nnetwork net-b unchanged\n\
                   0 created, 1 changed, 1 unchanged\n";
    workspace.run(&["apply", "-f", folder], "").assert_output(0, changed, "");
    assert_eq!(position(&workspace), before + 1);
    // What the file says is all.
    workspace.file("one.yaml", &network("net-a", 1, ""));
    let changed = "network net-a changed: labels.env prod -> none, mtu 1400 -> 1500\nnetwork net-b unchanged\n\
                   0 created, 1 changed, 1 unchanged\n";
    workspace.run(&["apply", "-f", folder], "").assert_output(0, changed, "");
    // What `get` prints changes nothing.
    let all = workspace.run(&["network", "list", "-o", "yaml"], "").stdout;
    workspace.run(&["apply", "-f", "-"], &all).assert_output(0, unchanged, "");
}

#[test]
fn what_cannot_be_changed_is_refused_and_the_rest_is_applied() {
    let workspace = Workspace::new();
    let a = network("net-a", 1, "");
    workspace.run(&["apply", "-f", "-"], &a).assert_output(
        0,
        "network net-a created\n1 created, 0 changed, 0 unchanged\n",
        "",
    );
    let both = format!("{}---\n{}", network("net-a", 9, "  mtu: 1400\n"), network("net-b", 2, ""));
    let run = workspace.run(&["apply", "-f", "-"], &both);
    assert_eq!(run.stdout, "network net-b created\n1 created, 0 changed, 0 unchanged, 1 failed\n");
    assert_eq!(run.code, 2, "{}", run.stderr);
    let refusal = "stdin:1: cannot apply network `net-a`: invalid request: `bridge_name` cannot be changed from `br-1` \
                   to `br-9`: create another network, and delete this one";
    assert!(run.stderr.contains(refusal), "{}", run.stderr);
    let diff = workspace.run(&["diff", "-f", "-"], &both);
    assert_eq!((diff.code, diff.stdout.as_str()), (2, ""), "{}", diff.stderr);
    assert!(diff.stderr.contains("cannot apply network `net-a`"), "{}", diff.stderr);
    let missing = workspace.run(&["diff", "-f", "/nonexistent/otherix.yaml"], "");
    assert_eq!(missing.code, 2, "{}", missing.stderr);
    let json = workspace.run(&["diff", "-f", "-", "-o", "json"], &network("net-c", 3, ""));
    let report: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((json.code, &report["data"][0]["result"]), (1, &"created".into()));
    assert_eq!(report["data"][0]["diff"][0], "--- /dev/null");
}

#[test]
fn labels_are_checked_where_they_are() {
    let workspace = Workspace::new();
    let file = workspace.file("labels.yaml", &with_label(&network("net-a", 1, ""), "Env: prod, n: 1, x: \"a b\""));
    let run = workspace.run(&["apply", "-f", &file], "");
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    let number = format!("{file}:5: metadata.labels.n: must be a string: put it in quotes, `\"1\"`");
    assert!(run.stderr.contains(&number), "{}", run.stderr);
    let file = workspace.file("labels.yaml", &with_label(&network("net-a", 1, ""), "Env: prod"));
    let run = workspace.run(&["apply", "-f", &file], "");
    let key = format!("{file}:5: metadata.labels: has the key `Env`");
    assert!(run.code == 2 && run.stderr.contains(&key), "{}", run.stderr);
}

#[test]
fn prunes_what_is_selected_and_not_defined_and_only_if_told_to() {
    let workspace = Workspace::new();
    let labelled = |name: &str, number: u8| with_label(&network(name, number, ""), "app: shop");
    let all = format!("{}---\n{}---\n{}", labelled("net-a", 1), labelled("net-b", 2), network("net-c", 3, ""));
    assert_eq!(workspace.run(&["apply", "-f", "-"], &all).code, 0);
    let prune = ["apply", "-f", "-", "--prune", "--selector", "app=shop"];
    let first = labelled("net-a", 1);
    let refused = workspace.run(&prune, &first);
    assert_eq!((refused.code, workspace.names().as_str()), (2, "net-a\nnet-b\nnet-c\n"), "{}", refused.stderr);
    assert!(refused.stderr.contains("not deleted: network `net-b`"), "{}", refused.stderr);
    let would = workspace.run(&[&prune[..], &["--dry-run"]].concat(), &first);
    assert!(would.code == 0 && would.stdout.contains("network net-b would be deleted\n"), "{}", would.stdout);
    let pruned = "network net-a unchanged\nnetwork net-b deleted\n0 created, 0 changed, 1 unchanged, 1 pruned\n";
    workspace.run(&[&prune[..], &["--yes"]].concat(), &first).assert_output(0, pruned, "");
    assert_eq!(workspace.names(), "net-a\nnet-c\n", "what has no such label is not selected");
    let without = workspace.run(&["apply", "-f", "-", "--prune"], &first);
    assert_eq!(without.code, 2, "a selector is required");
    // Nothing is deleted if something that is defined is refused.
    let wrong = with_label(&network("net-d", 3, ""), "app: shop");
    let run = workspace.run(&[&prune[..], &["--yes"]].concat(), &wrong);
    assert_eq!((run.code, workspace.names().as_str()), (4, "net-a\nnet-c\n"), "{}", run.stderr);
}

#[test]
fn an_editor_changes_a_network_unless_somebody_else_has() {
    let workspace = Workspace::new();
    assert_eq!(workspace.run(&["apply", "-f", "-"], &network("net-a", 1, "")).code, 0);
    let edit = |editor: &str| {
        let arguments = ["edit", "network", "net-a"].map(str::to_owned);
        let mut command = workspace.control_plane.command(&arguments);
        let output = command.env("EDITOR", editor).env_remove("VISUAL").env("TMPDIR", workspace.directory()).output();
        ProgramOutput::from(output.expect("the program starts"))
    };
    let kept = || {
        let entries = std::fs::read_dir(workspace.directory()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.starts_with("otherix-edit-")).count()
    };
    edit("true").assert_output(0, "network net-a unchanged\n", "");
    edit("sed -i s/1500/1400/").assert_output(0, "network net-a changed\n  mtu 1500 -> 1400\n", "");
    assert_eq!(kept(), 0);
    let failed = edit("false");
    assert_eq!((failed.code, kept()), (1, 0), "{}", failed.stderr);
    let wrong = edit("sed -i s/1400/5/");
    assert_eq!((wrong.code, kept()), (2, 1), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("what you have written is kept"), "{}", wrong.stderr);
    // Meanwhile, somebody else changes it.
    let script = workspace.file("other.sh", "");
    let program = env!("CARGO_BIN_EXE_otherix");
    let other = format!("#!/bin/sh\n{program} network set net-a --vlan 7 >&2 && sed -i s/1400/1300/ \"$1\"\n");
    std::fs::write(&script, other).expect("written");
    let late = edit(&format!("sh {script}"));
    assert_eq!((late.code, kept()), (4, 2), "{}", late.stderr);
    assert!(late.stderr.contains("-  vlan: 7"), "{}", late.stderr);
}
