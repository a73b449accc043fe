//! The users that `otherixd` makes by itself: those of its own connections, which exist in memory only, and the one of
//! nodes, whose credentials are a file to be handed out. The first administrator is an event ([`crate::first_admin`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use otherix_identity::{Creds, PublicKey};
use otherix_runtime::files;
use otherix_schemas::permission::Role;
use otherix_schemas::user::Caller;
use otherix_schemas::value::UserId;
use otherix_transport::Credentials;
use serde::{Deserialize, Serialize};

use super::error::NatsError;
use super::files::{private_folder, write_private};
use super::identity::Identity;
use super::scope::{ControlPlanePart, Scope};

/// The credentials files of static users, which earlier versions had.
const STATIC_USERS: [&str; 4] = ["admin.json", "node.json", "otherixd.json", "otherixd-clients.json"];

/// The credentials of the control plane's own connections. Generated at each start.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlaneUsers {
    pub(crate) claims: Credentials,
    pub(crate) relay: Credentials,
    pub(crate) people: Credentials,
    pub(crate) nodes: Credentials,
    pub(crate) mirror: Credentials,
}

impl ControlPlaneUsers {
    /// Generates their keys and signs them. `now` is the Unix time in seconds.
    pub(super) fn generate(identity: &Identity, now: u64) -> Result<Self, NatsError> {
        let user = |part: ControlPlanePart| {
            let creds = identity.new_user(part.name(), Scope::Part(part), now)?;
            Ok::<_, NatsError>(Credentials::Key(Arc::new(creds)))
        };
        Ok(Self {
            claims: user(ControlPlanePart::Claims)?,
            relay: user(ControlPlanePart::Relay)?,
            people: user(ControlPlanePart::PeopleService)?,
            nodes: user(ControlPlanePart::NodesService)?,
            mirror: user(ControlPlanePart::Mirror)?,
        })
    }
}

/// The users that no event is about.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstUsers {
    /// The first administrator of an earlier version, until there is an event about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<PublicKey>,
    /// All nodes, until each has a key of its own.
    node: Option<PublicKey>,
}

impl FirstUsers {
    /// Makes user and file of the first start that do not exist. A file that was handed out and removed is not made
    /// again. Removes the passwords that earlier versions had.
    ///
    /// # Errors
    /// If a file cannot be read or written, or is in the place of one that is to be made.
    pub(crate) fn load_or_create(state: &Path, identity: &Identity, now: u64) -> Result<Self, NatsError> {
        let folder = state.join("credentials");
        private_folder(&folder)?;
        let mut users = Self::read(&record(state))?;
        if users.node.is_none() {
            let creds = node(&folder.join("node.creds"), identity, now)?;
            users.node = Some(creds.public_key().clone());
            users.write(&record(state))?;
        }
        remove_static_users(&folder)?;
        Ok(users)
    }

    /// The first administrator of an earlier version, if there was no event about it yet.
    pub(crate) fn former_admin(&self) -> Option<&PublicKey> {
        self.admin.as_ref()
    }

    /// Forgets the first administrator of an earlier version, about which there is an event now.
    pub(crate) fn forget_admin(&self, state: &Path) -> Result<(), NatsError> {
        Self { admin: None, ..self.clone() }.write(&record(state))
    }

    fn read(path: &Path) -> Result<Self, NatsError> {
        let failed = |source| NatsError::File { attempt: "read", path: path.to_owned(), source };
        let Some(content) = files::read(path).map_err(failed)? else { return Ok(Self::default()) };
        serde_json::from_slice(&content).map_err(|error| failed(error.into()))
    }

    fn write(&self, path: &Path) -> Result<(), NatsError> {
        let failed = |source| NatsError::File { attempt: "write", path: path.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        write_private(path, &text)
    }

    /// Who makes requests with their keys.
    pub(crate) fn callers(&self) -> Option<Caller> {
        let name = Role::Node.as_str();
        let (key, id) = (UserId::parse(self.node.as_ref()?.as_str()).ok()?, UserId::parse(name).ok()?);
        Some(Caller { key, id, name: name.to_owned(), role: Role::Node, expires_at: None })
    }
}

/// The file with the keys of these users.
fn record(state: &Path) -> PathBuf {
    state.join("identity/first-users.json")
}

/// Returns the credentials in a file that an interrupted first start has written, or makes them.
fn node(path: &Path, identity: &Identity, now: u64) -> Result<Creds, NatsError> {
    let scope = Scope::Role(Role::Node);
    if path.exists() {
        return identity.load_signed(path, scope);
    }
    let creds = identity.new_user(scope.name(), scope, now)?;
    write_private(path, creds.render().as_bytes())?;
    tracing::info!(file = %path.display(), role = scope.name(), "created credentials: hand them out");
    Ok(creds)
}

fn remove_static_users(folder: &Path) -> Result<(), NatsError> {
    let old: Vec<PathBuf> =
        STATIC_USERS.map(|name| folder.join(name)).into_iter().filter(|path| path.exists()).collect();
    for path in &old {
        files::remove(path).map_err(|source| NatsError::File { attempt: "remove", path: path.clone(), source })?;
    }
    if !old.is_empty() {
        tracing::warn!(
            people = %folder.join("admin.creds").display(),
            nodes = %folder.join("node.creds").display(),
            "the passwords of earlier versions do not work any more: hand out these files instead, to people and to \
             nodes, and start the agents with them"
        );
    }
    Ok(())
}
