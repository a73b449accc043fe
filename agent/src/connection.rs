//! How this node reaches its control plane: what `otherix-agent join` has written to the state folder, and what the
//! command line sets in place of it.
//!
//! `connection.json` has the server, the cluster and the node's name; `ca.pem` the CA of the server, `node.creds` the
//! credentials, and `next.creds`, during a rotation of the key, their successor.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otherix_runtime::files;
use otherix_schemas::id::ClusterId;
use otherix_schemas::permission::Role;
use otherix_schemas::value::{NodeName, UserKey};
use otherix_transport::credentials::CredentialsError;
use otherix_transport::tls::CaError;
use otherix_transport::{CredentialsFile, CredentialsSource, NatsEndpoint, TrustedCa};
use serde::{Deserialize, Serialize};

use crate::join;

const CONNECTION: &str = "connection.json";

/// The file of the CA, in the state folder.
pub(crate) const CA: &str = "ca.pem";

/// The file of the credentials, in the state folder.
pub(crate) const CREDENTIALS: &str = "node.creds";

/// The file of their successor, in the state folder.
pub(crate) const NEXT_CREDENTIALS: &str = "next.creds";

/// What `otherix-agent join` has been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSettings {
    /// The URL of NATS.
    pub server: String,
    /// Whether `ca.pem` has the CA of the server.
    pub has_ca: bool,
    pub cluster: ClusterId,
    /// The node's name.
    pub name: NodeName,
    /// The public key of the join token.
    pub token: UserKey,
}

/// What the command line sets in place of the state folder's settings.
#[derive(Clone, Debug, Default)]
pub struct ConnectionOverrides {
    pub server: Option<String>,
    pub credentials: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub name: Option<NodeName>,
}

