//! Requests about the consumers of the user that makes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConsumerDraft, ConsumerName, ConsumerView};
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};

/// The requests about consumers.
pub(crate) const REQUESTS: &[Request] =
    &[Request::of::<CreateConsumer>(), Request::of::<ListConsumers>(), Request::of::<DeleteConsumer>()];

/// Selects a consumer of the user that makes the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerByName {
    pub name: ConsumerName,
}

/// Selects all consumers of the user that makes the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MyConsumers {}

/// `consumer.create`
#[derive(Clone, Copy, Debug)]
pub struct CreateConsumer;

impl RequestType for CreateConsumer {
    const NAME: &'static str = "consumer.create";
    const PERMISSION: Permission = Permission::AuditRead;
    const KIND: RequestKind = RequestKind::Unrecorded;
    const SUMMARY: &'static str = "Create a durable consumer of the stream of events";
    const DESCRIPTION: &'static str = "A pull consumer with explicit acknowledgements, which only the user that \
        creates it can read, in the JetStream domain `events`. The same request again returns the same consumer; \
        `conflict` if one of this name has other options, which the error names, or the user has four. Consumers end \
        with the user's key, with a role that lacks the permission, and after `inactive_seconds` without a reader.";
    type Body = ConsumerDraft;
    type Answer = ConsumerView;
}

/// `consumer.list`
#[derive(Clone, Copy, Debug)]
pub struct ListConsumers;

impl RequestType for ListConsumers {
    const NAME: &'static str = "consumer.list";
    const PERMISSION: Permission = Permission::AuditRead;
    const KIND: RequestKind = RequestKind::Unrecorded;
    const SUMMARY: &'static str = "List the user's durable consumers";
    const DESCRIPTION: &'static str = "Those of the user that makes the request, by name.";
    type Body = MyConsumers;
    type Answer = Vec<ConsumerView>;
}

/// `consumer.delete`
#[derive(Clone, Copy, Debug)]
pub struct DeleteConsumer;

impl RequestType for DeleteConsumer {
    const NAME: &'static str = "consumer.delete";
    const PERMISSION: Permission = Permission::AuditRead;
    const KIND: RequestKind = RequestKind::Unrecorded;
    const SUMMARY: &'static str = "Delete a durable consumer of the user";
    const DESCRIPTION: &'static str = "Returns it as it was. `not_found` if there is none, also because an earlier \
        attempt has deleted it.";
    type Body = ConsumerByName;
    type Answer = ConsumerView;
}
