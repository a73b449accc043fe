//! `otherix network`: requests and output of successful commands.

use std::process::Stdio;

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, ID, ReceivedRequest, no_status, status, view};

const CREATED: &str = "\
network net-dev created
id:      0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11
type:    bridge
bridge:  br-dev
managed: yes
egress:  none
subnet:  -
gateway: -
dhcp:    no
dns:     no
lock:    mac
mtu:     1500
vlan:    -
vni:     -
created: 2026-01-02T03:04:05.000006Z
";

#[test]
fn create_sends_the_request_and_shows_the_network() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(view(no_status())));
    fake.run("network create net-dev --bridge-name br-dev --managed").assert_output(0, CREATED, "");

    let flags = "net create net-nat --type bridge --bridge-name br-nat --managed --egress nat --subnet 10.20.0.5/24 \
                 --gateway 10.20.0.9 --mtu 9000 --vlan 12 -o json";
    let run = fake.run(flags);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), view(no_status()));

    let bridge = "net create a --bridge-name br-a --managed --subnet 10.20.0.0/24 --dhcp";
    for flags in ["", " --dns", " --dns=true", " --dns=false", " --no-dns"] {
        assert_eq!(fake.run(&format!("{bridge}{flags}")).code, 0, "{flags}");
    }
    assert_eq!(fake.run(&format!("{bridge} --no-dns --dns=false")).code, 2);
    assert_eq!(fake.run("net create a --bridge-name br-a --managed --dns").code, 2);

    let received = fake.received();
    let dns: Vec<_> = received[2..].iter().map(|received| received.body["dns"].as_bool()).collect();
    assert_eq!(dns, [None, Some(true), Some(true), Some(false), Some(false)]);
    assert!(received[2..].iter().all(|received| received.body["dhcp"] == json!(true)));
    assert_eq!(received[0].verb, "network.create");
    assert_eq!(received[0].body, json!({"name": "net-dev", "bridge_name": "br-dev", "managed": true}));
    let expected = json!({
        "name": "net-nat", "type": "bridge", "bridge_name": "br-nat", "managed": true, "egress": "nat",
        "subnet": "10.20.0.5/24", "gateway": "10.20.0.9", "mtu": 9000, "vlan": 12
    });
    assert_eq!(received[1].body, expected);
    assert!(received[0].key.is_some() && received[0].key != received[1].key);
}

#[test]
fn create_is_retried_with_the_same_key() {
    let fake = FakeControlPlane::start(|_, before| match before {
        0 => FakeReply::Error(ErrorBody::new(ErrorCode::Unavailable, "the writer starts")),
        1 => FakeReply::None,
        _ => FakeReply::Data(view(no_status())),
    });
    fake.run("network create net-dev --bridge-name br-dev --managed").assert_output(0, CREATED, "");
    let received = fake.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|request| request.key.is_some() && request.key == received[0].key), "{received:?}");
}

#[test]
fn leaves_only_the_mesh_rule_to_the_control_plane() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(view(no_status())));
    let lies_in_mesh = "network create n --bridge-name br --managed --egress nat --subnet 10.42.1.0/24";
    assert_eq!(fake.run(lies_in_mesh).code, 0);
    fake.run(&format!("{lies_in_mesh} --mtu 1")).assert_output(
        2,
        "",
        "error: the request is invalid\n  --mtu: must be 68 to 9216, not 1\n  --subnet: must not lie in the mesh's \
         supernet `10.42.0.0/16`\nhint: see `otherix network create --help` for the values that each flag accepts\n",
    );
    assert_eq!(fake.received().len(), 1);
}

const NOT_PREVENTED: &str = "not prevented: guests of this network can use each other's IP addresses\n";

#[test]
fn get_finds_by_name_and_gets_by_id() {
    let fake = FakeControlPlane::start(|_, before| match before {
        0 => FakeReply::Data(view(status(&[("ready", None), ("failed", Some("no \u{1b}[31mroom"))], 3))),
        _ => FakeReply::Data(view(status(&[("ready", None)], 1))),
    });
    let fields = CREATED.replace("network net-dev created", "name:    net-dev");
    let table = "status:\nNODE    STATUS  ERROR\nnode-1  ready   -\nnode-2  failed  no \\u{1b}[31mroom\n";
    let expected = format!("{fields}{table}1 of 3 nodes has not reported yet: node-3\n{NOT_PREVENTED}");
    fake.run("network get net-dev").assert_output(0, &expected, "");
    let table = "status:\nNODE    STATUS  ERROR\nnode-1  ready   -\nthe only node has reported\n";
    let expected = format!("{fields}{table}{NOT_PREVENTED}");
    fake.run("network get NET-DEV").assert_output(0, &expected, "");

    let run = fake.run(&format!("network get {ID} -o json"));
    assert!(!run.stdout.contains('\u{1b}'), "{}", run.stdout);
    let expected = view(status(&[("ready", None), ("failed", Some("no \u{1b}[31mroom"))], 3));
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), expected);
    let requests: Vec<_> = fake.received().into_iter().map(|received| (received.verb, received.body)).collect();
    assert_eq!(requests[0], ("network.find".to_owned(), json!({"name": "net-dev"})));
    assert_eq!(requests[2], ("network.get".to_owned(), json!({"id": ID})));
}

