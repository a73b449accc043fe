//! What networks, VMs and nodes have in common: they are named, looked up, shown and listed in one way, and those that people
//! make are created, waited for and deleted in one way. What differs is said by [`Thing`] and [`Made`].

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod verdict;
mod wait;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::request::{Answer, ByName, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::client::Client;
use crate::failure::Failure;
use verdict::Verdict;

/// The view of something that the control plane knows by an id and a name.
pub(crate) trait Thing: Serialize + DeserializeOwned {
    /// What it is called in sentences.
    const WHAT: &'static str;
    /// The command that is about it.
    const COMMAND: &'static str;
    /// Looks one up by its id.
    const GET: Request;
    /// Looks one up by its name.
    const FIND: Request;
    /// Asks for a page.
    const LIST: Request;
    /// The heading of its table.
    const COLUMNS: &'static [&'static str];
    /// The body of a request that names one by its id.
    type ById: Serialize + Sync;

    /// That body.
    fn by_id(id: Uuid) -> Self::ById;
    /// Its id.
    fn id(&self) -> Uuid;
    /// Its name.
    fn name(&self) -> &str;
    /// Its row in the table.
    fn row(&self) -> Vec<String>;
    /// All that is known of it, for people.
    fn details(&self) -> String;
    /// A manifest that creates it again, if there is such a thing.
    fn manifest(&self) -> Option<String>;
}

/// A thing that people delete.
pub(crate) trait Deletable: Thing {
    /// Deletes one.
    const DELETE: Request;
    /// What a deletion is answered with.
    type Deleted: Serialize + DeserializeOwned;

    /// Whether it is deleted.
    fn is_deleted(&self) -> bool;
    /// The name of what was deleted.
    fn name_of(deleted: &Self::Deleted) -> &str;
}

/// A thing that people create and delete, and wait for.
pub(crate) trait Made: Deletable<Deleted = Self> {
    /// Creates one.
    const CREATE: Request;
    /// What people should know when one was created, beside the data.
    const NOTE: Option<&'static str>;
    /// Where `--wait` waits for it, as the end of `is not ready …`.
    const WHERE: &'static str;

    /// Its fields when it was just created, for people.
    fn fields(&self) -> String;
    /// Whether it is ready. It is not deleted.
    fn readiness(&self) -> Verdict;
    /// Whether nothing of it is left on the nodes. It is deleted.
    fn removal(&self) -> Verdict;
    /// What is still missing, and why.
    fn missing(&self) -> String;
    /// What was not waited for, if anything.
    fn left_out(&self) -> Option<String>;
    /// How it fares, for programs.
    fn status(&self) -> Value;
}

/// What a person calls a thing.
pub(crate) enum Reference {
    /// Its id.
    Id(Uuid),
    /// Its name, whatever the case.
    Name(String),
}

impl Reference {
    /// No name has the shape of a UUID, so that the two cannot be mistaken.
    pub(crate) fn new(text: &str) -> Self {
        Uuid::try_parse(text).map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }

    /// The thing itself, with one request.
    pub(crate) async fn look_up<T: Thing>(&self, client: &mut Client) -> Result<T, Failure> {
        let answer: Result<Answer<T>, Failure> = match self {
            Self::Id(id) => client.call(T::GET, &T::by_id(*id)).await,
            Self::Name(name) => client.call(T::FIND, &ByName { name: name.clone() }).await,
        };
        answer.map(|answer| answer.data).map_err(not_found_hint::<T>)
    }
}

fn not_found_hint<T: Thing>(failure: Failure) -> Failure {
    if failure.body.error.code == ErrorCode::NotFound {
        failure.hint(format!("`otherix {} list` shows what there is", T::COMMAND))
    } else {
        failure
    }
}
