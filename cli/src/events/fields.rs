//! The fields of a consumer, as `create` and `list` show them.

use otherix_schemas::consumer::ConsumerView;

use crate::output::table;

/// The heading of [`row`].
pub(super) const COLUMNS: [&str; 6] = ["NAME", "FROM", "ACKNOWLEDGED", "UNACKNOWLEDGED", "PENDING", "CREATED"];

/// The row in a list.
pub(super) fn row(view: &ConsumerView) -> Vec<String> {
    let ConsumerView { name, from, acknowledged, ack_pending, pending, created_at, .. } = view;
    vec![
        name.to_string(),
        from.clone(),
        acknowledged.to_string(),
        ack_pending.to_string(),
        pending.to_string(),
        created_at.to_string(),
    ]
}

/// The fields after the creation.
pub(super) fn details(view: &ConsumerView) -> String {
    let ConsumerView {
        stream,
        domain,
        consumer,
        from,
        subjects,
        ack_wait_seconds,
        max_ack_pending,
        inactive_seconds,
        pending,
        ..
    } = view;
    let subjects = if subjects.is_empty() { "all".to_owned() } else { subjects.join(" ") };
    table::fields(&[
        ("stream", stream.clone()),
        ("domain", domain.clone()),
        ("consumer", consumer.clone()),
        ("from", from.clone()),
        ("subjects", subjects),
        ("ack wait", format!("{ack_wait_seconds}s")),
        ("max ack pending", max_ack_pending.to_string()),
        ("removed after", format!("{} without a reader", duration(*inactive_seconds))),
        ("pending", pending.to_string()),
    ])
}

/// A duration in the largest unit that it is a multiple of.
fn duration(seconds: u64) -> String {
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}
