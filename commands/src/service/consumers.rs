//! Requests about durable consumers, which are carried out on the clients' mirror of the stream of events, and are no
//! events themselves.

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_schemas::consumer::{
    ConsumerByName, ConsumerDraft, ConsumerName, ConsumerSpec, ConsumerView, CreateConsumer, DeleteConsumer,
    ListConsumers, MyConsumers,
};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::position::Position;
use otherix_schemas::request::RequestType;
use otherix_schemas::user::Caller;
use otherix_schemas::violations::Violations;
use otherix_transport::service::Call;

use super::credentials::encode;

/// Administers users' durable consumers.
///
/// Cancel-safety: whether a consumer is created or deleted is unknown if a future is dropped; it can be called again.
pub trait Consumers: Send + Sync {
    /// Creates a consumer of `owner`, or returns the one that was created in the same way. `head` is the position of
    /// the last durable event.
    ///
    /// # Errors
    /// `conflict` if there is another one of this name, or there are too many; `unavailable` if NATS does not answer.
    fn create<'a>(
        &'a self,
        owner: &'a Caller,
        spec: ConsumerSpec,
        head: Position,
    ) -> BoxFuture<'a, Result<ConsumerView, ErrorBody>>;

    /// Returns the consumers of `owner`, by name.
    ///
    /// # Errors
    /// `unavailable` if NATS does not answer.
    fn list<'a>(&'a self, owner: &'a Caller) -> BoxFuture<'a, Result<Vec<ConsumerView>, ErrorBody>>;

    /// Deletes a consumer of `owner`. Returns it as it was.
    ///
    /// # Errors
    /// `not_found` if there is none of this name; `unavailable` if NATS does not answer.
    fn delete<'a>(&'a self, owner: &'a Caller, name: ConsumerName) -> BoxFuture<'a, Result<ConsumerView, ErrorBody>>;
}

/// Carries out a request. `head` is the position of the last durable event.
pub(super) async fn handle(call: &Call, head: Position, consumers: &dyn Consumers) -> Result<Bytes, ErrorBody> {
    if call.dry_run {
        let text = format!("`{}` is not a command: it cannot be tried without carrying it out", call.request.name);
        return Err(ErrorBody::new(ErrorCode::ValidationFailed, text));
    }
    let owner = &call.caller;
    match call.request.name {
        CreateConsumer::NAME => {
            let (draft, violations) = ConsumerDraft::from_json(call.json()?);
            let spec = violations.combine(draft.check())?;
            if let Some(position) = spec.from.position().filter(|position| *position > head.next()) {
                let text = format!("must be at most {}, the position of the next event, not {position}", head.next());
                return Err(Violations::one("from", text).into());
            }
            encode(head, consumers.create(owner, spec, head).await?)
        }
        ListConsumers::NAME => {
            let MyConsumers {} = call.json()?;
            encode(head, consumers.list(owner).await?)
        }
        DeleteConsumer::NAME => {
            let ConsumerByName { name } = call.json()?;
            encode(head, consumers.delete(owner, name).await?)
        }
        name => Err(ErrorBody::new(ErrorCode::NotFound, format!("`{name}` is not about consumers"))),
    }
}
