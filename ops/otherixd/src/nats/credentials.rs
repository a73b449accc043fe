//! The users of the embedded NATS. Passwords are generated at the first start and stored in files that only their owner
//! can read; apart from those they are only in the server's configuration, which has the same mode.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use otherix_schemas::value::UserId;
use otherix_transport::Credentials;
use otherix_transport::credentials::{CredentialsError, PasswordCredentials};

use super::error::NatsError;
use super::files::{private_folder, write_private};

/// Random bytes in a password.
const PASSWORD_BYTES: usize = 32;

/// The kernel's random numbers; never blocks after boot.
const RANDOM: &str = "/dev/urandom";

/// All users of the server.
#[derive(Clone, Debug)]
pub(crate) struct NatsUsers {
    /// The control plane itself, in account `CONTROL`.
    pub(crate) control: PasswordCredentials,
    /// The control plane in account `CLIENTS`, to maintain the mirror only.
    pub(crate) clients: PasswordCredentials,
    /// Operators.
    pub(crate) admin: PasswordCredentials,
    /// Agents.
    pub(crate) node: PasswordCredentials,
}

impl NatsUsers {
    /// Reads the credentials in the state folder, and generates missing ones.
    pub(crate) fn load_or_create(state: &Path) -> Result<Self, NatsError> {
        let folder = state.join("credentials");
        private_folder(&folder)?;
        Ok(Self {
            control: user(&folder, "otherixd")?,
            clients: user(&folder, "otherixd-clients")?,
            admin: user(&folder, "admin")?,
            node: user(&folder, "node")?,
        })
    }
}

fn user(folder: &Path, name: &str) -> Result<PasswordCredentials, NatsError> {
    let path = folder.join(format!("{name}.json"));
    match Credentials::load(&path) {
        Ok(Credentials::Password(credentials)) if credentials.user.as_str() == name => Ok(credentials),
        Ok(_) => {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it has another user's credentials");
            Err(NatsError::File { attempt: "use the credentials", path, source })
        }
        Err(CredentialsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(path, name),
        Err(error) => Err(error.into()),
    }
}

fn create(path: PathBuf, name: &str) -> Result<PasswordCredentials, NatsError> {
    let generated = generate_password().map_err(|source| NatsError::File {
        attempt: "read random bytes from",
        path: RANDOM.into(),
        source,
    });
    let failed = |error: Box<dyn std::error::Error + Send + Sync>, path: &Path| NatsError::File {
        attempt: "create the credentials",
        path: path.to_owned(),
        source: io::Error::other(error),
    };
    let user = UserId::parse(name).map_err(|error| failed(error.into(), &path))?;
    let credentials = PasswordCredentials { user, password: generated? };
    let mut text = serde_json::to_vec_pretty(&credentials).map_err(|error| failed(error.into(), &path))?;
    text.push(b'\n');
    write_private(&path, &text)?;
    Ok(credentials)
}

fn generate_password() -> io::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    }))
}
