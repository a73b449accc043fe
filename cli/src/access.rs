//! Where to connect and as whom: from flags, environment variables, the context, or the defaults.
//!
//! `--context` (or `OTHERIX_CONTEXT`) gives all settings; the flags `--server`, `--credentials` and `--ca` replace
//! single ones, their variables do not.
//! The context in use is taken only where neither a server nor credentials are given: they would not belong together.
//! Where there is none, and no credentials in the home directory, the owner of a control plane's state folder uses the
//! control plane of this machine.

use std::env;
use std::path::{Path, PathBuf};

use otherix_schemas::error::ErrorCode;
use otherix_transport::nats::{AddressError, ServerAddress};
use otherix_transport::{Credentials, NatsEndpoint, TrustedCa};

use crate::client::GlobalArgs;
use crate::context::file::ContextFile;
use crate::context::store::ContextStore;
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::offline;

/// The default NATS address.
pub(crate) const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";

/// The state folder of a control plane on this machine, where `OTHERIX_STATE` names no other.
const DEFAULT_STATE: &str = "/var/lib/otherix";

/// Where to connect and as whom, and the files that say so.
pub(crate) struct Access {
    pub(crate) endpoint: NatsEndpoint,
    pub(crate) credentials: PathBuf,
    pub(crate) ca: Option<PathBuf>,
}

/// Determines the endpoint.
pub(crate) fn endpoint(global: &GlobalArgs) -> Result<NatsEndpoint, Failure> {
    resolve(global).map(|access| access.endpoint)
}

/// Determines the endpoint, and the files of its credentials and CA.
pub(crate) fn resolve(global: &GlobalArgs) -> Result<Access, Failure> {
    if offline::folder(global).is_some() {
        return Err(offline::takes_control_plane());
    }
    let context = context(global)?;
    let context = context.as_ref();
    // A context that is named counts more than variables of the environment, which were set for another one.
    let is_named = global.context.as_deref().is_some_and(|name| !name.is_empty());
    let counts = |flag: &str| !is_named || is_flag_given(flag);
    let server = global.server.as_ref().filter(|_| counts("--server"));
    let credentials = global.credentials.as_ref().filter(|_| counts("--credentials"));
    let ca = global.ca.as_ref().filter(|_| counts("--ca"));
    let server = server.map(String::as_str).or_else(|| context.map(ContextFile::url)).unwrap_or(DEFAULT_SERVER);
    check_server(server)?;
    let file = match credentials.cloned().or_else(|| context.and_then(ContextFile::credentials)) {
        Some(path) => path,
        None => default_credentials()?,
    };
    let credentials = Credentials::load(&file).map_err(|error| Failure::credentials(&error))?;
    let ca = ca.cloned().or_else(|| context.and_then(ContextFile::ca));
    let trusted = ca.as_deref().map(load_ca).transpose()?;
    let endpoint = NatsEndpoint::new(server, credentials).with_ca(trusted);
    Ok(Access { endpoint, credentials: file, ca })
}

/// The flag on the command line that names a control plane; their variables and the context in use name one by default.
pub(crate) fn given_flag() -> Option<&'static str> {
    ["--server", "--credentials", "--ca", "--context"].into_iter().find(|flag| is_flag_given(flag))
}

/// Whether a flag is on the command line, as opposed to its variable in the environment.
fn is_flag_given(flag: &str) -> bool {
    env::args_os().any(|argument| {
        let argument = argument.to_string_lossy();
        argument.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// The context that is asked for, or in use.
fn context(global: &GlobalArgs) -> Result<Option<ContextFile>, Failure> {
    let GlobalArgs { server, credentials, ca: _, context, offline: _ } = global;
    let named = context.as_deref().filter(|name| !name.is_empty());
    let (store, name) = match named {
        Some(name) => (ContextStore::open()?, name.to_owned()),
        None if server.is_some() || credentials.is_some() => return Ok(None),
        None => {
            let Some(store) = ContextStore::find() else { return local_context() };
            let Some(name) = store.selected()? else { return local_context() };
            (store, name)
        }
    };
    let context = store.load(&name)?;
    context.check(&name)?;
    Ok(Some(context))
}

/// The context that a control plane on this machine writes, if its owner asks and has no credentials of its own.
fn local_context() -> Result<Option<ContextFile>, Failure> {
    if default_credentials().is_ok() {
        return Ok(None);
    }
    let state = env::var_os("OTHERIX_STATE").filter(|folder| !folder.is_empty());
    let path = Path::new(state.as_deref().unwrap_or(DEFAULT_STATE.as_ref())).join("context.json");
    if path.exists() { ContextFile::load("of this machine", &path).map(Some) } else { Ok(None) }
}

fn load_ca(path: &Path) -> Result<TrustedCa, Failure> {
    TrustedCa::load(path).map_err(|error| Failure::ca(&error))
}

/// Validates the address. A password in it would be visible in the process list and in messages.
pub(crate) fn check_server(url: &str) -> Result<(), Failure> {
    match ServerAddress::parse_list(url) {
        Ok(_) => Ok(()),
        Err(AddressError::User) => {
            Err(failure::server("must not contain a user or password: put them into the credentials file"))
        }
        Err(AddressError::Host) => Err(failure::server("must have a host")),
        Err(AddressError::Empty | AddressError::Scheme | AddressError::Extra | AddressError::Port) => {
            Err(failure::server("must be an address such as `nats://HOST:PORT`"))
        }
    }
}

/// The credentials file in the home directory, if it exists.
fn default_credentials() -> Result<PathBuf, Failure> {
    let missing = |why: String| {
        Failure::new(Exit::Denied, ErrorCode::Unauthenticated, format!("no credentials: {why}")).hint(
            "pass `--credentials FILE`, set `OTHERIX_CREDENTIALS`, or use a context (`otherix context`); for a lab, \
             `otherix-lab env` prints the setting",
        )
    };
    let home = env::home_dir().ok_or_else(|| missing("the home directory is unknown".to_owned()))?;
    let path = home.join(".config/otherix/credentials.creds");
    if path.exists() { Ok(path) } else { Err(missing(format!("file `{}` does not exist", path.display()))) }
}
