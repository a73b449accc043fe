//! `otherix explain` while refused commands cannot be told.

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, ID, no_status, view};

/// A control plane with one event about the network, which answers so about refused commands.
fn control_plane(refusals: impl Fn() -> FakeReply + Send + 'static) -> FakeControlPlane {
    FakeControlPlane::start(move |received, _| match received.verb.as_str() {
        "network.find" => FakeReply::Data(view(no_status())),
        "event.list" => FakeReply::Data(json!({
            "events": [{
                "specversion": "1.0", "id": "7", "source": "x", "type": "dev.otherix.network.created.v1",
                "subject": format!("network/{ID}"), "time": "2026-01-02T03:04:05.000006Z",
                "sequence": "00000000000000000007", "actor": "admin",
                "data": { "network_id": ID, "name": "net-dev", "generation": 7 },
            }],
            "complete_to": 7,
        })),
        "refusal.list" => refusals(),
        _ => FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "there is none")),
    })
}

#[test]
fn the_events_are_shown_although_refused_commands_cannot_be_read() {
    let none = || FakeReply::Data(json!({ "refusals": [], "is_truncated": false }));
    let complete = control_plane(none).run("explain network net-dev");
    assert_eq!((complete.code, complete.stderr.as_str()), (0, ""), "{}", complete.stdout);
    assert!(complete.stdout.contains("network.created"), "{}", complete.stdout);
    let unreadable = || FakeReply::Error(ErrorBody::new(ErrorCode::Unavailable, "refused commands cannot be read"));
    let unknown = || FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "there is no request `refusal.list`"));
    for (fake, why) in [
        (control_plane(unreadable), "refused commands cannot be read"),
        (control_plane(unknown), "there is no request `refusal.list`"),
        (control_plane(|| FakeReply::None), ""),
    ] {
        let run = fake.run("explain network net-dev");
        assert_eq!((run.code, &run.stdout), (0, &complete.stdout), "{}", run.stderr);
        let note = format!("refused commands are not shown: {why}");
        assert!(run.stderr.starts_with(&note), "{}", run.stderr);
        let run = fake.run("explain network net-dev -o json");
        let printed: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!((&printed["refusals"], printed["events"].as_array().map(Vec::len)), (&Value::Null, Some(1)));
    }
    // A name that never existed is not found, whatever else fails.
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "event.list" => FakeReply::Data(json!({ "events": [], "complete_to": 7 })),
        _ => FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "there is no network `x`")),
    });
    let run = fake.run("explain network x");
    assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{}", run.stderr);
}
