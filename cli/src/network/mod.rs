//! `otherix network …`: one file for each command, and what they share.

mod create;
mod delete;
mod get;
mod list;
mod verdict;
mod wait;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NetworkId;
use otherix_schemas::request::{ByName, NetworkById};
use otherix_schemas::subject::Request;
use otherix_schemas::view::NetworkView;
use uuid::Uuid;

use crate::args::{Global, NetworkCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Printer;

/// Carries out a command on networks.
pub(crate) async fn run(global: &Global, command: NetworkCommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create(args) => create::run(global, args, printer).await,
        NetworkCommand::List(args) => list::run(global, args, printer).await,
        NetworkCommand::Get(args) => get::run(global, args, printer).await,
        NetworkCommand::Delete(args) => delete::run(global, args, printer).await,
    }
}

/// What a person calls a network.
pub(crate) enum Reference {
    /// Its id.
    Id(NetworkId),
    /// Its name, whatever the case.
    Name(String),
}

impl Reference {
    /// No name has the shape of a UUID, so that the two cannot be mistaken.
    fn new(text: &str) -> Self {
        Uuid::try_parse(text).map_or_else(|_| Self::Name(text.to_owned()), |uuid| Self::Id(NetworkId::new(uuid)))
    }

    /// The network itself, with one request.
    pub(crate) async fn look_up(&self, client: &mut Client) -> Result<NetworkView, Failure> {
        let answer = match self {
            Self::Id(id) => client.call(Request::NetworkGet, &NetworkById { id: *id }).await,
            Self::Name(name) => client.call(Request::NetworkFind, &ByName { name: name.clone() }).await,
        };
        answer.map(|answer| answer.data).map_err(not_found_hint)
    }
}

fn not_found_hint(failure: Failure) -> Failure {
    if failure.body.error.code == ErrorCode::NotFound {
        failure.hint("`otherix network list` shows what there is")
    } else {
        failure
    }
}
