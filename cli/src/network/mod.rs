//! Networks: `otherix network …` and manifests of kind `Network`.

mod create;
mod fields;
mod list;
mod set;
mod status;
mod wait_state;

use clap::Subcommand;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{
    CreateNetwork, DeleteNetwork, FindNetwork, GetNetwork, ListNetworks, NetworkById, NetworkView,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::manifest;
use crate::output::Printer;
use crate::output::format::GetFormat;
use crate::resource::args::{DeleteAndWaitArgs, GetAtArgs};
use crate::resource::wait_state::WaitState;
use crate::resource::{self, Deletable, Provisioned, Resource};

/// Create, show, change and delete networks
#[derive(Debug, Subcommand)]
#[command(visible_alias = "net", after_help = EXAMPLES)]
pub(crate) enum NetworkSubcommand {
    /// Create a network
    #[command(after_help = create::HELP)]
    Create(create::CreateNetworkArgs),
    /// List networks in the order of their creation
    #[command(after_help = list::HELP)]
    List(list::ListNetworksArgs),
    /// Show a network and its status on each node
    #[command(after_help = GET_HELP)]
    Get(GetAtArgs<GetFormat>),
    /// Change a network
    #[command(after_help = set::HELP)]
    Set(set::SetNetworkArgs),
    /// Delete a network
    #[command(after_help = DELETE_HELP)]
    Delete(DeleteAndWaitArgs),
}

const EXAMPLES: &str = "\
Examples:
  otherix network create net-dev --bridge-name br-dev --managed
  otherix net list --type bridge
  otherix net get net-dev
  otherix net set net-dev --mtu 1400
  otherix net delete net-dev";

const GET_HELP: &str = "\
A deleted network is shown, as `deleting`, until every node has confirmed its removal; by its UUID only, if another \
network has the name.

Examples:
  otherix network get net-dev
  otherix network get net-dev --watch
  otherix network get net-dev --at 2026-11-01T12:00:00Z
  otherix network get 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11 -o json";

const DELETE_HELP: &str = "\
Asks for confirmation if stdin is a terminal. A network with VM NICs is not deleted (exit code 5), not even with \
--force: delete the VMs first.

Examples:
  otherix network delete net-dev
  otherix network delete net-dev --force --wait --wait-timeout 2m";

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: NetworkSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        NetworkSubcommand::Create(args) => create::run(global, args, printer).await,
        NetworkSubcommand::List(args) => list::run(global, args, printer).await,
        NetworkSubcommand::Get(GetAtArgs { get, at }) => {
            resource::get::run::<NetworkView>(global, get, at, printer).await
        }
        NetworkSubcommand::Set(args) => set::run(global, args, printer).await,
        NetworkSubcommand::Delete(args) => resource::delete::run_and_wait::<NetworkView>(global, args, printer).await,
    }
}

impl Resource for NetworkView {
    const NOUN: &'static str = "network";
    const COMMAND: &'static str = "network";
    type Get = GetNetwork;
    type Find = FindNetwork;
    type List = ListNetworks;
    const COLUMNS: &'static [&'static str] = &fields::COLUMNS;
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
        fields::row(self)
    }

    fn details(&self) -> String {
        fields::details(self)
    }

    fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    fn manifest(&self) -> Option<String> {
        Some(manifest::write(self))
    }
}

impl Deletable for NetworkView {
    type Delete = DeleteNetwork;
    type Deleted = Self;

    fn deleted_name(deleted: &Self) -> &str {
        deleted.name.as_str()
    }
}

impl Provisioned for NetworkView {
    type Create = CreateNetwork;
    const REFERENCES: &'static [&'static str] = &[];
    const NOTE: Option<&'static str> = None;
    const WHERE: &'static str = " on every node";

    fn summary(&self) -> String {
        fields::summary(self)
    }

    fn readiness(&self) -> WaitState {
        wait_state::readiness(self)
    }

    fn removal(&self) -> WaitState {
        wait_state::removal(self)
    }

    fn pending(&self) -> String {
        wait_state::pending(self)
    }

    fn not_awaited(&self) -> Option<String> {
        wait_state::not_awaited(self)
    }

    fn status(&self) -> Value {
        json!(self.status)
    }
}
