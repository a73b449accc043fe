//! `otherix user credential`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use otherix_runtime::files;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::UserUuid;
use otherix_schemas::request::RequestType;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{CredentialView, GetCredential, UserOrMyself, UserView};
use serde::Serialize;

use super::key_file::{self, NewKeyFile, Written};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
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

    /// A file with the JWTs, or - for stdin: nothing is asked of the control plane
    #[arg(long, value_name = "FILE", requires = "update", conflicts_with = "reference",
        value_hint = ValueHint::FilePath)]
    jwt: Option<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Prints the JWTs that the control plane signs for the user's present key, role and expiry, each on a line: that of the \
credentials file, and that of the file beside it that reads the buckets of the state (NAME.state.creds). They are no \
secrets: they are of no use without the private key. With --update, they are written into a file that has the private \
key (a credentials file, or the one that an interrupted `user create` or `user rotate` left) and into the one beside \
it, which then has the private key, too. A file beside it that has another key is not overwritten (exit code 4). \
Another user's requires the permission user:manage. After a change of role the user's own credentials are revoked: an \
admin sends the JWTs, and the user writes them with --jwt.

Examples:
  otherix user credential alice
  otherix user credential alice --update alice.creds
  otherix user credential alice --update alice.creds.partial
  otherix user credential --update alice.creds --jwt alice.jwt";

/// What is printed as JSON without the control plane.
#[derive(Serialize)]
struct UpdatedView<'a> {
    name: &'a str,
    role: Option<&'a str>,
    key: &'a str,
    expires_at: Option<Timestamp>,
    credentials_file: String,
    state_credentials_file: Option<String>,
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CredentialArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CredentialArgs { reference, update, jwt, output: _ } = args;
    if let Some((path, jwt)) = update.as_ref().zip(jwt) {
        return update_offline(path, &jwt, printer);
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let id = match reference {
        Some(reference) => Some(UserUuid::new(NameOrId::new(&reference).resolve::<UserView>(&mut client).await?)),
        None => None,
    };
    let credential = client.call::<GetCredential>(&UserOrMyself { id }).await?.data;
    let Some(path) = update else {
        return if printer.is_json() { printer.data(&credential) } else { printer.text(&jwts(&credential)) };
    };
    let written = key_file::update(&path, credential.jwt.clone(), credential.state_jwt.clone())?;
    if printer.is_json() {
        return printer.data(&credential);
    }
    print_updated(credential.name.as_str(), &written, printer)
}

/// The JWTs, each on a line: that for requests, and that for the buckets.
fn jwts(credential: &CredentialView) -> String {
    [Some(&credential.jwt), credential.state_jwt.as_ref()]
        .into_iter()
        .flatten()
        .map(|jwt| format!("{}\n", clean(jwt)))
        .collect()
}

fn update_offline(path: &Path, jwt: &Path, printer: &mut Printer) -> Result<(), Failure> {
    let (updated, written) = key_file::update_from(path, jwt)?;
    let name = &updated.claims().name;
    if !printer.is_json() {
        return print_updated(name, &written, printer);
    }
    let seconds = updated.expires_at().and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1_000_000));
    printer.data(&UpdatedView {
        name,
        role: updated.role(),
        key: updated.public_key().as_str(),
        expires_at: seconds.and_then(|micros| Timestamp::from_unix_micros(micros).ok()),
        credentials_file: written.file.display().to_string(),
        state_credentials_file: written.state.map(|path| path.display().to_string()),
    })
}

fn print_updated(name: &str, written: &Written, printer: &mut Printer) -> Result<(), Failure> {
    let mut files = clean(&written.file.display().to_string());
    match &written.state {
        Some(state) => files.push_str(&format!(" and {}", clean(&state.display().to_string()))),
        None if key_file::state_file(&written.file).exists() => {
            printer.note("the file that reads the buckets of the state is unchanged: there was no JWT for it");
        }
        None => {}
    }
    printer.text(&format!("credentials of user {} written to {files}\n", clean(name)))
}

/// Returns the JWT of another user.
pub(super) async fn obtain(client: &mut ControlPlaneClient, id: UserUuid) -> Result<CredentialView, Failure> {
    client.renew();
    Ok(client.call::<GetCredential>(&UserOrMyself { id: Some(id) }).await?.data)
}

/// Registers a public key that was made elsewhere, and writes the JWTs for it to `out`, which must not exist.
pub(super) async fn register_given<R: RequestType<Answer = UserView>>(
    client: &mut ControlPlaneClient,
    request: &R::Body,
    out: Option<&Path>,
) -> Result<UserView, Failure> {
    check_free(out)?;
    let user = client.call::<R>(request).await?.data;
    if let Some(path) = out {
        write_jwt(client, &user, path).await.map_err(|failure| {
            let name = &user.name;
            failure
                .hint(format!("the key of user {name} is registered; `otherix user credential {name}` prints the JWTs"))
        })?;
    }
    Ok(user)
}

/// Checks that there is no such file yet.
pub(super) fn check_free(out: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = out.filter(|path| path.symlink_metadata().is_ok()) else { return Ok(()) };
    let message = format!("file `{}` exists, and is not overwritten", path.display());
    let failure = Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message);
    Err(failure.hint("select another file with `--out FILE`"))
}

/// Writes the JWTs of another user to a file.
pub(super) async fn write_jwt(client: &mut ControlPlaneClient, user: &UserView, path: &Path) -> Result<(), Failure> {
    let credential = obtain(client, user.id).await?;
    files::replace(path, jwts(&credential).as_bytes()).map_err(|error| {
        let message = format!("cannot write `{}`: {error}", path.display());
        Failure::new(Exit::Unexpected, ErrorCode::Internal, message)
    })
}

/// Registers the public key, and writes the credentials. Returns the user, and their files.
pub(super) async fn register<R: RequestType<Answer = UserView>>(
    client: &mut ControlPlaneClient,
    key: NewKeyFile,
    name: &str,
    request: &R::Body,
) -> Result<(UserView, Written), Failure> {
    let user = match client.call::<R>(request).await {
        Ok(answer) => answer.data,
        Err(failure) => return Err(key.after_refusal(failure, name)),
    };
    let credential = obtain(client, user.id).await.map_err(|failure| key.kept(failure, name))?;
    let written = key.complete(credential.jwt, credential.state_jwt).map_err(|failure| key.kept(failure, name))?;
    Ok((user, written))
}
