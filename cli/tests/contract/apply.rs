//! `apply -f` and `diff -f` against a real control plane: what is said of each document, what is recorded, and that
//! applying twice sends nothing.

use serde_json::Value;

use crate::workspace::Workspace;

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
    let list = workspace.run(&["network", "list", "-o", "json", "--limit", "1"], "").stdout;
    let list: Value = serde_json::from_str(&list).expect("JSON");
    list["meta"]["position"].as_u64().expect("a position")
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
