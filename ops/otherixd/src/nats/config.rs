//! The configuration of the `nats-server` child: a JSON document, which the server reads as its own format.
//!
//! It configures no cluster, so that the server advertises no other address: clients keep the URL that they are
//! configured with, which may be a forwarded port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::accounts::{AccountName, Revocations};
use super::error::NatsError;
use super::identity::Identity;
use super::tls::ServerTls;

/// Largest message, in bytes: the server's default, set explicitly because clients rely on it.
const MAX_PAYLOAD: u32 = 1 << 20;

/// Size in bytes at which the log is rotated.
const LOG_SIZE: u32 = 10 << 20;
/// Number of rotated logs that are kept.
const LOGS_KEPT: u32 = 3;

/// The folder of the server's files.
#[derive(Clone, Debug)]
pub(super) struct NatsFolder(PathBuf);

impl NatsFolder {
    /// The server's folder below the state folder.
    pub(super) fn of(state: &Path) -> Result<Self, NatsError> {
        let absolute = std::path::absolute(state).map_err(|source| NatsError::File {
            attempt: "find",
            path: state.to_owned(),
            source,
        })?;
        // The server's format has no escape for every control character.
        match absolute.to_str() {
            Some(text) if !text.chars().any(char::is_control) => Ok(Self(absolute.join("nats"))),
            Some(_) | None => Err(NatsError::Folder(state.to_owned())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn config(&self) -> PathBuf {
        self.0.join("nats.conf")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("nats.log")
    }

    /// The server's standard error: messages before it opens its log, and fatal errors.
    pub(super) fn stderr(&self) -> PathBuf {
        self.0.join("nats.stderr")
    }

    /// The accounts as the server has them.
    pub(super) fn accounts(&self) -> PathBuf {
        self.0.join("accounts")
    }

    /// The folder of an account's streams, by its name on the server.
    pub(super) fn streams(&self, account: &str) -> PathBuf {
        self.jetstream().join("jetstream").join(account)
    }

    fn jetstream(&self) -> PathBuf {
        self.0.join("jetstream")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// While this file exists, the server is not started.
    pub(super) fn hold(&self) -> PathBuf {
        self.0.join("hold")
    }

    /// The file in which the server with this process id publishes its ports.
    pub(super) fn ports(&self, pid: u32) -> PathBuf {
        self.0.join(format!("nats-server_{pid}.ports"))
    }
}

/// What the server's accounts are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccountInputs<'a> {
    pub(super) identity: &'a Identity,
    pub(super) revoked: &'a Revocations,
    /// Unix time in seconds.
    pub(super) now: u64,
}

/// Renders the configuration. Port 0 lets the server choose a free one.
pub(super) fn render(
    folder: &NatsFolder,
    listen: SocketAddr,
    accounts: AccountInputs<'_>,
    tls: Option<&ServerTls>,
) -> Result<Value, NatsError> {
    let AccountInputs { identity, revoked, now } = accounts;
    let port = if listen.port() == 0 { -1 } else { i32::from(listen.port()) };
    let mut preload = serde_json::Map::new();
    for name in AccountName::ALL {
        preload.insert(identity.account(name)?.to_string(), identity.account_jwt(name, revoked, now)?.into());
    }
    let mut config = json!({
        "server_name": "otherixd",
        "host": listen.ip(),
        "port": port,
        "max_payload": MAX_PAYLOAD,
        "log_file": folder.log(),
        "logfile_size_limit": LOG_SIZE,
        "logfile_max_num": LOGS_KEPT,
        "ports_file_dir": folder.path(),
        // Strict: a request of JetStream with unknown fields is an error. Before 2.12, that is not the default.
        "jetstream": { "store_dir": folder.jetstream(), "strict": true },
        "operator": identity.operator_jwt()?,
        "system_account": identity.account(AccountName::System)?,
        "resolver": { "type": "full", "dir": folder.accounts(), "allow_delete": false },
        "resolver_preload": preload,
    });
    if let (Some(tls), Some(config)) = (tls, config.as_object_mut()) {
        config.insert("tls".to_owned(), tls.block());
    }
    Ok(config)
}
