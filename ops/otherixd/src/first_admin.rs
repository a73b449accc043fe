//! The first administrator: a user as any other, created at the first start, because somebody has to create the others.
//!
//! Its key pair is on disk before the event that registers it, and the credentials are signed after the event. So a
//! start that was interrupted is completed by the next one, with the same key, and no credentials work without their
//! event.

use std::io;
use std::path::{Path, PathBuf};

use otherix_commands::service::{Credential, Issuer};
use otherix_commands::writer::{Cause, CommandRequest, Refusal, WriterHandle};
use otherix_identity::{Creds, KeyKind, KeyPair, PublicKey};
use otherix_runtime::{Runtime, files};
use otherix_schemas::cloudevent::Actor;
use otherix_schemas::command::Command;
use otherix_schemas::id::{CorrelationId, UserUuid};
use otherix_schemas::permission::Role;
use otherix_schemas::user::{Callers, NewUser, RegisteredUser, UserCommand, UserRole};
use otherix_schemas::value::{UserKey, UserName};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::error::BoxError;
use crate::nats::{FormerUsers, Identity, NatsError, Scope, read_private, write_private};

/// The credentials file, in the state folder.
pub(crate) const CREDENTIALS: &str = "credentials/admin.creds";

/// Suffix of the file that has the key until the credentials are complete.
const PARTIAL: &str = ".partial";

/// The name of the user.
const NAME: &str = "admin";

/// The actor of what the control plane records by itself.
const SYSTEM: &str = "system";

/// The first administrator could not be created.
#[derive(Debug, thiserror::Error)]
enum FirstAdminError {
    #[error("the first administrator cannot be created")]
    Refused(#[from] Refusal),
    #[error("the first administrator's credentials cannot be written")]
    Nats(#[from] NatsError),
}

/// What the first administrator is created with.
pub(crate) struct FirstAdmin<'a> {
    pub(crate) state: &'a Path,
    pub(crate) identity: &'a Identity,
    /// The users of an earlier version, which had no event about the first administrator.
    pub(crate) former: &'a FormerUsers,
    pub(crate) callers: watch::Receiver<Callers>,
    /// The writer, which must be running.
    pub(crate) writer: &'a WriterHandle,
    pub(crate) runtime: &'a dyn Runtime,
}

impl FirstAdmin<'_> {
    /// Creates the first administrator if there is no user, takes over that of an earlier version, and completes the
    /// credentials file. A file that was handed out and removed is not made again while there is a user.
    ///
    /// # Errors
    /// If a file cannot be read or written or is not one of this control plane's, or the event cannot be stored.
    pub(crate) async fn ensure(self) -> Result<(), BoxError> {
        let path = self.state.join(CREDENTIALS);
        let partial = PartialFile::of(&path);
        let registered = self.callers.borrow().clone();
        if let Some(former) = self.former.admin() {
            let key = user_key(former)?;
            if !registered.was_registered(&key) {
                self.create(&registered, key).await?;
                tracing::info!("the first administrator of an earlier version is a user now: `otherix user list`");
            }
            self.former.forget_admin(self.state)?;
        } else if registered.users().is_empty() {
            let key = if path.exists() {
                self.identity.load_signed(&path, Scope::Role(Role::Admin))?.public_key().clone()
            } else {
                partial.load_or_create()?.public_key().clone()
            };
            self.create(&registered, user_key(&key)?).await?;
        }
        if let Some(pair) = partial.load()? {
            self.complete(&path, pair)?;
            partial.remove()?;
        }
        Ok(())
    }

    async fn create(&self, registered: &Callers, key: UserKey) -> Result<(), BoxError> {
        let user_id = UserUuid::new(self.runtime.uuid_v7());
        let command = if registered.users().is_empty() {
            UserCommand::CreateFirst { user_id, name: NAME.parse()?, key }
        } else {
            let name = free_name(registered)?;
            UserCommand::Create { user_id, user: NewUser { name, role: UserRole::Admin, key, expires_at: None } }
        };
        let request = CommandRequest {
            command: Command::User(command),
            actor: SYSTEM.parse::<Actor>()?,
            caller: None,
            correlation_id: CorrelationId::new(self.runtime.uuid_v7()),
            cause: Cause::default(),
            key: None,
        };
        self.writer.execute(request).await.map_err(FirstAdminError::Refused)?;
        Ok(())
    }

    /// Writes the credentials of the user with this key. There may be none: the journal may have been replaced.
    fn complete(&self, path: &Path, pair: KeyPair) -> Result<(), BoxError> {
        let key = user_key(pair.public_key())?;
        let callers = self.callers.borrow();
        let mut users = callers.users().values();
        let Some(user) = users.find(|user| user.key == key && user.revoked_at.is_none()) else {
            tracing::warn!(%key, "a key of the first administrator is not in use, and was removed");
            return Ok(());
        };
        if path.exists() {
            let existing = self.identity.load_signed(path, Scope::Role(Role::Admin))?;
            return if existing.public_key() == pair.public_key() {
                Ok(())
            } else {
                Err(FirstAdminError::Nats(NatsError::ForeignCreds(path.to_owned())).into())
            };
        }
        let RegisteredUser { name, role, key, expires_at, valid_after, .. } = user.clone();
        let (name, role, issued_at) = (name.to_string(), role.into(), valid_after + 1);
        let credential = Credential { key, name, role, expires_at, issued_at };
        let creds = Creds::new(self.identity.user_jwt(&credential)?, pair)?;
        write_private(path, creds.render().as_bytes())?;
        tracing::info!(file = %path.display(), role = %role, "created credentials: create users with them");
        Ok(())
    }
}

/// A name that no user has.
fn free_name(registered: &Callers) -> Result<UserName, BoxError> {
    let is_taken = |name: &UserName| registered.users().values().any(|user| user.name.key() == name.key());
    let mut number = 1;
    loop {
        let name: UserName = if number == 1 { NAME.parse()? } else { format!("{NAME}-{number}").parse()? };
        if !is_taken(&name) {
            return Ok(name);
        }
        number += 1;
    }
}

fn user_key(key: &PublicKey) -> Result<UserKey, BoxError> {
    Ok(key.as_str().parse::<UserKey>()?)
}

/// The file that has the key until the credentials are complete.
struct PartialFile(PathBuf);

impl PartialFile {
    fn of(credentials: &Path) -> Self {
        let mut name = credentials.as_os_str().to_owned();
        name.push(PARTIAL);
        Self(name.into())
    }

    fn load(&self) -> Result<Option<KeyPair>, NatsError> {
        let Some(seed) = read_private(&self.0)? else { return Ok(None) };
        let path = self.0.clone();
        let damaged = |error| NatsError::File { attempt: "use", path: path.clone(), source: io::Error::other(error) };
        let pair = KeyPair::from_seed(seed.trim()).map_err(damaged)?;
        pair.public_key().clone().of_kind(KeyKind::User).map_err(damaged)?;
        Ok(Some(pair))
    }

    fn load_or_create(&self) -> Result<KeyPair, NatsError> {
        if let Some(pair) = self.load()? {
            return Ok(pair);
        }
        let pair = KeyPair::generate(KeyKind::User)?;
        let text = Zeroizing::new(format!("{}\n", pair.seed().as_str()));
        write_private(&self.0, text.as_bytes())?;
        Ok(pair)
    }

    fn remove(&self) -> Result<(), NatsError> {
        files::remove(&self.0).map_err(|source| NatsError::File { attempt: "remove", path: self.0.clone(), source })
    }
}

#[cfg(test)]
#[path = "first_admin_tests.rs"]
mod tests;
