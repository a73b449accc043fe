//! Manifests of VMs, against a real control plane: networks are made before the VMs that are on them and unmade after them, and
//! what is in use is left.

use serde_json::{Value, json};

use crate::node::Node;
use crate::place::{Place, bridge};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/examples/vms.yaml");
const NOTE: &str = "note: otherix does not fetch images or boot VMs yet\n";

/// A VM on a network.
fn vm(name: &str, network: &str) -> String {
    format!(
        "apiVersion: otherix/v1\nkind: VM\nmetadata: {{name: {name}}}\nspec:\n  imageURL: https://images.example/a\n  \
         arch: amd64\n  network: {network}\n"
    )
}

/// A control plane with two nodes.
fn place() -> Place {
    let place = Place::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for number in [1, 2] {
        runtime.block_on(Node::join(&place.plane, number));
    }
    place
}

fn vms(place: &Place) -> String {
    place.run(&["vm", "list", "-o", "name"], "").stdout
}

#[test]
fn networks_come_before_vms_and_go_after_them() {
    let place = place();
    let all = [vm("web", "net-a"), bridge("net-a", "br-a"), vm("db", "NET-A"), bridge("net-b", "br-b")].join("---\n");
    let file = place.file("all.yaml", &all);
    let made = "network net-a created\nnetwork net-b created\nVM web created\nVM db created\n";
    let would = made.replace("created", "would be created");
    place.run(&["create", "-f", &file, "--dry-run"], "").is(0, &would, "");
    assert_eq!((place.names(), vms(&place)), (String::new(), String::new()));
    place.run(&["create", "-f", &file], "").is(0, made, NOTE);
    assert_eq!(vms(&place), "web\ndb\n");
    let web = place.run(&["vm", "get", "web", "-o", "json"], "").json();
    assert_eq!(web["nic"]["network_name"], "net-a");

    let gone = "VM web deleted\nVM db deleted\nnetwork net-a deleted\nnetwork net-b deleted\n";
    let would = gone.replace("deleted", "would be deleted");
    place.run(&["delete", "-f", &file, "--dry-run"], "").is(0, &would, "");
    assert_eq!(vms(&place), "web\ndb\n");
    place.run(&["delete", "-f", &file], "").is(0, gone, "");
    assert_eq!((place.names(), vms(&place)), (String::new(), String::new()));
}

#[test]
fn the_example_is_created_and_deleted() {
    let place = place();
    place.run(&["create", "-f", EXAMPLE], "").is(
        0,
        "network net-web created\nVM web created\nVM web-arm created\n",
        NOTE,
    );
    place.run(&["delete", "-f", EXAMPLE], "").is(
        0,
        "VM web deleted\nVM web-arm deleted\nnetwork net-web deleted\n",
        "",
    );
}

#[test]
fn what_is_shown_makes_an_equal_vm() {
    let place = place();
    let all = [bridge("net-a", "br-a"), vm("\"a: b\"", "net-a"), vm("bare", "null")].join("---\n");
    assert_eq!(place.run(&["create", "-f", "-"], &all).code, 0);
    let essence = |name: &str| {
        let mut view = place.run(&["vm", "get", "-o", "json", "--", name], "").json();
        let fields = view.as_object_mut().expect("an object");
        for field in ["id", "node_id", "node_name", "error", "generation", "created_at", "updated_at"] {
            assert!(fields.remove(field).is_some(), "{field}");
        }
        let network = view["nic"]["network_name"].clone();
        view["nic"] = network;
        view
    };
    let before = [essence("a: b"), essence("bare")];
    let yaml = place.run(&["vm", "list", "-o", "yaml"], "").stdout;
    assert_eq!(place.run(&["vm", "get", "a: b", "-o", "yaml"], "").stdout, yaml.split("---\n").next().expect("one"));
    place.run(&["delete", "-f", "-"], &yaml).is(0, "VM a: b deleted\nVM bare deleted\n", "");
    place.run(&["create", "-f", "-"], &yaml).is(0, "VM a: b created\nVM bare created\n", NOTE);
    assert_eq!([essence("a: b"), essence("bare")], before);
}

