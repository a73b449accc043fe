//! Finds the `nats-server` to run and checks its version.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::NatsError;

/// The environment variable with the path of the server.
const PROGRAM_VARIABLE: &str = "OTHERIX_NATS_SERVER";

/// The first version with all `JetStream` features used.
const OLDEST: (u64, u64) = (2, 11);

/// Returns the `chosen` server, else that of the environment, else the first on PATH.
pub(super) fn find(chosen: Option<&Path>) -> Result<PathBuf, NatsError> {
    if let Some(chosen) = chosen {
        return Ok(chosen.to_owned());
    }
    if let Some(named) = env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join("nats-server"))
        .find(|file| file.is_file())
        .ok_or(NatsError::NotFound)
}

/// Checks the version that the server prints. Blocks for a few milliseconds.
pub(super) fn check_version(program: &Path) -> Result<(), NatsError> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|source| NatsError::Run { program: program.to_owned(), source })?;
    let printed = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned();
    let Some((version, numbers)) =
        printed.strip_prefix("nats-server: v").and_then(|text| Some((text, major_minor(text)?)))
    else {
        return Err(NatsError::Unknown { program: program.to_owned(), output: printed });
    };
    if numbers >= OLDEST {
        return Ok(());
    }
    Err(NatsError::TooOld { program: program.to_owned(), version: version.to_owned() })
}

/// Whether a server with this version can be used.
pub(super) fn is_new_enough(version: &str) -> bool {
    major_minor(version).is_some_and(|numbers| numbers >= OLDEST)
}

/// Parses the first two numbers of a version such as `2.15.1-beta.2`.
fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_versions_numerically() {
        assert!(major_minor("2.11.0").unwrap() >= OLDEST);
        assert!(major_minor("2.15.1-beta.2").unwrap() >= OLDEST);
        assert!(major_minor("10.0.0").unwrap() >= OLDEST);
        assert!(major_minor("2.9.10").unwrap() < OLDEST);
        assert_eq!(major_minor("two.eleven"), None);
    }

    #[test]
    fn rejects_other_programs() {
        let error = check_version(Path::new("/bin/echo")).unwrap_err();
        assert!(matches!(error, NatsError::Unknown { .. }), "{error}");
        let error = check_version(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "cannot run `/nonexistent`");
    }
}
