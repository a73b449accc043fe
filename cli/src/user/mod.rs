//! Users: `otherix user …`.

mod create;
mod credential;
mod expiry;
mod fields;
mod key_file;
mod manage;
mod rotate;
mod whoami;

use clap::Subcommand;
use otherix_schemas::id::UserUuid;
use otherix_schemas::user::{DeleteUser, FindUser, GetUser, ListUsers, UserById, UserView};
use uuid::Uuid;

use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::{Format, PlainListFormat};
use crate::resource::args::{AtArgs, DeleteArgs, GetArgs, ListArgs};
use crate::resource::{self, Deletable, Resource};

/// Manage the users of the control plane, their roles and credentials
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum UserSubcommand {
    /// Create a user and write its credentials file
    #[command(after_help = create::HELP)]
    Create(create::CreateUserArgs),
    /// List users in the order of their creation
    #[command(after_help = LIST_HELP)]
    List(ListArgs<PlainListFormat>),
    /// Show a user
    #[command(after_help = GET_HELP)]
    Get(GetArgs<Format>),
    /// Give a user another role
    #[command(name = "set-role", after_help = manage::SET_ROLE_HELP)]
    SetRole(manage::SetRoleArgs),
    /// Register a new key of a user and write its credentials file
    #[command(after_help = rotate::HELP)]
    Rotate(rotate::RotateArgs),
    /// Revoke the credentials of a user
    #[command(after_help = manage::REVOKE_HELP)]
    Revoke(manage::RevokeArgs),
    /// Delete a user
    #[command(after_help = DELETE_HELP)]
    Delete(DeleteArgs),
    /// Show the user of the credentials in use
    #[command(after_help = whoami::HELP)]
    Whoami(whoami::WhoAmIArgs),
    /// Obtain the current JWT of a user's credentials
    #[command(after_help = credential::HELP)]
    Credential(credential::CredentialArgs),
}

const EXAMPLES: &str = "\
Examples:
  otherix user create alice --role developer --expires 90d
  otherix user list
  otherix user set-role alice operator
  otherix user revoke alice";

const LIST_HELP: &str = "\
STATUS is active, expired or revoked. The table has one page. If there are more users, the last line on stderr is \
`next cursor: …`: pass it with --cursor for the next page. The other formats list all users, unless --limit or \
--cursor asks for a page (in JSON, meta.next_cursor is the next cursor).

Examples:
  otherix user list
  otherix user list -o json";

const GET_HELP: &str = "\
Examples:
  otherix user get alice
  otherix user get alice -o json";

const DELETE_HELP: &str = "\
Asks for confirmation if stdin is a terminal. The user's credentials are revoked, and its name becomes free. The last \
admin whose credentials do not expire cannot be deleted (exit code 4).

Examples:
  otherix user delete alice
  otherix user delete alice --force -o json";

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: UserSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        UserSubcommand::Create(args) => create::run(global, args, printer).await,
        UserSubcommand::List(args) => resource::list::run::<UserView>(global, args, AtArgs::default(), printer).await,
        UserSubcommand::Get(args) => resource::get::run::<UserView>(global, args, AtArgs::default(), printer).await,
        UserSubcommand::SetRole(args) => manage::set_role(global, args, printer).await,
        UserSubcommand::Rotate(args) => rotate::run(global, args, printer).await,
        UserSubcommand::Revoke(args) => manage::revoke(global, args, printer).await,
        UserSubcommand::Delete(args) => resource::delete::run::<UserView>(global, args, printer).await,
        UserSubcommand::Whoami(args) => whoami::run(global, args, printer).await,
        UserSubcommand::Credential(args) => credential::run(global, args, printer).await,
    }
}

impl Resource for UserView {
    const NOUN: &'static str = "user";
    const COMMAND: &'static str = "user";
    type Get = GetUser;
    type Find = FindUser;
    type List = ListUsers;
    const COLUMNS: &'static [&'static str] = &fields::COLUMNS;
    type ById = UserById;

    fn by_id(id: Uuid) -> UserById {
        UserById { id: UserUuid::new(id) }
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
}

impl Deletable for UserView {
    type Delete = DeleteUser;
    type Deleted = Self;

    fn deleted_name(deleted: &Self) -> &str {
        deleted.name.as_str()
    }
}
