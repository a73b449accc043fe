//! The configuration of the `nats-server` child: a JSON document, which the server reads as its own format.
//!
//! It configures no cluster, so that the server advertises no other address: clients keep the URL that they are
//! configured with, which may be a forwarded port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::accounts::accounts;
use super::credentials::NatsUsers;
use super::error::NatsError;
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

/// Renders the configuration. Port 0 lets the server choose a free one.
pub(super) fn render(folder: &NatsFolder, listen: SocketAddr, users: &NatsUsers, tls: Option<&ServerTls>) -> Value {
    let port = if listen.port() == 0 { -1 } else { i32::from(listen.port()) };
    let mut config = json!({
        "server_name": "otherixd",
        "host": listen.ip(),
        "port": port,
        "max_payload": MAX_PAYLOAD,
        "log_file": folder.log(),
        "logfile_size_limit": LOG_SIZE,
        "logfile_max_num": LOGS_KEPT,
        "ports_file_dir": folder.path(),
        "jetstream": { "store_dir": folder.path().join("jetstream") },
        "accounts": accounts(users),
    });
    if let (Some(tls), Some(config)) = (tls, config.as_object_mut()) {
        config.insert("tls".to_owned(), tls.block());
    }
    config
}
