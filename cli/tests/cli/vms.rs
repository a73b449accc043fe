//! `otherix vm` and `otherix node`: the exact requests and output.

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, ID, no_status, view};

const NODE: &str = "0198b2c4-0000-7000-8000-000000000001";

/// A VM on net-dev.
fn vm(status: &str, error: Option<&str>) -> Value {
    json!({
        "id": ID, "name": "web", "image_url": "https://images.example/a", "arch": "amd64", "node_id": NODE,
        "node_name": "node-1", "node_reachable": true,
        "nic": {
            "id": "b2c40198-7a60-4c3e-9d0f-5b1d2f0a9c11", "network_id": ID, "network_name": "net-dev",
            "bridge_name": "br-dev", "mac": "52:54:00:12:34:56", "ip": "10.20.0.2", "tap": "otb2c401987a60",
            "generation": 9, "observed_generation": null, "reconciled_at": null,
        },
        "machine": null, "status": status, "error": error, "warnings": [], "generation": 8,
        "created_at": "2026-01-02T03:04:05.000006Z", "updated_at": "2026-01-02T03:04:05.000006Z", "deleted_at": null,
    })
}

fn node() -> Value {
    json!({
        "id": NODE, "name": "node-1", "reachable": false, "reachable_since": "2026-01-02T03:04:05.000006Z",
        "joined_at": "2026-01-01T00:00:00.000000Z", "vms": 3, "nics": 2,
        "network_counts": {"ready": 4, "pending": 1, "failed": 1},
    })
}

fn verbs(fake: &FakeControlPlane) -> Vec<String> {
    fake.received().into_iter().map(|received| received.verb).collect()
}

const CREATE: &str = "vm create web --image-url https://images.example/a --arch amd64 --tap-only";

const FIELDS: &str = "id:      0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11\nimage:   https://images.example/a\n\
                      arch:    amd64\n\
                      node:    node-1\nnetwork: net-dev\nbridge:  br-dev\nmac:     52:54:00:12:34:56\n\
                      ip:      10.20.0.2\ntap:     otb2c401987a60\ncreated: 2026-01-02T03:04:05.000006Z\n";

#[test]
fn create_resolves_references_to_ids() {
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "network.find" => FakeReply::Data(view(no_status())),
        "node.find" => FakeReply::Data(node()),
        _ => FakeReply::Data(vm("pending", None)),
    });
    fake.run(&format!("{CREATE} --network NET-DEV --node node-1")).assert_output(
        0,
        &format!("VM web created\n{FIELDS}"),
        "",
    );
    assert_eq!(verbs(&fake), ["network.find", "node.find", "vm.create"]);
    let draft = json!({
        "name": "web", "image_url": "https://images.example/a", "arch": "amd64", "network_id": ID, "node_id": NODE,
    });
    assert_eq!(fake.received()[2].body, draft);
    assert!(fake.received()[2].key.is_some());

    let run = fake.run(&format!("{CREATE} --network {ID} --node {NODE} -o json"));
    run.assert_output(0, &run.stdout, "");
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), vm("pending", None));
    let received = fake.received();
    assert_eq!((received.len(), &received[3].body), (4, &draft), "an id needs no look-up");
    fake.run(CREATE).assert_output(0, &format!("VM web created\n{FIELDS}"), "");
    let plain = json!({"name": "web", "image_url": "https://images.example/a", "arch": "amd64"});
    assert_eq!(fake.received()[4].body, plain);
}

#[test]
fn create_sends_nothing_if_a_rule_is_violated() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(vm("ready", None)));
    let stderr = "error: the request is invalid\n  --arch: must be `amd64` or `arm64`, not `vax`\n  --image-url: must \
                  begin with `http://` or `https://`\n  --network: must not be empty\nhint: see `otherix vm create \
                  --help` for the values that each flag accepts\n";
    let mut command = fake.command("vm create web --arch vax --image-url x --network");
    let run: crate::fake::ProgramOutput = command.arg("").output().expect("the program starts").into();
    run.assert_output(2, "", stderr);
    assert_eq!(verbs(&fake), Vec::<String>::new());
}

