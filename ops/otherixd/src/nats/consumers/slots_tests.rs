use async_nats::jetstream::consumer;
use otherix_schemas::consumer::ConsumerDraft;
use serde_json::json;

use super::*;

fn spec(name: &str, from: &str) -> ConsumerSpec {
    let (name, from) = (name.to_owned(), Some(from.to_owned()));
    ConsumerDraft { name, from, ..ConsumerDraft::default() }.check().unwrap()
}

fn key(number: u8) -> UserKey {
    UserKey::from_bytes([number; 32])
}

/// What the server says of a consumer.
fn info(name: &str, spec: Option<&ConsumerSpec>) -> Info {
    let config = consumer::Config {
        durable_name: Some(name.to_owned()),
        metadata: spec.map(|spec| (SPEC.to_owned(), serde_json::to_string(spec).unwrap())).into_iter().collect(),
        ..consumer::Config::default()
    };
    let sequence = json!({"consumer_seq": 0, "stream_seq": 0});
    serde_json::from_value(json!({
        "stream_name": STREAM, "name": name, "created": "2026-01-02T03:04:05Z", "config": config,
        "delivered": sequence, "ack_floor": sequence, "num_ack_pending": 0, "num_redelivered": 0, "num_waiting": 0,
        "num_pending": 0,
    }))
    .unwrap()
}

fn existing(number: u8, slot: &str, name: &str) -> UserConsumer {
    UserConsumer::new(info(&format!("{}{slot}", key(number)), Some(&spec(name, "all")))).unwrap()
}

fn placed(existing: &[UserConsumer], wanted: &ConsumerSpec) -> Result<Placement, ErrorBody> {
    place(existing.to_vec(), &UserId::from(&key(1)), wanted)
}

#[test]
fn only_names_of_slots_are_users_consumers() {
    for slot in SLOTS {
        assert_eq!(UserConsumer::new(info(&format!("{}{slot}", key(1)), None)).unwrap().key, key(1));
    }
    for name in ["audit", &format!("{}_4", key(1)), &format!("{}_", key(1)), &format!("x{}", key(1)), "_1"] {
        assert!(UserConsumer::new(info(name, None)).is_none(), "{name}");
    }
    let ephemeral = Info { config: consumer::Config::default(), ..info(key(1).as_str(), None) };
    assert!(UserConsumer::new(ephemeral).is_none());
}

#[test]
fn the_same_request_finds_the_same_consumer_and_another_conflicts() {
    let present = [existing(1, "_2", "billing"), existing(2, "", "audit")];
    let Ok(Placement::Present(view)) = placed(&present, &spec("billing", "all")) else { panic!("not found") };
    assert_eq!((view.name.as_str(), view.consumer), ("billing", format!("{}_2", key(1))));
    let conflict = placed(&present, &spec("billing", "7")).unwrap_err().error;
    assert_eq!((conflict.code, &conflict.details["differences"]), (ErrorCode::Conflict, &json!(["from"])));
    // The name is free for another user.
    let free = placed(&present, &spec("audit", "all")).unwrap();
    assert!(matches!(free, Placement::Free(slot) if slot == key(1).as_str()));
}

#[test]
fn a_user_has_four_consumers_and_all_users_some_hundreds() {
    let mut present: Vec<UserConsumer> = Vec::new();
    for (slot, name) in SLOTS.into_iter().zip(["a", "b", "c", "d"]) {
        let Ok(Placement::Free(free)) = placed(&present, &spec(name, "all")) else { panic!("none is free") };
        assert_eq!(free, format!("{}{slot}", key(1)));
        present.push(existing(1, slot, name));
    }
    let refused = placed(&present, &spec("e", "all")).unwrap_err().error;
    assert_eq!((refused.code, &refused.details["consumers"]), (ErrorCode::Conflict, &json!(["a", "b", "c", "d"])));
    present.remove(1);
    // Also one that this version cannot read has a slot.
    present.push(UserConsumer::new(info(&format!("{}_1", key(1)), None)).unwrap());
    assert!(placed(&present, &spec("e", "all")).is_err());

    let others: Vec<UserConsumer> = (2..=65).flat_map(|number| SLOTS.map(|slot| existing(number, slot, "a"))).collect();
    assert_eq!(others.len(), ALL_MAX);
    assert!(placed(&others, &spec("a", "all")).unwrap_err().error.message.contains("all users"));
    assert!(placed(&others[1..], &spec("a", "all")).is_ok());
}
