//! A context's file, in the format of the `nats` tool (`natscontext` of github.com/nats-io/jsm.go): one JSON object.
//! What otherix does not use is kept as it is.

use std::path::{Path, PathBuf};

use otherix_runtime::files::{self, PrivateFileError};
use otherix_schemas::error::ErrorCode;
use otherix_transport::Credentials;
use serde_json::{Map, Value};

use crate::exit::Exit;
use crate::failure::Failure;

/// Longest file, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// The address that the `nats` tool uses without one.
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// The JetStream domain in which people reach the events.
const DOMAIN: &str = "events";

/// Ways to connect that the `nats` tool knows and otherix does not.
const UNSUPPORTED: [&str; 8] = ["user", "token", "nkey", "nsc", "user_jwt", "cert", "socks_proxy", "tls_first"];

/// The settings of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextFile(Map<String, Value>);

/// What a context is made of.
pub(crate) struct NewContext<'a> {
    pub(crate) server: &'a str,
    pub(crate) credentials_file: &'a Path,
    pub(crate) credentials: &'a Credentials,
    pub(crate) ca: Option<&'a Path>,
    pub(crate) description: Option<&'a str>,
}

impl ContextFile {
    /// Returns the settings of a new context. `nats` needs two more than otherix: the prefix of the replies that the
    /// server lets this user receive, and the domain of the events.
    pub(crate) fn new(context: &NewContext<'_>) -> Self {
        let NewContext { server, credentials_file, credentials, ca, description } = context;
        let path = |path: &Path| Value::from(path.to_string_lossy());
        let mut settings = Map::new();
        settings.insert("description".to_owned(), description.unwrap_or_default().into());
        settings.insert("url".to_owned(), (*server).into());
        settings.insert("creds".to_owned(), path(credentials_file));
        settings.insert("ca".to_owned(), ca.map_or_else(|| Value::from(""), path));
        settings.insert("jetstream_domain".to_owned(), DOMAIN.into());
        settings.insert("inbox_prefix".to_owned(), format!("_INBOX_{}", credentials.user()).into());
        Self(settings)
    }

    /// Loads the file of the context `name`.
    pub(crate) fn load(name: &str, path: &Path) -> Result<Self, Failure> {
        let content = files::read_private(path, LENGTH_MAX).map_err(|error| cannot_read(name, path, error))?;
        match serde_json::from_slice(&content) {
            Ok(Value::Object(settings)) => Ok(Self(settings)),
            // The parser's message may quote a password.
            Ok(_) | Err(_) => Err(unusable(name, format!("`{}` is not a JSON object", path.display()))),
        }
    }

    /// The content of the file.
    pub(crate) fn render(&self) -> String {
        format!("{:#}\n", Value::Object(self.0.clone()))
    }

    pub(crate) fn description(&self) -> &str {
        self.text("description")
    }

    pub(crate) fn url(&self) -> &str {
        Some(self.text("url")).filter(|url| !url.is_empty()).unwrap_or(DEFAULT_URL)
    }

    pub(crate) fn credentials(&self) -> Option<PathBuf> {
        self.path("creds")
    }

    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.path("ca")
    }

    /// Refuses a context that needs what otherix does not have.
    pub(crate) fn check(&self, name: &str) -> Result<(), Failure> {
        let is_set = |key: &&str| match self.0.get(*key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Bool(true) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => true,
        };
        match UNSUPPORTED.iter().find(|key| is_set(key)) {
            Some(key) => Err(unusable(name, format!("otherix does not support its setting `{key}`"))),
            None => Ok(()),
        }
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A path; a `~` at its beginning is the home directory.
    fn path(&self, key: &str) -> Option<PathBuf> {
        let text = Some(self.text(key)).filter(|text| !text.is_empty())?;
        match text.strip_prefix("~/").zip(std::env::home_dir()) {
            Some((rest, home)) => Some(home.join(rest)),
            None => Some(text.into()),
        }
    }
}

fn cannot_read(name: &str, path: &Path, error: PrivateFileError) -> Failure {
    let path = path.display();
    match error {
        PrivateFileError::Io(error) => {
            let text = format!("context `{name}` cannot be used: cannot read `{path}`: {error}");
            Failure::new(Exit::Unexpected, ErrorCode::Internal, text)
        }
        PrivateFileError::Shared { mode } => {
            let text = format!("other users have access to `{path}` (mode {mode:04o}): run `chmod 600 {path}`");
            Failure::new(Exit::Denied, ErrorCode::Unauthenticated, format!("context `{name}`: {text}"))
        }
    }
}

fn unusable(name: &str, why: String) -> Failure {
    Failure::new(Exit::Usage, ErrorCode::ValidationFailed, format!("context `{name}` cannot be used: {why}"))
}
