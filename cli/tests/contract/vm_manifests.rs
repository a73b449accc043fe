//! Manifests of VMs against a real control plane: the order of networks and VMs, references, and resources in use.

use serde_json::{Value, json};

use crate::node::SimulatedNode;
use crate::workspace::{Workspace, bridge};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/examples/vms.yaml");

/// The manifest of a VM on a network.
fn vm(name: &str, network: &str) -> String {
    format!(
        "apiVersion: otherix/v1\nkind: VM\nmetadata: {{name: {name}}}\nspec:\n  imageURL: https://images.example/a\n  \
         arch: amd64\n  network: {network}\n  tapOnly: true\n"
    )
}

/// A control plane with two nodes.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for number in [1, 2] {
        runtime.block_on(SimulatedNode::join(&workspace.control_plane, number));
    }
    workspace
}

fn vms(workspace: &Workspace) -> String {
    workspace.run(&["vm", "list", "-o", "name"], "").stdout
}

#[test]
fn creates_networks_before_vms_and_deletes_them_after() {
    let workspace = workspace();
    let all = [vm("web", "net-a"), bridge("net-a", "br-a"), vm("db", "NET-A"), bridge("net-b", "br-b")].join("---\n");
    let file = workspace.file("all.yaml", &all);
    let made = "network net-a created\nnetwork net-b created\nVM web created\nVM db created\n";
    let would = made.replace("created", "would be created");
    workspace.run(&["create", "-f", &file, "--dry-run"], "").assert_output(0, &would, "");
    assert_eq!((workspace.names(), vms(&workspace)), (String::new(), String::new()));
    workspace.run(&["create", "-f", &file], "").assert_output(0, made, "");
    assert_eq!(vms(&workspace), "web\ndb\n");
    let web = workspace.run(&["vm", "get", "web", "-o", "json"], "").json();
    assert_eq!(web["nic"]["network_name"], "net-a");

    let gone = "VM web deleted\nVM db deleted\nnetwork net-a deleted\nnetwork net-b deleted\n";
    let would = gone.replace("deleted", "would be deleted");
    workspace.run(&["delete", "-f", &file, "--dry-run"], "").assert_output(0, &would, "");
    assert_eq!(vms(&workspace), "web\ndb\n");
    workspace.run(&["delete", "-f", &file], "").assert_output(0, gone, "");
    assert_eq!((workspace.names(), vms(&workspace)), (String::new(), String::new()));
}

#[test]
fn creates_and_deletes_the_example() {
    let workspace = workspace();
    workspace.run(&["create", "-f", EXAMPLE], "").assert_output(
        0,
        "network net-web created\nVM web created\nVM web-2 created\n",
        "",
    );
    workspace.run(&["delete", "-f", EXAMPLE], "").assert_output(
        0,
        "VM web deleted\nVM web-2 deleted\nnetwork net-web deleted\n",
        "",
    );
}

#[test]
fn shown_manifest_creates_an_equal_vm() {
    let workspace = workspace();
    let all = [bridge("net-a", "br-a"), vm("\"a: b\"", "net-a"), vm("bare", "null")].join("---\n");
    assert_eq!(workspace.run(&["create", "-f", "-"], &all).code, 0);
    let comparable = |name: &str| {
        let mut view = workspace.run(&["vm", "get", "-o", "json", "--", name], "").json();
        let fields = view.as_object_mut().expect("an object");
        for field in ["id", "node_id", "node_name", "error", "generation", "created_at", "updated_at"] {
            assert!(fields.remove(field).is_some(), "{field}");
        }
        let network = view["nic"]["network_name"].clone();
        view["nic"] = network;
        view
    };
    let before = [comparable("a: b"), comparable("bare")];
    let yaml = workspace.run(&["vm", "list", "-o", "yaml"], "").stdout;
    assert_eq!(
        workspace.run(&["vm", "get", "a: b", "-o", "yaml"], "").stdout,
        yaml.split("---\n").next().expect("a document")
    );
    workspace.run(&["delete", "-f", "-"], &yaml).assert_output(0, "VM a: b deleted\nVM bare deleted\n", "");
    workspace.run(&["create", "-f", "-"], &yaml).assert_output(0, "VM a: b created\nVM bare created\n", "");
    assert_eq!([comparable("a: b"), comparable("bare")], before);
}

