//! `otherix user credential`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use otherix_schemas::id::UserUuid;
use otherix_schemas::user::{CredentialView, GetCredential, UserOrMyself, UserView};

use super::key_file;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::NameOrId;

#[derive(Debug, Args)]
pub(crate) struct CredentialArgs {
    /// The name (not case-sensitive) or UUID [default: the user of the credentials in use]
    #[arg(value_name = "NAME|UUID")]
    reference: Option<String>,

    /// A credentials file with the user's private key, whose JWT is replaced
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    update: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Prints the JWT that the control plane signs for the user's present key, role and expiry. It is of no use without the \
private key. With --update, it is written into a file that has the private key: a credentials file, or the one that an \
interrupted `user create` or `user rotate` left. Another user's requires the permission user:manage.

Examples:
  otherix user credential alice
  otherix user credential alice --update alice.creds
  otherix user credential alice --update alice.creds.partial";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CredentialArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CredentialArgs { reference, update, output: _ } = args;
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = match reference {
        Some(reference) => Some(UserUuid::new(NameOrId::new(&reference).resolve::<UserView>(&mut client).await?)),
        None => None,
    };
    let credential = client.call::<GetCredential>(&UserOrMyself { id }).await?.data;
    let Some(path) = update else {
        return if printer.is_json() {
            printer.data(&credential)
        } else {
            printer.text(&format!("{}\n", clean(&credential.jwt)))
        };
    };
    key_file::update(&path, &credential)?;
    if printer.is_json() {
        return printer.data(&credential);
    }
    let name = clean(credential.name.as_str());
    printer.text(&format!("credentials of user {name} written to {}\n", clean(&path.display().to_string())))
}

/// Returns the JWT of another user.
pub(super) async fn obtain(client: &mut ControlPlaneClient, id: UserUuid) -> Result<CredentialView, Failure> {
    client.renew();
    Ok(client.call::<GetCredential>(&UserOrMyself { id: Some(id) }).await?.data)
}
