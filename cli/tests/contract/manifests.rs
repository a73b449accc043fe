//! `create -f`, `delete -f` and `-o yaml`, against a real control plane: what is made is what was described, what is shown
//! makes it again, and nothing is sent as long as anything is wrong.

use std::fs;

use serde_json::{Value, json};

use crate::place::{Place, bridge};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/examples/networks.yaml");

#[test]
fn the_example_is_created_shown_and_deleted() {
    let place = Place::new();
    let dry =
        "network net-app would be created\nnetwork net-storage would be created\nnetwork net-east would be created\n";
    place.run(&["create", "-f", EXAMPLE, "--dry-run"], "").is(0, dry, "");
    assert_eq!(place.names(), "");
    place.run(&["create", "-f", EXAMPLE], "").is(0, &dry.replace("would be ", ""), "");
    let wanted = "apiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: net-app\nspec:\n  type: bridge\n  bridgeName: \
                  br-app\n  managed: true\n  egress: nat\n  subnet: 10.20.0.0/24\n  gateway: 10.20.0.1\n  mtu: 1500\n";
    place.run(&["network", "get", "net-app", "-o", "yaml"], "").is(0, wanted, "");
    let wanted = "apiVersion: otherix/v1\nkind: Network\nmetadata:\n  name: net-east\nspec:\n  type: overlay\n  subnet: \
                  10.30.0.0/24\n";
    place.run(&["network", "get", "NET-EAST", "-o", "yaml"], "").is(0, wanted, "");

    let names = ["net-app", "net-storage", "net-east"];
    let before: Vec<Value> = names.map(|name| place.essence(name)).into();
    let all = place.run(&["net", "list", "-o", "yaml"], "").stdout;
    assert_eq!(all.matches("\n---\n").count(), 2, "{all}");
    let deleted = dry.replace("would be created", "deleted");
    place.run(&["delete", "-f", "-", "--dry-run"], &all).is(0, &dry.replace("created", "deleted"), "");
    place.run(&["delete", "-f", "-"], &all).is(0, &deleted, "");
    assert_eq!(place.names(), "");
    place.run(&["create", "-f", "-"], &all).is(0, &dry.replace("would be ", ""), "");
    let after: Vec<Value> = names.map(|name| place.essence(name)).into();
    assert_eq!(after, before);
}

#[test]
fn whatever_a_network_is_called_its_manifest_makes_it_again() {
    let place = Place::new();
    let long = "网".repeat(255);
    let names = ["yes", "1", "null", "a: b", "#x", "a #b", "- a", "\"", "'", "{}", "\u{202e}abc", "größe", "*", &long];
    for (number, name) in names.iter().enumerate() {
        let bridge = if number == 0 { "null".to_owned() } else { format!("br{number}") };
        let run = place.run(&["network", "create", "--bridge-name", &bridge, "--vlan", "7", "--", name], "");
        assert_eq!(run.code, 0, "{}", run.stderr);
        let before = place.essence(name);
        let yaml = place.run(&["network", "get", "-o", "yaml", "--", name], "").stdout;
        for action in ["delete", "create"] {
            let run = place.run(&[action, "-f", "-"], &yaml);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{yaml}");
        }
        assert_eq!(place.essence(name), before);
    }
}

