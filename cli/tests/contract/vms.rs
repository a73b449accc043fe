//! VMs on simulated nodes: their placement, what `--wait` waits for and its exit code, concurrent creation of a NIC and
//! deletion of its network, and the events in the journal.

use std::collections::BTreeSet;

use otherix_schemas::node::Resources;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::wait::wait_for;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::node::{DEADLINE, SimulatedNode, assert_stderr, run, start};

const FLAGS: &str = "--arch amd64 --image-url https://images.example/a --network net --tap-only";
const RACES: usize = 20;

async fn json(control_plane: &ControlPlane, line: &str) -> Value {
    let got = run(control_plane, &format!("{line} -o json")).await;
    serde_json::from_str(&got.stdout).unwrap_or_else(|error| panic!("{error}: {got:?}"))
}

/// Returns the view of a VM once it exists.
async fn vm(control_plane: &ControlPlane, name: &str) -> Value {
    wait_for(DEADLINE, "the VM", async || {
        let got = run(control_plane, &format!("vm get {name} -o json")).await;
        serde_json::from_str(&got.stdout).map_err(|_| got.stderr)
    })
    .await
}

/// Returns the view of a VM once it is deleted.
async fn deleted(control_plane: &ControlPlane, id: &Value) -> Value {
    let id = id.as_str().expect("an id");
    wait_for(DEADLINE, "the deletion", async || {
        let view = vm(control_plane, id).await;
        if view["deleted_at"].is_null() { Err(view) } else { Ok(view) }
    })
    .await
}

async fn until_unreachable(control_plane: &ControlPlane, node: &str) {
    wait_for(DEADLINE, "the node to be unreachable", async || {
        let view = json(control_plane, &format!("node get {node}")).await;
        if view["reachable"] == json!(false) { Ok(()) } else { Err(view) }
    })
    .await;
}

#[tokio::test]
async fn vm_is_ready_when_its_nic_is() {
    let control_plane = ControlPlane::start();
    let mut node = SimulatedNode::join(&control_plane, 1).await;
    assert_eq!(run(&control_plane, "network create net --bridge-name br-net --managed").await.code, Some(0));

    let waiting = start(&control_plane, &format!("vm create web {FLAGS} --wait"));
    let web = vm(&control_plane, "web").await;
    node.report_nic(&web, Outcome::Pending("waiting for `br-net`".to_owned())).await;
    assert_eq!(vm(&control_plane, "web").await["error"], "waiting for `br-net`");
    assert!(!waiting.is_finished());
    node.report_nic(&web, Outcome::Ready).await;
    let ready = waiting.await.expect("no panic");
    assert!(ready.code == Some(0) && ready.stdout.starts_with("VM web created\nid: "), "{ready:?}");
    assert!(ready.stderr.starts_with("node-1: pending"), "{ready:?}");
    assert_eq!(vm(&control_plane, "web").await["status"], "ready");
    let listed = run(&control_plane, "vm list").await.stdout;
    assert!(listed.lines().any(|line| line.starts_with("web ") && line.ends_with("  ready")), "{listed}");

    // A timeout reports what is pending, and why.
    let late = run(&control_plane, &format!("vm create db {FLAGS} --wait --wait-timeout 300ms")).await;
    assert_eq!(late.code, Some(124), "{late:?}");
    let db = vm(&control_plane, "db").await;
    let tap = db["nic"]["tap"].as_str().expect("a tap");
    let why = format!(
        "error: VM `db` is not ready after 300ms: node-1: pending: waiting for node `node-1` to create tap `{tap}`\n\
         hint: "
    );
    assert!(late.stderr.contains(&why), "{late:?}");

    // The NIC fails.
    let waiting = start(&control_plane, &format!("vm create bad {FLAGS} --wait -o json"));
    let bad = vm(&control_plane, "bad").await;
    node.report_nic(&bad, Outcome::Failed("no tun device".to_owned())).await;
    let failed = waiting.await.expect("no panic");
    assert_eq!(failed.code, Some(8), "{failed:?}");
    let error: Value = serde_json::from_str(&failed.stderr).expect("one JSON object");
    assert_eq!(error["error"]["message"], "VM `bad` failed on `node-1`: no tun device");
    assert_eq!(error["error"]["details"]["status"]["error"], "no tun device");
    assert_eq!(serde_json::from_str::<Value>(&failed.stdout).expect("JSON")["status"], "failed");

    // A deleted VM is shown until it is removed; its name and its network are free at once.
    let waiting = start(&control_plane, "vm delete web --wait");
    let gone = deleted(&control_plane, &web["id"]).await;
    let shown = run(&control_plane, "vm get web").await;
    assert!(shown.stdout.contains("\nstatus:  deleting\n"), "{shown:?}");
    assert!(!waiting.is_finished());
    node.report_nic(&gone, Outcome::Removed).await;
    let removed = waiting.await.expect("no panic");
    assert_eq!((removed.code, removed.stdout.as_str()), (Some(0), "VM web deleted\n"), "{removed:?}");
    assert_eq!(run(&control_plane, &format!("vm get {}", web["id"].as_str().expect("an id"))).await.code, Some(3));

    let waiting = start(&control_plane, "vm delete db --wait");
    let gone = deleted(&control_plane, &db["id"]).await;
    node.report_nic(&gone, Outcome::Failed("busy".to_owned())).await;
    let failed = waiting.await.expect("no panic");
    assert_eq!(failed.code, Some(8), "{failed:?}");
    assert!(failed.stderr.contains("error: VM `db` could not be removed on `node-1`: busy\nhint: "), "{failed:?}");
}

