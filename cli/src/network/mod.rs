//! `otherix network …`: what is a network's own.

mod create;
mod list;
mod verdict;

use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{NetworkById, NetworkView};
use otherix_schemas::request::Request;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::args::{Global, NetworkCommand};
use crate::failure::Failure;
use crate::output::{self, Printer};
use crate::thing::verdict::Verdict;
use crate::thing::{self, Deletable, Made, Thing};

/// Carries out a command on networks.
pub(crate) async fn run(global: &Global, command: NetworkCommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create(args) => create::run(global, args, printer).await,
        NetworkCommand::List(args) => list::run(global, args, printer).await,
        NetworkCommand::Get(args) => thing::get::run::<NetworkView>(global, args, printer).await,
        NetworkCommand::Delete(args) => thing::delete::run::<NetworkView>(global, args, printer).await,
    }
}

impl Thing for NetworkView {
    const WHAT: &'static str = "network";
    const COMMAND: &'static str = "network";
    const GET: Request = Request::NetworkGet;
    const FIND: Request = Request::NetworkFind;
    const LIST: Request = Request::NetworkList;
    const COLUMNS: &'static [&'static str] = &output::network::COLUMNS;
    type ById = NetworkById;

    fn by_id(id: Uuid) -> NetworkById {
        NetworkById { id: NetworkId::new(id) }
    }

    fn id(&self) -> Uuid {
        self.id.uuid()
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn row(&self) -> Vec<String> {
        output::network::row(self)
    }

    fn details(&self) -> String {
        output::network::details(self)
    }

    fn manifest(&self) -> Option<String> {
        Some(output::yaml::network(self))
    }
}

impl Deletable for NetworkView {
    const DELETE: Request = Request::NetworkDelete;
    type Deleted = Self;

    fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    fn name_of(deleted: &Self) -> &str {
        deleted.name.as_str()
    }
}

impl Made for NetworkView {
    const CREATE: Request = Request::NetworkCreate;
    const NOTE: Option<&'static str> = None;
    const WHERE: &'static str = " on every node";

    fn fields(&self) -> String {
        output::table::fields(&output::network::fields(self))
    }

    fn readiness(&self) -> Verdict {
        verdict::readiness(self)
    }

    fn removal(&self) -> Verdict {
        verdict::removal(self)
    }

    fn missing(&self) -> String {
        verdict::missing(self)
    }

    fn left_out(&self) -> Option<String> {
        verdict::left_out(self)
    }

    fn status(&self) -> Value {
        json!(self.status)
    }
}