#[test]
fn get_shows_every_field() {
    let fake = FakeControlPlane::start(|_, before| {
        let mut view = vm("failed", Some("no tun device"));
        match before {
            0 => {
                view["warnings"] = json!(["table `filter` drops", "\u{1b}[2J"]);
                view["node_reachable"] = json!(false);
            }
            1 => {
                view["deleted_at"] = json!("2026-01-02T04:00:00.000000Z");
                view["status"] = json!("pending");
            }
            _ => {
                view["nic"] = Value::Null;
                view["status"] = json!("ready");
                view["error"] = Value::Null;
            }
        }
        FakeReply::Data(view)
    });
    let status = "status:  failed (node unreachable)\nerror:   no tun device\nwarnings:\n  table `filter` drops\n  \
                  \\u{1b}[2J\n";
    fake.run("vm get web").assert_output(0, &format!("name:    web\n{FIELDS}{status}"), "");
    let status = "deleted: 2026-01-02T04:00:00.000000Z\nstatus:  deleting\nerror:   no tun device\n";
    fake.run("vm get web").assert_output(0, &format!("name:    web\n{FIELDS}{status}"), "");
    let (before, _) = FIELDS.split_once("network:").expect("fields");
    let none = format!("name:    web\n{before}network: -\ncreated: 2026-01-02T03:04:05.000006Z\nstatus:  ready\n");
    fake.run("vm get web").assert_output(0, &none, "");
    let yaml = "apiVersion: otherix/v1\nkind: VM\nmetadata:\n  name: web\nspec:\n  \
                imageURL: \"https://images.example/a\"\n  \
                arch: amd64\n  tapOnly: true\n";
    fake.run("vm get web -o yaml").assert_output(0, yaml, "");
    assert_eq!(fake.received()[0].body, json!({"name": "web"}));
}

#[test]
fn an_address_is_requested_with_the_network() {
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "network.find" => FakeReply::Data(view(no_status())),
        _ => FakeReply::Data(vm("pending", None)),
    });
    let created = format!("VM web created\n{FIELDS}");
    fake.run(&format!("{CREATE} --network net-dev --ip 10.20.0.2")).assert_output(0, &created, "");
    let draft = json!({
        "name": "web", "image_url": "https://images.example/a", "arch": "amd64", "network_id": ID, "ip": "10.20.0.2",
    });
    assert_eq!(fake.received()[1].body, draft);
    for (flags, message) in
        [("--ip 10.20.0.2", "needs a network"), ("--network a --ip x", "must be an IPv4 address, not `x`")]
    {
        let run = fake.run(&format!("{CREATE} {flags}"));
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains(&format!("--ip: {message}")), "{}", run.stderr);
    }
    assert_eq!(fake.received().len(), 2, "nothing was sent for what is wrong");
}

#[test]
fn lists_are_aligned() {
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "vm.list" => {
            let mut bare = vm("ready", None);
            bare["name"] = json!("网络");
            bare["nic"] = Value::Null;
            FakeReply::Page(json!([vm("pending", Some("why")), bare]), json!("c2"))
        }
        _ => FakeReply::Data(json!([node()])),
    });
    let table = "NAME  ARCH   NODE    NETWORK  IP         MAC                STATUS\n\
                 web   amd64  node-1  net-dev  10.20.0.2  52:54:00:12:34:56  pending\n\
                 网络  amd64  node-1  -        -          -                  ready\n";
    fake.run("vm list").assert_output(0, table, "next cursor: c2\n");
    fake.run("vm list -o name --limit 2 --cursor c1").assert_output(0, "web\n网络\n", "next cursor: c2\n");
    assert_eq!(fake.received()[1].body, json!({"limit": 2, "cursor": "c1"}));
    let table = "NAME    STATUS       READY  PENDING  FAILED  VMS  NICS  MESH  SINCE\n\
                 node-1  unreachable  4      1        1       3    2     -     2026-01-02T03:04:05.000006Z\n";
    fake.run("node list").assert_output(0, table, "");
    fake.run("node list -o name").assert_output(0, "node-1\n", "");
}