#[tokio::test]
async fn places_vms_on_the_ready_node_with_the_fewest_nics() {
    // Long enough for heartbeats that a busy machine delays.
    let control_plane = ControlPlane::start_with(&["--unreachable-after-ms", "2000"]);
    let mut one = SimulatedNode::join(&control_plane, 1).await.with_heartbeats();
    let _two = SimulatedNode::join(&control_plane, 2).await.with_heartbeats();
    let _silent = SimulatedNode::join(&control_plane, 3).await;
    until_unreachable(&control_plane, "node-3").await;
    let network = json(&control_plane, "network create net --bridge-name br-net --managed").await;
    for (name, node) in [("a", "node-1"), ("b", "node-2"), ("c", "node-1"), ("d", "node-2")] {
        let made = json(&control_plane, &format!("vm create {name} {FLAGS}")).await;
        assert_eq!((&made["node_name"], &made["status"]), (&json!(node), &json!("pending")), "{made}");
    }
    // No VM is placed where its network has failed.
    one.report(&network, Outcome::Failed("squatter".to_owned())).await;
    for name in ["e", "f"] {
        assert_eq!(json(&control_plane, &format!("vm create {name} {FLAGS}")).await["node_name"], "node-2");
    }
    // An unreachable node can be requested, and the VM shows that it is unreachable.
    let on_unreachable = json(&control_plane, &format!("vm create g {FLAGS} --node node-3")).await;
    assert_eq!((&on_unreachable["node_name"], &on_unreachable["node_reachable"]), (&json!("node-3"), &json!(false)));
    let shown = run(&control_plane, "vm get g").await.stdout;
    assert!(shown.contains("status:  pending (node unreachable)\n"), "{shown}");
    let late = run(&control_plane, &format!("vm create h {FLAGS} --node NODE-3 --wait --wait-timeout 300ms")).await;
    assert_eq!(late.code, Some(124), "{late:?}");
    assert!(
        late.stderr.contains(
            ": node-3: pending (unreachable): waiting for node `node-3`, which is unreachable, to create tap"
        ),
        "{late:?}"
    );

    // Addresses and taps are unique.
    let all = json(&control_plane, "vm list").await["data"].as_array().expect("a list").clone();
    let nics: Vec<&Value> = all.iter().map(|vm| &vm["nic"]).collect();
    let distinct =
        |key: &str| nics.iter().map(|nic| nic[key].as_str().expect("a string")).collect::<BTreeSet<_>>().len();
    assert_eq!((all.len(), distinct("mac"), distinct("tap"), distinct("id")), (8, 8, 8, 8));
    for nic in nics {
        let (id, tap) = (nic["id"].as_str().expect("an id"), nic["tap"].as_str().expect("a name"));
        assert_eq!((tap, &id[14..15]), (format!("ot{}", &id.replace('-', "")[..12]).as_str(), "4"), "a random id");
        assert!(nic["mac"].as_str().is_some_and(|mac| mac.starts_with("52:54:00:") && mac.len() == 17), "{nic}");
    }
    let node = json(&control_plane, "node get node-1").await;
    assert_eq!(
        (&node["vms"], &node["nics"], &node["networks"][0]["error"]),
        (&json!(2), &json!(2), &json!("squatter"))
    );
    let shown = run(&control_plane, "node get node-1").await.stdout;
    assert!(shown.ends_with("NETWORK  STATUS  ERROR\nnet      failed  squatter\n"), "{shown}");
    let listed = run(&control_plane, "node list").await.stdout;
    assert!(listed.contains("node-1  reachable    0      0        1       2    2     -     20"), "{listed}");
    assert!(listed.contains("node-3  unreachable  0      1        0       2    2     -     20"), "{listed}");
    one.report(&network, Outcome::Ready).await;
    assert_eq!(json(&control_plane, &format!("vm create i {FLAGS}")).await["node_name"], "node-1");
    cordons_a_node(&control_plane).await;
}

