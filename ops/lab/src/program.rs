//! Finds the programs that the lab runs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::LabError;

/// Where the project's setup script installs `nats-server`.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/bin/nats-server");

/// `ip`, found even if PATH lacks the system's folders.
pub(crate) fn ip() -> Command {
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|folder| Path::new(folder).join("ip"));
    let found = on_path("ip").or_else(|| system.into_iter().find(|file| file.is_file()));
    Command::new(found.unwrap_or_else(|| "ip".into()))
}

/// `otherix-lab` itself, for background processes.
pub(crate) fn this_program() -> Result<Command, LabError> {
    let program = env::current_exe();
    program.map(Command::new).map_err(|source| LabError::Run { command: "otherix-lab".to_owned(), source })
}

/// The folder of otherix's programs.
pub(crate) fn bin_dir(chosen: Option<&Path>) -> Result<PathBuf, LabError> {
    let beside = || env::current_exe().map(|program| program.parent().map(Path::to_owned).unwrap_or_default());
    let folder = chosen.map_or_else(beside, std::path::absolute).map_err(|source| LabError::File {
        attempt: "find the folder of",
        path: "otherix-lab".into(),
        source,
    })?;
    for name in ["otherixd", "otherix-agent", "otherix"] {
        if !folder.join(name).is_file() {
            return Err(LabError::NoProgram { name, folder });
        }
    }
    Ok(folder)
}

/// The nats-server for otherixd to run.
pub(crate) fn nats_server(chosen: Option<&Path>) -> Result<PathBuf, LabError> {
    let chosen = chosen.map(Path::to_owned).or_else(|| on_path("nats-server"));
    let installed = || Some(PathBuf::from(INSTALLED)).filter(|file| file.is_file());
    chosen.or_else(installed).ok_or(LabError::NoNatsServer)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
