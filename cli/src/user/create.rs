//! `otherix user create`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use otherix_schemas::user::{CreateUser, UserDraft, UserView};
use otherix_schemas::violations::Violations;
use serde::Serialize;

use super::credential::register;
use super::expiry::Validity;
use super::fields;
use super::key_file::NewKeyFile;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::args::completes_to;
use crate::resource::create::invalid;

#[derive(Debug, Args)]
pub(crate) struct CreateUserArgs {
    /// The name, unique and not case-sensitive: 1 to 255 characters without `/`, not in the form of a UUID
    #[arg(value_name = "NAME")]
    name: String,

    /// The role, required: admin, operator, developer or viewer
    #[arg(long, value_name = "ROLE", value_parser = completes_to(&ROLES), hide_possible_values = true)]
    role: Option<String>,

    #[command(flatten)]
    credentials: NewCredentialsArgs,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// The roles of users, for completion.
pub(super) const ROLES: [&str; 4] = ["admin", "operator", "developer", "viewer"];

/// How new credentials are made.
#[derive(Debug, Args)]
pub(super) struct NewCredentialsArgs {
    /// When the credentials expire, with a unit: m, h or d; at most 3653d, or `never`
    #[arg(long, value_name = "DURATION")]
    pub(super) expires: Option<String>,

    /// The credentials file to write, which must not exist [default: NAME.creds]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) out: Option<PathBuf>,
}

pub(super) const HELP: &str = "\
The key pair is made on this machine; only its public part is sent. The file contains the private key and the JWT that \
the control plane signs, in the form that every NATS client reads, with mode 0600. Without --expires, the credentials \
do not expire. docs/roles.md lists what each role permits.

Examples:
  otherix user create alice --role developer
  otherix user create ci --role operator --expires 90d --out ci.creds
  otherix user create bob --role viewer -o json";

/// What is printed as JSON: the user, and the file with its credentials.
#[derive(Serialize)]
pub(super) struct WithCredentials<'a> {
    #[serde(flatten)]
    pub(super) user: &'a UserView,
    pub(super) credentials_file: String,
}

impl NewCredentialsArgs {
    /// The validity that is asked for; `None` without the flag.
    pub(super) fn validity(&self, violations: &mut Violations) -> Option<Validity> {
        self.expires.as_deref().and_then(|text| violations.check("expires", Validity::parse(text)))
    }

    /// The file to write for a user of this name.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.creds", name.trim())))
    }
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CreateUserArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CreateUserArgs { name, role, credentials, output: _ } = args;
    let mut violations = Violations::default();
    let validity = credentials.validity(&mut violations);
    // A well-formed key in place of the one that is made when everything else is right.
    let draft = UserDraft { name, role: role.unwrap_or_default(), key: VALID_KEY.to_owned(), expires_at: None };
    violations.combine(draft.check()).map_err(invalid::<UserView>)?;
    let expires_at = validity.map_or(Ok(None), Validity::expires_at)?;
    let mut client = ControlPlaneClient::connect(global).await?;
    let file = NewKeyFile::create(credentials.file(&draft.name))?;
    let (key, expires_at) = (file.public_key()?.to_string(), expires_at.map(|at| at.to_string()));
    let request = UserDraft { key, expires_at, ..draft };
    let (user, file) = register::<CreateUser>(&mut client, file, &request.name, &request).await?;
    print(&user, "created", &file, printer)
}

/// A well-formed public key, which nobody has.
const VALID_KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// Prints a user whose credentials were written.
pub(super) fn print(user: &UserView, verb: &str, file: &str, printer: &mut Printer) -> Result<(), Failure> {
    if printer.is_json() {
        return printer.data(&WithCredentials { user, credentials_file: file.to_owned() });
    }
    let fields = fields::summary(user, Some(file));
    printer.text(&format!("user {} {verb}\n{fields}", clean(user.name.as_str())))
}
