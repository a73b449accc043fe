//! `otherix user set-role` and `otherix user revoke`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use otherix_schemas::id::UserUuid;
use otherix_schemas::user::{RevokeUser, SetUserRole, UserAndRole, UserById, UserRole, UserView};
use otherix_schemas::violations::Violations;

use super::create::ROLES;
use super::credential::{check_free, write_jwt};
use super::fields;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::NameOrId;
use crate::resource::args::completes_to;

#[derive(Debug, Args)]
pub(crate) struct SetRoleArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// The new role: admin, operator, developer or viewer
    #[arg(value_name = "ROLE", value_parser = completes_to(&ROLES), hide_possible_values = true)]
    role: String,

    /// A file to write the JWTs for the new role to, which must not exist
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const SET_ROLE_HELP: &str = "\
The user's JWT is for the earlier role and is revoked; the private key stays valid. With --out, the new JWTs (for the \
credentials file, and for the one beside it that reads the buckets of the state), which are no secrets, are written to \
a file: send it to the user, who puts them into both with `otherix user credential --update CREDENTIALS --jwt FILE`. \
`otherix user credential NAME` prints them, too. The last admin whose credentials do not expire keeps its role (exit \
code 4).

Examples:
  otherix user set-role alice operator --out alice.jwt
  otherix user set-role alice viewer -o json";

pub(super) const REVOKE_HELP: &str = "\
Connected clients of the user are disconnected. There is no confirmation prompt. `otherix user rotate` makes new \
credentials for the user. The last admin whose credentials do not \
expire cannot be revoked (exit code 4).

Examples:
  otherix user revoke alice
  otherix user revoke 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11 -o json";

/// Carries out `set-role`.
pub(super) async fn set_role(global: &GlobalArgs, args: SetRoleArgs, printer: &mut Printer) -> Result<(), Failure> {
    let SetRoleArgs { reference, role, out, output: _ } = args;
    let role: UserRole = role.parse().map_err(|error| Violations::one("role", error))?;
    check_free(out.as_deref())?;
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = UserUuid::new(NameOrId::new(&reference).resolve::<UserView>(&mut client).await?);
    let user = client.call::<SetUserRole>(&UserAndRole { id, role }).await?.data;
    if let Some(path) = out {
        write_jwt(&mut client, &user, &path).await.map_err(|failure| {
            failure.hint(format!(
                "user {0} has role {role}; an admin obtains the JWT for it with `otherix user credential {0}`",
                user.name
            ))
        })?;
    }
    print(&user, &format!("has role {role}"), printer)
}

/// Carries out `revoke`.
pub(super) async fn revoke(global: &GlobalArgs, args: RevokeArgs, printer: &mut Printer) -> Result<(), Failure> {
    let RevokeArgs { reference, output: _ } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = UserUuid::new(NameOrId::new(&reference).resolve::<UserView>(&mut client).await?);
    let user = client.call::<RevokeUser>(&UserById { id }).await?.data;
    print(&user, "revoked", printer)
}

fn print(user: &UserView, what: &str, printer: &mut Printer) -> Result<(), Failure> {
    if printer.is_json() {
        return printer.data(user);
    }
    printer.text(&format!("user {} {what}\n{}", clean(user.name.as_str()), fields::summary(user, None)))
}
