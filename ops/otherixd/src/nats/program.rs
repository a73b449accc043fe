//! Which `nats-server` to run, and whether it is new enough.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::NatsError;

/// Names the server when no flag does.
const VARIABLE: &str = "OTHERIX_NATS_SERVER";

/// The first version with all the `JetStream` features that are asked for.
const OLDEST: (u64, u64) = (2, 11);

/// The server that was `chosen`; else the one that the environment names; else the first on PATH.
pub(super) fn find(chosen: Option<&Path>) -> Result<PathBuf, NatsError> {
    if let Some(chosen) = chosen {
        return Ok(chosen.to_owned());
    }
    if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join("nats-server"))
        .find(|file| file.is_file())
        .ok_or(NatsError::NotFound)
}

/// Asks the server for its version. Blocks for the few milliseconds that this takes.
pub(super) fn check_version(program: &Path) -> Result<(), NatsError> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|source| NatsError::Run { program: program.to_owned(), source })?;
    let said = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned();
    let Some((version, numbers)) = said.strip_prefix("nats-server: v").and_then(|text| Some((text, numbers(text)?)))
    else {
        return Err(NatsError::Unknown { program: program.to_owned(), said });
    };
    if numbers >= OLDEST {
        return Ok(());
    }
    Err(NatsError::TooOld { program: program.to_owned(), version: version.to_owned() })
}

/// The first two numbers of a version such as `2.15.1-beta.2`.
fn numbers(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("2.11.0").unwrap() >= OLDEST);
        assert!(numbers("2.15.1-beta.2").unwrap() >= OLDEST);
        assert!(numbers("10.0.0").unwrap() >= OLDEST);
        assert!(numbers("2.9.10").unwrap() < OLDEST);
        assert_eq!(numbers("two.eleven"), None);
    }

    #[test]
    fn what_is_no_nats_server() {
        let error = check_version(Path::new("/bin/echo")).unwrap_err();
        assert!(matches!(error, NatsError::Unknown { .. }), "{error}");
        let error = check_version(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "cannot run `/nonexistent`");
    }
}
