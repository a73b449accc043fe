//! `create -f`, `delete -f` and `-o yaml` against a real control plane: creation as defined, the round trip through
//! YAML, and that nothing is sent if there is a problem.

use std::fs;

use serde_json::{Value, json};

use crate::workspace::{Workspace, bridge};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/examples/networks.yaml");

#[test]
fn creates_shows_and_deletes_the_example() {
    let workspace = Workspace::new();
    let dry =
        "network net-app would be created\nnetwork net-storage would be created\nnetwork net-east would be created\n";
    workspace.run(&["create", "-f", EXAMPLE, "--dry-run"], "").assert_output(0, dry, "");
    assert_eq!(workspace.names(), "");
    workspace.run(&["create", "-f", EXAMPLE], "").assert_output(0, &dry.replace("would be ", ""), "");
    let expected = "apiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: net-app\nspec:\n  type: bridge\n  \
                  bridgeName: br-app\n  managed: true\n  egress: nat\n  subnet: 10.20.0.0/24\n  \
                  gateway: 10.20.0.1\n  mtu: 1500\n";
    workspace.run(&["network", "get", "net-app", "-o", "yaml"], "").assert_output(0, expected, "");
    let expected = "apiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: net-east\nspec:\n  type: overlay\n  \
                  subnet: 10.30.0.0/24\n";
    workspace.run(&["network", "get", "NET-EAST", "-o", "yaml"], "").assert_output(0, expected, "");

    let names = ["net-app", "net-storage", "net-east"];
    let before: Vec<Value> = names.map(|name| workspace.comparable(name)).into();
    let all = workspace.run(&["net", "list", "-o", "yaml"], "").stdout;
    assert_eq!(all.matches("\n---\n").count(), 2, "{all}");
    let deleted = dry.replace("would be created", "deleted");
    workspace.run(&["delete", "-f", "-", "--dry-run"], &all).assert_output(0, &dry.replace("created", "deleted"), "");
    workspace.run(&["delete", "-f", "-"], &all).assert_output(0, &deleted, "");
    assert_eq!(workspace.names(), "");
    workspace.run(&["create", "-f", "-"], &all).assert_output(0, &dry.replace("would be ", ""), "");
    let after: Vec<Value> = names.map(|name| workspace.comparable(name)).into();
    assert_eq!(after, before);
}

#[test]
fn round_trips_difficult_names() {
    let workspace = Workspace::new();
    let long = "网".repeat(255);
    let names = ["yes", "1", "null", "a: b", "#x", "a #b", "- a", "\"", "'", "{}", "\u{202e}abc", "größe", "*", &long];
    for (number, name) in names.iter().enumerate() {
        let bridge = if number == 0 { "null".to_owned() } else { format!("br{number}") };
        let run = workspace.run(&["network", "create", "--bridge-name", &bridge, "--vlan", "7", "--", name], "");
        assert_eq!(run.code, 0, "{}", run.stderr);
        let before = workspace.comparable(name);
        let yaml = workspace.run(&["network", "get", "-o", "yaml", "--", name], "").stdout;
        for action in ["delete", "create"] {
            let run = workspace.run(&[action, "-f", "-"], &yaml);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{yaml}");
        }
        assert_eq!(workspace.comparable(name), before);
    }
}

#[test]
fn sends_nothing_if_there_is_a_problem() {
    let workspace = Workspace::new();
    let good = workspace.file("good.yaml", &bridge("net-a", "br-a"));
    let bad = workspace.file(
        "bad.yaml",
        &format!("{}---\n{}", bridge("b", "br-b"), bridge("c", "br-c").replace("Network", "network")),
    );
    let bad_kind = format!("{bad}:7: kind: must be `Network` or `VM`, not `network`; did you mean `Network`?");
    let misspelt = workspace.file("misspelt.yaml", &bridge("d", "br-d").replace("bridgeName", "bridgename"));
    let directory = workspace.directory().to_str().expect("UTF-8");
    let binary = workspace.directory().join("binary.yaml");
    fs::write(&binary, b"apiVersion: otherix/v1\nkind: \xff\n").expect("written");
    let binary = binary.to_str().expect("UTF-8");
    let big = workspace.file("big.yaml", &"# far too long\n".repeat(400_000));
    let missing = format!("{directory}/missing.yaml");
    let mut arguments = vec!["create"];
    for file in [&good, &bad, &misspelt, directory, binary, &big, &missing, "-", "-"] {
        arguments.extend(["-f", file]);
    }
    let expected = [
        "error: the manifests have 8 problems; nothing was sent".to_owned(),
        format!("  {directory}: cannot be read: it is a directory, not a regular file"),
        format!("  {binary}:2: invalid UTF-8"),
        format!("  {big}: cannot be read: it is larger than 4 MiB"),
        format!("  {missing}: cannot be read: No such file or directory (os error 2)"),
        "  stdin: can be read only once: pass `-` once".to_owned(),
        format!("  {bad_kind}"),
        format!("  {misspelt}:4: spec.bridgename: unknown field; did you mean `bridgeName`?"),
        "  stdin:4: spec.bridgeName: must not begin with `otb`, which is reserved".to_owned(),
        "hint: see `otherix create --help` for an example of each kind of manifest\n".to_owned(),
    ]
    .join("\n");
    let stdin = bridge("e", "otb7");
    workspace.run(&arguments, &stdin).assert_output(2, "", &expected);
    arguments[0] = "delete";
    workspace.run(&arguments, &stdin).assert_output(2, "", &expected);
    assert_eq!(workspace.names(), "");

    let run = workspace.run(&["create", "-f", &good, "-f", &misspelt, "-o", "json"], "");
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    let error: Value = serde_json::from_str(&run.stderr).expect("JSON");
    assert_eq!(error["error"]["code"], "validation_failed");
    let problem = json!({"file": misspelt, "line": 4, "document": 1, "field": "spec.bridgename",
        "message": "unknown field; did you mean `bridgeName`?"});
    assert_eq!(error["error"]["details"]["problems"], json!([problem]));
    assert!(error["error"]["details"]["fields"]["spec.bridgename"][0].is_string());
    assert_eq!(workspace.names(), "");
}

