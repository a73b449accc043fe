//! `otherix events consumer …`: what is sent, and what is printed.

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply};

const TIME: &str = "2026-01-02T03:04:05.000006Z";

fn view(name: &str) -> Value {
    json!({
        "name": name, "domain": "events", "stream": "OTHERIX_EVENTS", "consumer": "UABC_1", "from": "new",
        "subjects": ["otherix.evt.v1.vm.created.*"], "ack_wait_seconds": 5, "max_ack_pending": 10,
        "inactive_seconds": 172_800, "delivered": 9, "acknowledged": 7, "ack_pending": 2, "pending": 4,
        "created_at": TIME,
    })
}

fn control_plane() -> FakeControlPlane {
    FakeControlPlane::start(|request, _| {
        FakeReply::Data(if request.verb == "consumer.list" { json!([view("billing")]) } else { view("billing") })
    })
}

#[test]
fn create_sends_what_was_asked_for_and_prints_how_to_read_it() {
    let fake = control_plane();
    let arguments = "events consumer create billing --from new --type vm.created --subject otherix.evt.v1.nic.> \
                     --ack-wait 5s --max-ack-pending 10 --inactive 2d";
    let run = fake.run(arguments);
    let (url, folder) = (fake.server.url(), fake.directory());
    let expected = format!(
        "consumer billing created\nstream:          OTHERIX_EVENTS\ndomain:          events\nconsumer:        UABC_1\n\
         from:            new\nsubjects:        otherix.evt.v1.vm.created.*\nack wait:        5s\n\
         max ack pending: 10\nremoved after:   2d without a reader\npending:         4\nread it:\n  \
         nats --no-context --server {url} --creds {}/credentials.json --inbox-prefix _INBOX_tester --js-domain events \
         consumer next OTHERIX_EVENTS UABC_1 --count 10\n",
        folder.display()
    );
    run.assert_output(0, &expected, "");
    let sent = json!({
        "name": "billing", "from": "new", "types": ["vm.created"], "subjects": ["otherix.evt.v1.nic.>"],
        "ack_wait_seconds": 5, "max_ack_pending": 10, "inactive_seconds": 172_800,
    });
    let received = fake.received();
    assert_eq!((received.len(), &received[0].body, &received[0].key), (1, &sent, &None));
    let json = fake.run("events consumer create billing -o json");
    let printed: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(printed["consumer"], "UABC_1");
    assert!(printed["read_command"].as_str().expect("a command").starts_with("nats --no-context --server "));
    assert_eq!(fake.received()[1].body, json!({"name": "billing"}));
}

#[test]
fn invalid_consumers_are_not_sent() {
    let fake = control_plane();
    let arguments = "events consumer create B --from then --type vm --subject live.> --ack-wait 5 \
                     --max-ack-pending x --inactive 1m";
    let run = fake.run(arguments);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    for field in ["NAME", "--from", "--type:", "--subject:", "--ack-wait", "--max-ack-pending", "--inactive:"] {
        assert!(run.stderr.contains(field), "{field}: {}", run.stderr);
    }
    assert_eq!(fake.run("events consumer delete B").code, 2);
    assert!(fake.received().is_empty());
}

#[test]
fn list_and_delete_print_the_consumer() {
    let fake = control_plane();
    let table = format!(
        "NAME     FROM  ACKNOWLEDGED  UNACKNOWLEDGED  PENDING  CREATED\n\
         billing  new   7             2               4        {TIME}\n"
    );
    fake.run("events consumer list").assert_output(0, &table, "");
    fake.run("events consumer list -o name").assert_output(0, "billing\n", "");
    let json = fake.run("events consumer list -o json");
    let printed: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(printed["data"][0]["acknowledged"], 7);
    fake.run("events consumer delete billing").assert_output(0, "consumer billing deleted\n", "");
    assert_eq!(fake.received().last().expect("a request").body, json!({"name": "billing"}));
}

#[test]
fn refusals_say_what_to_do() {
    let fake = FakeControlPlane::start(|request, _| {
        FakeReply::Error(match request.verb.as_str() {
            "consumer.delete" => ErrorBody::new(ErrorCode::NotFound, "user `ann` has no consumer `billing`"),
            _ => ErrorBody::new(ErrorCode::Conflict, "consumer `billing` exists with another `from`: delete it first"),
        })
    });
    let hint = "error: user `ann` has no consumer `billing`\nhint: run `otherix events consumer list` to see your \
                consumers\n";
    fake.run("events consumer delete billing").assert_output(3, "", hint);
    let run = fake.run("events consumer create billing");
    assert_eq!(run.code, 4);
    assert!(run.stderr.contains("another `from`"), "{}", run.stderr);
}
