//! The folder of the contexts, which the `nats` tool shares, and the one in use, which is otherix's own: `nats context
//! select` does not redirect otherix.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use otherix_runtime::files;
use otherix_schemas::error::ErrorCode;

use super::file::ContextFile;
use crate::exit::Exit;
use crate::failure::Failure;

/// Longest name, in bytes: that of a file, less its extension.
const NAME_MAX: usize = 200;

/// The contexts of this user.
pub(crate) struct ContextStore {
    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    configuration: PathBuf,
}

impl ContextStore {
    /// Returns the contexts in the user's configuration folder; `None` without a home directory.
    pub(crate) fn find() -> Option<Self> {
        let configured = env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let configuration = configured.or_else(|| Some(env::home_dir()?.join(".config")))?;
        Some(Self { configuration })
    }

    /// The same, where there must be one.
    pub(crate) fn open() -> Result<Self, Failure> {
        let missing = || failure("the home directory is unknown: set `HOME` or `XDG_CONFIG_HOME`");
        Self::find().ok_or_else(missing)
    }

    fn folder(&self) -> PathBuf {
        self.configuration.join("nats/context")
    }

    fn selection(&self) -> PathBuf {
        self.configuration.join("otherix/context.txt")
    }

    /// The file of a context.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.json"))
    }

    /// The names of all contexts, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        let failed = |error: io::Error| io_failure("read", &self.folder(), &error);
        let entries = match fs::read_dir(self.folder()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            names.extend(file.to_str().and_then(|file| file.strip_suffix(".json")).map(ToOwned::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Loads a context.
    pub(crate) fn load(&self, name: &str) -> Result<ContextFile, Failure> {
        check_name(name)?;
        if !self.exists(name) {
            return Err(unknown(name));
        }
        ContextFile::load(name, &self.path(name))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Writes a context, readable by its owner only.
    pub(crate) fn save(&self, name: &str, context: &ContextFile) -> Result<(), Failure> {
        check_name(name)?;
        let path = self.path(name);
        files::create_private_folder(&self.folder())
            .and_then(|()| files::replace(&path, context.render().as_bytes()))
            .map_err(|error| io_failure("write", &path, &error))
    }

    /// Removes a context; if it is in use, none is afterwards.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        check_name(name)?;
        if !self.exists(name) {
            return Err(unknown(name));
        }
        if self.selected()?.as_deref() == Some(name) {
            let selection = self.selection();
            files::remove(&selection).map_err(|error| io_failure("remove", &selection, &error))?;
        }
        let path = self.path(name);
        files::remove(&path).map_err(|error| io_failure("remove", &path, &error))
    }

    /// The context in use.
    pub(crate) fn selected(&self) -> Result<Option<String>, Failure> {
        let path = self.selection();
        let text = files::read(&path).map_err(|error| io_failure("read", &path, &error))?;
        let name = text.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
        Ok(name.filter(|name| !name.is_empty()))
    }

    /// Puts a context in use.
    pub(crate) fn select(&self, name: &str) -> Result<(), Failure> {
        // A context that cannot be used would make every command fail.
        self.load(name)?.check(name)?;
        let path = self.selection();
        let folder = self.configuration.join("otherix");
        files::create_private_folder(&folder)
            .and_then(|()| files::replace(&path, format!("{name}\n").as_bytes()))
            .map_err(|error| io_failure("write", &path, &error))
    }
}

/// Refuses a name that is no file's, or that a shell or `nats` would misread.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let is_odd = |char: char| char == '/' || char.is_control();
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('-') || name.contains("..") || name.contains(is_odd)
    {
        let text =
            format!("`{name}` is not a valid context name: it must have 1 to {NAME_MAX} bytes, contain no `/`, ")
                + "`..` or control character, and not begin with `-`";
        return Err(failure(text));
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    Failure::new(Exit::NotFound, ErrorCode::NotFound, format!("context `{name}` does not exist"))
        .hint("`otherix context list` lists the contexts, `otherix context add` makes one")
}

fn io_failure(attempt: &str, path: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot {attempt} `{}`: {error}", path.display());
    Failure::new(Exit::Unexpected, ErrorCode::Internal, text)
}

fn failure(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message)
}
