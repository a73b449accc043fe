//! `otherix-agent rotate-key --key nats`: another key for this node's connections, valid beside the present one until
//! the node uses it.
//!
//! `next.nk` has the key from before it is offered until its credential is in `next.creds`. The agent, if it runs,
//! connects with that within about a second, and makes it `node.creds`; otherwise its next start does. Killed at any
//! line, a rotation continues with the same key when the command is repeated; one of the two keys works throughout.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_identity::{Creds, CredsError, CredsFormatError, KeyError, KeyKind, KeyPair, PublicKey};
use otherix_runtime::files;
use otherix_schemas::enrollment::{GetNodeCredential, NewNodeKey, RotateNodeKey};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::value::UserKey;
use otherix_transport::nats::{ConnectError, ConnectFailure};
use otherix_transport::request::{CallError, CallOptions};
use otherix_transport::{Credentials, Nats, NatsEndpoint, TrustedCa};
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::connection::{CA, CREDENTIALS, ConnectionError, ConnectionSettings, NEXT_CREDENTIALS};

const NEXT_KEY: &str = "next.nk";

const CREDENTIALS_LOCK: &str = "rotation.lock";

/// Longest file of a key, in bytes.
const LENGTH_MAX: u64 = 256;

/// How long connecting may take, and each request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often the credentials are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum KeyRotationError {
    #[error(transparent)]
    Settings(#[from] ConnectionError),
    #[error(transparent)]
    Credentials(#[from] CredsError),
    #[error("cannot read or make the next key")]
    Key(#[source] KeyError),
    #[error("cannot use `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("another `otherix-agent rotate-key` rotates the key of this node: repeat this command when it has ended")]
    Busy,
    #[error("cannot connect with the present key; if it is revoked, join again with a token that names this node")]
    Connect(#[from] ConnectError),
    #[error(
        "neither the present key nor the next one is accepted: this node was removed, or its keys are revoked. Create \
         a token with `otherix node join-token create --name NODE`, stop the agent, and run `otherix-agent join` with \
         it"
    )]
    Revoked(#[source] Box<KeyRotationError>),
    #[error("the next key was registered before and is not valid any more: repeat this command, which makes another")]
    Spent(#[source] ErrorBody),
    #[error("the key was not rotated")]
    Call(#[from] CallError),
    #[error("the control plane has answered with a credential that cannot be used")]
    Credential(#[from] CredsFormatError),
    /// The rotation continues.
    #[error(
        "the new key is not in use after {} s: the agent uses it once it runs and reaches the control plane; repeat \
         this command to wait for it", .0.as_secs()
    )]
    Timeout(Duration),
}

/// The steps of a rotation, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    WriteKey,
    Offer,
    ObtainCredential,
    WriteCredential,
    RemoveKey,
    /// The agent uses the key.
    Wait,
}

/// The public keys before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    pub previous: PublicKey,
    pub current: PublicKey,
}

/// Rotates the key of the node with this state folder. Continues a rotation that is under way. `on_step` is called
/// before each step.
///
/// # Errors
/// [`KeyRotationError`], and the errors of `on_step`.
pub async fn rotate(
    state: &Path,
    timeout: Duration,
    on_step: &mut (dyn FnMut(RotationStep) -> Result<(), KeyRotationError> + Send),
) -> Result<KeyRotation, KeyRotationError> {
    let settings = ConnectionSettings::read(state)?.ok_or_else(|| ConnectionError::NotJoined(state.to_owned()))?;
    let _lock = lock(state)?;
    let present = Creds::load(&state.join(CREDENTIALS))?;
    let previous = present.public_key().clone();
    let rotation = KeyOffer { state, settings, present };
    let current = match rotation.under_way().await? {
        Some(offered) => offered,
        None => rotation.offer(on_step).await?,
    };
    on_step(RotationStep::RemoveKey)?;
    remove_key(state)?;
    on_step(RotationStep::Wait)?;
    let deadline = Instant::now() + timeout;
    while *Creds::load(&state.join(CREDENTIALS))?.public_key() != current {
        if Instant::now() >= deadline {
            return Err(KeyRotationError::Timeout(timeout));
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(KeyRotation { previous, current })
}

/// Only one command rotates the key.
fn lock(state: &Path) -> Result<File, KeyRotationError> {
    let path = state.join(CREDENTIALS_LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(|source| KeyRotationError::File { path: path.clone(), source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(KeyRotationError::Busy),
        Err(errno) => Err(KeyRotationError::File { path, source: errno.into() }),
    }
}

/// A rotation that begins, or that was interrupted.
struct KeyOffer<'a> {
    state: &'a Path,
    settings: ConnectionSettings,
    /// The present credentials.
    present: Creds,
}

impl KeyOffer<'_> {
    /// The key whose credential is there, and maybe in use, from a rotation that was interrupted. A credential that the
    /// control plane does not know any more is removed.
    async fn under_way(&self) -> Result<Option<PublicKey>, KeyRotationError> {
        let path = self.state.join(NEXT_CREDENTIALS);
        let next = match Creds::load(&path) {
            Ok(next) => next.public_key().clone(),
            Err(CredsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = read_key(self.state)?.map(|pair| pair.public_key().clone());
                return Ok(key.filter(|key| key == self.present.public_key()));
            }
            Err(error) => return Err(error.into()),
        };
        let nats = match self.connect().await {
            Ok(nats) => nats,
            // The next one may be in use already.
            Err(error) if is_refusal(&error) => return self.replaced_by(&path, next, error).await.map(Some),
            Err(error) => return Err(error),
        };
        match nats.call::<GetNodeCredential>(&NewNodeKey { key: user_key(&next)? }, options()).await {
            Ok(_) => Ok(Some(next)),
            Err(CallError::Refused(body)) if body.error.code == ErrorCode::NotFound => {
                files::remove(&path).map_err(|source| KeyRotationError::File { path, source })?;
                remove_key(self.state)?;
                Ok(None)
            }
            Err(error) => {
                let error = KeyRotationError::Call(error);
                if is_refusal(&error) { self.replaced_by(&path, next, error).await.map(Some) } else { Err(error) }
            }
        }
    }

    /// Returns the next key, if its credential is accepted: then it has replaced the present one. Otherwise the keys of
    /// the node are revoked.
    async fn replaced_by(
        &self,
        path: &Path,
        next: PublicKey,
        refusal: KeyRotationError,
    ) -> Result<PublicKey, KeyRotationError> {
        let creds = Creds::load(path)?;
        let called = match self.connect_as(creds).await {
            Ok(nats) => nats.call::<GetNodeCredential>(&NewNodeKey { key: user_key(&next)? }, options()).await,
            Err(error) if is_refusal(&error) => return Err(KeyRotationError::Revoked(Box::new(refusal))),
            Err(error) => return Err(error),
        };
        match called.map_err(KeyRotationError::Call) {
            Ok(_) => Ok(next),
            Err(error) if is_refusal(&error) => Err(KeyRotationError::Revoked(Box::new(refusal))),
            Err(error) => Err(error),
        }
    }

    async fn connect(&self) -> Result<Nats, KeyRotationError> {
        self.connect_as(self.present.clone()).await
    }

    async fn connect_as(&self, creds: Creds) -> Result<Nats, KeyRotationError> {
        let ca = self.settings.has_ca.then(|| TrustedCa::load(&self.state.join(CA))).transpose();
        let credentials = Credentials::Key(creds.into());
        let endpoint = NatsEndpoint::new(self.settings.server.clone(), credentials);
        let endpoint = endpoint.with_ca(ca.map_err(ConnectionError::from)?);
        Ok(Nats::once(&endpoint, "otherix-agent rotate-key", TIMEOUT).await?)
    }

    /// Registers the next key, and writes its credential.
    async fn offer(
        &self,
        on_step: &mut (dyn FnMut(RotationStep) -> Result<(), KeyRotationError> + Send),
    ) -> Result<PublicKey, KeyRotationError> {
        let state = self.state;
        let pair = match read_key(state)? {
            Some(pair) => pair,
            None => {
                let pair = KeyPair::generate(KeyKind::User).map_err(KeyRotationError::Key)?;
                on_step(RotationStep::WriteKey)?;
                write(state, NEXT_KEY, pair.seed().as_bytes())?;
                pair
            }
        };
        let public = pair.public_key().clone();
        let key = user_key(&public)?;
        let nats = self.connect().await?;
        on_step(RotationStep::Offer)?;
        match nats.call::<RotateNodeKey>(&NewNodeKey { key: key.clone() }, options()).await {
            Ok(_) => {}
            Err(CallError::Refused(body)) if body.error.code == ErrorCode::Conflict => {
                remove_key(state)?;
                return Err(KeyRotationError::Spent(body));
            }
            Err(error) => return Err(error.into()),
        }
        on_step(RotationStep::ObtainCredential)?;
        let credential = nats.call::<GetNodeCredential>(&NewNodeKey { key }, options()).await?.data;
        let creds = Creds::new(credential.jwt, pair)?;
        on_step(RotationStep::WriteCredential)?;
        write(state, NEXT_CREDENTIALS, creds.render().as_bytes())?;
        Ok(public)
    }
}

/// Whether the credentials were not accepted, by NATS or by the control plane.
fn is_refusal(error: &KeyRotationError) -> bool {
    match error {
        KeyRotationError::Connect(error) => matches!(error.source, ConnectFailure::Credentials(_)),
        KeyRotationError::Call(CallError::Refused(body)) => body.error.code == ErrorCode::Unauthenticated,
        KeyRotationError::Settings(_)
        | KeyRotationError::Credentials(_)
        | KeyRotationError::Key(_)
        | KeyRotationError::File { .. }
        | KeyRotationError::Busy
        | KeyRotationError::Spent(_)
        | KeyRotationError::Revoked(_)
        | KeyRotationError::Call(_)
        | KeyRotationError::Credential(_)
        | KeyRotationError::Timeout(_) => false,
    }
}

fn options() -> CallOptions {
    CallOptions { timeout: TIMEOUT, idempotency_key: None }
}

fn user_key(key: &PublicKey) -> Result<UserKey, KeyRotationError> {
    UserKey::parse(key.as_str()).map_err(|_| CredsFormatError::OtherKey.into())
}

fn write(state: &Path, name: &str, content: &[u8]) -> Result<(), KeyRotationError> {
    let path = state.join(name);
    files::replace(&path, content).map_err(|source| KeyRotationError::File { path, source })
}

fn read_key(state: &Path) -> Result<Option<KeyPair>, KeyRotationError> {
    let path = state.join(NEXT_KEY);
    let seed = match files::read_private(&path, LENGTH_MAX) {
        Ok(seed) => Zeroizing::new(seed),
        Err(files::PrivateFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeyRotationError::File { path, source: io::Error::other(error) }),
    };
    let text = std::str::from_utf8(&seed).map_err(|_| KeyRotationError::Key(KeyError::Length))?;
    let pair = KeyPair::from_seed(text.trim()).map_err(KeyRotationError::Key)?;
    pair.public_key().clone().of_kind(KeyKind::User).map_err(KeyRotationError::Key)?;
    Ok(Some(pair))
}

fn remove_key(state: &Path) -> Result<(), KeyRotationError> {
    let path = state.join(NEXT_KEY);
    files::remove(&path).map_err(|source| KeyRotationError::File { path, source })
}
