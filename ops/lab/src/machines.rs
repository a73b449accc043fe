//! The processes of VMs, which outlive the agents that started them, and are in none of the lab's namespaces.

use std::fs;
use std::path::Path;
use std::time::Duration;

use otherix_vm::folder::VmFolder;
use otherix_vm::process::{self, Found};

use crate::error::LabError;

/// How long a killed process may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Between looks at a process that has just started or is about to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Kills the VMs of the agents with these state folders. The agents must have ended.
pub(crate) fn kill(states: impl IntoIterator<Item = std::path::PathBuf>) -> Result<(), LabError> {
    for folder in states.into_iter().flat_map(|state| folders(&state.join("vms"))) {
        let failed = |source| LabError::File { attempt: "end the VM in", path: folder.path().to_owned(), source };
        loop {
            match process::find(&folder).map_err(failed)? {
                Found::Free(_) => break,
                Found::Running(process) => {
                    process.kill().map_err(failed)?;
                    if !process.wait(ENDS_WITHIN).map_err(failed)? {
                        return Err(failed(std::io::ErrorKind::TimedOut.into()));
                    }
                }
                Found::Changing => std::thread::sleep(LOOK_INTERVAL),
            }
        }
    }
    Ok(())
}

fn folders(vms: &Path) -> Vec<VmFolder> {
    let entries = fs::read_dir(vms).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::canonicalize(entry.path()).ok()).map(VmFolder::new).collect()
}