/// Why a node does not know how to reach its control plane.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error(
        "this machine has not joined a cluster: there is no `{CONNECTION}` in its state folder `{}`. Create a token \
         with `otherix node join-token create`, and run `otherix-agent join` with it on this machine",
        .0.display()
    )]
    NotJoined(PathBuf),
    #[error(
        "this machine has not joined a cluster yet: `otherix-agent join` was interrupted. Repeat it with the same \
         token; the state folder is `{}`",
        .0.display()
    )]
    Interrupted(PathBuf),
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` has no settings of a node: remove it, and join again", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    /// Those of a person, for example, who has set `OTHERIX_CREDENTIALS` for `otherix`.
    #[error(
        "the credentials are those of a user with the role `{0}`, not of a node: set neither `--credentials` nor \
         `OTHERIX_CREDENTIALS` on a machine that has joined"
    )]
    NotOfNode(String),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl ConnectionSettings {
    /// Reads the settings in a state folder. `None` if its node has not joined by a token.
    ///
    /// # Errors
    /// If the file cannot be read, or is malformed.
    pub fn read(state: &Path) -> Result<Option<Self>, ConnectionError> {
        let path = state.join(CONNECTION);
        match files::read(&path) {
            Ok(text) => {
                let parsed = text.map(|text| serde_json::from_slice(&text)).transpose();
                parsed.map_err(|source| ConnectionError::Malformed { path, source })
            }
            Err(source) => Err(ConnectionError::Read { path, source }),
        }
    }

    /// Writes the settings to a state folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, state: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::replace(&state.join(CONNECTION), &text)
    }
}

/// Whether this is the state folder of a node that has joined.
pub(crate) fn has_joined(state: &Path) -> bool {
    state.join(CONNECTION).exists()
}

/// Returns where and as whom the node connects, and its name.
///
/// # Errors
/// [`ConnectionError`].
pub fn resolve(state: &Path, overrides: ConnectionOverrides) -> Result<(NatsEndpoint, NodeName), ConnectionError> {
    let ConnectionOverrides { server, credentials, ca, name } = overrides;
    let settings = ConnectionSettings::read(state)?;
    let not_joined = || {
        let is_interrupted = join::is_interrupted(state);
        let error = if is_interrupted { ConnectionError::Interrupted } else { ConnectionError::NotJoined };
        error(state.to_owned())
    };
    let server = server.or_else(|| settings.as_ref().map(|settings| settings.server.clone())).ok_or_else(not_joined)?;
    let name = name.or_else(|| settings.as_ref().map(|settings| settings.name.clone())).ok_or_else(not_joined)?;
    let credentials = match (credentials, &settings) {
        (Some(path), _) => CredentialsFile::load(&path, None)?,
        (None, Some(_)) => own_credentials(state)?,
        (None, None) => return Err(not_joined()),
    };
    if let Some(role) = credentials.current().role().filter(|role| *role != Role::Node.as_str()) {
        return Err(ConnectionError::NotOfNode(role.to_owned()));
    }
    let own_ca = settings.filter(|settings| settings.has_ca).map(|_| state.join(CA));
    let ca = ca.or(own_ca).map(|path| TrustedCa::load(&path)).transpose()?;
    Ok((NatsEndpoint { url: server, credentials: Arc::new(credentials), ca }, name))
}

/// The credentials in the state folder.
pub(crate) fn own_credentials(state: &Path) -> Result<CredentialsFile, CredentialsError> {
    CredentialsFile::load(&state.join(CREDENTIALS), Some(&state.join(NEXT_CREDENTIALS)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use otherix_testkit::tempdir;
    use uuid::Uuid;

    use super::*;

    fn write_credentials(path: &Path, user: &str) {
        let text = serde_json::json!({ "user": user, "password": "x" }).to_string();
        files::replace(path, text.as_bytes()).unwrap();
    }

    fn settings() -> ConnectionSettings {
        ConnectionSettings {
            server: "nats://192.0.2.1:4222".to_owned(),
            has_ca: false,
            cluster: ClusterId::new(Uuid::nil()),
            name: "node-7".parse().unwrap(),
            token: UserKey::from_bytes([7; 32]),
        }
    }

    #[test]
    fn without_settings_the_error_names_the_command() {
        let folder = tempdir().unwrap();
        let error = resolve(folder.path(), ConnectionOverrides::default()).unwrap_err().to_string();
        assert!(error.contains("otherix-agent join") && error.contains("join-token create"), "{error}");
        fs::write(folder.path().join(CONNECTION), "{}").unwrap();
        let error = resolve(folder.path(), ConnectionOverrides::default()).unwrap_err();
        assert!(matches!(error, ConnectionError::Malformed { .. }), "{error:?}");
    }

    #[test]
    fn the_command_line_replaces_single_settings() {
        let folder = tempdir().unwrap();
        let other = folder.path().join("other.creds");
        write_credentials(&other, "other");
        let all = ConnectionOverrides {
            server: Some("nats://127.0.0.1".to_owned()),
            credentials: Some(other.clone()),
            ca: None,
            name: Some("node-1".parse().unwrap()),
        };
        let (endpoint, name) = resolve(folder.path(), all.clone()).unwrap();
        assert_eq!((endpoint.url.as_str(), name.as_str()), ("nats://127.0.0.1", "node-1"));
        let missing = ConnectionOverrides { credentials: None, ..all };
        assert!(matches!(resolve(folder.path(), missing), Err(ConnectionError::NotJoined(_))));

        settings().write(folder.path()).unwrap();
        let lost = resolve(folder.path(), ConnectionOverrides::default()).unwrap_err();
        assert!(matches!(lost, ConnectionError::Credentials(CredentialsError::Read { .. })), "{lost:?}");
        write_credentials(&folder.path().join(CREDENTIALS), "own");
        let (endpoint, name) = resolve(folder.path(), ConnectionOverrides::default()).unwrap();
        assert_eq!((endpoint.url.as_str(), name.as_str()), ("nats://192.0.2.1:4222", "node-7"));
        assert_eq!(endpoint.credentials.current().user().as_str(), "own");
        let with_credentials = ConnectionOverrides { credentials: Some(other), ..ConnectionOverrides::default() };
        let (endpoint, name) = resolve(folder.path(), with_credentials).unwrap();
        assert_eq!((endpoint.credentials.current().user().as_str(), name.as_str()), ("other", "node-7"));
    }

    #[test]
    fn a_ca_that_is_missing_is_not_left_out() {
        let folder = tempdir().unwrap();
        ConnectionSettings { has_ca: true, ..settings() }.write(folder.path()).unwrap();
        write_credentials(&folder.path().join(CREDENTIALS), "own");
        let error = resolve(folder.path(), ConnectionOverrides::default()).unwrap_err();
        assert!(matches!(error, ConnectionError::Ca(CaError::Read { .. })), "{error:?}");
    }
}