/// Node 1, which has three VMs and would get the next one, too.
async fn cordons_a_node(control_plane: &ControlPlane) {
    let cordoned = run(control_plane, "node cordon NODE-1").await;
    assert_eq!(cordoned.stdout, "node node-1 cordoned: 3 VMs stay on it\n", "{cordoned:?}");
    let again = json(control_plane, "node cordon node-1").await;
    assert_eq!((&again["name"], &again["cordoned"], &again["vms"]), (&json!("node-1"), &json!(true), &json!(3)));
    assert_eq!(json(control_plane, "node get node-1").await["cordoned"], true);
    let shown = run(control_plane, "node get node-1").await.stdout;
    assert!(shown.contains("cordoned: yes: no VMs are placed on it\n"), "{shown}");
    let listed = run(control_plane, "node list").await.stdout;
    assert!(listed.contains("node-1  reachable, cordoned  "), "{listed}");
    assert_eq!(json(control_plane, &format!("vm create j {FLAGS}")).await["node_name"], "node-2");
    let refused = run(control_plane, &format!("vm create k {FLAGS} --node node-1")).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("node `node-1` is cordoned: choose another"), "{refused:?}");
    let unknown = run(control_plane, "node cordon node-9").await;
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    let uncordoned = run(control_plane, "node uncordon node-1").await;
    assert_eq!(uncordoned.stdout, "node node-1 uncordoned\n", "{uncordoned:?}");
    assert_eq!(json(control_plane, "node get node-1").await["cordoned"], Value::Null);
    assert_eq!(json(control_plane, &format!("vm create k {FLAGS} --node node-1")).await["node_name"], "node-1");
}

#[tokio::test]
async fn places_machines_where_there_is_room() {
    let control_plane = ControlPlane::start();
    let one = SimulatedNode::join(&control_plane, 1).await;
    let created =
        |name: &str, flags: &str| format!("vm create {name} --arch amd64 --image-url http://192.0.2.9/i {flags}");
    one.offer(Resources { vcpus: 4, memory_mb: 4096, disk_gib: 20 }).await;
    let shown = run(&control_plane, "node get node-1").await.stdout;
    let none = "allocated:   0 of 4 vCPUs, 0 of 4096 MiB of memory, 0 of 20 GiB of disk\n";
    assert!(shown.contains("accelerator: tcg (configured)\n") && shown.contains(none), "{shown}");
    let first = json(&control_plane, &created("a", "--vcpus 3 --memory-mb 1024 --disk-gib 5")).await;
    let node = json(&control_plane, "node get node-1").await;
    assert_eq!(node["allocated"], json!({"vcpus": 3, "memory_mb": 1024, "disk_gib": 5}));
    assert_eq!(node["capacity"]["resources"]["vcpus"], 4, "{node}");
    // Without a machine it takes nothing.
    json(&control_plane, &created("tap", "--tap-only")).await;
    let full = run(&control_plane, &created("b", "--memory-mb 512")).await;
    let why = "node `node-1` has no room for 2 vCPUs, 512 MiB of memory, 0 GiB of disk: it has 1 vCPU, 3072 MiB of \
               memory, 15 GiB of disk left";
    assert_eq!(full.code, Some(4), "{full:?}");
    assert!(full.stderr.contains(why), "{full:?}");
    json(&control_plane, &created("b", "--vcpus 1 --memory-mb 512 --node node-1")).await;
    run(&control_plane, "vm delete a").await;
    json(&control_plane, &created("c", "--vcpus 3 --memory-mb 512")).await;
    let position = first["generation"].as_u64().expect("a position") - 1;
    let before = json(&control_plane, &format!("node get node-1 --at {position}")).await;
    assert_eq!(before["allocated"]["vcpus"], 0, "{before}");
}