#[test]
fn what_a_vm_names_must_be_there() {
    let place = place();
    assert_eq!(place.run(&["create", "-f", "-"], &bridge("net-a", "br-a")).code, 0);
    let id = place.run(&["network", "get", "net-a", "-o", "json"], "").json()["id"].as_str().expect("an id").to_owned();
    let on_node = |node: &str| format!("{}  node: {node}\n", vm(&format!("on-{node}"), &id));
    let all = [vm("a", "nowhere"), on_node("node-2"), on_node("node-9")].join("---\n");
    for dry in [true, false] {
        let mut arguments = vec!["create", "-f", "-"];
        arguments.extend(dry.then_some("--dry-run"));
        let run = place.run(&arguments, &all);
        let (done, note) = if dry { ("would be created", "") } else { ("created", NOTE) };
        let stderr = format!(
            "error: stdin:1: cannot create VM `a`: there is no network `nowhere`\n\
             error: stdin:18: cannot create VM `on-node-9`: there is no node `node-9`\n{note}\
             error: 2 of 3 documents failed\n\
             hint: run `otherix network list` to see what exists\nhint: run `otherix node list` to see what exists\n"
        );
        run.is(3, &format!("VM on-node-2 {done}\n"), &stderr);
    }
    let made = place.run(&["vm", "get", "on-node-2", "-o", "json"], "").json();
    assert_eq!((&made["node_name"], &made["nic"]["network_id"]), (&json!("node-2"), &json!(id)));
    let run = place.run(&["create", "-f", "-", "--dry-run"], &on_node("node-2"));
    assert_eq!((run.code, run.stdout.as_str()), (4, ""));
    let exists = format!("cannot create VM `on-node-2`: VM `on-node-2` exists already, as `{}`\n", text(&made["id"]));
    assert!(run.stderr.contains(&exists), "{}", run.stderr);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn a_vm_whose_network_is_refused_is_not_made() {
    let place = place();
    let all = [bridge("net-a", "br-x"), bridge("net-b", "br-x"), vm("web", "net-b")].join("---\n");
    for dry in [false, true] {
        let mut arguments = vec!["create", "-f", "-"];
        arguments.extend(dry.then_some("--dry-run"));
        let run = place.run(&arguments, &all);
        assert_eq!(run.code, 4, "{}", run.stderr);
        // Only the control plane knows that the bridge is taken: a dry run does not.
        assert_eq!(
            run.stderr.contains("cannot create VM `web`: there is no network `net-b`\n"),
            !dry,
            "{}",
            run.stderr
        );
        assert_eq!(vms(&place), "");
    }
}

#[test]
fn a_network_in_use_is_reported_and_left() {
    let place = place();
    let mine = [bridge("net-a", "br-a"), bridge("net-b", "br-b"), vm("web", "net-a")].join("---\n");
    let file = place.file("mine.yaml", &mine);
    assert_eq!(place.run(&["create", "-f", &file], "").code, 0);
    assert_eq!(place.run(&["create", "-f", "-"], &vm("other", "net-a")).code, 0);
    let blocked = "cannot delete network `net-a`: in use by 1 VM NIC";
    let run = place.run(&["delete", "-f", &file], "");
    let stderr = format!(
        "error: {file}:1: {blocked}\nerror: 1 of 3 documents failed\n\
         hint: run `otherix vm list` to see the VMs on the network, and delete them first\n"
    );
    run.is(5, "VM web deleted\nnetwork net-b deleted\n", &stderr);
    assert_eq!((place.names().as_str(), vms(&place).as_str()), ("net-a\n", "other\n"));

    let run = place.run(&["delete", "-f", &file, "-o", "json"], "");
    assert_eq!(run.code, 3, "the VM is gone already, and is the first: {}", run.stderr);
    let data = run.json()["data"].clone();
    let results: Vec<_> = (0..3).map(|at| (text(&data[at]["kind"]), text(&data[at]["result"]))).collect();
    assert_eq!(results, [("VM", "failed"), ("Network", "failed"), ("Network", "failed")]);
    assert_eq!(data[1]["error"]["details"], json!({"vm_nics": 1}));

    let run =
        place.run(&["delete", "-f", "-", "-o", "json"], &[bridge("net-a", "x"), vm("other", "net-a")].join("---\n"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let data = run.json()["data"].clone();
    assert_eq!((&data[0]["vm"]["name"], &data[1]["network"]["name"]), (&json!("other"), &json!("net-a")));
    assert!(data[0]["vm"]["deleted_at"].is_string() && data[0]["network"].is_null());
}

#[test]
fn misspelt_fields_are_refused_with_their_place_and_nothing_is_sent() {
    let place = place();
    let good = place.file("good.yaml", &bridge("net-a", "br-a"));
    let bad = place.file("bad.yaml", &vm("web", "net-a").replace("imageURL", "imageUrl").replace("amd64", "x86"));
    let stderr = format!(
        "error: the manifests have 2 problems; nothing was sent\n  \
         {bad}:5: spec.imageUrl: unknown field; did you mean `imageURL`?\n  \
         {bad}:6: spec.arch: must be `amd64` or `arm64`, not `x86`\n\
         hint: see `otherix create --help` for an example of each kind of manifest\n"
    );
    for action in ["create", "delete"] {
        place.run(&[action, "-f", &good, "-f", &bad], "").is(2, "", &stderr);
    }
    assert_eq!(place.names(), "");
}
