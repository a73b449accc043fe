//! Removes a lab in whatever state it is. Failures are collected and reported at the end.

use rustix::process::Signal;

use crate::error::LabError;
use crate::lab::Lab;
use crate::lock::LabLock;
use crate::machines;
use crate::namespace;
use crate::output::report_progress;
use crate::process;

/// Kills every process of the lab and removes its namespaces and files.
pub(crate) fn down(lab: &Lab) -> Result<(), LabError> {
    let _lock = LabLock::of(lab)?;
    let mut failures = Vec::new();
    let mut collect_failure = |result: Result<(), LabError>| {
        if let Err(error) = result {
            failures.push(format!("  {error}"));
        }
    };
    // otherixd and the agents are killed before the processes in their namespaces, which they would restart.
    for name in process::names(lab) {
        collect_failure(process::running(lab, &name).and_then(|found| match found {
            Some(process) => process.end(&name, Signal::KILL),
            None => Ok(()),
        }));
    }
    collect_failure(machines::kill(lab.node_states()));
    match namespace::list(lab) {
        Ok(names) => {
            for name in names {
                collect_failure(namespace::kill_processes(&name).and_then(|()| namespace::remove(&name)));
            }
        }
        Err(error) => collect_failure(Err(error)),
    }
    match lab.remove_files() {
        // Another lab may be about to use it.
        Ok(false) => {}
        Ok(true) => namespace::remove_socket_folder(),
        Err(error) => collect_failure(Err(error)),
    }
    if failures.is_empty() {
        report_progress(&format!("lab `{}` is removed", lab.name));
        return Ok(());
    }
    Err(LabError::Left { lab: lab.name.clone(), failures })
}