#[test]
fn get_shows_missing_reports_deletion_and_warnings() {
    let fake = FakeControlPlane::start(|_, before| {
        let mut network = view(no_status());
        match before {
            0 => FakeReply::Data(network),
            1 => {
                network["status"] = status(&[], 12);
                network["status"]["unreported"][1]["reachable"] = json!(false);
                FakeReply::Data(network)
            }
            _ => {
                network["status"] = status(&[("removed", None), ("ready", None)], 2);
                network["status"]["nodes"][1]["observed_generation"] = json!(3);
                network["status"]["nodes"][1]["reachable"] = json!(false);
                network["status"]["warnings"] = json!(["table `filter` drops"]);
                network["deleted_at"] = json!("2026-01-02T04:00:00.000000Z");
                FakeReply::Data(network)
            }
        }
    });
    let end = |run: crate::fake::ProgramOutput| run.stdout.split_once("created: ").expect("fields").1.to_owned();
    let created = "2026-01-02T03:04:05.000006Z\n";
    assert_eq!(end(fake.run("net get a")), format!("{created}status:\nno node is expected to report\n{NOT_PREVENTED}"));
    let unreported = "none of 12 nodes has reported yet: node-1, node-2 (unreachable), node-3, node-4, node-5, node-6, \
                  node-7, node-8 and 4 more\n";
    assert_eq!(end(fake.run("net get a")), format!("{created}status:\n{unreported}{NOT_PREVENTED}"));
    let expected = "deleted: 2026-01-02T04:00:00.000000Z\nstatus:\nNODE    STATUS                         ERROR\n\
                  node-1  removed                        -\nnode-2  ready (outdated, unreachable)  -\n\
                  deleting; removal confirmed by 1 of 2 nodes\nwarnings:\n  table `filter` drops\n";
    assert_eq!(end(fake.run("net get a")), format!("{created}{expected}"));
}

fn page() -> Vec<Value> {
    let mut wide = view(no_status());
    wide["name"] = json!("网络");
    wide["egress"] = json!("nat");
    wide["subnet"] = json!("10.20.0.0/24");
    wide["gateway"] = json!("10.20.0.1");
    wide["status"] = json!({"ready": 1, "reported": 2, "expected": 3, "warnings": []});
    vec![view(no_status()), wide]
}

#[test]
fn list_is_aligned_and_has_a_next_cursor() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Page(json!(page()), json!("c2")));
    let table = "NAME     TYPE    BRIDGE  MANAGED  EGRESS  SUBNET        MTU   READY\n\
                 net-dev  bridge  br-dev  yes      none    -             1500  0/0\n\
                 网络     bridge  br-dev  yes      nat     10.20.0.0/24  1500  1/3\n";
    fake.run("network list").assert_output(0, table, "next cursor: c2\n");
    fake.run("net list -o name --limit 9").assert_output(0, "net-dev\n网络\n", "next cursor: c2\n");
    let run = fake.run("network list --show-ids --type bridge --limit 2 --cursor c1");
    assert!(run.stdout.starts_with("ID                                    NAME"), "{}", run.stdout);
    assert!(run.stdout.contains(&format!("\n{ID}  网络  ")), "{}", run.stdout);
    let run = fake.run("network list -o json --cursor c1");
    run.assert_output(0, &run.stdout, "");
    let expected = json!({"data": page(), "meta": {"next_cursor": "c2"}});
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), expected);
    let bodies: Vec<_> = fake.received().into_iter().map(|received| received.body).collect();
    assert_eq!(bodies[0], json!({}));
    assert_eq!(bodies[2], json!({"type": "bridge", "limit": 2, "cursor": "c1"}));
}

