//! What networks, VMs and nodes have in common: the verbs create, get, list and delete, and waiting for nodes. Each
//! resource implements the traits [`Resource`], [`Deletable`] and [`Provisioned`] as far as they apply.

pub(crate) mod args;
pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod wait;
pub(crate) mod wait_state;
mod watch;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::request::{Answer, ByName, RequestType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use wait_state::WaitState;

/// The view of a resource that has an id and a name.
pub(crate) trait Resource: Serialize + DeserializeOwned {
    /// The noun in sentences: `network`, `VM`.
    const NOUN: &'static str;
    /// The subcommand: `network`, `vm`.
    const COMMAND: &'static str;
    type Get: RequestType<Body = Self::ById, Answer = Self>;
    type Find: RequestType<Body = ByName, Answer = Self>;
    type List: RequestType<Answer = Vec<Self>>;
    /// The heading of [`Resource::row`].
    const COLUMNS: &'static [&'static str];
    /// The body of a request for one of them by id.
    type ById: Serialize + Sync;

    fn by_id(id: Uuid) -> Self::ById;
    fn id(&self) -> Uuid;
    fn name(&self) -> &str;
    /// The row in the table of `list`.
    fn row(&self) -> Vec<String>;
    /// The text of `get`.
    fn details(&self) -> String;
    /// Whether it is deleted, and nodes have yet to remove it.
    fn is_deleted(&self) -> bool {
        false
    }
    /// A manifest that creates an equal resource; `None` for resources that manifests do not describe.
    fn manifest(&self) -> Option<String> {
        None
    }
}

/// A resource that users delete.
pub(crate) trait Deletable: Resource {
    type Delete: RequestType<Body = Self::ById, Answer = Self::Deleted>;
    /// The reply to a deletion.
    type Deleted: Serialize + DeserializeOwned;

    fn deleted_name(deleted: &Self::Deleted) -> &str;
}

/// A resource that users create, and that nodes make ready and remove.
pub(crate) trait Provisioned: Deletable<Deleted = Self> {
    type Create: RequestType<Answer = Self>;
    /// The subcommands of the other resources that a creation refers to.
    const REFERENCES: &'static [&'static str];
    /// A note for the user after a creation.
    const NOTE: Option<&'static str>;
    /// Where `--wait` waits for it: completes `is not ready …`.
    const WHERE: &'static str;

    /// The text after a creation.
    fn summary(&self) -> String;
    /// Whether the resource, which is not deleted, is ready.
    fn readiness(&self) -> WaitState;
    /// Whether the nodes have removed the resource, which is deleted.
    fn removal(&self) -> WaitState;
    /// What a wait is still waiting for.
    fn pending(&self) -> String;
    /// What a wait did not wait for, if anything.
    fn not_awaited(&self) -> Option<String>;
    /// The status, for the details of an error.
    fn status(&self) -> Value;
}

/// A reference to a resource as the user specified it.
pub(crate) enum NameOrId {
    Id(Uuid),
    /// Not case-sensitive.
    Name(String),
}

impl NameOrId {
    /// Parses a reference. It is unambiguous, because a name must not have the form of a UUID.
    pub(crate) fn new(text: &str) -> Self {
        Uuid::try_parse(text).map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }

    /// Returns the resource, with one request.
    pub(crate) async fn look_up<R: Resource>(&self, client: &mut ControlPlaneClient) -> Result<R, Failure> {
        let answer: Result<Answer<R>, Failure> = match self {
            Self::Id(id) => client.call::<R::Get>(&R::by_id(*id)).await,
            Self::Name(name) => client.call::<R::Find>(&ByName { name: name.clone() }).await,
        };
        answer.map(|answer| answer.data).map_err(not_found_hint::<R>)
    }

    /// Returns the resource, unless it is deleted, with one request.
    pub(crate) async fn look_up_live<R: Resource>(&self, client: &mut ControlPlaneClient) -> Result<R, Failure> {
        let view: R = self.look_up(client).await?;
        if !view.is_deleted() {
            return Ok(view);
        }
        let (noun, command, name) = (R::NOUN, R::COMMAND, view.name());
        let message = format!("{noun} `{name}` is deleted, and not removed from every node yet");
        let failure = Failure::new(Exit::NotFound, ErrorCode::NotFound, message);
        Err(failure.hint(format!("`otherix {command} get {}` shows what it waits for", view.id())))
    }

    /// Returns the id. One given as such is not looked up: the control plane checks it in the request it is used for.
    pub(crate) async fn resolve<R: Resource>(&self, client: &mut ControlPlaneClient) -> Result<Uuid, Failure> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Name(_) => Ok(self.look_up_live::<R>(client).await?.id()),
        }
    }
}

pub(crate) fn not_found_hint<R: Resource>(failure: Failure) -> Failure {
    if failure.body.error.code == ErrorCode::NotFound {
        failure.hint(format!("run `otherix {} list` to see what exists", R::COMMAND))
    } else {
        failure
    }
}