#[tokio::test]
async fn records_vm_nic_and_placement_together() {
    let control_plane = ControlPlane::start();
    SimulatedNode::join(&control_plane, 1).await;
    assert_eq!(run(&control_plane, "network create net --bridge-name br-net --managed").await.code, Some(0));
    let made = json(&control_plane, &format!("vm create web {FLAGS}")).await;
    assert_eq!(run(&control_plane, "vm delete web").await.code, Some(0));
    // The events of a VM are recorded in one transaction, so they are consecutive and have the same cause.
    let rows = control_plane.query(
        "SELECT type, json_extract(body, '$.correlationid') FROM events
         WHERE type LIKE 'dev.otherix.vm.%' OR type LIKE 'dev.otherix.nic.%' ORDER BY position",
    );
    let rows: Vec<(&str, &str)> = rows.lines().filter_map(|row| row.split_once('|')).collect();
    let types: Vec<&str> = rows.iter().map(|(kind, _)| kind.trim_start_matches("dev.otherix.")).collect();
    let expected = ["vm.created.v3", "nic.attached.v2", "nic.bound.v1", "nic.detached.v1", "vm.deleted.v1"];
    assert_eq!(types, expected);
    let causes: BTreeSet<&str> = rows[..3].iter().map(|(_, cause)| *cause).collect();
    assert_eq!(causes.len(), 1, "{rows:?}");
    let data =
        control_plane.query("SELECT json_extract(body, '$.data.mac') FROM events WHERE type LIKE '%nic.attached%'");
    assert_eq!(data.trim(), made["nic"]["mac"]);
    // A refused request records no event.
    let count = || control_plane.query("SELECT COUNT(*) FROM events");
    let before = count();
    assert_eq!(run(&control_plane, &format!("vm create web {FLAGS} --node node-9")).await.code, Some(3));
    assert_eq!(count(), before);
}

#[tokio::test]
async fn one_of_concurrent_creation_and_deletion_succeeds() {
    let control_plane = ControlPlane::start();
    SimulatedNode::join(&control_plane, 1).await;
    let mut left = Vec::new();
    for number in 0..RACES {
        let name = format!("net-{number}");
        assert_eq!(
            run(&control_plane, &format!("network create {name} --bridge-name br-{number} --managed")).await.code,
            Some(0)
        );
        let create = FLAGS.replace("--network net", &format!("--network {name}"));
        let create = start(&control_plane, &format!("vm create vm-{number} {create}"));
        let delete = start(&control_plane, &format!("network delete {name}"));
        let (create, delete) = (create.await.expect("no panic"), delete.await.expect("no panic"));
        match (create.code, delete.code) {
            (Some(0), Some(5)) => {
                assert!(
                    delete.stderr.contains(&format!("cannot delete network `{name}`: in use by 1 VM NIC")),
                    "{delete:?}"
                );
                left.push(name);
            }
            (Some(3), Some(0)) => assert_stderr(&delete, 0, ""),
            _ => panic!("not exactly one succeeded: {create:?} {delete:?}"),
        }
    }
    let listed = json(&control_plane, "vm list").await["data"].as_array().expect("a list").clone();
    let on: Vec<&str> = listed.iter().filter_map(|vm| vm["nic"]["network_name"].as_str()).collect();
    assert_eq!(on, left);
    let networks = run(&control_plane, "network list -o name").await.stdout;
    assert_eq!(networks.lines().collect::<Vec<_>>(), left);
}
