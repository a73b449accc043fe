//! `otherix user rotate`.

use clap::Args;
use otherix_schemas::user::{NEVER, RotateUserKey, UserAndKey, UserView};
use otherix_schemas::violations::Violations;

use super::create::{NewCredentialsArgs, print, print_registered};
use super::credential::{register, register_given};
use super::key_file::NewKeyFile;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::resource::NameOrId;

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    #[command(flatten)]
    credentials: NewCredentialsArgs,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Makes a key pair on this machine, registers its public part, and writes the credentials file, as `user create` does. \
The earlier credentials are revoked. A revoked user is active again, and so is an expired one, with --expires. Without \
it, the time of expiry stays. Nobody can rotate their own key: the connection would end before the new credentials \
arrive. With --public-key, the new key was made elsewhere: see `otherix user create --help`.

Examples:
  otherix user rotate alice --out alice-2.creds
  otherix user rotate ci --expires 90d --out ci-2.creds";

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: RotateArgs, printer: &mut Printer) -> Result<(), Failure> {
    let RotateArgs { reference, credentials, output: _ } = args;
    let mut violations = Violations::default();
    let validity = credentials.validity(&mut violations);
    let given = credentials.given_key(&mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let user: UserView = NameOrId::new(&reference).look_up(&mut client).await?;
    let expires_at = match validity {
        None => None,
        Some(validity) => Some(validity.expires_at()?.map_or_else(|| NEVER.to_owned(), |at| at.to_string())),
    };
    if let Some(key) = given {
        let request = UserAndKey { id: user.id, key, expires_at };
        let user = register_given::<RotateUserKey>(&mut client, &request, credentials.out.as_deref()).await?;
        return print_registered(&user, "has a new key", printer);
    }
    let name = user.name.to_string();
    let file = NewKeyFile::create(credentials.file(&name))?;
    let request = UserAndKey { id: user.id, key: file.public_key()?, expires_at };
    let (user, written) = register::<RotateUserKey>(&mut client, file, &name, &request).await?;
    print(&user, "has a new key", &written, printer)
}