#[test]
fn requires_referenced_resources_to_exist() {
    let workspace = workspace();
    assert_eq!(workspace.run(&["create", "-f", "-"], &bridge("net-a", "br-a")).code, 0);
    let id =
        workspace.run(&["network", "get", "net-a", "-o", "json"], "").json()["id"].as_str().expect("an id").to_owned();
    let on_node = |node: &str| format!("{}  node: {node}\n", vm(&format!("on-{node}"), &id));
    let all = [vm("a", "nowhere"), on_node("node-2"), on_node("node-9")].join("---\n");
    for dry in [true, false] {
        let mut arguments = vec!["create", "-f", "-"];
        arguments.extend(dry.then_some("--dry-run"));
        let run = workspace.run(&arguments, &all);
        let done = if dry { "would be created" } else { "created" };
        let stderr = "error: stdin:1: cannot create VM `a`: there is no network `nowhere`\n\
             error: stdin:20: cannot create VM `on-node-9`: there is no node `node-9`\n\
             error: 2 of 3 documents failed\n\
             hint: run `otherix network list` to see what exists\nhint: run `otherix node list` to see what exists\n";
        run.assert_output(3, &format!("VM on-node-2 {done}\n"), stderr);
    }
    let made = workspace.run(&["vm", "get", "on-node-2", "-o", "json"], "").json();
    assert_eq!((&made["node_name"], &made["nic"]["network_id"]), (&json!("node-2"), &json!(id)));
    let run = workspace.run(&["create", "-f", "-", "--dry-run"], &on_node("node-2"));
    assert_eq!((run.code, run.stdout.as_str()), (4, ""));
    let exists = format!("cannot create VM `on-node-2`: VM `on-node-2` exists already, as `{}`\n", text(&made["id"]));
    assert!(run.stderr.contains(&exists), "{}", run.stderr);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

#[test]
fn skips_vms_whose_network_was_rejected() {
    let workspace = workspace();
    let all = [bridge("net-a", "br-x"), bridge("net-b", "br-x"), vm("web", "net-b")].join("---\n");
    for dry in [true, false] {
        let mut arguments = vec!["create", "-f", "-"];
        arguments.extend(dry.then_some("--dry-run"));
        let run = workspace.run(&arguments, &all);
        assert_eq!(run.code, 4, "{}", run.stderr);
        let missing = "cannot create VM `web`: there is no network `net-b`\n";
        assert!(run.stderr.contains(missing), "{}", run.stderr);
        assert_eq!(vms(&workspace), "");
    }
}

#[test]
fn keeps_a_network_in_use() {
    let workspace = workspace();
    let mine = [bridge("net-a", "br-a"), bridge("net-b", "br-b"), vm("web", "net-a")].join("---\n");
    let file = workspace.file("mine.yaml", &mine);
    assert_eq!(workspace.run(&["create", "-f", &file], "").code, 0);
    assert_eq!(workspace.run(&["create", "-f", "-"], &vm("other", "net-a")).code, 0);
    let blocked = "cannot delete network `net-a`: in use by 1 VM NIC";
    let stderr = format!(
        "error: {file}:1: {blocked}\nerror: 1 of 3 documents failed\n\
         hint: run `otherix vm list` to see the VMs on the network, and delete them first\n"
    );
    let deleted = "VM web deleted\nnetwork net-b deleted\n";
    let would = deleted.replace("deleted", "would be deleted");
    workspace.run(&["delete", "-f", &file, "--dry-run"], "").assert_output(5, &would, &stderr);
    workspace.run(&["delete", "-f", &file], "").assert_output(5, deleted, &stderr);
    assert_eq!((workspace.names().as_str(), vms(&workspace).as_str()), ("net-a\n", "other\n"));

    let run = workspace.run(&["delete", "-f", &file, "-o", "json"], "");
    assert_eq!(run.code, 3, "the VM is gone already, and is the first: {}", run.stderr);
    let data = run.json()["data"].clone();
    let results: Vec<_> = (0..3).map(|at| (text(&data[at]["kind"]), text(&data[at]["result"]))).collect();
    assert_eq!(results, [("VM", "failed"), ("Network", "failed"), ("Network", "failed")]);
    assert_eq!(data[1]["error"]["details"], json!({"vm_nics": 1}));

    let run = workspace
        .run(&["delete", "-f", "-", "-o", "json"], &[bridge("net-a", "x"), vm("other", "net-a")].join("---\n"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let data = run.json()["data"].clone();
    assert_eq!((&data[0]["vm"]["name"], &data[1]["network"]["name"]), (&json!("other"), &json!("net-a")));
    assert!(data[0]["vm"]["deleted_at"].is_string() && data[0]["network"].is_null());
}

#[test]
fn rejects_misspelt_fields_before_sending() {
    let workspace = workspace();
    let good = workspace.file("good.yaml", &bridge("net-a", "br-a"));
    let bad = workspace.file("bad.yaml", &vm("web", "net-a").replace("imageURL", "imageUrl").replace("amd64", "x86"));
    let stderr = format!(
        "error: the manifests have 2 problems; nothing was sent\n  \
         {bad}:5: spec.imageUrl: unknown field; did you mean `imageURL`?\n  \
         {bad}:6: spec.arch: must be `amd64` or `arm64`, not `x86`\n\
         hint: see `otherix create --help` for an example of each kind of manifest\n"
    );
    for action in ["create", "delete"] {
        workspace.run(&[action, "-f", &good, "-f", &bad], "").assert_output(2, "", &stderr);
    }
    assert_eq!(workspace.names(), "");
}
