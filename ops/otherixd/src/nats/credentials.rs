//! The users of the embedded NATS: their passwords are drawn at the first start and kept. They are in files that only
//! their owner may read, and nowhere else but in the server's configuration, which is such a file too.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use otherix_schemas::value::UserId;
use otherix_transport::Credentials;
use otherix_transport::credentials::CredentialsError;

use super::error::NatsError;
use super::files::{private_folder, write_private};

/// Bytes of randomness in a password.
const PASSWORD_BYTES: usize = 32;

/// Where the kernel gives randomness; never blocks once the machine has booted.
const RANDOM: &str = "/dev/urandom";

/// Everyone who may connect.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    /// The control plane itself, in account `CONTROL`.
    pub(crate) control: Credentials,
    /// The control plane in account `CLIENTS`, where it keeps the mirror; used for nothing else.
    pub(crate) clients: Credentials,
    /// The operators' commands.
    pub(crate) admin: Credentials,
    /// The agents.
    pub(crate) node: Credentials,
}

impl Users {
    /// Reads the credentials below the state folder, and makes those that are missing.
    pub(crate) fn load_or_make(state: &Path) -> Result<Self, NatsError> {
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

fn user(folder: &Path, name: &str) -> Result<Credentials, NatsError> {
    let path = folder.join(format!("{name}.json"));
    match Credentials::load(&path) {
        Ok(credentials) if credentials.user.as_str() == name => Ok(credentials),
        Ok(_) => {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it holds another user's");
            Err(NatsError::File { attempt: "use the credentials", path, source })
        }
        Err(CredentialsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => make(path, name),
        Err(error) => Err(error.into()),
    }
}

fn make(path: PathBuf, name: &str) -> Result<Credentials, NatsError> {
    let drawn = draw_password().map_err(|source| NatsError::File {
        attempt: "read random bytes from",
        path: RANDOM.into(),
        source,
    });
    let failed = |error: Box<dyn std::error::Error + Send + Sync>, path: &Path| NatsError::File {
        attempt: "make the credentials",
        path: path.to_owned(),
        source: io::Error::other(error),
    };
    let user = UserId::parse(name).map_err(|error| failed(error.into(), &path))?;
    let credentials = Credentials { user, password: drawn? };
    let mut text = serde_json::to_vec_pretty(&credentials).map_err(|error| failed(error.into(), &path))?;
    text.push(b'\n');
    write_private(&path, &text)?;
    Ok(credentials)
}

fn draw_password() -> io::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _a_string_takes_anything = write!(text, "{byte:02x}");
        text
    }))
}