#[test]
fn lists_for_programs_are_complete() {
    let all = |received: &ReceivedRequest, before: usize| {
        let mut network = view(no_status());
        network["name"] = json!(format!("net-{before}"));
        match (before % 3, &received.body["cursor"]) {
            (0, Value::Null) => FakeReply::Page(json!([network]), json!("c1")),
            (1, cursor) if cursor == "c1" => FakeReply::Page(json!([network]), json!("c2")),
            (2, cursor) if cursor == "c2" => FakeReply::Data(json!([network])),
            _ => FakeReply::Error(ErrorBody::new(ErrorCode::Internal, "another page")),
        }
    };
    let fake = FakeControlPlane::start(all);
    fake.run("network list -o name").assert_output(0, "net-0\nnet-1\nnet-2\n", "");
    let yaml = fake.run("network list -o yaml --type bridge");
    assert_eq!((yaml.code, yaml.stdout.matches("kind: Network").count(), yaml.stderr.as_str()), (0, 3, ""));
    let json: Value = serde_json::from_str(&fake.run("network list -o json").stdout).unwrap();
    assert_eq!((json["data"].as_array().unwrap().len(), &json["meta"]), (3, &json!({"next_cursor": null})));
    let bodies: Vec<_> = fake.received().into_iter().map(|received| received.body).collect();
    assert_eq!(bodies[4], json!({"type": "bridge", "limit": 200, "cursor": "c1"}));
}

#[test]
fn a_list_for_programs_that_is_not_complete_is_not_printed() {
    let fake = FakeControlPlane::start(|_, before| match before {
        0 => FakeReply::Page(json!(page()), json!("c1")),
        _ => FakeReply::Error(ErrorBody::new(ErrorCode::Internal, "broken")),
    });
    fake.run("network list -o yaml").assert_output(1, "", "error: broken\n");
}

#[test]
fn last_page_has_no_cursor() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(json!([])));
    fake.run("network list").assert_output(0, "NAME  TYPE  BRIDGE  MANAGED  EGRESS  SUBNET  MTU  READY\n", "");
    let run = fake.run("network list -o json");
    let expected = json!({"data": [], "meta": {"next_cursor": null}});
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), expected);
}

#[test]
fn delete_without_a_terminal_does_not_ask() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(view(no_status())));
    fake.run("network delete net-dev").assert_output(0, "network net-dev deleted\n", "");
    let verbs = |fake: &FakeControlPlane| fake.received().into_iter().map(|received| received.verb).collect::<Vec<_>>();
    assert_eq!(verbs(&fake), ["network.find", "network.delete"]);
    let run = fake.run(&format!("network delete {ID} -o json"));
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), view(no_status()));
    let received = fake.received();
    assert_eq!(received.len(), 3, "an id needs no look-up");
    assert_eq!(received[2].body, json!({"id": ID}));
    assert!(received[2].key.is_some());
}

#[test]
fn delete_on_a_terminal_asks_for_confirmation() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(view(no_status())));
    let question = "delete network net-dev? [y/N] ";
    let no = "error: network `net-dev` was not deleted\nhint: answer `y` or pass `--force`\n";
    let end_of_file = "\u{4}";
    for network in ["NET-DEV", ID] {
        for answer in ["n\n", "\n", "yess\n", "no y\n"] {
            fake.on_terminal(&format!("network delete {network}"), answer).assert_output(
                1,
                "",
                &format!("{question}{no}"),
            );
        }
        fake.on_terminal(&format!("network delete {network}"), end_of_file).assert_output(
            1,
            "",
            &format!("{question}\n{no}"),
        );
    }
    assert!(fake.received().iter().all(|received| received.verb != "network.delete"));
    for answer in ["y\n", "YES\n", " Y \n"] {
        fake.on_terminal("network delete net-dev", answer).assert_output(0, "network net-dev deleted\n", question);
    }
    let json = fake.on_terminal("network delete net-dev -o json", "n\n");
    assert_eq!((json.code, json.stdout.as_str()), (1, ""));
    fake.on_terminal("network delete net-dev --force", "").assert_output(0, "network net-dev deleted\n", "");
    let deleted = fake.received().iter().filter(|received| received.verb == "network.delete").count();
    assert_eq!(deleted, 4);
}

#[test]
fn closed_stdout_is_not_a_failure() {
    let fake = FakeControlPlane::start(|_, _| FakeReply::Data(json!(page())));
    let mut command = fake.command("network list");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    command.stdout(writer).stderr(Stdio::piped());
    drop(reader);
    let child = command.spawn().expect("the program starts");
    drop(command);
    let output = child.wait_with_output().expect("the program exits");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