#[test]
fn nothing_is_sent_as_long_as_anything_is_wrong() {
    let place = Place::new();
    let good = place.file("good.yaml", &bridge("net-a", "br-a"));
    let bad = place.file(
        "bad.yaml",
        &format!("{}---\n{}", bridge("b", "br-b"), bridge("c", "br-c").replace("Network", "network")),
    );
    let bad_kind = format!("{bad}:7: kind: must be `Network` or `VM`, not `network`; did you mean `Network`?");
    let misspelt = place.file("misspelt.yaml", &bridge("d", "br-d").replace("bridgeName", "bridgename"));
    let folder = place.folder().to_str().expect("UTF-8");
    let binary = place.folder().join("binary.yaml");
    fs::write(&binary, b"apiVersion: otherix/v1\nkind: \xff\n").expect("written");
    let binary = binary.to_str().expect("UTF-8");
    let big = place.file("big.yaml", &"# far too long\n".repeat(400_000));
    let missing = format!("{folder}/missing.yaml");
    let mut arguments = vec!["create"];
    for file in [&good, &bad, &misspelt, folder, binary, &big, &missing, "-", "-"] {
        arguments.extend(["-f", file]);
    }
    let wanted = [
        "error: the manifests have 8 problems; nothing was sent".to_owned(),
        format!("  {folder}: cannot be read: it is a directory"),
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
    place.run(&arguments, &stdin).is(2, "", &wanted);
    arguments[0] = "delete";
    place.run(&arguments, &stdin).is(2, "", &wanted);
    assert_eq!(place.names(), "");

    let run = place.run(&["create", "-f", &good, "-f", &misspelt, "-o", "json"], "");
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    let error: Value = serde_json::from_str(&run.stderr).expect("JSON");
    assert_eq!(error["error"]["code"], "validation_failed");
    let problem = json!({"file": misspelt, "line": 4, "document": 1, "field": "spec.bridgename",
        "message": "unknown field; did you mean `bridgeName`?"});
    assert_eq!(error["error"]["details"]["problems"], json!([problem]));
    assert!(error["error"]["details"]["fields"]["spec.bridgename"][0].is_string());
    assert_eq!(place.names(), "");
}

#[test]
fn each_document_is_tried_and_the_first_failure_says_how_it_ends() {
    let place = Place::new();
    let all = [bridge("a", "br-a"), bridge("A2", "BR-a"), bridge("b", "br-a"), bridge("c", "br-c")].join("---\n");
    let file = place.file("all.yaml", &all);
    place.run(&["create", "-f", &file], "").is(
        4,
        "network a created\nnetwork A2 created\nnetwork c created\n",
        &format!(
            "error: {file}:11: cannot create network `b`: bridge `br-a` belongs to network `a`: only unmanaged networks may \
             share a bridge\nerror: 1 of 4 documents failed\n"
        ),
    );
    let run = place.run(&["create", "-f", &file, "--dry-run"], "");
    assert_eq!((run.code, run.stdout.as_str()), (4, "network b would be created\n"), "{}", run.stderr);
    assert!(
        run.stderr.contains(&format!("error: {file}:1: cannot create network `a`: network `a` exists already, as `"))
    );
    assert!(run.stderr.ends_with("error: 3 of 4 documents failed\n"), "{}", run.stderr);

    let run = place.run(&["delete", "-f", &file, "-o", "json"], "");
    assert_eq!(run.code, 3);
    let error: Value = serde_json::from_str(&run.stderr).expect("JSON");
    let wanted =
        json!({"code": "not_found", "message": "1 of 4 documents failed", "details": {"documents": 4, "failed": 1}});
    assert_eq!(error["error"], wanted);
    let data = run.json()["data"].clone();
    let results: Vec<&str> = data.as_array().expect("a list").iter().filter_map(|one| one["result"].as_str()).collect();
    assert_eq!(results, ["deleted", "deleted", "failed", "deleted"]);
    assert_eq!(data[0]["network"]["name"], "a");
    assert_eq!((&data[2]["file"], &data[2]["document"], &data[2]["line"]), (&json!(file), &json!(3), &json!(11)));
    assert_eq!((&data[2]["name"], &data[2]["error"]["code"]), (&json!("b"), &json!("not_found")));
    assert_eq!(place.names(), "");
    let run = place.run(&["delete", "-f", &file, "--dry-run"], "");
    assert_eq!((run.code, run.stdout.as_str()), (3, ""));
    assert!(
        run.stderr.ends_with("error: 4 of 4 documents failed\nhint: run `otherix network list` to see what exists\n")
    );
}

#[test]
fn the_mesh_rule_is_the_control_planes() {
    let place = Place::new();
    let lies_in_mesh = bridge("m", "br-m").replace("managed: true", "managed: true, egress: nat, subnet: 10.42.1.0/24");
    let run = place.run(&["create", "-f", "-"], &lies_in_mesh);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    assert!(run.stderr.starts_with("error: stdin:1: cannot create network `m`: "), "{}", run.stderr);
    assert!(run.stderr.contains("10.42.0.0/16"), "{}", run.stderr);
}
