//! `otherix user create`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use otherix_schemas::user::{CreateUser, UserDraft, UserView};
use otherix_schemas::value::UserKey;
use otherix_schemas::violations::Violations;
use serde::Serialize;

use super::credential::{register, register_given};
use super::expiry::Validity;
use super::fields;
use super::key_file::{NewKeyFile, Written};
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

    /// Register this public key (`U…`), which was made elsewhere, and make none
    #[arg(long, value_name = "KEY")]
    pub(super) public_key: Option<String>,

    /// The credentials file to write, which must not exist [default: NAME.creds]; with --public-key, one for the JWTs
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) out: Option<PathBuf>,
}

pub(super) const HELP: &str = "\
The key pair is made on this machine; only its public part is sent. The file contains the private key and the JWT that \
the control plane signs, in the form that every NATS client reads, with mode 0600. NAME.state.creds beside it has the \
same private key and a JWT for the account with the key-value buckets of the state: whoever has that file can act as \
the user, too, so make a user with the role viewer for a program that only watches. Without --expires, the credentials \
do not expire. docs/roles.md lists what each role permits.

With --public-key, the key pair stays where it was made (by `nsc`, `nk`, or on the user's machine), and nothing that \
is printed or written is secret: --out FILE gets the JWTs, which `otherix user credential NAME` prints, too. Whoever \
has the private key puts them into the file that has it, which is a credentials file then, and the one beside it: \
`otherix user credential --update FILE --jwt JWT_FILE`.

Examples:
  otherix user create alice --role developer
  otherix user create ci --role operator --expires 90d --out ci.creds
  otherix user create bob --role viewer -o json
  otherix user create eve --role viewer --public-key UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 --out \
eve.jwt";

/// What is printed as JSON: the user, and the files with its credentials.
#[derive(Serialize)]
pub(super) struct WithCredentials<'a> {
    #[serde(flatten)]
    pub(super) user: &'a UserView,
    pub(super) credentials_file: String,
    pub(super) state_credentials_file: Option<String>,
}

impl NewCredentialsArgs {
    /// The validity that is asked for; `None` without the flag.
    pub(super) fn validity(&self, violations: &mut Violations) -> Option<Validity> {
        self.expires.as_deref().and_then(|text| violations.check("expires", Validity::parse(text)))
    }

    /// The public key that was made elsewhere.
    pub(super) fn given_key(&self, violations: &mut Violations) -> Option<UserKey> {
        self.public_key.as_deref().and_then(|text| violations.check("public-key", text.parse()))
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
    let given = credentials.given_key(&mut violations);
    // A well-formed key in place of the one that is made when everything else is right.
    let draft = UserDraft { name, role: role.unwrap_or_default(), key: VALID_KEY.to_owned(), expires_at: None };
    violations.combine(draft.check()).map_err(invalid::<UserView>)?;
    let expires_at = validity.map_or(Ok(None), Validity::expires_at)?;
    let mut client = ControlPlaneClient::connect(global).await?;
    if let Some(key) = given {
        let request = UserDraft { key: key.to_string(), expires_at: expires_at.map(|at| at.to_string()), ..draft };
        let user = register_given::<CreateUser>(&mut client, &request, credentials.out.as_deref()).await?;
        return print_registered(&user, "created", printer);
    }
    let file = NewKeyFile::create(credentials.file(&draft.name))?;
    let (key, expires_at) = (file.public_key()?.to_string(), expires_at.map(|at| at.to_string()));
    let request = UserDraft { key, expires_at, ..draft };
    let (user, written) = register::<CreateUser>(&mut client, file, &request.name, &request).await?;
    print(&user, "created", &written, printer)
}

/// A well-formed public key, which nobody has.
const VALID_KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// Prints a user whose credentials were written.
pub(super) fn print(user: &UserView, verb: &str, written: &Written, printer: &mut Printer) -> Result<(), Failure> {
    let credentials_file = written.file.display().to_string();
    let state_credentials_file = written.state.as_ref().map(|path| path.display().to_string());
    if printer.is_json() {
        return printer.data(&WithCredentials { user, credentials_file, state_credentials_file });
    }
    let fields = fields::summary(user, Some((&credentials_file, state_credentials_file.as_deref())));
    printer.text(&format!("user {} {verb}\n{fields}", clean(user.name.as_str())))
}

/// Prints a user whose private key is elsewhere.
pub(super) fn print_registered(user: &UserView, verb: &str, printer: &mut Printer) -> Result<(), Failure> {
    if printer.is_json() {
        return printer.data(user);
    }
    printer.text(&format!("user {} {verb}\n{}", clean(user.name.as_str()), fields::summary(user, None)))
}