#[test]
fn get_shows_a_node_with_its_networks_and_peers() {
    let fake = FakeControlPlane::start(|_, _| {
        let mut node = node();
        let on = |name: &str, status: &str, error: Option<&str>, warnings: &[&str]| {
            json!({"network_id": ID, "network_name": name, "status": status, "error": error, "warnings": warnings,
                "observed_generation": 7, "reconciled_at": "2026-01-02T03:04:06.000000Z"})
        };
        node["networks"] = json!([
            on("net-dev", "ready", None, &["bridge-nf-call-iptables is on"]),
            on("net-x", "failed", Some("`br-x` is not ours"), &[])
        ]);
        node["mesh"] = json!({"address": "10.42.0.1", "public_key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "endpoint": "192.0.2.1:51820", "peers": [{"node_id": NODE, "node_name": "node-2", "address": "10.42.0.2",
                "endpoint": "192.0.2.2:51820", "established": true, "last_handshake_at": "2026-01-02T03:04:05.000006Z",
                "rx_bytes": 18446744073709551615u64, "tx_bytes": 0}]});
        FakeReply::Data(node)
    });
    let expected = "\
         name:     node-1\nid:       0198b2c4-0000-7000-8000-000000000001\n\
         status:   unreachable since 2026-01-02T03:04:05.000006Z\njoined:   2026-01-01T00:00:00.000000Z\n\
         vms:      3\nnics:     2\nnetworks: 4 ready, 1 pending, 1 failed\n\
         NETWORK  STATUS  ERROR\nnet-dev  ready   -\nnet-x    failed  `br-x` is not ours\n\
         mesh:\n  address:    10.42.0.1\n  public key: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n  \
         endpoint:   192.0.2.1:51820\n\
         PEER    ADDRESS    ENDPOINT         ESTABLISHED  LAST-HANDSHAKE               RX                    TX\n\
         node-2  10.42.0.2  192.0.2.2:51820  yes          2026-01-02T03:04:05.000006Z  18446744073709551615  0\n\
         warnings:\n  net-dev: bridge-nf-call-iptables is on\n";
    fake.run("node get node-1").assert_output(0, expected, "");
    let run = fake.run(&format!("node get {NODE} -o json"));
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap()["networks"][1]["status"], "failed");
    assert_eq!(verbs(&fake), ["node.find", "node.get"]);
}

#[test]
fn delete_asks_for_confirmation_on_a_terminal_only() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(vm("ready", None)));
    let question = "delete VM web? [y/N] ";
    let no = "error: VM `web` was not deleted\nhint: answer `y` or pass `--force`\n";
    for reference in ["WEB", ID] {
        fake.on_terminal(&format!("vm delete {reference}"), "n\n").assert_output(1, "", &format!("{question}{no}"));
    }
    assert!(fake.received().iter().all(|received| received.verb != "vm.delete"));
    fake.on_terminal("vm delete web", "y\n").assert_output(0, "VM web deleted\n", question);
    fake.on_terminal("vm delete web --force", "").assert_output(0, "VM web deleted\n", "");
    fake.run("vm delete web").assert_output(0, "VM web deleted\n", "");
    let run = fake.run(&format!("vm delete {ID} -o json"));
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), vm("ready", None));
    let deletions: Vec<_> = fake.received().into_iter().filter(|received| received.verb == "vm.delete").collect();
    assert_eq!((deletions.len(), &deletions[0].body), (4, &json!({"id": ID})));
}

#[test]
fn waits_until_the_nic_is_ready_or_failed() {
    for (last, error, code) in [("ready", None, 0), ("failed", Some("no tun device"), 8)] {
        let fake = FakeControlPlane::start(move |received, before| match (received.verb.as_str(), before) {
            ("vm.create", _) => FakeReply::ThenOutcome(vm("pending", None)),
            (_, 0) => FakeReply::ThenOutcome(vm("pending", Some("waiting for `br-dev`"))),
            (_, _) => FakeReply::Data(vm(last, error)),
        });
        let run = fake.run(&format!("{CREATE} --wait"));
        let end = match code {
            0 => "",
            _ => {
                "error: VM `web` failed on `node-1`: no tun device\nhint: nodes retry it; run `otherix vm get \
                 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11` to see the status\n"
            }
        };
        let stderr = format!("node-1: pending: waiting for `br-dev`\n{end}");
        run.assert_output(code, &format!("VM web created\n{FIELDS}"), &stderr);
    }
}

#[test]
fn reports_a_conflict_if_the_vm_is_deleted_during_the_wait() {
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "vm.create" => FakeReply::Data(vm("pending", None)),
        _ => FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "there is no VM")),
    });
    let run = fake.run(&format!("{CREATE} --wait -o json"));
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert_eq!(run.error()["message"], "VM `web` was deleted during the wait");
    // A wait for removal is over then.
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "vm.get" => FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "there is no VM")),
        _ => FakeReply::Data(vm("ready", None)),
    });
    fake.run("vm delete web --wait").assert_output(0, "VM web deleted\n", "");
}
