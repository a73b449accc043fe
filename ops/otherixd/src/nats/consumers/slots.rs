//! The names that consumers of a user can have on the server, and which of them are in use for what.

use std::collections::BTreeSet;

use async_nats::jetstream::consumer::Info;
use otherix_schemas::consumer::{CONSUMERS_MAX, ConsumerSpec, ConsumerView};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::position::Position;
use otherix_schemas::subject::{EVENTS_DOMAIN, STREAM};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::Callers;
use otherix_schemas::value::{UserId, UserKey};

use super::super::scope::SLOTS;
use super::SPEC;

/// Most consumers of all users together: a thousand have stopped a cluster of servers.
const ALL_MAX: usize = 256;

const _: () = assert!(SLOTS.len() == CONSUMERS_MAX, "a user may read as many consumers as it can have");

/// A user's consumer on the server.
#[derive(Clone, Debug)]
pub(super) struct UserConsumer {
    pub(super) key: UserKey,
    /// What was asked for; `None` if this version cannot read it.
    pub(super) spec: Option<ConsumerSpec>,
    pub(super) info: Info,
}

/// Where a consumer is to be.
#[derive(Debug)]
pub(super) enum Placement {
    /// It exists.
    Present(ConsumerView),
    /// It can be created with this name on the server.
    Free(String),
}

/// The keys of the users that may have consumers, according to the registry. An expired user may keep them: they end
/// with their age.
pub(super) fn entitled(callers: &Callers) -> BTreeSet<UserId> {
    let active = callers.users().values().filter(|user| user.revoked_at.is_none());
    active.filter(|user| Role::from(user.role).has(Permission::AuditRead)).map(|user| (&user.key).into()).collect()
}

/// The user whose consumer has this name on the server.
fn owner(name: &str) -> Option<UserKey> {
    let key = |slot: &&str| UserKey::parse(name.strip_suffix(slot)?).ok();
    SLOTS.iter().find_map(key)
}

impl UserConsumer {
    /// Returns `None` for a consumer that is not a user's.
    pub(super) fn new(info: Info) -> Option<Self> {
        let key = owner(info.config.durable_name.as_deref()?)?;
        let spec = info.config.metadata.get(SPEC).and_then(|saved| serde_json::from_str(saved).ok());
        Some(Self { key, spec, info })
    }

    /// The consumer as requests return it.
    pub(super) fn view(self) -> Option<ConsumerView> {
        let Self { key: _, spec, info } = self;
        let ConsumerSpec { name, from, subjects, ack_wait_seconds, max_ack_pending, inactive_seconds } = spec?;
        let micros = i64::try_from(info.created.unix_timestamp_nanos() / 1_000).ok()?;
        Some(ConsumerView {
            name,
            domain: EVENTS_DOMAIN.to_owned(),
            stream: STREAM.to_owned(),
            consumer: info.name,
            from: from.to_string(),
            subjects,
            ack_wait_seconds,
            max_ack_pending,
            inactive_seconds,
            delivered: Position::new(info.delivered.stream_sequence),
            acknowledged: Position::new(info.ack_floor.stream_sequence),
            ack_pending: info.num_ack_pending as u64,
            pending: info.num_pending,
            created_at: Timestamp::from_unix_micros(micros).ok()?,
        })
    }
}

/// Where a consumer of a user is to be, when these consumers exist.
///
/// # Errors
/// `conflict` if another one has the name, or there are too many.
pub(super) fn place(existing: Vec<UserConsumer>, key: &UserId, wanted: &ConsumerSpec) -> Result<Placement, ErrorBody> {
    let all = existing.len();
    let own: Vec<UserConsumer> =
        existing.into_iter().filter(|consumer| consumer.key.as_str() == key.as_str()).collect();
    for consumer in &own {
        let Some(spec) = consumer.spec.as_ref().filter(|spec| spec.name == wanted.name) else { continue };
        let differences = spec.differences(wanted);
        if !differences.is_empty() {
            let fields = differences.join("`, `");
            let text = format!("consumer `{}` exists with another `{fields}`: delete it first", spec.name);
            return Err(ErrorBody::new(ErrorCode::Conflict, text).with_detail("differences", differences));
        }
        if let Some(view) = consumer.clone().view() {
            return Ok(Placement::Present(view));
        }
    }
    let names = SLOTS.iter().map(|slot| format!("{key}{slot}"));
    let mut free = names.filter(|name| own.iter().all(|consumer| consumer.info.name != *name));
    let Some(slot) = free.next() else {
        let names: Vec<&str> = own.iter().filter_map(|consumer| Some(consumer.spec.as_ref()?.name.as_str())).collect();
        let text =
            format!("you have {CONSUMERS_MAX} consumers ({}), and cannot have more: delete one", names.join(", "));
        return Err(ErrorBody::new(ErrorCode::Conflict, text).with_detail("consumers", names));
    };
    if all >= ALL_MAX {
        let text = format!("all users together have {all} consumers, and cannot have more than {ALL_MAX}");
        return Err(ErrorBody::new(ErrorCode::Conflict, text));
    }
    Ok(Placement::Free(slot))
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