#[test]
fn processes_every_document_and_exits_with_the_first_failure() {
    let workspace = Workspace::new();
    let all = [bridge("a", "br-a"), bridge("A2", "BR-a"), bridge("b", "br-a"), bridge("c", "br-c")].join("---\n");
    let file = workspace.file("all.yaml", &all);
    let created = "network a created\nnetwork A2 created\nnetwork c created\n";
    let stderr = format!(
        "error: {file}:11: cannot create network `b`: bridge `br-a` belongs to network `a`: only \
         unmanaged networks may share a bridge\nerror: 1 of 4 documents failed\n"
    );
    let would = created.replace("created", "would be created");
    workspace.run(&["create", "-f", &file, "--dry-run"], "").assert_output(4, &would, &stderr);
    workspace.run(&["create", "-f", &file], "").assert_output(4, created, &stderr);
    let run = workspace.run(&["create", "-f", &file, "--dry-run"], "");
    assert_eq!((run.code, run.stdout.as_str()), (4, ""), "{}", run.stderr);
    assert!(
        run.stderr.contains(&format!("error: {file}:1: cannot create network `a`: network `a` exists already, as `"))
    );
    assert!(run.stderr.ends_with("error: 4 of 4 documents failed\n"), "{}", run.stderr);

    let run = workspace.run(&["delete", "-f", &file, "-o", "json"], "");
    assert_eq!(run.code, 3);
    let error: Value = serde_json::from_str(&run.stderr).expect("JSON");
    let expected =
        json!({"code": "not_found", "message": "1 of 4 documents failed", "details": {"documents": 4, "failed": 1}});
    assert_eq!(error["error"], expected);
    let data = run.json()["data"].clone();
    let results: Vec<&str> = data.as_array().expect("a list").iter().filter_map(|one| one["result"].as_str()).collect();
    assert_eq!(results, ["deleted", "deleted", "failed", "deleted"]);
    assert_eq!(data[0]["network"]["name"], "a");
    assert_eq!((&data[2]["file"], &data[2]["document"], &data[2]["line"]), (&json!(file), &json!(3), &json!(11)));
    assert_eq!((&data[2]["name"], &data[2]["error"]["code"]), (&json!("b"), &json!("not_found")));
    assert_eq!(workspace.names(), "");
    let run = workspace.run(&["delete", "-f", &file, "--dry-run"], "");
    assert_eq!((run.code, run.stdout.as_str()), (3, ""));
    assert!(
        run.stderr.ends_with("error: 4 of 4 documents failed\nhint: run `otherix network list` to see what exists\n")
    );
}

#[test]
fn leaves_the_mesh_rule_to_the_control_plane() {
    let workspace = Workspace::new();
    let lies_in_mesh = bridge("m", "br-m").replace("managed: true", "managed: true, egress: nat, subnet: 10.42.1.0/24");
    for arguments in [&["create", "-f", "-"][..], &["create", "-f", "-", "--dry-run"]] {
        let run = workspace.run(arguments, &lies_in_mesh);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
        assert!(run.stderr.starts_with("error: stdin:1: cannot create network `m`: "), "{}", run.stderr);
        assert!(run.stderr.contains("10.42.0.0/16"), "{}", run.stderr);
    }
}

#[test]
fn dry_run_reports_what_the_control_plane_would_refuse() {
    let workspace = Workspace::new();
    let nat = |name: &str, subnet: &str| {
        bridge(name, &format!("br-{name}"))
            .replace("managed: true", &format!("managed: true, egress: nat, subnet: {subnet}"))
    };
    assert_eq!(workspace.run(&["create", "-f", "-"], &nat("old", "10.20.0.0/16")).code, 0);
    let all = [
        nat("overlaps", "10.20.7.0/24"),
        bridge("taken", "br-old"),
        bridge("OLD", "br-x"),
        nat("free", "10.30.0.0/24"),
        nat("within", "10.30.0.0/28"),
    ]
    .join("---\n");
    let dry = workspace.run(&["create", "-f", "-", "--dry-run"], &all);
    assert_eq!(workspace.names(), "old\n", "nothing was created");
    let real = workspace.run(&["create", "-f", "-"], &all);
    assert_eq!((real.code, real.stdout.as_str()), (4, "network free created\n"), "{}", real.stderr);
    dry.assert_output(4, "network free would be created\n", &real.stderr);
    assert_eq!(real.stderr.matches("cannot create network").count(), 4, "{}", real.stderr);
}
