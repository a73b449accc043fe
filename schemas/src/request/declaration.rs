//! The declaration of a request, from which everything else about it follows. Each is in its resource's module.

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Answer;
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::json_schema;
use crate::permission::Permission;
use crate::{cluster, consumer, enrollment, event, image, log, network, node, projection, refusal, schema, user, vm};

/// A type of request, declared on a marker type such as [`crate::network::CreateNetwork`].
pub trait RequestType: Send + Sync + 'static {
    /// `<resource>.<verb>`: the last two tokens of its subject.
    const NAME: &'static str;

    /// The permission that the caller needs.
    const PERMISSION: Permission;

    const KIND: RequestKind;

    /// What it does, on one line.
    const SUMMARY: &'static str;

    /// What a caller has to know beyond the summary: conditions, effects, the usual errors.
    const DESCRIPTION: &'static str;

    type Body: Serialize + JsonSchema + Send + Sync;

    /// The `data` of a successful answer.
    type Answer: Serialize + DeserializeOwned + JsonSchema + Send;
}

/// Whether a request is a command or a query.
#[derive(Clone, Copy, Debug)]
pub enum RequestKind {
    /// Changes state. The function parses and validates the body into a [`Command`].
    Command(fn(&[u8], CommandInputs<'_>) -> Result<Command, ErrorBody>),
    /// Reads from the read models.
    Query,
    /// Reads from the state that commands are decided on; the command service answers it.
    Lookup,
    /// Concerns something that is no part of the state. The command service carries it out at once; no event is
    /// recorded. Safe to repeat, without an idempotency key.
    Unrecorded,
    /// Concerns the read models themselves. The query service carries it out at once; no event is recorded. Safe to
    /// repeat, without an idempotency key.
    Maintenance,
    /// Passed on to a node. It may take as long as it says; no event is recorded, except where its description says so.
    Relayed,
}

/// The NATS service that answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    Commands,
    Queries,
    Nodes,
}

impl ServiceKind {
    pub const ALL: [Self; 3] = [Self::Commands, Self::Queries, Self::Nodes];

    /// The name of the NATS service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commands => "otherix-commands",
            Self::Queries => "otherix-queries",
            Self::Nodes => "otherix-nodes",
        }
    }

    /// The description of the NATS service.
    pub fn description(self) -> &'static str {
        match self {
            Self::Commands => "Decides commands. An answer means that the resulting events are durable.",
            Self::Queries => {
                "Answers queries from the read models, up to the last write acknowledged before the query."
            }
            Self::Nodes => "Passes requests on to nodes: consoles of VMs, images.",
        }
    }

    /// The requests that the service answers.
    pub fn requests(self) -> impl Iterator<Item = Request> {
        Request::all().filter(move |request| request.service() == self)
    }
}

/// A request that is known at run time, by its declaration.
#[derive(Clone, Copy)]
pub struct Request {
    /// `<resource>.<verb>`: the last two tokens of its subject.
    pub name: &'static str,
    /// The permission that the caller needs.
    pub permission: Permission,
    pub kind: RequestKind,
    /// What it does, on one line.
    pub summary: &'static str,
    /// What a caller has to know beyond the summary.
    pub description: &'static str,
    body: fn(&str) -> Schema,
    answer: fn(&str) -> Schema,
}

impl Request {
    /// The request declared by this marker type.
    pub const fn of<R: RequestType>() -> Self {
        Self {
            name: R::NAME,
            permission: R::PERMISSION,
            kind: R::KIND,
            summary: R::SUMMARY,
            description: R::DESCRIPTION,
            body: json_schema::schema::<R::Body>,
            answer: json_schema::schema::<Answer<R::Answer>>,
        }
    }

    /// All requests, by resource.
    pub fn all() -> impl Iterator<Item = Self> {
        let commands = [
            network::COMMANDS,
            vm::COMMANDS,
            vm::APPLY_COMMANDS,
            vm::LABEL_COMMANDS,
            vm::POWER_COMMANDS,
            vm::MOVE_COMMANDS,
            node::COMMANDS,
            node::CORDON_COMMANDS,
            node::LABEL_COMMANDS,
            node::CAPACITY_COMMANDS,
            user::COMMANDS,
            enrollment::COMMANDS,
        ];
        let lookups = [user::LOOKUPS, enrollment::LOOKUPS];
        let resources = [network::QUERIES, vm::QUERIES, node::QUERIES, user::QUERIES, cluster::QUERIES];
        let queries = resources.into_iter().chain([event::QUERIES, schema::QUERIES]);
        let others = [consumer::REQUESTS, log::REQUESTS, refusal::REQUESTS, projection::REQUESTS];
        let relayed = [vm::CONSOLE_REQUESTS, image::REQUESTS];
        commands.into_iter().chain(lookups).chain(others).chain(queries).chain(relayed).flatten().copied()
    }

    /// The request of this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|request| request.name == name)
    }

    /// The NATS service that answers it.
    pub fn service(self) -> ServiceKind {
        match self.kind {
            RequestKind::Command(_) | RequestKind::Lookup | RequestKind::Unrecorded => ServiceKind::Commands,
            RequestKind::Query | RequestKind::Maintenance => ServiceKind::Queries,
            RequestKind::Relayed => ServiceKind::Nodes,
        }
    }

    /// The resource, the first part of the name.
    pub fn resource(self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// The name of the body's JSON Schema.
    pub fn body_schema_name(self) -> String {
        format!("{}.request", self.name)
    }

    /// The name of the answer's JSON Schema.
    pub fn answer_schema_name(self) -> String {
        format!("{}.answer", self.name)
    }

    pub fn body_schema(self) -> Schema {
        (self.body)(&self.body_schema_name())
    }

    pub fn answer_schema(self) -> Schema {
        (self.answer)(&self.answer_schema_name())
    }
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Request {}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_subject_tokens() {
        let names: BTreeSet<_> = Request::all().map(|request| request.name).collect();
        assert_eq!(names.len(), Request::all().count());
        for name in names {
            let words = |token: &str| token.split('-').all(|word| !word.is_empty());
            let tokens: Vec<_> = name.split('.').collect();
            assert!(matches!(tokens[..], [resource, verb] if words(resource) && words(verb)), "{name}");
            assert!(name.bytes().all(|byte| matches!(byte, b'.' | b'-' | b'a'..=b'z')), "{name}");
        }
    }

    #[test]
    fn declarations_are_documented() {
        for Request { name, summary, description, .. } in Request::all() {
            assert!(!summary.is_empty() && !summary.ends_with('.') && summary.len() <= 80, "{name}: `{summary}`");
            assert!(description.ends_with('.'), "{name}: `{description}`");
        }
    }
}
